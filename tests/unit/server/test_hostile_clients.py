"""Callers that are slow, that leave, that do not read, and that are too many: others are served, and nothing is kept for them."""

import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.unit.server.hostile_support import (
    OPENING,
    REQUEST,
    SECRET,
    Target,
    answered_or_closed,
    request,
    several_types,
    statuses,
    stream,
    told,
    unharmed,
)
from tests.unit.server.support import INFER, Server, loop, serving, wait_until

from slipway_server.wire import frames

MIB = 1 << 20
FOREVER = 1 << 40
"""Iterations that no test waits for."""


def connect(server: Server, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", server.port))
    return connection


def received(connection: socket.socket, until: Callable[[bytes], object]) -> bytes:
    data = b""
    while not until(data):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- slow -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    flags = ("--request-timeout", "1.5", "--max-concurrency", "64", "--max-connections", "2000")
    with serving(tmp_path_factory.mktemp("model"), several_types(), *flags) as server:
        yield Target(server, REQUEST, {"S": [SECRET, "é\n\0"], "F": [1, 2, 3, 4, 5.5, 6, 7, 8]})


BODY = json.dumps(REQUEST).encode()
SLOW = {
    "a head by the byte": (b"", request(INFER, BODY)),
    "a body by the byte": (request(INFER, BODY)[: -len(BODY)], BODY),
    "chunks of a byte": (request(INFER).replace(b"content-length: 0", b"transfer-encoding: chunked"), b"1\r\n{\r\n" * 200),
    "a preface by the byte": (b"", OPENING),
    "a frame by the byte": (OPENING, stream(INFER, BODY)),
    "a stream by the byte": (OPENING + stream(INFER, BODY)[: -len(BODY)], BODY),
}


def test_slow_callers_are_ended_and_others_served(impatient: Target) -> None:
    with unharmed(impatient), ExitStack() as stack:
        waiting: dict[socket.socket, bytes] = {}
        for at_once, slowly in SLOW.values():
            for _ in range(10):
                connection = stack.enter_context(connect(impatient.server))
                connection.sendall(at_once)
                waiting[connection] = slowly
        at = 0

        def send() -> bool:
            nonlocal at
            for connection, slowly in list(waiting.items()):
                try:
                    connection.sendall(slowly[min(at, len(slowly) - 2) :][:1])  # never the last
                except OSError:
                    del waiting[connection]
            at += 1
            impatient.check()
            return not waiting

        wait_until(send, "the end of slow callers")


def test_bodies_that_do_not_come_take_nothing_from_others(tmp_path: Path) -> None:
    flags = ("--max-concurrency", "4", "--max-buffered", str(4 * MIB), "--max-body", str(2 * MIB), "--request-timeout", "60")
    declared = request(INFER).replace(b"content-length: 0", b"content-length: %d" % (2 * MIB))
    streamed = OPENING + stream(INFER, b"x" * MIB, (b"content-length", b"%d" % (2 * MIB)))[: 8 << 10]
    with serving(tmp_path, several_types(), *flags) as server, ExitStack() as stack:
        target = Target(server, REQUEST, {"S": [SECRET, "é\n\0"], "F": [1, 2, 3, 4, 5.5, 6, 7, 8]})
        with unharmed(target):
            held = [stack.enter_context(connect(server)) for _ in range(30)]
            for place, connection in enumerate(held):
                connection.sendall(streamed if place % 2 else declared)
            wait_until(lambda: target.metric("requests_in_flight") == 30, "requests that are being read")
            target.check()
            for count, connection in enumerate(held[:6:2], 1):  # as many as there is room for
                connection.sendall(b" " * (MIB + 1))
                wait_until(lambda count=count: target.metric("buffered_bytes") == count * (MIB + 1), "a body that does come")
            target.check()
            held[6].sendall(b" " * (MIB + 1))
            assert statuses(received(held[6], statuses)) == [429]
            target.check()
            stack.close()


def test_a_thousand_idle_connections(impatient: Target) -> None:
    with unharmed(impatient), ExitStack() as stack:
        for place in range(1000):
            connection = stack.enter_context(connect(impatient.server))
            if place % 2:
                connection.sendall(request("/v2", method="GET"))
                received(connection, statuses)
        impatient.check()
        assert impatient.server.get("/v2/health/live").status == 200


# --- leaving ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One run at a time, of as many iterations as a request says."""
    flags = ("--threads", "1", "--request-timeout", "60")
    with serving(tmp_path_factory.mktemp("model"), loop(), *flags) as server:
        yield Target(server, asked(1), {"y": [0] * 4096})


def asked(iterations: int) -> dict[str, object]:
    return {"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [iterations]}]}


def _http1(iterations: int) -> bytes:
    return request(INFER, json.dumps(asked(iterations)).encode())


def _http2(iterations: int) -> bytes:
    return OPENING + stream(INFER, json.dumps(asked(iterations)).encode())


@pytest.mark.parametrize("sent", [_http1, _http2])
@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_who_leaves_is_not_run(slow: Target, sent: Callable[[int], bytes], leave: Callable[[socket.socket], None]) -> None:
    """Not those who wait, nor the one that runs: after them the model is free, which it never would be else."""
    with unharmed(slow):
        abandoned = slow.metric("requests_abandoned_total")
        callers = [connect(slow.server) for _ in range(5)]
        for number, caller in enumerate(callers, 1):
            caller.sendall(sent(FOREVER))
            wait_until(lambda count=number: slow.metric("requests_in_flight") == count, "a run, and those who wait for it")
        for caller in reversed(callers):  # those who wait first
            leave(caller)
        wait_until(lambda: slow.metric("requests_abandoned_total") == abandoned + 5, "the callers to be missed")
        assert slow.metric("requests_in_flight") == 0
        slow.check()


def test_a_stream_that_is_reset_is_not_run(slow: Target) -> None:
    with unharmed(slow), connect(slow.server) as connection:
        connection.sendall(_http2(FOREVER))
        wait_until(lambda: slow.metric("requests_in_flight") == 1, "a run")
        connection.sendall(b"\0\0\4\3\0\0\0\0\1\0\0\0\x08" + stream(INFER, json.dumps(asked(1)).encode(), number=3))
        assert told(received(connection, lambda data: 3 in told(data).status)).status == {3: 200}


@pytest.mark.parametrize("at", [20, 150, 400])
def test_resets_in_the_middle_of_a_request(impatient: Target, at: int) -> None:
    with unharmed(impatient):
        for _ in range(50):
            connection = connect(impatient.server)
            connection.sendall(request(INFER, BODY)[:at])
            reset(connection)


# --- not reading ------------------------------------------------------------------------------------------------------


GATED = """
import os, time
import numpy as np
class Model:
    inputs = [("n", "INT64", [1])]
    outputs = [("y", "FP32", [-1])]
    def predict(self, inputs):
        while inputs["n"] > 1 and not os.path.exists(os.environ["GATE"]):
            time.sleep(0.005)
        return {"y": np.zeros(inputs["n"], np.float32)}
"""
WIDE = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: (1 << 31) - 1}) + frames.window_update(0, (1 << 30))


