"""Every datatype through its JSON and binary forms, and the law that flat, nested and binary say the same."""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tests.unit.server.support import TensorProto, helper, identity, model

from slipway_server.formats import onnx
from slipway_server.protocol.v2 import V2Codec
from slipway_server.tensors import DATATYPES, Array, RequestError, Signature, TensorSpec, from_bytes, to_bytes, to_json

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def from_json(spec: TensorSpec, shape: list[int], data: bytes) -> Array:
    """The array that a request's JSON data becomes."""
    body = b'{"inputs":[{"name":"x","shape":%b,"datatype":"%b","data":%b}]}'
    sent = body % (json.dumps(shape).encode(), spec.datatype.name.encode(), data)
    return V2Codec(Signature("m", "1", "p", (spec,), ())).decode(sent).feeds["x"]


def extremes(name: str) -> list[Any]:
    dtype = DATATYPES[name].dtype
    if name == "BOOL":
        return [True, False]
    if name == "BYTES":
        return ["", 'a"\\\n\u00e9\U0001f600']
    info = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.finfo(dtype)
    values = [np.array(value, dtype) for value in (info.min, info.max)]
    return [float(str(value.astype(np.float32))) if name in ("FP16", "FP32", "BF16") else value.item() for value in values]


def load(tmp_path: Path, content: bytes) -> onnx.OnnxModel:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    return onnx.load(file, 1)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_without_a_gpu_the_image_for_one_uses_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx, "_PROVIDERS", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    loaded = load(tmp_path, identity(TensorProto.FLOAT, ["N"]))
    assert (loaded.platform, loaded.in_place) == ("onnxruntime_onnx", True)
    assert [record.message for record in caplog.records if "no GPU can be used" in record.message]


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_through_a_model(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, identity(ONNX_TYPES[name], ["N", 2]))
    codec = V2Codec(Signature("m", "1", "p", tuple(loaded.inputs), tuple(loaded.outputs)))
    values = extremes(name)
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": name, "data": values}]}
    request = codec.decode(json.dumps(body).encode())
    assert request.feeds["x"].dtype == DATATYPES[name].dtype
    answer = json.loads(codec.encode(request, loaded.run(request.feeds, request.outputs, loaded.new_handle())).body)
    assert answer["outputs"] == [{"name": "y", "datatype": name, "shape": [1, 2], "data": values}]
    assert json.loads(codec.metadata)["inputs"] == [{"name": "x", "datatype": name, "shape": [-1, 2]}]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("UINT8", "[256]"), ("UINT8", "[-1]"), ("UINT8", "[1.0]"), ("UINT8", "[true]"), ("UINT8", '["1"]'),
        ("INT8", "[128]"), ("UINT16", "[65536]"), ("INT16", "[-32769]"), ("UINT32", "[4294967296]"),
        ("INT32", "[2147483648]"), ("UINT64", "[18446744073709551616]"), ("UINT64", "[-1]"),
        ("INT64", "[9223372036854775808]"), ("INT64", "[1e3]"), ("INT64", "[1" + "0" * 5000 + "]"),
        ("BOOL", "[1]"), ("BOOL", '["true"]'), ("BOOL", "[null]"),
        ("FP16", "[65520]"), ("FP16", "[-1e5]"), ("FP32", "[3.5e38]"), ("FP32", "[-1e300]"), ("FP64", "[1e309]"),
        ("BF16", "[3.4e38]"), ("BF16", '["1"]'), ("FP32", "[[1]]"), ("INT8", "[[1]]"), ("BOOL", "[[true]]"), ("BF16", "[[1]]"),
        ("BYTES", "[1]"), ("BYTES", "[null]"), ("BYTES", '[["a"]]'),
    ],
)  # fmt: skip
def test_what_a_datatype_cannot_hold(name: str, data: str) -> None:
    spec = TensorSpec("x", DATATYPES[name], (None,))
    with pytest.raises(RequestError, match=r"input 'x': .*" + name):
        from_json(spec, [1], (data.encode()))


