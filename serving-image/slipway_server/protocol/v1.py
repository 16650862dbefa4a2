"""KServe's V1 protocol (TensorFlow Serving's REST form): instances row by row, or inputs by column; predictions row by row.

Bytes that are not UTF-8 travel as {"b64": "..."}, in both directions.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from slipway_server.protocol import CodecLimits, Inference
from slipway_server.protocol.binding import Binding, decode_json, nested
from slipway_server.tensors import Array, RequestError, Signature, TensorSpec, from_values, to_elements, to_json


class Base64(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An element of BYTES that is not text."""

    b64: str


def request_type(signature: Signature, limits: CodecLimits) -> Any:
    """The msgspec type of this model's requests. Members that it does not have are ignored, as KServe ignores them."""
    tensors = {spec.name: _tensor_type(spec, limits) for spec in signature.inputs}
    row: Any = _named("Instance", tensors)
    columns: Any = _named("Inputs", tensors)
    if len(tensors) == 1:
        (only,) = tensors.values()
        # A union cannot hold two kinds of JSON object: where elements may be {"b64": ...}, rows are not objects.
        row = only if signature.inputs[0].datatype.element is str else only | row
        columns = only if signature.inputs[0].datatype.element is str else only | columns
    fields = [("instances", list[row] | UnsetType, UNSET), ("inputs", columns | UnsetType, UNSET)]
    return msgspec.defstruct("PredictRequest", fields, gc=False)


def _tensor_type(spec: TensorSpec, limits: CodecLimits) -> Any:
    leaf: Any = spec.datatype.element
    return nested(leaf | Base64 if leaf is str else leaf, limits.depth - 1)


def _named(name: str, tensors: Mapping[str, Any]) -> Any:
    """An object with a member for each tensor; their names need not be Python's."""
    fields = [(f"tensor{place}", kind) for place, kind in enumerate(tensors.values())]
    rename = {f"tensor{place}": tensor for place, tensor in enumerate(tensors)}
    return msgspec.defstruct(name, fields, rename=rename, forbid_unknown_fields=True, gc=False)


class V1Codec:
    """Requests and answers of one model."""

    def __init__(self, signature: Signature, limits: CodecLimits = CodecLimits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._binding = Binding(signature, limits)
        self._inputs = signature.inputs
        self._decoder = msgspec.json.Decoder(request_type(signature, limits))

    def decode(self, body: bytes | bytearray) -> Inference:
        """Checks and converts the body of a predict or explain request; raises RequestError."""
        try:
            request = decode_json(self._decoder, body, self._limits)
        except msgspec.ValidationError as error:
            expected = ", ".join(f"'{spec.name}' ({spec.datatype.name} {spec.shape})" for spec in self._inputs)
            raise RequestError(f"not a predict request: {error}; expected inputs: {expected}") from None
        if (request.instances is UNSET) == (request.inputs is UNSET):
            raise RequestError('expected one of "instances" (row by row) and "inputs" (by column)')
        columns = self._columns(request.instances) if request.inputs is UNSET else self._tensors(request.inputs)
        feeds = {spec.name: _array(spec, values) for spec, values in zip(self._inputs, columns, strict=True)}
        self._binding.check_feeds(feeds)
        return Inference(feeds, self._binding.default_outputs)

    @staticmethod
    def _columns(rows: list[Any]) -> list[Any]:
        """The values of each input, out of rows; a model of one input takes rows with and without its name."""
        if not rows:
            raise RequestError("instances is empty, expected at least one")
        if not isinstance(rows[0], msgspec.Struct) or isinstance(rows[0], Base64):
            return [rows]
        if len(set(map(type, rows))) != 1:
            raise RequestError("instances has rows with names and rows without: expected one form")
        return [list(column) for column in zip(*map(msgspec.structs.astuple, rows), strict=True)]

    @staticmethod
    def _tensors(inputs: Any) -> Sequence[Any]:
        named = isinstance(inputs, msgspec.Struct) and not isinstance(inputs, Base64)
        return msgspec.structs.astuple(inputs) if named else [inputs]

    def encode(self, inference: Inference, arrays: Sequence[Array]) -> bytes:
        """The answer's body: a row is the output's elements, or an object of them where there are several outputs."""
        return b'{"predictions":%b}' % _rows(dict(zip(inference.outputs, arrays, strict=True)))

    def encode_explanation(self, inference: Inference, arrays: Mapping[str, Array]) -> bytes:
        """The answer's body to an explain request, in the form of `encode`."""
        return b'{"explanations":%b}' % _rows(arrays)


def _array(spec: TensorSpec, values: Any) -> Array:
    """The array of nested values; its shape is theirs. Raises RequestError."""
    shape: list[int] = []
    level = values
    while isinstance(level, list):
        shape.append(len(level))
        if not level:
            raise RequestError(f"input '{spec.name}': a list is empty, expected shape {spec.shape}")
        level = level[0]
    if spec.datatype.element is str:
        values = _without_base64(spec, values)
    return from_values(spec, shape, values if shape else [values])


def _without_base64(spec: TensorSpec, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_base64(spec, element) for element in value]
    if not isinstance(value, Base64):
        return value
    try:
        data = base64.b64decode(value.b64, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"input '{spec.name}': b64 is not base64") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        if spec.text:
            raise RequestError(f"input '{spec.name}': b64 is not of UTF-8, which the model expects") from None
        return data


def _rows(arrays: Mapping[str, Array]) -> bytes:
    """JSON rows of arrays that have one each; arrays that share no number of rows are answered whole."""
    if len(arrays) == 1:
        return _json(next(iter(arrays.values())))
    heads = [msgspec.json.encode(name) + b":" for name in arrays]
    counts = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(counts) != 1 or -1 in counts:
        return b"{%b}" % b",".join([head + _json(array) for head, array in zip(heads, arrays.values(), strict=True)])
    columns = [
        [head + _json(array[place, ...]) for place in range(len(array))]
        for head, array in zip(heads, arrays.values(), strict=True)
    ]
    return b"[%b]" % b",".join([b"{%b}" % b",".join(row) for row in zip(*columns, strict=True)])


def _json(array: Array) -> bytes:
    try:
        return to_json(array)
    except UnicodeError:
        elements = np.empty(array.size, object)
        elements[:] = to_elements(array)
        return msgspec.json.encode(_text_or_base64(elements.reshape(array.shape).tolist()))


def _text_or_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_text_or_base64(element) for element in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Base64(base64.b64encode(value).decode())