@pytest.mark.parametrize("sent", [_http1, _http2])
def test_answers_that_nobody_reads_are_limited(tmp_path: Path, sent: Callable[[int], bytes]) -> None:
    gate = tmp_path / "gate"
    flags = ("--format", "Python", "--max-buffered", str(32 * MIB))
    with serving(tmp_path, GATED.encode(), *flags, name="model.py", GATE=str(gate)) as server, ExitStack() as stack:
        target = Target(server, asked(1), {"y": [0]})
        target.check()
        before = server.memory_bytes()
        for _ in range(100):
            connection = stack.enter_context(connect(server, receive_bytes=4096))
            connection.sendall(sent(MIB).replace(OPENING, WIDE))
        wait_until(lambda: target.metric("requests_in_flight") == 100, "all to be accepted")
        gate.touch()
        wait_until(lambda: target.metric("requests_in_flight") == 0, "the answers to be made")
        assert server.memory_bytes() - before < 140 * MIB  # 100 of 4 MiB would be 400
        refused = server.infer(asked(1))
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert server.get("/v2/health/ready").status == 200
        stack.close()
        wait_until(lambda: server.infer(asked(1)).status == 200, "an answer once they have left")


# --- too many ---------------------------------------------------------------------------------------------------------

GATE = """
import os, time
class Model:
    inputs = [("x", "FP32", [-1])]
    outputs = [("y", "FP32", [-1])]
    row_wise = True
    def predict(self, inputs):
        while inputs["x"].max() > 1 and not os.path.exists(os.environ["GATE"]):
            time.sleep(0.005)
        return {"y": inputs["x"]}
"""


