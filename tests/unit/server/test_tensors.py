"""Every datatype through its JSON form, and the law that nested and flat say the same."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tests.unit.server.support import TensorProto, helper, identity, model

from slipway_server.formats import onnx
from slipway_server.protocol.v2 import Codec
from slipway_server.tensors import DATATYPES, RequestError, TensorSpec, from_json, to_json

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
    "BYTES": TensorProto.STRING,
}


def extremes(name: str) -> list[Any]:
    dtype = DATATYPES[name].dtype
    if name == "BOOL":
        return [True, False]
    if name == "BYTES":
        return ["", 'a"\\\n\u00e9\U0001f600']
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return [
        info.min.item() if hasattr(info.min, "item") else info.min,
        info.max.item() if hasattr(info.max, "item") else info.max,
    ]


def load(tmp_path: Path, content: bytes) -> onnx.OnnxModel:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    return onnx.load(file, 1)


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_through_a_model(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, identity(ONNX_TYPES[name], ["N", 2]))
    codec = Codec("m", "1", "p", loaded.inputs, loaded.outputs)
    values = extremes(name)
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": name, "data": values}]}
    request = codec.decode(json.dumps(body).encode())
    assert request.feeds["x"].dtype == DATATYPES[name].dtype
    answer = json.loads(codec.encode(request, loaded.run(request.feeds, request.outputs, loaded.new_handle())))
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
        ("BYTES", "[1]"), ("BYTES", "[null]"), ("BYTES", '[["a"]]'),
    ],
)  # fmt: skip
def test_what_a_datatype_cannot_hold(name: str, data: str) -> None:
    spec = TensorSpec("x", DATATYPES[name], (None,))
    with pytest.raises(RequestError, match=r"input 'x': .*" + name):
        from_json(spec, [1], msgspec.Raw(data.encode()))


def test_scalars_and_unknown_ranks() -> None:
    spec = TensorSpec("x", DATATYPES["FP32"], None)
    assert from_json(spec, [], msgspec.Raw(b"[2.5]")).shape == ()
    assert from_json(spec, [1, 2, 1], msgspec.Raw(b"[1,2]")).shape == (1, 2, 1)
    with pytest.raises(RequestError, match="at most 32 dimensions"):
        from_json(spec, [1] * 33, msgspec.Raw(b"[1]"))


def test_json_has_no_nan() -> None:
    assert to_json(np.array([math.nan, math.inf, 1.5], np.float32)) == b"[null,null,1.5]"


def test_shared_dimensions_must_agree(tmp_path: Path) -> None:
    content = model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (TensorProto.FLOAT, ["N", 2]), "b": (TensorProto.FLOAT, ["N", 2])},
        {"y": (TensorProto.FLOAT, ["N", 2])},
    )
    loaded = load(tmp_path, content)
    codec = Codec("m", "1", "p", loaded.inputs, loaded.outputs)

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
                lambda values: np.array(values, object).reshape(shape)
            )
        )
    kind = {"elements": {"allow_nan": False, "allow_infinity": False}} if name.startswith("FP") else {}
    return npst.arrays(DATATYPES[name].dtype, shapes, **kind)


@pytest.mark.parametrize("name", DATATYPES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_nested_and_flat_say_the_same(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    spec = TensorSpec("x", DATATYPES[name], (None,) * array.ndim)
    shape = list(array.shape)
    flat = from_json(spec, shape, msgspec.Raw(to_json(array)))
    indent = data.draw(st.sampled_from([None, 0, 2]))
    nested = from_json(spec, shape, msgspec.Raw(json.dumps(array.tolist(), indent=indent).encode()))
    for result in (flat, nested):
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result, array)


@given(
    shape=st.lists(st.integers(-2, 5), max_size=4),
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3), st.lists, max_leaves=20
    ),
    name=st.sampled_from(sorted(DATATYPES)),
    dims=st.none() | st.lists(st.none() | st.integers(1, 4), max_size=3).map(tuple),
)
@settings(max_examples=300, deadline=None)
def test_anything_is_an_array_or_a_request_error(shape: list[int], data: Any, name: str, dims: Any) -> None:
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        return
    spec = TensorSpec("x", DATATYPES[name], dims)
    try:
        array = from_json(spec, shape, msgspec.Raw(text.encode()))
    except RequestError as error:
        assert "'x'" in str(error)
    else:
        assert list(array.shape) == shape
        assert array.dtype == DATATYPES[name].dtype
