"""Tensors: the protocol's datatypes, what a model says of its tensors, and arrays out of and into JSON values and raw bytes."""

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

Array = npt.NDArray[np.generic]
MAX_RANK = 32
_MAX_DIMENSION = (1 << 63) - 1
_LENGTH = struct.Struct("<I")


class RequestError(Exception):
    """The caller's mistake: an HTTP status (4xx, 501 or 503) and a message that names it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class DataType:
    """A datatype of the Open Inference Protocol.

    `element` is the Python type of its JSON elements, `code` the struct module's letter for it: "" where it has none that
    checks its argument.
    """

    name: str
    element: type
    numpy_name: str
    code: str

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Numpy's type. BF16 has one only once ml_dtypes is imported, 10 ms that other models do not pay."""
        if self.numpy_name == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.numpy_name)


DATATYPES = {
    name: DataType(name, element, numpy_name, code)
    for name, element, numpy_name, code in (
        ("BOOL", bool, "bool", ""),
        ("UINT8", int, "uint8", "B"),
        ("UINT16", int, "uint16", "H"),
        ("UINT32", int, "uint32", "I"),
        ("UINT64", int, "uint64", "Q"),
        ("INT8", int, "int8", "b"),
        ("INT16", int, "int16", "h"),
        ("INT32", int, "int32", "i"),
        ("INT64", int, "int64", "q"),
        ("FP16", float, "float16", "e"),
        ("FP32", float, "float32", "f"),
        ("FP64", float, "float64", "d"),
        ("BF16", float, "bfloat16", ""),
        ("BYTES", str, "object", ""),
    )
}
NUMBERS = {name: kind for name, kind in DATATYPES.items() if kind.element in (int, float)}
_OF_NUMPY = {kind.numpy_name: kind for kind in DATATYPES.values()}


def datatype_of(array: Array) -> DataType:
    """The datatype of an array that no signature describes: text and objects are BYTES."""
    return _OF_NUMPY.get(array.dtype.name, DATATYPES["BYTES"])


