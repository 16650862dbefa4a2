"""Requests against a real server: what is answered, and 80 ways of being wrong that are told so and harm nothing."""

import gzip
import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.server.support import INFER, Server, classifier, serving

ROW = [0.5, 3.5, 1.25, 0.25]


def tensor(**changes: Any) -> dict[str, Any]:
    base = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def request(**changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor(**changes)]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("requests")
    with serving(folder, classifier(), "--max-body", "100000") as running:
        yield running


def test_metadata_and_health(server: Server) -> None:
    assert server.get("/v2").json == {
        "name": "slipway-server",
        "version": "0.1.0",
        "extensions": ["binary_tensor_data", "model_repository"],
    }
    metadata = {
        "name": "m",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "double", "datatype": "FP32", "shape": [-1, 4]},
        ],
    }
    for path in ("/v2/models/m", "/v2/models/m/versions/3"):
        assert server.get(path).json == metadata
        assert server.get(f"{path}/ready").json == {"ready": True}
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/").json == {"status": "alive"}
    assert server.get("/v1/models").json == {"models": ["m"]}
    assert server.get("/v1/models/m").json == {"name": "m", "ready": True}
    head = server.ask("HEAD", "/v2/health/ready")
    assert (head.status, head.body) == (200, b"")


LABEL = {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]}
DOUBLE = {"name": "double", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 7.0, 2.5, 0.5]}

GOOD: dict[str, tuple[Any, Any]] = {
    "flat": (request(), {"outputs": [LABEL, DOUBLE]}),
    "nested": (request(data=[ROW]), {"outputs": [LABEL, DOUBLE]}),
    "integers are floats too": (request(data=[0, 9, 1, 2]), {"outputs": [LABEL, {**DOUBLE, "data": [0, 18, 2, 4]}]}),
    "id is echoed": ({**request(), "id": 'a"\u00e9'}, {"id": 'a"\u00e9', "outputs": [LABEL, DOUBLE]}),
    "one output": ({**request(), "outputs": [{"name": "label"}]}, {"outputs": [LABEL]}),
    "outputs in the caller's order": (
        {**request(), "outputs": [{"name": "double", "parameters": {}}, {"name": "label"}]},
        {"outputs": [DOUBLE, LABEL]},
    ),
    "no outputs named: all": ({**request(), "outputs": []}, {"outputs": [LABEL, DOUBLE]}),
    "parameters": ({**request(parameters={"a": 1}), "parameters": {"b": "c"}}, {"outputs": [LABEL, DOUBLE]}),
    "MLServer's parameters": (
        {**request(parameters={"content_type": "np"}), "parameters": {"content_type": "np"}},
        {"outputs": [LABEL, DOUBLE]},
    ),
    "KServe's model name": ({**request(), "model_name": "m", "model_version": None}, {"outputs": [LABEL, DOUBLE]}),
    "binary data declined": (
        {**request(), "outputs": [{"name": "label", "parameters": {"binary_data": False}}]},
        {"outputs": [LABEL]},
    ),
    "two rows": (
        {**request(shape=[2, 4], data=[*ROW, 4, 3, 2, 1]), "outputs": [{"name": "label"}]},
        {"outputs": [{**LABEL, "shape": [2], "data": [1, 0]}]},
    ),
}


@pytest.mark.parametrize("path", [INFER, "/v2/models/m/versions/3/infer", "/v2/models/%6d/infer"])
def test_paths(server: Server, path: str) -> None:
    assert server.infer(request(), path).json["model_name"] == "m"


@pytest.mark.parametrize("name", GOOD)
def test_good(server: Server, name: str) -> None:
    body, expected = GOOD[name]
    answer = server.infer(body)
    assert answer.json == {"model_name": "m", "model_version": "3", **expected}
    assert answer.status == 200
    assert answer.headers["x-slipway-revision"] == "m-7f9c"
    assert answer.headers["content-type"] == "application/json"
    pretty = server.infer(json.dumps(body, indent=3).replace("[", "[ \r\n\t").encode())
    assert pretty.body == answer.body


