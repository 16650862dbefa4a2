"""Messages of the public service inference.GRPCInferenceService, and the frames that carry them.

Importing this imports protobuf (10 ms, 2 MB): import it at the first call.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from slipway_server.protocol import CodecLimits, Inference
from slipway_server.protocol.binding import Binding
from slipway_server.protocol.compression import decompress
from slipway_server.protocol.grpc_descriptor import DESCRIPTOR
from slipway_server.protocol.v2 import EXTENSIONS, SERVER_NAME
from slipway_server.tensors import (
    Array,
    DataType,
    RequestError,
    Signature,
    TensorSpec,
    from_bytes,
    from_elements,
    from_values,
    to_bytes,
    to_elements,
)

SERVICE = "inference.GRPCInferenceService"
ACCEPT_ENCODING = b"identity,gzip,deflate"
_PREFIX_BYTES = 5
_MOST_PARTS = 1 << 16
"""Fields of a request, tensors and outputs with them: many times what a model has. Millions of empty ones, of two bytes
each, would take forty times their bytes as objects."""
_VARINT_BYTES = 10

# A pool of its own: a process that has another library's copy of these messages in the default pool has no clash.
_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(DESCRIPTOR)

# What the field of each datatype is called in InferTensorContents. FP16 and BF16 have none.
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# The first byte of a packed field whose elements lie on the wire as numpy holds them.
_PACKED = {"FP32": b"\x32", "FP64": b"\x3a"}

# gRPC's status for HTTP's: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_STATUS = {
    200: 0,
    400: 3,  # INVALID_ARGUMENT
    404: 5,  # NOT_FOUND
    405: 12,  # UNIMPLEMENTED
    408: 4,  # DEADLINE_EXCEEDED
    413: 8,  # RESOURCE_EXHAUSTED
    415: 12,
    429: 8,
    431: 8,
    500: 13,  # INTERNAL
    501: 12,
    503: 14,  # UNAVAILABLE
    504: 4,
}


def status_of(http_status: int) -> int:
    """The gRPC status code that says what the HTTP status says; UNKNOWN where there is none."""
    return _STATUS.get(http_status, 2)


def encode_message(text: str) -> bytes:
    """The value of the trailer grpc-message: percent-encoded UTF-8, at most 1 KiB of text."""
    data = text[:1024].encode("utf-8", "replace")
    return b"".join([b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in data])


def frame(message: bytes, compress: bool = False) -> bytes:
    """The message with its 5-byte prefix; gzipped where the caller accepts that (say so in grpc-encoding)."""
    if compress:
        compressor = zlib.compressobj(1, wbits=31)
        message = compressor.compress(message) + compressor.flush()
    return b"%c%b%b" % (compress, len(message).to_bytes(4, "big"), message)


def unframe(body: bytes | bytearray, encoding: bytes | None, limit_bytes: int) -> bytes | bytearray | memoryview:
    """The one message of a unary call's body; `encoding` is the header grpc-encoding.

    Raises RequestError: 400 for what is no frame, 413 for a message over the limit, 501 for an unknown encoding.
    """
    length = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    if len(body) < _PREFIX_BYTES or len(body) != _PREFIX_BYTES + length or body[0] > 1:
        raise RequestError(f"{len(body)} bytes are not one gRPC message: a flag, a length in 4 bytes, the message")
    if length > limit_bytes:
        raise RequestError(f"the message has {length} bytes, the limit is {limit_bytes}: send fewer rows at once", 413)
    message = memoryview(body)[_PREFIX_BYTES:]
    if not body[0]:
        return message
    if encoding in (None, b"identity"):
        raise RequestError("the message is flagged as compressed, but grpc-encoding names no compression")
    if encoding not in (b"gzip", b"deflate"):
        raise RequestError(f"grpc-encoding {encoding[:32]!r} is not served: use gzip, deflate or identity", 501)
    return decompress(bytes(message), encoding, limit_bytes)


def _message(name: str) -> type[Any]:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


def _parse(kind: type[Any], message: bytes | bytearray | memoryview) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError:
        raise RequestError(f"the message is not a {kind.DESCRIPTOR.full_name}") from None


def _check_parts(message: bytes | bytearray | memoryview) -> None:
    """Raises RequestError if a request has more than _MOST_PARTS fields. What is malformed is left to the parser."""
    at = 0
    try:
        for _ in range(_MOST_PARTS):
            tag, at = _read_varint(message, at)
            match tag & 7:  # https://protobuf.dev/programming-guides/encoding/#structure
                case 0:
                    _, at = _read_varint(message, at)
                case 1:
                    at += 8
                case 2:
                    size, at = _read_varint(message, at)
                    at += size
                case 5:
                    at += 4
                case _:  # a group's begin or end, with fields between them
                    pass
    except IndexError:  # the end
        return
    raise RequestError(f"the message has more than {_MOST_PARTS} fields: send fewer tensors at once", 413)


def _read_varint(message: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """A number and the place after it. Raises IndexError where there is none."""
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError


class GrpcService:
    """The calls that need no run of the model. It answers before there is a model: ServerLive and ServerReady say so."""

    def __init__(self, name: str, version: str, server_version: str) -> None:
        self._name = name
        self._version = version
        self._server_version = server_version
        self._calls: dict[str, Callable[[Any, Signature | None], dict[str, Any]]] = {
            "ServerLive": lambda request, signature: {"live": True},
            "ServerReady": lambda request, signature: {"ready": signature is not None},
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "RepositoryIndex": self._repository_index,
        }
        self._types = {call: (_message(f"{call}Request"), _message(f"{call}Response")) for call in self._calls}

    def unary(self, method: str, message: bytes | bytearray | memoryview, signature: Signature | None) -> bytes:
        """The answer's message to any call but ModelInfer; `signature` is None until the model is ready.

        Raises RequestError: 501 for an unknown method, 404 for another model, 503 for what needs a model.
        """
        call = self._calls.get(method)
        if call is None:
            raise RequestError(f"method '{method[:100]}' is not served: see {', '.join(self._calls)}, ModelInfer", 501)
        request, response = self._types[method]
        return response(**call(_parse(request, message), signature)).SerializeToString()

    def _model_ready(self, request: Any, signature: Signature | None) -> dict[str, Any]:
        check_model(self._name, self._version, request.name, request.version)
        return {"ready": signature is not None}

    def _server_metadata(self, request: Any, signature: Signature | None) -> dict[str, Any]:
        return {"name": SERVER_NAME, "version": self._server_version, "extensions": EXTENSIONS}

    def _model_metadata(self, request: Any, signature: Signature | None) -> dict[str, Any]:
        check_model(self._name, self._version, request.name, request.version)
        if signature is None:
            raise RequestError("the model is loading", 503)
        inputs, outputs = (
            [{"name": spec.name, "datatype": spec.datatype.name, "shape": spec.shape} for spec in specs]
            for specs in (signature.inputs, signature.outputs)
        )
        return {
            "name": self._name,
            "versions": [self._version],
            "platform": signature.platform,
            "inputs": inputs,
            "outputs": outputs,
        }

    def _repository_index(self, request: Any, signature: Signature | None) -> dict[str, Any]:
        if signature is None:
            reason = {"name": self._name, "version": self._version, "state": "UNAVAILABLE", "reason": "loading"}
            return {"models": [] if request.ready else [reason]}
        return {"models": [{"name": self._name, "version": self._version, "state": "READY"}]}


def check_model(name: str, version: str, asked_name: str, asked_version: str) -> None:
    """Raises RequestError 404 unless the call means the model and version served here."""
    if asked_name != name:
        raise RequestError(f"model '{asked_name[:100]}' is not served here: this is '{name}'", 404)
    if asked_version not in ("", version):
        raise RequestError(f"version '{asked_version[:100]}' of '{name}' is not served here: this is '{version}'", 404)


class GrpcCodec:
    """ModelInferRequest and ModelInferResponse of one model.

    A request with typed contents is answered with typed contents where every output has a field for them; every other
    request raw, as Triton answers all: its client reads nothing else.
    """

    def __init__(self, signature: Signature, limits: CodecLimits = CodecLimits()) -> None:  # noqa: B008 (frozen)
        self._signature = signature
        self._binding = Binding(signature, limits)
        self._request = _message("ModelInferRequest")
        self._response = _message("ModelInferResponse")

    def decode(self, message: bytes | bytearray | memoryview) -> Inference:
        """Checks and converts a ModelInferRequest; raises RequestError, whose message names what is wrong."""
        if len(message) > 2 * _MOST_PARTS:
            _check_parts(message)
        request = _parse(self._request, message)
        check_model(self._signature.name, self._signature.version, request.model_name, request.model_version)
        binding = self._binding
        raw = request.raw_input_contents
        inputs = request.inputs
        if raw and len(raw) != len(inputs):
            raise RequestError(f"raw_input_contents has {len(raw)} tensors, expected {len(inputs)}: one for each of inputs")
        feeds: dict[str, Array] = {}
        for place, tensor in enumerate(inputs):
            spec = binding.input(tensor.name, feeds)
            spec = spec.sent_as(tensor.datatype)
            shape = tuple(tensor.shape)
            if "shared_memory_region" in tensor.parameters:
                raise RequestError(f"input '{spec.name}': shared memory is not served: send data in the request")
            if raw:
                if tensor.HasField("contents"):
                    raise RequestError(f"input '{spec.name}' has contents and raw_input_contents: send one of them")
                feeds[spec.name] = from_bytes(spec, shape, raw[place])
            else:
                feeds[spec.name] = _from_contents(spec, shape, tensor.contents)
        binding.check_feeds(feeds)
        names = binding.default_outputs
        if request.outputs:
            names = tuple(output.name for output in request.outputs)
            binding.check_outputs(names)
            for output in request.outputs:
                if "classification" in output.parameters:
                    raise RequestError(f"output '{output.name}': parameter 'classification' is not served: sort it yourself")
        typed = not raw and all(binding.outputs[name].datatype.name in _FIELDS for name in names)
        return Inference(feeds, names, request.id or None, (not typed,) * len(names))

    def encode(self, inference: Inference, arrays: Sequence[Array]) -> bytes:
        """The answer's message: `arrays` in the order of `inference.outputs`."""
        signature = self._signature
        response = self._response(model_name=signature.name, model_version=signature.version, id=inference.id or "")
        for name, array, raw in zip(inference.outputs, arrays, inference.binary, strict=True):
            datatype = self._binding.outputs[name].datatype
            tensor = response.outputs.add(name=name, datatype=datatype.name, shape=array.shape)
            if raw:
                response.raw_output_contents.append(to_bytes(array, datatype))
            else:
                _to_contents(array, datatype, tensor.contents)
        return response.SerializeToString()