def test_overload_is_shed_early_and_what_is_accepted_is_answered(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    flags = ("--format", "Python", "--max-concurrency", "16", "--max-body", "100000")
    with serving(tmp_path, GATE.encode(), *flags, name="model.py", GATE=str(gate)) as server:
        good = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
        target = Target(server, good, {"y": [1]})
        results: Counter[int] = Counter()
        wrong: list[bytes] = []
        lock = threading.Lock()

        def call(number: int) -> None:
            answer = server.infer({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [number]}]})
            with lock:
                results[answer.status] += 1
                if answer.status == 200 and answer.json["outputs"][0]["data"] != [number]:
                    wrong.append(answer.body)
                if answer.status == 429 and answer.headers.get("retry-after") != "1":
                    wrong.append(answer.body)

        with unharmed(target):
            # None of these keeps its place.
            for ending in (b"", b"x" * 100_001, b"x" * 90_000):
                connection = connect(server)
                connection.sendall(request(INFER).replace(b"content-length: 0", b"transfer-encoding: chunked") + b"186a1\r\n")
                connection.sendall(ending)
                if len(ending) > 90_000:
                    assert statuses(received(connection, statuses)) == [413]
                reset(connection)
            wait_until(lambda: target.metric("requests_in_flight") == 0, "their end")
            threads = [threading.Thread(target=call, args=(number,)) for number in range(2, 50)]
            for thread in threads:
                thread.start()
            wait_until(lambda: results[429] == 32, "refusals while the model is held")
            assert server.get("/v2/health/ready").status == 200
            assert results[200] == 0
            gate.touch()
            for thread in threads:
                thread.join(20)
            assert results == {200: 16, 429: 32}
            assert not wrong
        found = re.search(r'refused_total\{reason="concurrency"\} (\d+)', server.get("/metrics").body.decode())
        assert found
        assert int(found[1]) == 32


def test_bodies_that_come_while_others_run_are_refused(tmp_path: Path) -> None:
    """Eight begin to be read while there is room for two: two are run, in whatever order they come to an end."""
    gate = tmp_path / "gate"
    flags = ("--format", "Python", "--max-concurrency", "2")
    with serving(tmp_path, GATED.encode(), *flags, name="model.py", GATE=str(gate)) as server, ExitStack() as stack:
        target = Target(server, asked(1), {"y": [0]})
        with unharmed(target):
            callers = [stack.enter_context(connect(server)) for _ in range(8)]
            for caller in callers:
                caller.sendall(_http1(2)[:-1])
            wait_until(lambda: target.metric("requests_in_flight") == 8, "requests that are being read")
            for caller in callers:
                caller.sendall(_http1(2)[-1:])
            wait_until(lambda: target.metric("requests_in_flight") == 2, "refusals")
            gate.touch()
            assert sorted(statuses(received(caller, statuses))[0] for caller in callers) == [200] * 2 + [429] * 6
            stack.close()


def test_more_connections_than_allowed_are_told_so(tmp_path: Path) -> None:
    with serving(tmp_path, several_types(), "--max-connections", "8") as server, ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(8)]
        for connection in held:
            connection.sendall(request("/v2", method="GET")[:-2])
        assert {statuses(one)[0] for one in answered_or_closed(server, [request("/v2", method="GET")] * 20, 10)} == {503}
        for connection in held:
            connection.sendall(b"\r\n")
            received(connection, statuses)
        wait_until(lambda: server.get("/v2").status == 200, "the place of an idle one")
