"""Open Inference Protocol V2, JSON tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from slipway_server.tensors import Array, RequestError, TensorSpec, from_json, to_json

_Parameter = str | int | float | bool | None
# Extensions of the protocol that change what the answer must look like: refused by name, for a caller who asked for
# them could not read what would come instead.
_UNSERVED = ("binary_data_size", "binary_data", "binary_data_output", "classification")


class _Input(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, _Parameter] | None = None


class _Output(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: dict[str, _Parameter] | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, _Parameter] | None = None
    outputs: list[_Output] | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A checked request: an array for every input of the model, the outputs to answer with, and the caller's id."""

    feeds: dict[str, Array]
    outputs: tuple[str, ...]
    id: str | None


class Codec:
    """Requests and answers of one model in V2 JSON."""

    def __init__(
        self, name: str, version: str, platform: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._decoder = msgspec.json.Decoder(_Request)
        self._inputs = {spec.name: spec for spec in inputs}
        self._outputs = tuple(spec.name for spec in outputs)
        encode = msgspec.json.encode
        self._head = b'{"model_name":%b,"model_version":%b' % (encode(name), encode(version))
        self._output_heads = {
            spec.name: b'{"name":%b,"datatype":"%b","shape":' % (encode(spec.name), spec.datatype.name.encode())
            for spec in outputs
        }
        # Only where two inputs share a named dimension can they disagree about it.
        names = [dim for spec in inputs for dim in set(spec.dims or ()) if isinstance(dim, str)]
        self._shared = {dim for dim in names if names.count(dim) > 1}
        self.metadata = encode(
            {
                "name": name,
                "versions": [version],
                "platform": platform,
                "inputs": [_describe(spec) for spec in inputs],
                "outputs": [_describe(spec) for spec in outputs],
            }
        )

    def decode(self, body: bytes | bytearray) -> InferRequest:
        """Checks and converts the body of an infer request; raises RequestError, whose message names what is wrong."""
        if not body:
            raise RequestError("the body is empty, expected a JSON object with 'inputs'")
        try:
            request = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise RequestError(f"not an inference request: {error}") from None
        except RecursionError:
            raise RequestError("JSON is nested too deeply") from None
        except ValueError as error:  # malformed, or not UTF-8
            raise RequestError(str(error) if isinstance(error, msgspec.DecodeError) else "JSON is not UTF-8") from None
        if request.parameters:
            _refuse_unserved("the request", request.parameters)
        feeds: dict[str, Array] = {}
        for tensor in request.inputs:
            feeds[tensor.name] = self._feed(tensor, feeds)
        if len(feeds) != len(self._inputs):
            missing = ", ".join(f"'{name}'" for name in self._inputs if name not in feeds)
            raise RequestError(f"input {missing} is missing, expected inputs: {self._names(self._inputs)}")
        if self._shared:
            self._check_shared_dimensions(feeds)
        return InferRequest(feeds, self._selection(request.outputs) if request.outputs else self._outputs, request.id)

    def encode(self, request: InferRequest, arrays: Sequence[Array]) -> bytes:
        """The answer's body: `arrays` in the order of `request.outputs`."""
        parts = [self._head]
        if request.id is not None:
            parts += (b',"id":', msgspec.json.encode(request.id))
        separator = b',"outputs":['
        for name, array in zip(request.outputs, arrays, strict=True):
            parts += (
                separator,
                self._output_heads[name],
                msgspec.json.encode(array.shape),
                b',"data":',
                to_json(array),
                b"}",
            )
            separator = b","
        parts.append(b"]}")
        return b"".join(parts)

    def _feed(self, tensor: _Input, feeds: Mapping[str, Array]) -> Array:
        spec = self._inputs.get(tensor.name)
        if spec is None:
            raise RequestError(f"input '{tensor.name[:100]}' is unknown, expected inputs: {self._names(self._inputs)}")
        if tensor.name in feeds:
            raise RequestError(f"input '{tensor.name}' is given twice")
        if tensor.parameters:
            _refuse_unserved(f"input '{tensor.name}'", tensor.parameters)
        if tensor.datatype != spec.datatype.name:
            raise RequestError(f"input '{tensor.name}': datatype {tensor.datatype[:32]}, expected {spec.datatype.name}")
        if isinstance(tensor.data, msgspec.UnsetType):
            raise RequestError(f"input '{tensor.name}': data is missing")
        return from_json(spec, tensor.shape, tensor.data)

    def _selection(self, outputs: Sequence[_Output]) -> tuple[str, ...]:
        for output in outputs:
            if output.name not in self._output_heads:
                raise RequestError(f"output '{output.name[:100]}' is unknown, expected outputs: {self._names(self._outputs)}")
            if output.parameters:
                _refuse_unserved(f"output '{output.name}'", output.parameters)
        names = tuple(output.name for output in outputs)
        if len(set(names)) != len(names):
            raise RequestError("outputs names one output twice")
        return names

    def _check_shared_dimensions(self, feeds: Mapping[str, Array]) -> None:
        seen: dict[str, tuple[str, int]] = {}
        for name, array in feeds.items():
            for dim, size in zip(self._inputs[name].dims or (), array.shape, strict=False):
                if dim not in self._shared:
                    continue
                other, expected = seen.setdefault(str(dim), (name, size))
                if size != expected:
                    raise RequestError(f"input '{name}': dimension {dim} is {size}, expected {expected} as in input '{other}'")

    @staticmethod
    def _names(names: Mapping[str, Any] | Sequence[str]) -> str:
        return ", ".join(f"'{name}'" for name in names)


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": spec.shape}


def _refuse_unserved(where: str, parameters: Mapping[str, _Parameter]) -> None:
    for name in _UNSERVED:
        if parameters.get(name):
            raise RequestError(f"{where}: parameter '{name}' is not served: send and ask for JSON data")


def error_body(message: str) -> bytes:
    """The body of every answer that is not a success."""
    return msgspec.json.encode({"error": message})
