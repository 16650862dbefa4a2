"""Whatever a caller sends: no answer of the 500s, no connection left hanging, nothing kept, nothing written to the log."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import lightgbm
import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.server.hostile_support import (
    INSTANCES,
    OPENING,
    PYTHON,
    PYTHON_REQUEST,
    REQUEST,
    ROWS_REQUEST,
    SECRET,
    TOKENS,
    Target,
    answered_or_closed,
    binary,
    call,
    exchange,
    mutate,
    request,
    several_types,
    statuses,
    stream,
    told,
    unharmed,
)
from tests.unit.server.malformed import DEEP, MALFORMED, WELL_FORMED, bodies
from tests.unit.server.support import INFER, serving
from tritonclient.grpc import service_pb2

from slipway_server.wire import frames

V1 = "/v1/models/m:predict"
SECONDS = 1.0
"""For a request to arrive."""
FLAGS = ("--request-timeout", f"{SECONDS:g}", "--max-body", str(1 << 20), "--max-header", "8192")
MANY = settings(max_examples=200, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    random = np.random.default_rng(1)
    rows = random.random((50, 3))
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, rows.sum(1)), 3)
    predicted = booster.predict(np.array([[1.0, 2, 3], [4, 5, 6]])).tolist()
    with ExitStack() as stack:

        def start(name: str, content: bytes, *flags: str) -> Target:
            return stack.enter_context(serving(tmp_path_factory.mktemp("model"), content, *FLAGS, *flags, name=name))

        yield {
            "onnx": Target(
                start("model.onnx", several_types()), REQUEST, {"S": [SECRET, "é\n\0"], "F": [1, 2, 3, 4, 5.5, 6, 7, 8]}
            ),
            "python": Target(
                start("model.py", PYTHON.encode(), "--format", "Python"), PYTHON_REQUEST, {"y": [3], "whom": [SECRET]}
            ),
            "lightgbm": Target(
                start("model.txt", booster.model_to_string().encode(), "--format", "LightGBM"),
                ROWS_REQUEST,
                {"predict": predicted},
            ),
        }


@pytest.fixture(scope="module")
def target(targets: dict[str, Target]) -> Target:
    return targets["onnx"]


@pytest.fixture(scope="module")
def _whole(targets: dict[str, Target]) -> Iterator[None]:
    """All that this module does to them, taken together."""
    with ExitStack() as stack:
        for target in targets.values():
            stack.enter_context(unharmed(target))
        yield


pytestmark = pytest.mark.usefixtures("_whole")

# --- JSON -------------------------------------------------------------------------------------------------------------

WIDE = 200_000


@pytest.mark.parametrize(
    ("name", "path", "document"),
    [
        ("onnx", INFER, REQUEST),
        ("onnx", V1, INSTANCES),
        ("python", INFER, PYTHON_REQUEST),
        ("python", V1, {"inputs": {"x": [[1, 2]], "who": [SECRET]}}),
        ("lightgbm", INFER, ROWS_REQUEST),
        ("lightgbm", V1, {"instances": [[1, 2, 3], [4, 5, 6]]}),
    ],
)
def test_json_of_other_kinds_everywhere(targets: dict[str, Target], name: str, path: str, document: object) -> None:
    connection = targets[name].server.connect()
    got: Counter[int] = Counter()
    for fragments, allowed in ((MALFORMED, {400}), (WELL_FORMED, {200, 400})):
        for body in bodies(document, fragments):
            connection.request("POST", path, body)
            response = connection.getresponse()
            answer = response.read()
            assert response.status in allowed, (body[:300], answer)
            assert response.status == 200 or set(json.loads(answer)) == {"error"}
            got[response.status] += 1
    assert got[400] > 100
    connection.close()


def test_json_without_end(target: Target) -> None:
    wide = b"[" + b"1," * WIDE + b"1]"
    for data in (b"[" * DEEP, wide, b"[" + b"[]," * WIDE + b"[]]", b"[" + wide[: WIDE // 2], b'"' + b"\\" * WIDE, b"1" * WIDE):
        body = b'{"inputs":[{"name":"f","datatype":"FP32","shape":[1,4],"data":%b}]}' % data
        assert target.server.infer(body).status == 400
        assert target.server.infer(b'{"x":%b}' % data).status == 400
        assert target.server.infer(b'{"instances":%b}' % data, V1).status == 400


# --- binary tensors ---------------------------------------------------------------------------------------------------


def _tensor(kind: str, shape: list[object], size: object) -> dict[str, object]:
    name = {"FP32": "f", "INT64": "i", "FP16": "h", "BOOL": "b", "BYTES": "s"}[kind]
    return {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize("kind", ["FP32", "INT64", "FP16", "BOOL", "BYTES"])
def test_binary_tensors_whose_sizes_lie(target: Target, kind: str) -> None:
    shapes: list[list[object]] = [[], [1], [2, 4], [-1, 4], [0], [2**63, 4], [2**62, 2**62], [1] * 33, [1.5], ["2"], [None]]
    sizes: list[object] = [0, 1, 4, 32, 33, -1, 2**31, 2**64, 10**4000, 1.5, "8", True, None, [8]]
    tensors = (b"", b"\0", b"\xff\xff\xff\xff", b"\x01\0\0\0a" * 2, b"\x04\0\0\0ab", bytes(32))
    sent = 0
    connection = target.server.connect()
    for shape in shapes:
        for size in sizes:
            for data in tensors:
                document = json.dumps({"inputs": [_tensor(kind, shape, size)]}).encode()
                connection.request("POST", INFER, document + data, {"inference-header-content-length": str(len(document))})
                response = connection.getresponse()
                answer = response.read()
                assert response.status == 400, (shape, size, data, answer)  # of a sound one the other inputs are missing
                sent += 1
    connection.close()
    assert sent == 924


@pytest.mark.parametrize(
    "length", ["0", "1", "5000", "99999999999999999999", "-1", "1.5", "", "0x10", "\xb2", "7, 7", "9" * 5000]
)
def test_a_json_length_that_lies(target: Target, length: str) -> None:
    body = json.dumps(REQUEST).encode()
    (status,) = statuses(exchange(target.server, request(INFER, body, f"inference-header-content-length: {length}")))
    assert status == 400


# --- compression ------------------------------------------------------------------------------------------------------

BOMB = gzip.compress(bytes(64 << 20), 9)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", BOMB, 413),
        ("deflate", zlib.compress(bytes(64 << 20), 9), 413),
        ("gzip", gzip.compress(BOMB, 9), 400),
        ("gzip", gzip.compress(b"{}") * 5000, 400),
        ("gzip", BOMB[:-9], 413),
        ("gzip", gzip.compress(b"{}")[:-1], 400),
        ("gzip", gzip.compress(b"{}")[:-8] + bytes(8), 400),
        ("gzip", gzip.compress(b"{}") + b"more", 400),
        ("gzip", b"", 400),
        ("gzip", b"\x1f\x8b", 400),
        ("gzip", b"\x1f\x8b\x08\x04\0\0\0\0\0\0\xff\xff", 400),
        ("gzip", zlib.compress(b"{}"), 400),
        ("deflate", gzip.compress(b"{}"), 400),
        ("deflate", b"\xff" * 100, 400),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), 415),
        ("br", b"{}", 415),
        ("\xff" * 300, b"{}", 415),
        ("gzip\r\ncontent-encoding: deflate", b"{}", 400),
    ],
)
def test_compressed_bodies(target: Target, encoding: str, body: bytes, status: int) -> None:
    for path in (INFER, V1, "/v2/repository/index"):
        assert statuses(exchange(target.server, request(path, body, f"content-encoding: {encoding}"))) == [status]


_GRPC_OK = {0, 3, 5, 8, 12}  # what is the caller's to mend; not UNKNOWN (2), INTERNAL (13), UNAVAILABLE (14)


def _judge(received: bytes) -> None:
    if not received or received.startswith(b"HTTP"):
        assert all(status < 500 for status in statuses(received)), received
        return
    answer = told(received)
    assert all(status < 500 for status in answer.status.values()), received
    assert set(answer.grpc.values()) <= _GRPC_OK, received
    assert frames.INTERNAL_ERROR not in answer.ends, received


# --- changed bytes ----------------------------------------------------------------------------------------------------

_BODY = json.dumps(REQUEST).encode()
_BINARY = {
    "inputs": [
        *({**one, "data": one["data"]} for one in REQUEST["inputs"][:4]),
        {"name": "s", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 12}},
    ]
}
SOUND = [
    request(INFER, _BODY),
    request(V1, json.dumps(INSTANCES).encode(), "accept-encoding: gzip"),
    request(INFER, gzip.compress(_BODY), "content-encoding: gzip"),
    binary(_BINARY, b"\x02\0\0\0hi\x02\0\0\0ho"),
    request(INFER, _BODY).replace(b"content-length: %d" % len(_BODY), b"transfer-encoding: chunked").replace(
        _BODY, b"%x;e=1\r\n%b\r\n0\r\nt: 1\r\n\r\n" % (len(_BODY), _BODY)
    ),
    request("/v2/models/m", method="GET") + request(INFER, _BODY),
    request("/v2/repository/index", b'{"ready":true}'),
]  # fmt: skip
PROBES = ("/v2", "/v2/models/m/ready", "/metrics", "/docs", "/openapi.json", "/v1/models/m")
SOUND += [request(path, method="GET") for path in PROBES]


def test_the_sound_messages_are_sound(target: Target) -> None:
    for message in SOUND:
        assert set(statuses(exchange(target.server, message, statuses))) == {200}, message


@MANY
@given(st.sampled_from(SOUND), st.integers(0, 1 << 62))
def test_changed_messages(target: Target, message: bytes, seed: int) -> None:
    _judge(exchange(target.server, mutate(message, seed)))


@MANY
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(TOKENS), st.sampled_from(SOUND)), min_size=1, max_size=6))
def test_pieces_in_any_order(target: Target, pieces: list[bytes]) -> None:
    _judge(exchange(target.server, b"".join(pieces)))


def test_connections_that_stay_open_are_answered_or_closed(target: Target) -> None:
    messages = [mutate(SOUND[seed % len(SOUND)], seed) or b"x" for seed in range(300)]
    received = answered_or_closed(target.server, messages, SECONDS + 8)
    got = Counter(statuses(one)[0] if not one.startswith(b"\0") and statuses(one) else 0 for one in received)
    assert all(status < 500 for status in got), got
    assert got[400] > 30
    assert got[408] > 3


# --- HTTP/2 and gRPC --------------------------------------------------------------------------------------------------


def message() -> Message:
    """A call with typed contents of each kind."""
    asked = service_pb2.ModelInferRequest(model_name="m", id=SECRET)
    for one in REQUEST["inputs"]:
        if one["name"] == "h":
            continue
        tensor = asked.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        field = {"f": "fp32_contents", "i": "int64_contents", "b": "bool_contents", "s": "bytes_contents"}[one["name"]]
        values = [value.encode() for value in one["data"]] if field == "bytes_contents" else np.ravel(one["data"]).tolist()
        getattr(tensor.contents, field).extend(values)
        tensor.parameters["p"].string_param = SECRET
    asked.parameters["q"].int64_param = 3
    return asked


def raw_message() -> Message:
    """A sound call: the tensors as bytes."""
    asked = service_pb2.ModelInferRequest(model_name="m", id=SECRET)
    kinds = {"FP32": np.float32, "INT64": np.int64, "FP16": np.float16, "BOOL": np.bool_}
    for one in REQUEST["inputs"]:
        asked.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        texts = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in map(str, one["data"]))
        asked.raw_input_contents.append(np.array(one["data"], kinds[one["datatype"]]).tobytes() if one["name"] != "s" else texts)
    return asked


RAW = raw_message().SerializeToString()
CALLS = [RAW, message().SerializeToString(), service_pb2.ModelMetadataRequest(name="m", version="3").SerializeToString()]


def _recursive(levels: int) -> bytes:
    """Messages in messages: an unknown field, where any depth is allowed to be refused and none to be followed."""
    inner = b""
    for _ in range(levels):
        inner = b"\x1a" + _varint(len(inner)) + inner
    return inner


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def _input(**fields: object) -> bytes:
    return service_pb2.ModelInferRequest(
        model_name="m", inputs=[{"name": "f", "datatype": "FP32", **fields}], raw_input_contents=[bytes(16)]
    ).SerializeToString()


BAD_CALLS = {
    "no prefix": call(b"", prefix=b""),
    "half a prefix": call(b"", prefix=b"\0\0"),
    "longer than it is": call(RAW, prefix=b"\0\x7f\xff\xff\xff"),
    "shorter than it is": call(RAW, prefix=b"\0\0\0\0\1"),
    "two messages": call(RAW, prefix=b"\0" + len(RAW).to_bytes(4, "big") + RAW + b"\0" + len(RAW).to_bytes(4, "big")),
    "flag 1 without an encoding": call(RAW, "ModelInfer", b"\1" + len(RAW).to_bytes(4, "big")),
    "flag 2": call(RAW, "ModelInfer", b"\2" + len(RAW).to_bytes(4, "big")),
    "flagged, not gzip": call(RAW, "ModelInfer", b"\1" + len(RAW).to_bytes(4, "big"), (b"grpc-encoding", b"gzip")),
    "a bomb": call(BOMB, "ModelInfer", b"\1" + len(BOMB).to_bytes(4, "big"), (b"grpc-encoding", b"gzip")),
    "an unknown encoding": call(RAW, "ModelInfer", b"\1" + len(RAW).to_bytes(4, "big"), (b"grpc-encoding", b"\xff" * 90)),
    "a timeout that is none": call(RAW, "ModelInfer", None, (b"grpc-timeout", b"999999999H")),
    "a timeout of superscripts": call(RAW, "ModelInfer", None, (b"grpc-timeout", "²S".encode("latin-1"))),
    "no method": call(RAW, "Nothing"),
    "a method of 5000 bytes": call(RAW, "M" * 5000),
    "messages in messages": call(b"\x0a\x01m" + b"\x2a" + _varint(len(_recursive(300))) + _recursive(300)),
    "groups without end": call(b"\x0a\x01m" + b"\x9b\x06" * 10000),
    "a varint without end": call(b"\x0a\x01m" + b"\xff" * 100),
    "a field that is longer than the message": call(b"\x0a\xff\xff\xff\xff\x0f"),
    "a wire type that is none": call(b"\x0f\x0f\x0f"),
    "a name that is not UTF-8": call(b"\x0a\x02\xff\xfe"),
    "another model": call(service_pb2.ModelInferRequest(model_name="n" * 5000).SerializeToString()),
    "100,000 empty inputs": call(b"\x0a\x01m" + b"\x2a\0" * 100000),
    "100,000 empty tensors": call(RAW + b"\x3a\0" * 100000),
    "no inputs": call(b"\x0a\x01m"),
    "an input twice": call(RAW + RAW),
    "shapes below 0": call(_input(shape=[-1, 4])),
    "shapes that overflow": call(_input(shape=[2**62, 4])),
    "1000 dimensions": call(_input(shape=[1] * 1000)),
    "unknown fields": call(b"\x0a\x01m" + b"\xfa\x7f\x04abcd" * 1000),
    "typed and raw": call(service_pb2.ModelInferRequest.FromString(CALLS[1]).SerializeToString() + b"\x3a\0" * 4),
    "another content type": stream("/inference.GRPCInferenceService/ModelInfer", b"{}", (b"content-type", b"application/json")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(target: Target, name: str) -> None:
    answer = told(exchange(target.server, OPENING + BAD_CALLS[name]))
    assert answer.status == {1: 200}
    assert answer.grpc[1] in _GRPC_OK - {0}


def test_sound_calls(target: Target) -> None:
    both = OPENING + call(RAW) + stream(INFER, _BODY, number=3)
    answer = told(exchange(target.server, both, lambda received: len(told(received).status) == 2))
    assert (answer.status, answer.grpc) == ({1: 200, 3: 200}, {1: 0})


@MANY
@given(st.sampled_from([0, 1, 2]), st.integers(0, 1 << 62))
def test_changed_calls(target: Target, which: int, seed: int) -> None:
    changed = mutate(CALLS[which], seed)[: 1 << 19]
    _judge(exchange(target.server, OPENING + call(changed, "ModelMetadata" if which == 2 else "ModelInfer")))


@MANY
@given(st.sampled_from([call(RAW), stream(INFER, _BODY), stream(V1, json.dumps(INSTANCES).encode())]), st.integers(0, 1 << 62))
def test_changed_frames(target: Target, sent: bytes, seed: int) -> None:
    _judge(exchange(target.server, mutate(OPENING + sent, seed)))


_FRAME = st.builds(
    frames.frame, st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, (1 << 31) - 1, 1 << 31]),
    st.binary(max_size=40),
)  # fmt: skip


@MANY
@given(st.lists(st.one_of(_FRAME, st.sampled_from([call(RAW), stream(INFER, _BODY, number=3)])), min_size=1, max_size=8))
def test_any_frames(target: Target, sent: list[bytes]) -> None:
    _judge(exchange(target.server, OPENING + b"".join(sent)))
