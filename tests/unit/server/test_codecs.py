"""Codecs without a server: selection and forms of V2, V1's rows and columns, limits, and mutated requests of every protocol."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as triton

from slipway_server.protocol import CodecLimits, Inference
from slipway_server.protocol.grpc import GrpcCodec
from slipway_server.protocol.v1 import V1Codec
from slipway_server.protocol.v2 import V2Codec, repository_index
from slipway_server.tensors import DATATYPES, RequestError, Signature, TensorSpec

X = TensorSpec("x", DATATYPES["FP32"], ("N", 2))
TEXT = TensorSpec("a text", DATATYPES["BYTES"], ("N",), text=False)
ONE = Signature("m", "3", "p", (X,), (X, TEXT), default_outputs=("x",))
TWO = Signature("m", "3", "p", (X, TEXT), (X, TEXT))


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5], **changes}


TEXTS = {"name": "a text", "shape": [2], "datatype": "BYTES", "data": ["a", "\u00e9"]}


def with_bytes(document: dict[str, Any], *raw: bytes) -> tuple[bytes, int]:
    text = json.dumps(document).encode()
    return b"".join((text, *raw)), len(text)


def binary(size: int, **tensor: Any) -> dict[str, Any]:
    return {key: value for key, value in tensor.items() if key != "data"} | {"parameters": {"binary_data_size": size}}


# --- V2 ---------------------------------------------------------------------------------------------------------------


def test_binary_and_json_inputs_mix() -> None:
    raw = b"\x01\0\0\0a\x02\0\0\0\xff\xd8"
    body, length = with_bytes({"inputs": [binary(len(raw), **TEXTS), tensor()]}, raw)
    feeds = V2Codec(TWO).decode(body, length).feeds
    assert feeds["a text"].tolist() == ["a", b"\xff\xd8"]
    assert feeds["x"].tolist() == [[1, 2], [3, 4.5]]
    reverse = {"inputs": [binary(16, **tensor()), binary(len(raw), **TEXTS)]}
    body, length = with_bytes(reverse, struct.pack("<4f", 1, 2, 3, 4.5), raw)
    again = V2Codec(TWO).decode(body, length).feeds
    for name, array in feeds.items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize(
    ("size", "raw", "message"),
    [
        (15, b"." * 15, "input 'x': 15 bytes, expected 16 for FP32"),
        (16, b"." * 15, "input 'x': 15 bytes, expected 16"),
        (16, b"." * 17, "17 bytes follow the JSON, expected 16"),
        (16, b"", "input 'x': 0 bytes, expected 16"),
        (2**70, b"." * 16, "16 bytes follow the JSON, expected 1180591620717411303424"),
    ],
)
def test_binary_of_the_wrong_size(size: int, raw: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        V2Codec(ONE).decode(*with_bytes({"inputs": [binary(size, **tensor())]}, raw))


@pytest.mark.parametrize(
    ("request_flag", "output_flag", "is_binary"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True), (None, True, True)],
)
def test_each_output_in_the_form_that_is_asked_for(request_flag: Any, output_flag: Any, is_binary: bool) -> None:
    codec = V2Codec(TWO)
    outputs = [
        {"name": "a text", "parameters": {"binary_data": output_flag}},
        {"name": "x", "parameters": {"binary_data": not is_binary}},
    ]
    sent = {"inputs": [tensor(), TEXTS], "outputs": outputs, "parameters": {"binary_data_output": request_flag}}
    inference = codec.decode(json.dumps(sent).encode())
    assert inference.binary == (is_binary, not is_binary)
    encoded = codec.encode(inference, [inference.feeds["a text"], inference.feeds["x"]])
    assert encoded.json_length is not None
    texts, numbers = json.loads(encoded.body[: encoded.json_length])["outputs"]
    raw = encoded.body[encoded.json_length :]
    if is_binary:
        assert raw == b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"
        assert (texts["parameters"], numbers["data"]) == ({"binary_data_size": len(raw)}, [1, 2, 3, 4.5])
    else:
        assert raw == struct.pack("<4f", 1, 2, 3, 4.5)
        assert (texts["data"], numbers["parameters"]) == (["a", "\u00e9"], {"binary_data_size": 16})


def test_default_outputs_and_any_name() -> None:
    assert V2Codec(ONE).decode(json.dumps({"inputs": [tensor()]}).encode()).outputs == ("x",)
    any_name = Signature("m", "3", "p", (X,), (X,), any_name=True)
    assert list(V2Codec(any_name).decode(json.dumps({"inputs": [tensor(name="input-0")]}).encode()).feeds) == ["x"]
    with pytest.raises(RequestError, match="is given twice"):
        V2Codec(any_name).decode(json.dumps({"inputs": [tensor(name="a"), tensor(name="b")]}).encode())


def test_answers_that_are_not_text_are_base64() -> None:
    codec = V2Codec(Signature("m", "3", "p", (X,), (TEXT,)))
    inference = codec.decode(json.dumps({"inputs": [tensor()]}).encode())
    for values, data in ((["a", b"\xff\xd8"], ["YQ==", "/9g="]), (["a", "\ud800"], ["YQ==", "7aCA"])):
        output = json.loads(codec.encode(inference, [np.array(values, object)]).body)["outputs"][0]
        assert (output["parameters"], output["data"]) == ({"content_type": "base64"}, data)


def test_base64_of_a_request() -> None:
    codec = V2Codec(Signature("m", "3", "p", (TEXT,), (TEXT,)))

    def decode(data: Any, shape: list[int]) -> list[Any]:
        sent = {"name": "a text", "shape": shape, "datatype": "BYTES", "data": data, "parameters": {"content_type": "base64"}}
        return codec.decode(json.dumps({"inputs": [sent]}).encode()).feeds["a text"].tolist()

    assert decode(["YQ==", "/9g="], [2]) == ["a", b"\xff\xd8"]
    for bad in ("YQ", "\u00e9", "Y Q=="):
        with pytest.raises(RequestError, match="input 'a text': data holds an element that is not base64"):
            decode([bad], [1])


def test_explanations() -> None:
    arrays = {"values": np.array([[0.1, 2]], np.float32), "names": np.array(["a", "b"])}
    sent = json.dumps({"inputs": [tensor()], "id": "7"}).encode()
    codec = V2Codec(ONE)
    assert json.loads(codec.encode_explanation(codec.decode(sent), arrays).body) == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "values", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 2.0]},
            {"name": "names", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
        ],
    }
    v1 = V1Codec(ONE)
    predicted = v1.encode_explanation(v1.decode(b'{"instances":[[1,2]]}'), {"values": arrays["values"]})
    assert json.loads(predicted) == {"explanations": [[0.1, 2.0]]}


def test_inputs_of_two_datatypes() -> None:
    codec = V2Codec(TWO)
    swapped = {"inputs": [tensor(datatype="BYTES", data=["a"] * 4), TEXTS]}
    with pytest.raises(RequestError, match="input 'x': datatype BYTES, expected FP32"):
        codec.decode(json.dumps(swapped).encode())
    late = b'{"inputs":[{"data":[1,2],"shape":[1,2],"name":"x","datatype":"FP32"},%b]}'
    texts = json.dumps({**TEXTS, "shape": [1], "data": ["a"]}).encode()
    assert codec.decode(late % texts).feeds["x"].tolist() == [[1, 2]]
    with pytest.raises(RequestError, match="datatype FP33, expected FP32"):
        codec.decode(late.replace(b"FP32", b"FP33") % texts)
    with pytest.raises(RequestError, match="datatype"):
        codec.decode(late.replace(b',"datatype":"FP32"', b"") % texts)


def test_limits() -> None:
    codec = V2Codec(ONE, CodecLimits(depth=1, elements=3))
    with pytest.raises(RequestError, match="4 elements, the limit is 3") as caught:
        codec.decode(json.dumps({"inputs": [tensor()]}).encode())
    assert caught.value.status == 413
    with pytest.raises(RequestError, match="has more than 3 values") as caught:
        codec.decode(b'{"inputs":[%b' % (b"1," * 2000))  # not even JSON: it is counted before it is read
    assert caught.value.status == 413
    with pytest.raises(RequestError, match="input 'x': data for FP32: Expected `float`, got `array`"):
        codec.decode(json.dumps({"inputs": [tensor(shape=[1, 2], data=[[1, 2]])]}).encode())


def test_repository_index() -> None:
    ready = {"name": "m", "version": "3", "state": "READY", "reason": ""}
    loading = {"name": "m", "version": "3", "state": "UNAVAILABLE", "reason": "loading"}
    for body, is_ready, expected in (
        (b"", True, [ready]),
        (b"{}", False, [loading]),
        (b'{"ready":true}', False, []),
        (b'{"ready":true,"x":1}', True, [ready]),
    ):
        assert json.loads(repository_index(body, "m", "3", is_ready)) == expected
    with pytest.raises(RequestError, match="not a repository index request"):
        repository_index(b'{"ready":1}', "m", "3", True)


# --- V1 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        {"instances": [[1, 2], [3, 4.5]]},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]},
        {"inputs": [[1, 2], [3, 4.5]]},
        {"inputs": {"x": [[1, 2], [3, 4.5]]}},
        {"instances": [[1, 2], [3, 4.5]], "signature_name": "serving_default", "parameters": {"a": [{}]}},
    ],
)
def test_v1_rows_and_columns(sent: Any) -> None:
    codec = V1Codec(ONE)
    inference = codec.decode(json.dumps(sent).encode())
    assert inference.feeds["x"].tolist() == [[1, 2], [3, 4.5]]
    assert codec.encode(inference, [np.array([[0.1], [2]], np.float32)]) == b'{"predictions":[[0.1],[2.0]]}'


def test_v1_of_several_tensors() -> None:
    codec = V1Codec(TWO)
    rows = [{"x": [1, 2], "a text": "a"}, {"a text": {"b64": "/9g="}, "x": [3, 4]}]
    inference = codec.decode(json.dumps({"instances": rows}).encode())
    assert inference.feeds["a text"].tolist() == ["a", b"\xff\xd8"]
    assert json.loads(codec.encode(inference, list(inference.feeds.values()))) == {"predictions": rows}
    columns = {"inputs": {"x": [[1, 2]], "a text": ["a"]}}
    inference = codec.decode(json.dumps(columns).encode())
    assert json.loads(codec.encode(inference, [np.float32(1.5) * np.ones(()), np.array(["b"])])) == {
        "predictions": {"x": 1.5, "a text": ["b"]}
    }


def test_v1_of_text() -> None:
    codec = V1Codec(Signature("m", "3", "p", (TEXT,), (TEXT,)))
    inference = codec.decode(b'{"instances":["a",{"b64":"/9g="}]}')
    assert inference.feeds["a text"].tolist() == ["a", b"\xff\xd8"]
    assert codec.encode(inference, [inference.feeds["a text"]]) == b'{"predictions":["a",{"b64":"/9g="}]}'


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({}, 'one of "instances"'),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, 'one of "instances"'),
        ({"instance": [[1, 2]]}, 'one of "instances"'),
        ({"instances": []}, "instances is empty"),
        ({"instances": [[]]}, "input 'x': a list is empty, expected shape"),
        ({"instances": [[1]]}, r"input 'x': shape \[1, 1\], expected \[-1, 2\]"),
        ({"instances": [[1, 2], [3]]}, "input 'x': data is not nested"),
        ({"instances": [1, 2]}, r"shape \[2\], expected \[-1, 2\]"),
        ({"instances": [[1, "2"]]}, r"not a predict request.*str.*expected inputs: 'x' \(FP32 \[-1, 2\]\)"),
        ({"instances": [[1, True]]}, "bool"),
        ({"instances": [[1, None]]}, "null"),
        ({"instances": [[1, 1e39]]}, "outside the range of FP32"),
        ({"instances": [{"y": [1, 2]}]}, "unknown field `y`"),
        ({"instances": [{}]}, "missing required field `x`"),
        ({"instances": [{"x": [1, 2]}, [1, 2]]}, "one form"),
        ({"instances": [[1, 2], {"x": [1, 2]}]}, "nested"),
        ({"instances": {"x": [1, 2]}}, "Expected `array`"),
        ({"inputs": None}, "null"),
        ([[1, 2]], "Expected `object`"),
    ],
)
def test_v1_mistakes(sent: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        V1Codec(ONE).decode(json.dumps(sent).encode())


def test_v1_bad_base64() -> None:
    codec = V1Codec(Signature("m", "3", "p", (TensorSpec("t", DATATYPES["BYTES"], (None,)),), (TEXT,)))
    for sent, message in (("/9", "is not base64"), ("\u00e9", "is not base64"), ("/9g=", "UTF-8, which the model expects")):
        with pytest.raises(RequestError, match=f"input 't': b64 .*{message}"):
            codec.decode(json.dumps({"instances": [{"b64": sent}]}).encode())


# --- mutations --------------------------------------------------------------------------------------------------------


def grpc_request(raw: bool) -> bytes:
    request = triton.ModelInferRequest(model_name="m", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    request.inputs.add(name="a text", datatype="BYTES", shape=[2])
    if raw:
        request.raw_input_contents.extend([struct.pack("<4f", 1, 2, 3, 4.5), b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"])
    else:
        request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4.5])
        request.inputs[1].contents.bytes_contents.extend([b"a", "\u00e9".encode()])
    return request.SerializeToString()


V2_JSON = json.dumps({"inputs": [tensor(), TEXTS], "id": "7", "outputs": [{"name": "x"}]}).encode()
V2_BINARY, V2_LENGTH = with_bytes({"inputs": [binary(16, **tensor()), TEXTS]}, struct.pack("<4f", 1, 2, 3, 4.5))
V1_JSON = b'{"instances":[{"x":[1,2],"a text":"a"},{"x":[3,4.5],"a text":{"b64":"w6k="}}]}'
FORMS = {
    "v2": (V2_JSON, V2Codec(TWO).decode),
    "v2 binary": (V2_BINARY, lambda body: V2Codec(TWO).decode(body, V2_LENGTH)),
    "v1": (V1_JSON, V1Codec(TWO).decode),
    "grpc": (grpc_request(raw=False), GrpcCodec(TWO).decode),
    "grpc raw": (grpc_request(raw=True), GrpcCodec(TWO).decode),
}
PIECES = st.sampled_from(
    [b"", b"[", b"]", b"{", b"}", b",", b":", b'"', b"-", b"1e999", b"null", b"\xff", b"\0", b"[[[[", b"\x80"]
)


@pytest.mark.parametrize("form", FORMS)
@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), PIECES | st.binary(max_size=4)), min_size=1, max_size=4),
)
@example(cuts=[(1.0, 0, b"")])
@settings(max_examples=150)
def test_a_mutated_request_is_an_inference_or_a_mistake(form: str, cuts: list[tuple[float, int, bytes]]) -> None:
    body, decode = FORMS[form]
    for place, removed, inserted in cuts:
        at = int(place * len(body))
        body = body[:at] + inserted + body[at + removed :]
    try:
        inference = decode(body)
    except RequestError as error:
        assert 400 <= error.status < 500
        assert 0 < len(str(error)) < 1000
    else:
        assert isinstance(inference, Inference)
        assert {name: (array.dtype, array.ndim) for name, array in inference.feeds.items()} == {
            "x": (np.dtype(np.float32), 2),
            "a text": (np.dtype(object), 1),
        }


@pytest.mark.parametrize("form", FORMS)
def test_unmutated_all_say_the_same(form: str) -> None:
    body, decode = FORMS[form]
    feeds = decode(body).feeds
    assert feeds["x"].tolist() == [[1, 2], [3, 4.5]]
    assert feeds["a text"].tolist() == ["a", "\u00e9"]