def test_scalars_and_unknown_ranks() -> None:
    spec = TensorSpec("x", DATATYPES["FP32"], None)
    assert from_json(spec, [], (b"[2.5]")).shape == ()
    assert from_json(spec, [1, 2, 1], (b"[1,2]")).shape == (1, 2, 1)
    with pytest.raises(RequestError, match="at most 32 dimensions"):
        from_json(spec, [1] * 33, (b"[1]"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_json_has_no_nan(dtype: str) -> None:
    array = np.array([math.nan, math.inf, -math.inf, 1.5]).astype(getattr(ml_dtypes, dtype, dtype))
    assert to_json(array) == b"[null,null,null,1.5]"


def test_numbers_have_the_shortest_digits_of_their_type() -> None:
    values = [0.1, -1.17549435e-38, 3.4028235e38, 16777216.0, 1 / 3]
    assert json.loads(to_json(np.array(values, np.float32))) == [0.1, -1.1754944e-38, 3.4028235e38, 16777216.0, 0.33333334]
    assert json.loads(to_json(np.array(values))) == values
    assert to_json(np.array([0.1, 1 / 3], np.float32)) == b"[0.1,0.33333334]"
    assert to_json(np.array(0.1, np.float32)) == b"0.1"


def test_strided_and_nested_arrays() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert json.loads(to_json(array.T)) == array.T.tolist()
    assert json.loads(to_json(array[:, ::2].reshape(-1))) == [0, 2, 4, 6, 8, 10]
    assert to_bytes(array.T, DATATYPES["FP32"]) == np.ascontiguousarray(array.T).tobytes()


def test_shared_dimensions_must_agree(tmp_path: Path) -> None:
    content = model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (TensorProto.FLOAT, ["N", 2]), "b": (TensorProto.FLOAT, ["N", 2])},
        {"y": (TensorProto.FLOAT, ["N", 2])},
    )
    loaded = load(tmp_path, content)
    codec = V2Codec(Signature("m", "1", "p", tuple(loaded.inputs), tuple(loaded.outputs)))

    def body(rows_a: int, rows_b: int) -> bytes:
        tensors = [
            {"name": name, "shape": [rows, 2], "datatype": "FP32", "data": [1] * rows * 2}
            for name, rows in (("a", rows_a), ("b", rows_b))
        ]
        return json.dumps({"inputs": tensors}).encode()

    assert codec.decode(body(3, 3)).feeds["b"].shape == (3, 2)
    with pytest.raises(RequestError, match="input 'b': dimension N is 2, expected 3 as in input 'a'"):
        codec.decode(body(3, 2))
    with pytest.raises(RequestError, match="input 'b' is missing, expected inputs: 'a', 'b'"):
        codec.decode(json.dumps({"inputs": json.loads(body(1, 1))["inputs"][:1]}).encode())


def arrays(name: str) -> st.SearchStrategy[Any]:
    shapes = npst.array_shapes(min_dims=1, max_dims=4, max_side=4)
    if name == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
        return shapes.flatmap(
            lambda shape: st.lists(texts, min_size=math.prod(shape), max_size=math.prod(shape)).map(
                lambda values: np.array([*values, ""], dtype=object)[:-1].reshape(shape)
            )
        )
    kind = {"elements": {"allow_nan": False, "allow_infinity": False}} if name.startswith("FP") else {}
    if name == "BF16":  # a quarter of FP32's exponents: what rounds to a finite number
        floats = st.floats(-(2.0**100), 2.0**100, width=32)
        return npst.arrays(np.float32, shapes, elements=floats).map(lambda array: array.astype(ml_dtypes.bfloat16))
    return npst.arrays(DATATYPES[name].dtype, shapes, **kind)