def text(before: str, after: str) -> bytes:
    """The good request's text with one change that json.dumps cannot make."""
    good = json.dumps(request())
    assert before in good
    return good.replace(before, after).encode()


BAD: dict[str, tuple[Any, str]] = {
    # not JSON
    "empty": (b"", "body is empty"),
    "spaces": (b"   ", "truncated"),
    "not json": (b"hello", "malformed"),
    "truncated": (json.dumps(request()).encode()[:-1], "truncated"),
    "trailing": (json.dumps(request()).encode() + b"x", "trailing"),
    "two documents": (json.dumps(request()).encode() * 2, "trailing"),
    "single quotes": (b"{'inputs': []}", "malformed"),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(request()).encode(), "malformed"),
    "utf-16": (json.dumps(request()).encode("utf-16"), "malformed"),
    "not utf-8": (text('"x"', '"\xff"').replace(b"\xc3\xbf", b"\xff"), "UTF-8"),
    "lone surrogate": (text('"x"', '"\\ud800"'), "."),
    "NaN": (text("0.5", "NaN"), "malformed"),
    "Infinity": (text("0.5", "Infinity"), "malformed"),
    "-Infinity": (text("0.5", "-Infinity"), "malformed"),
    "leading zero": (text("0.5", "00.5"), "number|expected"),
    "hexadecimal": (text("0.5", "0x5"), "malformed"),
    "bare point": (text("0.5", ".5"), "malformed"),
    "comment": (text("0.5", "/* */ 0.5"), "malformed"),
    "trailing comma": (text("0.25]", "0.25,]"), "malformed"),
    "deep in data": (text("[0.5", "[" * 50_000 + "0.5"), "too deeply"),
    "deep in parameters": (b'{"parameters":{"a":' + b'{"a":' * 15_000, "."),
    "control character": (text('"x"', '"x\n"'), "malformed"),
    # not a request
    "null": (b"null", "expected `object`"),
    "list": ([request()], "expected `object`"),
    "string": ("inputs", "expected `object`"),
    "no inputs": ({}, "missing required field `inputs`"),
    "inputs null": ({"inputs": None}, "inputs"),
    "inputs object": ({"inputs": tensor()}, "inputs"),
    "inputs empty": ({"inputs": []}, "input 'x' is missing"),
    "input a list": ({"inputs": [[1]]}, "inputs"),
    "input null": ({"inputs": [None]}, "inputs"),
    "unknown field": ({**request(), "input": 1}, "unknown field `input`"),
    "unknown field in a tensor": (request(dtype="FP32"), "unknown field `dtype`"),
    "id a number": ({**request(), "id": 7}, "id"),
    "parameters a list": ({**request(), "parameters": []}, "parameters"),
    "parameter an object": ({**request(), "parameters": {"a": {}}}, "parameters"),
    "outputs an object": ({**request(), "outputs": {"name": "label"}}, "outputs"),
    "outputs strings": ({**request(), "outputs": ["label"]}, "outputs"),
    "output unknown": ({**request(), "outputs": [{"name": "lable"}]}, "output 'lable' is unknown.*'label', 'double'"),
    "output twice": ({**request(), "outputs": [{"name": "label"}] * 2}, "twice"),
    "binary without its header": (
        request(parameters={"binary_data_size": 16}, data=...),
        "input 'x': binary_data_size needs the header Inference-Header-Content-Length",
    ),
    "binary and data": (request(parameters={"binary_data_size": 16}), "both data and binary_data_size"),
    "binary size a string": (request(parameters={"binary_data_size": "16"}, data=...), "is not a number of bytes"),
    "binary size true": (request(parameters={"binary_data_size": True}, data=...), "is not a number of bytes"),
    "binary size negative": (request(parameters={"binary_data_size": -1}, data=...), "is not a number of bytes"),
    "binary output not a bool": (
        {**request(), "parameters": {"binary_data_output": 1}},
        "the request: parameter 'binary_data_output' is int, expected true or false",
    ),
    "binary one output not a bool": (
        {**request(), "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
        "output 'label': parameter 'binary_data' is str",
    ),
    "classification": ({**request(), "outputs": [{"name": "label", "parameters": {"classification": 2}}]}, "classification"),
    "shared memory": (request(parameters={"shared_memory_region": "r"}, data=...), "'x': shared memory is not served"),
    "output to shared memory": (
        {**request(), "outputs": [{"name": "label", "parameters": {"shared_memory_region": "r"}}]},
        "'label': shared memory is not served",
    ),
    # names
    "input unknown": (request(name="X"), "input 'X' is unknown, expected inputs: 'x'"),
    "input twice": ({"inputs": [tensor(), tensor()]}, "input 'x' is given twice"),
    "name missing": (request(name=...), "name"),
    "name null": (request(name=None), "name"),
    "name very long": (request(name="y" * 50_000), "is unknown"),
    # datatype
    "datatype FP64": (request(datatype="FP64"), "input 'x': datatype FP64, expected FP32"),
    "datatype in lower case": (request(datatype="fp32"), "datatype fp32, expected FP32"),
    "datatype of numpy": (request(datatype="float32"), "expected FP32"),
    "datatype missing": (request(datatype=...), "datatype"),
    "datatype null": (request(datatype=None), "datatype"),
    "datatype long": (request(datatype="F" * 50_000), "expected FP32"),
    # shape
    "shape missing": (request(shape=...), "shape"),
    "shape a number": (request(shape=4), "shape"),
    "shape strings": (request(shape=["1", "4"]), "shape"),
    "shape floats": (request(shape=[1.0, 4.0]), "shape"),
    "shape too flat": (request(shape=[4]), r"input 'x': shape \[4\], expected \[-1, 4\]"),
    "shape too deep": (request(shape=[1, 1, 4]), r"expected \[-1, 4\]"),
    "shape empty": (request(shape=[]), r"shape \[\], expected \[-1, 4\]"),
    "shape other width": (request(shape=[1, 5], data=[*ROW, 1]), r"shape \[1, 5\], expected \[-1, 4\]"),
    "shape zero": (request(shape=[0, 4], data=[]), "at least 1"),
    "shape negative": (request(shape=[-1, 4]), "at least 1"),
    "shape huge": (request(shape=[10**18, 4]), "data has 4 elements, expected 4000000000000000000"),
    "shape beyond 64 bits": (request(shape=[10**30, 4]), "."),
    "shape of many dimensions": (request(shape=[1] * 10_000), "expected"),
    # data
    "data missing": (request(data=...), "input 'x': data is missing"),
    "data null": (request(data=None), "input 'x': data"),
    "data a number": (request(data=1), "input 'x': data"),
    "data a string": (request(data="0.5"), "input 'x': data"),
    "data an object": (request(data={"0": 1}), "input 'x': data"),
    "data empty": (request(data=[]), "data has 0 elements, expected 4"),
    "data short": (request(data=ROW[:3]), "data has 3 elements, expected 4"),
    "data long": (request(data=[*ROW, 1]), "data has 5 elements, expected 4"),
    "element a string": (request(data=[*ROW[:3], "1"]), "input 'x'.*float.*str"),
    "element null": (request(data=[*ROW[:3], None]), "float.*null"),
    "element a bool": (request(data=[*ROW[:3], True]), "float.*bool"),
    "element beyond FP32": (request(data=[*ROW[:3], 1e39]), "input 'x'.*range of FP32"),
    "element beyond FP64": (text("0.5", "1e400"), "range"),
    "nested ragged": (request(shape=[2, 4], data=[ROW, ROW[:3]]), "nested"),
    "nested the wrong way": (request(shape=[2, 4], data=[[1, 2]] * 4), r"nested as \[4, 2\], expected shape \[2, 4\]"),
    "nested too deep": (request(data=[[ROW]]), "input 'x'"),
    "nested and flat mixed": (request(data=[ROW, 1]), "input 'x'"),
    "flat and nested mixed": (request(data=[1, ROW]), "input 'x'"),
}


