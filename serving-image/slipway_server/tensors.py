"""Tensors: the protocol's datatypes, and arrays out of and into their JSON form, checked strictly."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
MAX_RANK = 32
_SPACE = frozenset(b" \t\r\n")


class RequestError(Exception):
    """The caller's mistake: an HTTP status (4xx) and a message that names it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class DataType:
    """A datatype of the Open Inference Protocol: its name, numpy's for it, and the Python type of its JSON elements."""

    name: str
    dtype: np.dtype[Any]
    element: type


DATATYPES = {
    name: DataType(name, np.dtype(dtype), element)
    for name, dtype, element in (
        ("BOOL", np.bool_, bool),
        ("UINT8", np.uint8, int),
        ("UINT16", np.uint16, int),
        ("UINT32", np.uint32, int),
        ("UINT64", np.uint64, int),
        ("INT8", np.int8, int),
        ("INT16", np.int16, int),
        ("INT32", np.int32, int),
        ("INT64", np.int64, int),
        ("FP16", np.float16, float),
        ("FP32", np.float32, float),
        ("FP64", np.float64, float),
        ("BYTES", np.object_, str),
    )
}


@dataclass(frozen=True)
class TensorSpec:
    """What a model says of one of its tensors.

    `dims` has an int for each fixed dimension, a name or None for each that varies (dimensions of one name must be
    equal within a request); `dims` is None where the model does not even say the rank.
    """

    name: str
    datatype: DataType
    dims: tuple[int | str | None, ...] | None

    @property
    def shape(self) -> list[int]:
        """The shape as metadata gives it: -1 for what varies."""
        return [dim if isinstance(dim, int) else -1 for dim in self.dims or ()]

    def filled(self, value: int) -> Array:
        """An array of one value (as text for BYTES) that fits, with 1 for every dimension that varies."""
        shape = [dim if isinstance(dim, int) else 1 for dim in self.dims or ()]
        return (
            np.full(shape, str(value), dtype=object)
            if self.datatype.element is str
            else np.full(shape, value, self.datatype.dtype)
        )

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises RequestError unless a tensor of this shape may be given here."""
        dims = self.dims
        if dims is None:
            fits = len(shape) <= MAX_RANK
        else:
            fits = len(dims) == len(shape) and all(
                have == want for want, have in zip(dims, shape, strict=True) if isinstance(want, int)
            )
        if not fits:
            expected = self.shape if dims is not None else f"at most {MAX_RANK} dimensions"
            raise RequestError(f"input '{self.name}': shape {list(shape)[:MAX_RANK]}, expected {expected}")
        for have in shape:
            if have < 1:
                raise RequestError(f"input '{self.name}': shape {list(shape)}: every dimension must be at least 1")


@lru_cache(maxsize=256)
def _decoder(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    """A strict decoder of `depth` nested lists of `element`: an int is a float too, nothing else is converted."""
    of: Any = element
    for _ in range(depth):
        of = list[of]
    return msgspec.json.Decoder(of)


def from_json(spec: TensorSpec, shape: list[int], data: msgspec.Raw) -> Array:
    """The array of `shape` in JSON `data`: a flat list in row-major order, or lists nested as the shape says.

    Raises RequestError that names the input, what was expected and what came: wrong element types, numbers outside the
    datatype's range, a count or a nesting that differs from the shape.
    """
    spec.check_shape(shape)
    datatype = spec.datatype
    depth = len(shape) if len(shape) > 1 and _is_nested(data) else 1
    try:
        values = _decoder(datatype.element, depth).decode(data)
        if depth == 1:
            if len(values) != prod(shape):
                raise RequestError(
                    f"input '{spec.name}': data has {len(values)} elements, expected {prod(shape)} for shape {shape}"
                )
            return _array(values, datatype).reshape(shape)
        array = _array(values, datatype)
    except msgspec.ValidationError as error:
        raise RequestError(f"input '{spec.name}': data for {datatype.name} of shape {shape}: {error}") from None
    except (OverflowError, FloatingPointError):
        raise RequestError(f"input '{spec.name}': data holds a number outside the range of {datatype.name}") from None
    except ValueError:  # numpy on ragged lists, msgspec on what is not UTF-8
        raise RequestError(f"input '{spec.name}': data is not nested as shape {shape} says, or not UTF-8") from None
    if list(array.shape) != shape:
        raise RequestError(f"input '{spec.name}': data is nested as {list(array.shape)}, expected shape {shape}")
    return array


def _array(values: list[Any], datatype: DataType) -> Array:
    if datatype.element is not float:
        return np.array(values, datatype.dtype)
    with np.errstate(over="raise"):  # 1e300 as FP32 is a mistake, not infinity
        return np.array(values, datatype.dtype)


def _is_nested(data: msgspec.Raw) -> bool:
    """Whether the JSON value is a list whose first element is a list."""
    view = memoryview(data)
    at = 1
    while at < len(view) and view[at] in _SPACE:
        at += 1
    return at < len(view) and view[at] == 0x5B


def to_json(array: Array) -> bytes:
    """The elements as a flat JSON list in row-major order. NaN and infinities, which JSON lacks, become null."""
    return msgspec.json.encode(array.reshape(-1).tolist())
