"""What one request, or many at once, may take; metrics that tell of it, and logs that tell nothing of a payload."""

import gzip
import http.client
import json
import re
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.server.support import INFER, Server, TensorProto, classifier, helper, loop, model, serving, wait_until


def body(*values: float) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": [len(values) // 4, 4], "datatype": "FP32", "data": values}]}).encode()


def trips(n: int) -> bytes:
    return json.dumps({"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [n]}]}).encode()


_LABELS = ("protocol", "code", "class", "reason", "le")


def metrics(server: Server) -> dict[str, float]:
    families = text_string_to_metric_families(server.get("/metrics").body.decode())
    return {
        "/".join((sample.name.removeprefix("slipway_server_"), *(v for k, v in sample.labels.items() if k in _LABELS))):
        sample.value for family in families for sample in family.samples
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-body", "50000", "--request-timeout", "1")
    with serving(tmp_path_factory.mktemp("limits"), classifier(), *flags) as running:
        yield running


def test_body_limit(server: Server) -> None:
    good = body(1, 2, 3, 4)
    assert server.infer(good + b" " * (50_000 - len(good))).status == 200
    for size in (50_001, 150_000, 300_000):
        answer = server.infer(good + b" " * (size - len(good)))
        assert answer.status == 413
        assert f"{size} bytes, the limit is 50000" in answer.json["error"]


def test_body_limit_without_a_length(server: Server) -> None:
    connection = server.connect()
    pieces = iter([b" " * 10_000] * 4)
    connection.request("POST", INFER, iter([*pieces, body(1, 2, 3, 4)]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection = server.connect()
    connection.request("POST", INFER, iter([b" " * 10_000] * 6), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"more than 50000" in answer.read()


def test_the_connection_survives_a_body_too_large(server: Server) -> None:
    connection = server.connect()
    for content, status in ((b" " * 100_000, 413), (body(1, 2, 3, 4), 200)):
        connection.request("POST", INFER, content)
        response = connection.getresponse()
        response.read()
        assert response.status == status


def test_expect_continue(server: Server) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: "
    refused = server.raw(f"{head}60000\r\n\r\n".encode())
    assert refused.startswith(b"HTTP/1.1 413")  # before the body was sent
    good = body(1, 2, 3, 4)
    assert server.raw(f"{head}{len(good)}\r\n\r\n".encode() + good).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


RAW: dict[str, tuple[bytes, bytes]] = {
    "rubbish": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"400"),
    "not http": (b"hello\r\n\r\n", b"400"),
    "length twice": (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
    "length and chunked": (
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400",
    ),
    "length negative": (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
    "length not a number": (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400"),
    "length beyond 64 bits": (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", b"400"),
    "chunk size": (b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % INFER.encode(), b"400"),
    "authority form": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"40"),
    "path not ascii": (b"GET /v2\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"40"),
    "long head": (b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100_000, b"431"),
    "long header": (b"GET /v2 HTTP/1.1\r\nHost: x\r\na: " + b"b" * 1_000_000, b"431"),
    "long path": (b"GET /" + b"a" * 1_000_000, b"431"),
    "head that does not end": (b"GET /v2 HTTP/1.1\r\nHost: x\r\n", b"408"),
    "body that does not come": (b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc" % INFER.encode(), b"408"),
    "silence": (b"", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_raw(server: Server, name: str) -> None:
    data, status = RAW[name]
    try:
        answer = server.raw(data)
    except ConnectionError:  # closed while we still sent: the answer may be lost, not the server
        assert "long" in name
    else:
        assert answer[:12].endswith(status) or answer[9:12].startswith(status), answer[:200]
    assert server.infer(body(1, 2, 3, 4)).status == 200


def test_a_caller_that_leaves_frees_its_place(server: Server) -> None:
    before = metrics(server)["requests_abandoned_total"]
    connection = server.connect()
    connection.putrequest("POST", INFER)
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    wait_until(lambda: metrics(server)["requests_in_flight"] == 1, "in flight")
    connection.close()
    wait_until(lambda: metrics(server)["requests_in_flight"] == 0, "freed")
    assert metrics(server)["requests_abandoned_total"] == before + 1


def test_many_bad_bodies_leave_nothing_behind(server: Server) -> None:
    def batch() -> None:
        connection = server.connect()
        for _ in range(300):
            connection.request("POST", INFER, b'{"inputs":[' + b"[" * 30_000)
            assert connection.getresponse().read()
        connection.close()

    batch()
    before = server.memory_bytes()
    batch()
    batch()
    assert server.memory_bytes() - before < 8 << 20


def test_metrics(server: Server) -> None:
    before = metrics(server)
    assert server.infer(body(1, 2, 3, 4)).status == 200
    assert server.infer(b"{}").status == 400
    after = metrics(server)
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name] and "bucket" not in name}
    seconds = changed.pop("request_duration_seconds_sum")
    assert 0 < seconds < 10
    assert changed.pop("process_cpu_seconds_total", 0) >= 0
    assert changed.pop("queue_duration_seconds_sum", 0) >= 0
    assert {name for name in changed if "process" in name} <= {"process_resident_memory_bytes"}
    changed.pop("process_resident_memory_bytes", None)
    assert changed == {
        "requests_total/rest/2xx": 1,
        "requests_total/rest/4xx": 1,
        "errors_total/rest/invalid": 1,
        "request_duration_seconds_count": 2,
        "batch_requests_count": 1,
        "batch_requests_sum": 1,
        "batch_rows_total": 1,
        "queue_duration_seconds_count": 1,
    }
    assert after["workers"] == 1
    assert abs(after["process_resident_memory_bytes"] / server.memory_bytes() - 1) < 0.1
    assert 0 < time.time() - after["process_start_time_seconds"] < 600
    assert after["request_duration_seconds_bucket/+Inf"] == after["request_duration_seconds_count"]
    assert after["model_load_seconds"] > 0
    info = re.search(r"model_info\{(.*)\} 1", server.get("/metrics").body.decode())
    assert info
    assert info[1] == 'model="m",version="3",revision="m-7f9c",format="ONNX",sha256=""'


def test_slow_models_are_cut_off_and_probes_go_on(server: Server, tmp_path: Path) -> None:
    with serving(tmp_path, loop(), "--request-timeout", "0.5", "--threads", "1") as slow:
        assert slow.infer(trips(1)).status == 200
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(slow.infer(trips(200_000)).status))
        thread.start()
        wait_until(lambda: metrics(slow)["requests_in_flight"] == 1, "in flight")
        for _ in range(5):
            assert slow.get("/v2/health/ready").status == 200
        assert thread.is_alive()  # the probes did not wait for it
        thread.join(20)
        assert results == [504]
        assert slow.infer(trips(1)).status == 200  # its only thread is free again


def test_a_model_that_was_quick_until_now_is_taken_off_the_loop(tmp_path: Path) -> None:
    """How long a loop in a model takes is in the values, not in their number: nothing can be known before."""
    with serving(tmp_path, loop(), "--request-timeout", "4", "--threads", "1") as server:
        for _ in range(100):
            assert server.infer(trips(1)).status == 200
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(server.infer(trips(10**9)).status))
        thread.start()
        wait_until(lambda: metrics(server)["requests_in_flight"] == 1, "in flight", 3)
        while thread.is_alive():
            connection = server.connect(timeout=2)
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().status == 200
        assert results == [504]


def test_too_many_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, loop(), "--max-concurrency", "2", "--threads", "1") as slow:
        threads = [threading.Thread(target=slow.infer, args=(trips(100_000),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: metrics(slow)["requests_in_flight"] == 2, "in flight")
        refused = slow.infer(trips(1))
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "more than 2 requests at once" in refused.json["error"]
        for thread in threads:
            thread.join(30)
        assert slow.infer(trips(1)).status == 200
        counted = metrics(slow)
        assert counted["requests_total/rest/4xx"] == counted["errors_total/rest/overload"] == 1
        assert counted["requests_refused_total/concurrency"] == 1


def test_bodies_held_together(tmp_path: Path) -> None:
    with serving(tmp_path, classifier(), "--max-body", "60000", "--max-buffered", "100000") as server:
        held = server.connect()
        held.putrequest("POST", INFER)
        held.putheader("Content-Length", "60000")
        held.endheaders(b"{")
        wait_until(lambda: metrics(server)["buffered_bytes"] == 60_000, "held")
        refused = server.infer(b" " * 50_000)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "100000 bytes" in refused.json["error"]
        connection = server.connect()
        connection.request("POST", INFER, iter([b" " * 10_000] * 5), encode_chunked=True)
        assert connection.getresponse().status == 429
        assert metrics(server)["requests_refused_total/buffered"] == 2
        assert server.infer(b" " * 40_000).status == 400
        held.close()
        wait_until(lambda: metrics(server)["buffered_bytes"] == 0, "let go")
        assert metrics(server)["requests_in_flight"] == 0
        assert server.infer(b" " * 50_000).status == 400


def test_compressed_requests_and_answers(server: Server) -> None:
    good = body(1, 2, 3, 4)
    for encoding, packed in (("gzip", gzip.compress(good)), ("deflate", zlib.compress(good))):
        assert server.infer(packed, **{"Content-Encoding": encoding}).json == server.infer(good).json
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 50_000
    assert server.infer(bomb, **{"Content-Encoding": "gzip"}).status == 413
    assert server.infer(good, **{"Content-Encoding": "gzip"}).status == 400
    large = body(*[1.5] * 2000)
    plain = server.infer(large)
    packed = server.infer(large, **{"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 10
    assert gzip.decompress(packed.body) == plain.body


def test_a_large_batch_does_not_hold_up_probes(tmp_path: Path) -> None:
    """A model that is quick on one row is not run in place on a hundred thousand."""
    content = model(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceMax", ["h"], ["y"], keepdims=0)],
        {"x": (TensorProto.FLOAT, ["N", 4])},
        {"y": (TensorProto.FLOAT, [])},
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 2000], [0.5] * 8000)],
    )
    with serving(tmp_path, content, "--threads", "1") as server:
        for _ in range(100):
            assert server.infer(body(1, 2, 3, 4)).status == 200
        thread = threading.Thread(target=server.infer, args=(body(*[1] * 400_000),))
        thread.start()
        while thread.is_alive():
            connection = server.connect(timeout=1)
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().status == 200


def test_models_refusal_and_failure(tmp_path: Path) -> None:
    content = model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": (TensorProto.INT64, ["N"])},
        {"y": (TensorProto.FLOAT, ["N"])},
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [1, 2, 3])],
    )
    with serving(tmp_path, content, SLIPWAY_LOG_FORMAT="json") as server:
        secret = 987654321
        request = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [secret]}]}
        answer = server.infer(request)
        assert answer.status == 400
        assert "the model refuses these values" in answer.json["error"]
        assert server.stop() == 0
        log = server.log.read_text()
        assert str(secret) not in log  # no payload in logs
        told = [json.loads(line)["message"] for line in log.splitlines()]
        assert [told[0], *told[-3:]] == ["listening", "ready", "draining", "stopped"]


def test_pipelined_requests(server: Server) -> None:
    one = body(1, 2, 3, 4)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(one)}\r\n"
    answers = server.raw((f"{head}\r\n".encode() + one) * 3 + f"{head}Connection: close\r\n\r\n".encode() + one)
    assert answers.count(b"HTTP/1.1 200 OK") == 4


def test_http_1_0(server: Server) -> None:
    answer = server.raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer


def test_client_library_reuses_the_connection(server: Server) -> None:
    connection: http.client.HTTPConnection = server.connect()
    connection.connect()
    local = connection.sock.getsockname()
    for _ in range(5):
        connection.request("POST", INFER, body(1, 2, 3, 4))
        assert connection.getresponse().read()
        assert connection.sock.getsockname() == local