def _from_contents(spec: TensorSpec, shape: Sequence[int], contents: Any) -> Array:
    datatype = spec.datatype
    field = _FIELDS.get(datatype.name)
    if field is None:
        raise RequestError(f"input '{spec.name}': {datatype.name} has no typed contents: send it in raw_input_contents")
    if tag := _PACKED.get(datatype.name):
        # The elements of a packed field lie as they are on the wire: one copy instead of one object for each.
        wire: bytes = contents.SerializeToString()
        size = len(getattr(contents, field)) * datatype.dtype.itemsize
        head = tag + _varint(size)
        if size and len(wire) == len(head) + size and wire.startswith(head):
            spec.check_shape(shape)
            return from_bytes(spec, shape, memoryview(wire)[len(head) :])
    values = getattr(contents, field)
    if datatype.element is str:
        return from_elements(spec, shape, values)
    return from_values(spec, shape, list(values))


def _to_contents(array: Array, datatype: DataType, contents: Any) -> None:
    if tag := _PACKED.get(datatype.name):
        data = to_bytes(array, datatype)
        contents.MergeFromString(tag + _varint(len(data)) + data)
        return
    values: Any = to_elements(array) if datatype.element is str else np.ravel(array).tolist()
    getattr(contents, _FIELDS[datatype.name]).extend(values)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