def test_there_are_enough() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", BAD)
def test_bad(server: Server, name: str) -> None:
    body, message = BAD[name]
    answer = server.infer(body)
    assert answer.status == 400, answer
    assert list(answer.json) == ["error"]
    assert re.search(message, answer.json["error"], re.IGNORECASE), answer.json["error"]
    assert len(answer.json["error"]) < 600  # no echo of what was sent
    assert server.infer(request()).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/x", 404, "GET /v2"),
        ("GET", "/v2/", 404, "no such path"),
        ("GET", "/v3", 404, "no such path"),
        ("GET", "/v2/models", 404, "no such path"),
        ("GET", "/v2/models/other", 404, "model 'other' is not served here: this is 'm'"),
        ("POST", "/v2/models/other/infer", 404, "model 'other'"),
        ("POST", "/v2/models/m/versions/2/infer", 404, "version '2' of 'm'"),
        ("POST", "/v2/models/m/infer/", 404, "no such path"),
        ("POST", "/v2/models/m/../m/infer", 404, "model"),
        ("GET", "/v2/models/m%2Finfer%00", 404, "no such path"),
    ],
)
def test_unknown_paths(server: Server, method: str, path: str, status: int, message: str) -> None:
    answer = server.ask(method, path, b"{}" if method == "POST" else None)
    assert answer.status == status
    assert message in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("PUT", INFER, "POST"),
        ("DELETE", INFER, "POST"),
        ("OPTIONS", INFER, "POST"),
        ("POST", "/v2", "GET, HEAD"),
        ("POST", "/v2/models/m", "GET, HEAD"),
        ("DELETE", "/v2/models/m", "GET, HEAD"),
        ("PATCH", "/v2/health/ready", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
def test_wrong_methods(server: Server, method: str, path: str, allow: str) -> None:
    answer = server.ask(method, path, b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert method in answer.json["error"]


def test_binary_and_compressed_bodies(server: Server) -> None:
    text = json.dumps(request(parameters={"binary_data_size": 16}, data=...)).encode()
    body = text + struct.pack("<4f", *ROW)
    header = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    assert server.infer(body, **header).json["outputs"] == [LABEL, DOUBLE]
    packed = server.infer(gzip.compress(body), **header, **{"Content-Encoding": "gzip"})
    assert packed.json["outputs"] == [LABEL, DOUBLE]
    wanted = {**request(), "parameters": {"binary_data_output": True}}
    answer = server.infer(wanted)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert [output["parameters"] for output in json.loads(answer.body[:length])["outputs"]] == [
        {"binary_data_size": 8},
        {"binary_data_size": 16},
    ]
    assert answer.body[length:] == struct.pack("<q4f", 1, *DOUBLE["data"])
    many = request(shape=[64, 4], data=ROW * 64)
    answer = server.infer(many, **{"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body)) == server.infer(many).json


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip"}, 400),
        ({"Content-Encoding": "deflate"}, 400),
        ({"Content-Encoding": "identity"}, 200),
        ({"Inference-Header-Content-Length": "0"}, 400),
        ({"Inference-Header-Content-Length": "10"}, 400),
        ({"Inference-Header-Content-Length": "100000"}, 400),
        ({"Inference-Header-Content-Length": "-1"}, 400),
        ({"Inference-Header-Content-Length": "x"}, 400),
    ],
)
def test_headers_of_a_json_body(server: Server, headers: dict[str, str], status: int) -> None:
    assert server.infer(request(), **headers).status == status


def test_errors_carry_the_revision(server: Server) -> None:
    assert server.infer(b"").headers["x-slipway-revision"] == "m-7f9c"
