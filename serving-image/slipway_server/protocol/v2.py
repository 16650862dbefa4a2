"""Open Inference Protocol V2 over HTTP: JSON tensors, and its binary tensor extension."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import orjson
from msgspec import UNSET, UnsetType

from slipway_server.protocol import CodecLimits, Encoded, Inference
from slipway_server.protocol.binding import Binding, decode_json, nested
from slipway_server.tensors import (
    JSON_ARRAYS,
    NUMBERS,
    Array,
    DataType,
    RequestError,
    Signature,
    TensorSpec,
    datatype_of,
    for_json,
    from_base64,
    from_bytes,
    from_values,
    to_base64,
    to_bytes,
)

SERVER_NAME = "slipway-server"
EXTENSIONS = ("binary_tensor_data", "model_repository")
Parameters = dict[str, str | int | float | bool | None]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """An input of a request. Each datatype is a type of its own below this one, so that data is decoded and checked at once."""

    name: str
    shape: list[int]
    parameters: Parameters | None = None


class RequestedOutput(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An output that a request asks for. `parameters`: binary_data."""

    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An inference request. `parameters`: binary_data_output. `model_name` and `model_version`, which some clients send, are
    not looked at: the path says which model is meant."""

    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None
    model_name: str | None = None
    model_version: str | None = None


class _Named(msgspec.Struct, gc=False):
    """What is read again of a request of the wrong form, to name the input that is wrong."""

    name: str
    datatype: str


class _NamedInputs(msgspec.Struct, gc=False):
    inputs: list[_Named]


_NAMED = msgspec.json.Decoder(_NamedInputs)
_PLACE = re.compile(r" - at `\$\.inputs\[(\d+)\]\.?(\w*)")


def request_type(signature: Signature, limits: CodecLimits) -> tuple[Any, dict[type, DataType]]:
    """The msgspec type of this model's requests, and the datatype that each type of tensor in it stands for."""
    used = {spec.datatype.name: spec.datatype for spec in signature.inputs}
    if any(spec.numbers for spec in signature.inputs):
        used |= NUMBERS
    tensors: dict[type, DataType] = {}
    for name, datatype in used.items():
        data = list[nested(datatype.element, limits.depth - 1)]
        fields: list[Any] = [("data", data | UnsetType, UNSET)]
        tag: dict[str, Any] = {}
        if len(used) > 1:
            tag = {"tag_field": "datatype", "tag": name}
        else:  # a tag that tells nothing apart may be left out, a datatype may not
            fields.append(("datatype", Literal[name]))
        kind = msgspec.defstruct(f"Tensor{name}", fields, bases=(_Tensor,), gc=False, kw_only=True, **tag)
        tensors[kind] = datatype
    element: Any = Any
    for index, tensor in enumerate(tensors):
        element = element | tensor if index else tensor
    inputs = [("inputs", list[element])]
    return msgspec.defstruct("InferenceRequest", inputs, bases=(_Request,), gc=False, kw_only=True), tensors