@dataclass(frozen=True)
class TensorSpec:
    """What a model says of one of its tensors.

    `dims` has an int for each fixed dimension, a name or None for each that varies (dimensions of one name must be
    equal within a request); `dims` is None where the model does not even say the rank. Elements of BYTES reach a model
    as str, and what is not UTF-8 is refused; with `text` false such elements reach it as bytes. With `numbers` any
    datatype of numbers may be sent, and the model converts: formats that do not say what their callers send. `sample` is a
    text that the model is known to accept, for examples.
    """

    name: str
    datatype: DataType
    dims: tuple[int | str | None, ...] | None
    text: bool = True
    numbers: bool = False
    sample: str = ""

    def sent_as(self, name: str) -> "TensorSpec":
        """This input with the datatype that a request gives it. Raises RequestError where it may not have that."""
        return self if name == self.datatype.name else _sent_as(self, name)

    @property
    def shape(self) -> list[int]:
        """The shape as metadata gives it: -1 for what varies."""
        return [dim if isinstance(dim, int) else -1 for dim in self.dims or ()]

    def filled(self, value: int) -> Array:
        """An array of one value (for BYTES the sample, or that as text) that fits, with 1 for every dimension that varies."""
        shape = [dim if isinstance(dim, int) else 1 for dim in self.dims or ()]
        return (
            np.full(shape, self.sample or str(value), dtype=object)
            if self.datatype.element is str
            else np.full(shape, value, self.datatype.dtype)
        )

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises RequestError unless a tensor of this shape may be given here."""
        dims = self.dims
        fits = len(shape) <= MAX_RANK if dims is None else len(dims) == len(shape)
        if fits:
            for want, have in zip(dims or shape, shape, strict=True):
                if have != want and isinstance(want, int):
                    fits = False
                elif not 0 < have <= _MAX_DIMENSION:  # Python would not write the product of two that are much larger
                    what = f"{have}: every dimension must be at least 1" if have < 1 else "a number above 2^63-1"
                    raise RequestError(f"input '{self.name}': shape with {what}")
        if not fits:
            expected = self.shape if dims is not None else f"at most {MAX_RANK} dimensions"
            raise RequestError(f"input '{self.name}': shape {list(shape)[:MAX_RANK]}, expected {expected}")


@lru_cache(maxsize=1024)
def _sent_as(spec: TensorSpec, name: str) -> TensorSpec:
    if spec.numbers and name in NUMBERS:
        return replace(spec, datatype=DATATYPES[name])
    raise RequestError(f"input '{spec.name}': datatype {name[:32]}, expected {spec.datatype.name}")


@dataclass(frozen=True)
class Signature:
    """What codecs know of a model: names, tensors, and the outputs that a request gets which names none (empty: all).

    With `any_name` the single input may be called anything: formats whose files name no input.
    """

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    default_outputs: tuple[str, ...] = ()
    any_name: bool = False


# --- JSON values ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _packer(code: str, count: int) -> Callable[..., bytes]:
    """Little-endian bytes of exactly `count` numbers. Twice as fast as numpy on a list, and checks the range of each."""
    return struct.Struct(f"<{count}{code}").pack


def from_values(spec: TensorSpec, shape: Sequence[int], values: list[Any]) -> Array:
    """The array of `shape` of decoded JSON: a flat list in row-major order, or lists nested as the shape says.

    The leaves must have the Python type of the datatype's elements already. Raises RequestError that names the input,
    what was expected and what came: numbers outside the range, a count or a nesting that differs from the shape.
    """
    spec.check_shape(shape)
    count = prod(shape)
    if len(shape) > 1 and values and type(values[0]) is list:
        values = _flatten(spec, shape, values)
    elif len(values) != count:
        raise RequestError(f"input '{spec.name}': data has {len(values)} elements, expected {count} for shape {list(shape)}")
    datatype = spec.datatype
    try:
        if datatype.code:
            return np.ndarray(shape, datatype.dtype, bytearray(_packer(datatype.code, count)(*values)))
        if list in map(type, values):  # numpy would take the list for elements
            raise TypeError
        return _by_numpy(datatype, values).reshape(shape)
    except (struct.error, OverflowError, TypeError):
        if list in map(type, values):
            message = f"data for {datatype.name} is not nested as shape {list(shape)} says"
        else:
            message = f"data holds a number outside the range of {datatype.name}"
        raise RequestError(f"input '{spec.name}': {message}") from None


def from_base64(spec: TensorSpec, shape: Sequence[int], values: list[Any]) -> Array:
    """The array of BYTES of `shape` of decoded JSON, as `from_values`, whose texts are base64. Raises RequestError."""
    texts = from_values(spec, shape, values).reshape(-1).tolist()
    try:
        return from_elements(spec, shape, [base64.b64decode(text, validate=True) for text in texts])
    except ValueError:  # binascii.Error is one, and so is what is not ASCII
        raise RequestError(f"input '{spec.name}': data holds an element that is not base64") from None


def _by_numpy(datatype: DataType, values: list[Any]) -> Array:
    """The elements of a datatype that the struct module does not know, or does not check. Raises OverflowError."""
    if datatype.element is not float:
        array = np.empty(len(values), datatype.dtype)
        array[:] = values
        return array
    with np.errstate(over="ignore"):  # an infinity shows it, also where BF16 rounds up to one
        array = np.array(values, np.float32).astype(datatype.dtype)
    if not np.isfinite(array.astype(np.float32)).all():
        raise OverflowError
    return array


def _flatten(spec: TensorSpec, shape: Sequence[int], values: list[Any]) -> list[Any]:
    """The leaves of lists that are nested as the shape says, level by level; raises RequestError if they are not."""
    found = [len(values)]
    for _ in shape[1:]:
        if set(map(type, values)) != {list} or len(sizes := set(map(len, values))) != 1:
            raise RequestError(f"input '{spec.name}': data is not nested as shape {list(shape)} says: its lists differ")
        found += sizes
        if len(values) == 1:
            values = values[0]
            continue
        flat: list[Any] = []
        for row in values:
            flat += row
        values = flat
        if not values:
            break
    if found != list(shape):
        raise RequestError(f"input '{spec.name}': data is nested as {found}, expected shape {list(shape)}")
    return values


JSON_ARRAYS = orjson.OPT_SERIALIZE_NUMPY
"""The option of orjson.dumps with which it takes what `for_json` answers."""


def for_json(array: Array) -> "Array | orjson.Fragment":
    """The elements as orjson.dumps takes them, with JSON_ARRAYS, nested as the array is.

    FP32 and narrower numbers have the shortest digits that read back as the same number. NaN and infinities, which JSON
    lacks, become null. Text must be UTF-8, UnicodeError otherwise.
    """
    kind = array.dtype.kind
    if kind in "OUS":
        return orjson.Fragment(msgspec.json.encode(_as_text(array.tolist())))
    if array.dtype.itemsize <= 2 and kind not in "iub":
        array = array.astype(np.float32)  # FP16, BF16
    return np.ascontiguousarray(array)


def to_json(array: Array) -> bytes:
    """The elements as JSON lists nested as the array is: see for_json."""
    if not array.ndim:
        return to_json(array.reshape(1))[1:-1]
    return orjson.dumps(for_json(array), option=JSON_ARRAYS)


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(element) for element in value]
    return value.decode() if isinstance(value, bytes) else str(value)


def to_base64(array: Array) -> bytes:
    """The elements of BYTES as a flat JSON list of base64: the form of what is not UTF-8."""
    return msgspec.json.encode([base64.b64encode(element).decode() for element in to_elements(array)])


def to_elements(array: Array) -> list[bytes]:
    """The elements of BYTES, flat; text as UTF-8."""
    return [
        element if isinstance(element, bytes) else str(element).encode("utf-8", "surrogatepass")
        for element in array.reshape(-1).tolist()
    ]


# --- raw bytes --------------------------------------------------------------------------------------------------------


def from_bytes(spec: TensorSpec, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Array:
    """The array of `shape` in little-endian, row-major `data`; BYTES elements follow a 4-byte length each.

    Numbers are not copied where they are aligned, so that the array may be read-only. Raises RequestError.
    """
    spec.check_shape(shape)
    datatype = spec.datatype
    count = prod(shape)
    if datatype.element is str:
        return _texts_from_bytes(spec, shape, count, memoryview(data))
    dtype = datatype.dtype
    if len(data) != count * dtype.itemsize:
        raise RequestError(
            f"input '{spec.name}': {len(data)} bytes, expected {count * dtype.itemsize} "
            f"for {datatype.name} of shape {list(shape)}"
        )
    if datatype.element is bool:  # any byte but 0 is true; numpy holds only 0 and 1
        return np.ndarray(shape, np.uint8, data) != 0
    array = np.ndarray(shape, dtype, data)
    return array if array.flags.aligned else array.copy()


def _texts_from_bytes(spec: TensorSpec, shape: Sequence[int], count: int, data: memoryview) -> Array:
    if len(data) < 4 * count:
        raise RequestError(
            f"input '{spec.name}': {len(data)} bytes, expected at least {4 * count} for BYTES of shape {list(shape)}: "
            "a 4-byte length before each element"
        )
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 4 + _LENGTH.unpack_from(data, at)[0] if at + 4 <= len(data) else len(data) + 1
        if end > len(data) or len(elements) == count:
            raise RequestError(
                f"input '{spec.name}': element {len(elements)} of BYTES does not fit its {len(data)} bytes, expected {count} "
                "elements, each after its length in 4 bytes (little-endian)"
            )
        elements.append(bytes(data[at + 4 : end]))
        at = end
    return from_elements(spec, shape, elements)


def from_elements(spec: TensorSpec, shape: Sequence[int], elements: Sequence[bytes]) -> Array:
    """The array of BYTES of `shape`: each element as text, or as bytes where it is none and the spec allows that."""
    spec.check_shape(shape)
    if len(elements) != prod(shape):
        raise RequestError(
            f"input '{spec.name}': data has {len(elements)} elements, expected {prod(shape)} for shape {list(shape)}"
        )
    values: list[str | bytes] = []
    for place, element in enumerate(elements):
        try:
            values.append(element.decode())
        except UnicodeDecodeError:
            if spec.text:
                raise RequestError(f"input '{spec.name}': element {place} is not UTF-8, which the model expects") from None
            values.append(element)
    return _by_numpy(spec.datatype, values).reshape(shape)


def to_bytes(array: Array, datatype: DataType) -> bytes:
    """The elements as `from_bytes` reads them."""
    if datatype.element is str:
        return b"".join([part for element in to_elements(array) for part in (_LENGTH.pack(len(element)), element)])
    return array.astype(datatype.dtype, copy=False).tobytes()
