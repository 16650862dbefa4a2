"""What model servers answer, read to be compared: V2 tensors (JSON or binary), any other JSON, else bytes."""

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of each datatype of the Open Inference Protocol V2: the bytes of an element and struct's letter for it.
_BINARY = {
    "BOOL": (1, "?"),
    "UINT8": (1, "B"),
    "UINT16": (2, "H"),
    "UINT32": (4, "I"),
    "UINT64": (8, "Q"),
    "INT8": (1, "b"),
    "INT16": (2, "h"),
    "INT32": (4, "i"),
    "INT64": (8, "q"),
    "FP16": (2, "e"),
    "FP32": (4, "f"),
    "FP64": (8, "d"),
}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_ELEMENT = {"BOOL": bool, "BYTES": str}
# What of an answer's JSON object says nothing of the prediction.
_ASIDE = frozenset(("id", "model", "model_name", "model_version", "parameters"))
# Members of V1 whose lists have an element for each instance.
_V1_ROWS = ("predictions", "outputs", "explanations")


@dataclass(frozen=True)
class Tensor:
    """One output: its shape, and its elements, flat and row by row.

    Of a floating-point datatype (`floats`) they are numbers, else bool, int or bytes.
    """

    shape: tuple[int, ...]
    values: Sequence[Any]
    floats: bool


@dataclass(frozen=True)
class Tensors:
    """An answer of V2: its outputs by name."""

    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Document:
    """Any other JSON, without what names the request and the model. `by_row`: V1, whose lists have an element an instance."""

    value: Any
    by_row: bool = False


Content = Tensors | Document | bytes


class _NotV2Error(Exception):
    """It is no answer of V2."""


def read(body: bytes, json_length: int | None = None) -> Content:
    """Read an answer's body; `json_length` is its header Inference-Header-Content-Length. What is not understood is bytes."""
    if json_length is not None and not 0 < json_length <= len(body):
        return body
    try:
        value = json.loads(body if json_length is None else body[:json_length])
    except (ValueError, RecursionError):
        return body
    if not isinstance(value, dict):
        return Document(value) if json_length is None else body
    try:
        return _tensors(value, body[json_length or len(body) :])
    except _NotV2Error:
        if json_length is not None:
            return body
    by_row = any(isinstance(value.get(key), list) for key in _V1_ROWS)
    return Document({key: held for key, held in value.items() if key not in _ASIDE}, by_row)


def _tensors(value: dict[str, Any], tail: bytes) -> Tensors:
    told = value.get("outputs")
    if not isinstance(told, list) or not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in told):
        raise _NotV2Error
    outputs: dict[str, Tensor] = {}
    at = 0
    for each in told:
        size = _parameters(each).get("binary_data_size")
        if size is not None and (type(size) is not int or not 0 <= size <= len(tail) - at):
            raise _NotV2Error
        outputs[each["name"]] = _tensor(each, None if size is None else tail[at : at + size])
        at += size or 0
    if at != len(tail) or len(outputs) != len(told):
        raise _NotV2Error
    return Tensors(outputs)


def _tensor(told: dict[str, Any], raw: bytes | None) -> Tensor:
    datatype, shape = told.get("datatype"), told.get("shape")
    if not isinstance(datatype, str) or not isinstance(shape, list) or not all(type(each) is int and each >= 0 for each in shape):
        raise _NotV2Error
    values = _of_json(datatype, told) if raw is None else _of_bytes(datatype, raw)
    if len(values) != math.prod(shape):
        raise _NotV2Error
    return Tensor(tuple(shape), values, datatype in _FLOATS)


def _parameters(told: dict[str, Any]) -> dict[str, Any]:
    found = told.get("parameters")
    return found if isinstance(found, dict) else {}


def _of_json(datatype: str, told: dict[str, Any]) -> Sequence[Any]:
    level = told.get("data")
    if not isinstance(level, list):
        raise _NotV2Error
    # At each level all are lists or none is: so no level is longer than the text, however deep they are.
    while level and isinstance(level[0], list):
        if not all(isinstance(each, list) for each in level):
            raise _NotV2Error
        level = [each for row in level for each in row]
    if datatype in _FLOATS:
        if not all(each is None or type(each) in (int, float) for each in level):
            raise _NotV2Error
        return [math.nan if each is None else each for each in level]  # JSON has no NaN: servers write null
    if datatype not in _BINARY and datatype != "BYTES":
        raise _NotV2Error
    if not all(type(each) is _ELEMENT.get(datatype, int) for each in level):
        raise _NotV2Error
    if datatype != "BYTES":
        return level
    if _parameters(told).get("content_type") != "base64":
        return [each.encode("utf-8", "surrogatepass") for each in level]
    try:
        return [base64.b64decode(each, validate=True) for each in level]
    except (binascii.Error, ValueError):
        raise _NotV2Error from None


def _of_bytes(datatype: str, raw: bytes) -> Sequence[Any]:
    """Read little-endian elements; those of BYTES follow their lengths, 4 bytes each."""
    if datatype == "BYTES":
        elements: list[bytes] = []
        at = 0
        while at < len(raw):
            end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
            if end > len(raw):
                raise _NotV2Error
            elements.append(raw[at + 4 : end])
            at = end
        return elements
    if datatype == "BF16":  # the upper half of FP32
        if len(raw) % 2:
            raise _NotV2Error
        widened = bytearray(2 * len(raw))
        widened[2::4], widened[3::4] = raw[::2], raw[1::2]
        return struct.unpack(f"<{len(raw) // 2}f", widened)
    size, code = _BINARY.get(datatype, (0, ""))
    if not size or len(raw) % size:
        raise _NotV2Error
    return struct.unpack(f"<{len(raw) // size}{code}", raw)