class V2Codec:
    """Requests and answers of one model."""

    def __init__(self, signature: Signature, limits: CodecLimits = CodecLimits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        request, self._datatypes = request_type(signature, limits)
        self._decoder = msgspec.json.Decoder(request)
        self._binding = binding = Binding(signature, limits)
        self._json = (False,) * len(binding.default_outputs)
        self._head = {"model_name": signature.name, "model_version": signature.version}
        self._outputs = {name: spec.datatype for name, spec in binding.outputs.items()}
        self.metadata = msgspec.json.encode(
            {
                "name": signature.name,
                "versions": [signature.version],
                "platform": signature.platform,
                "inputs": [_describe(spec) for spec in signature.inputs],
                "outputs": [_describe(spec) for spec in signature.outputs],
            }
        )

    def decode(self, body: bytes | bytearray, json_length: int | None = None) -> Inference:
        """Checks and converts the body of an infer request; raises RequestError, whose message names what is wrong.

        `json_length` is the header Inference-Header-Content-Length: binary tensors follow that many bytes of JSON.
        """
        text: bytes | bytearray | memoryview = body
        raw: memoryview | None = None
        if json_length is not None:
            if not 0 < json_length <= len(body):
                raise RequestError(
                    f"Inference-Header-Content-Length is {json_length}, expected the length of the JSON part, 1 to {len(body)}"
                )
            view = memoryview(body)
            text, raw = view[:json_length], view[json_length:]
        try:
            request = decode_json(self._decoder, text, self._limits)
        except msgspec.ValidationError as error:
            raise self._invalid(text, str(error)) from None
        binding = self._binding
        feeds: dict[str, Array] = {}
        at = 0
        for tensor in request.inputs:
            spec = binding.input(tensor.name, feeds)
            if (datatype := self._datatypes[type(tensor)]) is not spec.datatype:
                spec = spec.sent_as(datatype.name)
            if tensor.parameters and (size := _binary_size(tensor, spec, raw)) is not None:
                assert raw is not None  # noqa: S101
                feeds[spec.name] = from_bytes(spec, tensor.shape, raw[at : at + size])
                at += size
            elif tensor.data is UNSET:
                raise RequestError(f"input '{spec.name}': data is missing")
            elif tensor.parameters and spec.datatype.element is str and tensor.parameters.get("content_type") == "base64":
                feeds[spec.name] = from_base64(spec, tensor.shape, tensor.data)
            else:
                feeds[spec.name] = from_values(spec, tensor.shape, tensor.data)
        if raw is not None and at != len(raw):
            raise RequestError(f"{len(raw)} bytes follow the JSON, expected {at}: the sum of the inputs' binary_data_size")
        binding.check_feeds(feeds)
        if request.outputs or request.parameters:
            return self._selected(request, feeds)
        return Inference(feeds, binding.default_outputs, request.id, self._json)

    def encode(self, inference: Inference, arrays: Sequence[Array]) -> Encoded:
        """The answer's body: `arrays` in the order of `inference.outputs`."""
        outputs: list[dict[str, Any]] = []
        tail: list[bytes] = []
        for name, array, binary in zip(inference.outputs, arrays, inference.binary, strict=True):
            datatype = self._outputs[name]
            output: dict[str, Any] = {"name": name, "datatype": datatype.name, "shape": array.shape}
            if binary:
                tail.append(to_bytes(array, datatype))
                output["parameters"] = {"binary_data_size": len(tail[-1])}
            else:
                _add_data(output, array)
            outputs.append(output)
        text = self._text(inference, outputs)
        return Encoded(b"".join((text, *tail)), len(text)) if tail else Encoded(text)

    def encode_explanation(self, inference: Inference, arrays: Mapping[str, Array]) -> Encoded:
        """The answer's body to an explain request: each array of the explanation as an output of JSON data."""
        outputs: list[dict[str, Any]] = []
        for name, array in arrays.items():
            outputs.append({"name": name, "datatype": datatype_of(array).name, "shape": array.shape})
            _add_data(outputs[-1], array)
        return Encoded(self._text(inference, outputs))

    def _text(self, inference: Inference, outputs: list[dict[str, Any]]) -> bytes:
        answer: dict[str, Any] = {**self._head, "outputs": outputs}
        if inference.id is not None:
            answer["id"] = inference.id
        return orjson.dumps(answer, option=JSON_ARRAYS)

    def _selected(self, request: Any, feeds: dict[str, Array]) -> Inference:
        """The inference with the outputs, and the form of each, that the request asks for."""
        every = _flag(request.parameters, "binary_data_output", "the request")
        if not request.outputs:
            names = self._binding.default_outputs
            return Inference(feeds, names, request.id, (bool(every),) * len(names))
        names = tuple(output.name for output in request.outputs)
        self._binding.check_outputs(names)
        binary: list[bool] = []
        for output in request.outputs:
            where = f"output '{output.name}'"
            parameters = output.parameters or {}
            if parameters.get("classification"):
                raise RequestError(f"{where}: parameter 'classification' is not served: sort the output yourself")
            _refuse_shared_memory(where, parameters)
            own = _flag(parameters, "binary_data", where)
            binary.append(bool(every if own is None else own))
        return Inference(feeds, names, request.id, tuple(binary))

    def _invalid(self, body: bytes | bytearray | memoryview, message: str) -> RequestError:
        """The error for JSON of the wrong form; it names the input where the mistake is in one."""
        if place := _PLACE.search(message):
            try:
                named = _NAMED.decode(body).inputs[int(place[1])]
                spec = self._binding.input(named.name, {})
            except RecursionError:
                return RequestError("JSON is nested too deeply")
            except (ValueError, RequestError):  # a second mistake: malformed, no name, an unknown one
                return RequestError(f"not an inference request: {message}")
            try:
                spec.sent_as(named.datatype)
            except RequestError as error:
                return error
            what = f"data for {named.datatype}" if place[2] == "data" else place[2] or "its members"
            return RequestError(f"input '{spec.name}': {what}: {message}")
        return RequestError(f"not an inference request: {message}")


def _add_data(output: dict[str, Any], array: Array) -> None:
    """Gives an output its elements: flat, and in base64 where they are not text (MLServer's form)."""
    try:
        output["data"] = for_json(array.reshape(-1))
    except UnicodeError:
        output["parameters"] = {"content_type": "base64"}
        output["data"] = orjson.Fragment(to_base64(array))


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": spec.shape}


def _flag(parameters: Parameters | None, name: str, where: str) -> bool | None:
    value = (parameters or {}).get(name)
    if value is None or isinstance(value, bool):
        return value
    raise RequestError(f"{where}: parameter '{name}' is {type(value).__name__}, expected true or false")


def _refuse_shared_memory(where: str, parameters: Mapping[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise RequestError(f"{where}: shared memory is not served: send data in the request")


def _binary_size(tensor: Any, spec: TensorSpec, raw: memoryview | None) -> int | None:
    """The size in bytes of a tensor that follows the JSON; None where its data is JSON."""
    _refuse_shared_memory(f"input '{spec.name}'", tensor.parameters)
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise RequestError(f"input '{spec.name}': parameter 'binary_data_size' is not a number of bytes")
    if tensor.data is not UNSET:
        raise RequestError(f"input '{spec.name}' has both data and binary_data_size: send one of them")
    if raw is None:
        raise RequestError(f"input '{spec.name}': binary_data_size needs the header Inference-Header-Content-Length")
    return size


def error_body(message: str) -> bytes:
    """The body of every answer that is not a success."""
    return msgspec.json.encode({"error": message})


def server_metadata(version: str) -> bytes:
    """The body of GET /v2."""
    return msgspec.json.encode({"name": SERVER_NAME, "version": version, "extensions": EXTENSIONS})


class IndexRequest(msgspec.Struct):
    """What a repository index request may ask: only the models that are ready."""

    ready: bool = False


_INDEX_REQUEST = msgspec.json.Decoder(IndexRequest)


def repository_index(body: bytes | bytearray, name: str, version: str, ready: bool) -> bytes:
    """The body of the answer to /v2/repository/index: the one model of this server, unless only ready ones are asked for."""
    try:
        only_ready = bool(body) and decode_json(_INDEX_REQUEST, body, CodecLimits()).ready
    except msgspec.ValidationError as error:
        raise RequestError(f"not a repository index request: {error}") from None
    state = {"name": name, "version": version, "state": "READY" if ready else "UNAVAILABLE", "reason": "" if ready else "loading"}
    return msgspec.json.encode([] if only_ready and not ready else [state])