@pytest.mark.parametrize("name", DATATYPES)
@given(data=st.data())
@settings(max_examples=40)
def test_flat_nested_and_bytes_say_the_same(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    spec = TensorSpec("x", DATATYPES[name], (None,) * array.ndim)
    shape = list(array.shape)
    indent = data.draw(st.sampled_from([None, 0, 2]))
    raw = to_bytes(array, DATATYPES[name])
    offset = data.draw(st.integers(0, 7))  # where the JSON before it ends
    results = (
        from_json(spec, shape, to_json(array.reshape(-1))),
        from_json(spec, shape, to_json(array)),
        from_json(spec, shape, json.dumps(json.loads(to_json(array)), indent=indent).encode()),
        from_bytes(spec, shape, memoryview(b" " * offset + raw)[offset:]),
    )
    for result in results:
        assert result.dtype == array.dtype
        assert result.flags.aligned
        np.testing.assert_array_equal(result, array)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=6))
@settings(max_examples=50)
def test_bytes_are_text_where_they_are_utf_8(elements: list[bytes]) -> None:
    raw = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    expected: list[Any] = []
    for element in elements:
        try:
            expected.append(element.decode())
        except UnicodeDecodeError:
            expected.append(element)
    array = from_bytes(TensorSpec("x", DATATYPES["BYTES"], (None,), text=False), [len(elements)], raw)
    assert array.tolist() == expected
    assert to_bytes(array, DATATYPES["BYTES"]) == raw
    if any(isinstance(element, bytes) for element in expected):
        with pytest.raises(RequestError, match="is not UTF-8"):
            from_bytes(TensorSpec("x", DATATYPES["BYTES"], (None,)), [len(elements)], raw)


def test_any_byte_but_zero_is_true() -> None:
    array = from_bytes(TensorSpec("x", DATATYPES["BOOL"], (None,)), [3], b"\x00\x01\x80")
    assert (array.dtype, array.tobytes()) == (np.bool_, b"\x00\x01\x01")


@pytest.mark.parametrize(
    ("name", "shape", "raw", "message"),
    [
        ("FP32", [1], b"123", r"3 bytes, expected 4 for FP32 of shape \[1\]"),
        ("FP32", [2], b"12345", "5 bytes, expected 8"),
        ("FP64", [10**18], b"", "0 bytes, expected 8000000000000000000"),
        ("BOOL", [2], b"1", "1 bytes, expected 2"),
        ("BF16", [2], b"1", "1 bytes, expected 4"),
        ("INT64", [1, 1], b"12345678", r"shape \[1, 1\], expected \[-1\]"),
        ("BYTES", [1], b"", "0 bytes, expected at least 4"),
        ("BYTES", [1], b"\x02\0\0\0a", "element 0 of BYTES does not fit"),
        ("BYTES", [1], b"\x00\0\0\0" * 2, "element 1 of BYTES does not fit.*expected 1 elements"),
        ("BYTES", [2], b"\x04\0\0\0abcd", "data has 1 elements, expected 2"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "element 0 of BYTES does not fit"),
        ("BYTES", [1], b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
        ("BYTES", [10**15], b"\x01\0\0\0\xff", "expected at least 4000000000000000"),
    ],
)
def test_bytes_of_the_wrong_size(name: str, shape: list[int], raw: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=f"input 'x': .*{message}"):
        from_bytes(TensorSpec("x", DATATYPES[name], (None,)), shape, raw)


@given(
    shape=st.lists(st.integers(-2, 5), max_size=4),
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3), st.lists, max_leaves=20
    ),
    name=st.sampled_from(sorted(DATATYPES)),
    dims=st.none() | st.lists(st.none() | st.integers(1, 4), max_size=3).map(tuple),
)
@settings(max_examples=300)
def test_anything_is_an_array_or_a_request_error(shape: list[int], data: Any, name: str, dims: Any) -> None:
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        return
    spec = TensorSpec("x", DATATYPES[name], dims)
    try:
        array = from_json(spec, shape, (text.encode()))
    except RequestError as error:
        assert "'x'" in str(error), error
    else:
        assert list(array.shape) == shape
        assert array.dtype == DATATYPES[name].dtype
