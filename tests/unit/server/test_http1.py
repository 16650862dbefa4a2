"""The HTTP/1.1 wire on real sockets, before an application that answers when it is told to."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.server.support import wait_until

from slipway_server.exchange import Answer, Request, Respond
from slipway_server.wire import Connections, WireConfig, http1, listener
from slipway_server.wire.http1 import Http1Connection
from slipway_server.wire.listener import Listener
from slipway_server.wire.sockets import bind

CONFIG = WireConfig(request_seconds=0.4, idle_seconds=3.0, write_seconds=0.4, connections=50, discard_bytes=100_000)


class Work:
    def __init__(self, app: "Recorder", respond: Respond) -> None:
        self.app = app
        self.respond = respond

    def cancel(self) -> None:
        self.app.cancelled += 1


class Recorder:
    """Answers what it was asked: /now at once, /later when `works` are told, /early by the head, /big with 8 MB."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.works: list[Work] = []
        self.admitted = self.left = self.cancelled = 0
        self.room = 1 << 30

    def admit(self, request: Request) -> Answer | int:
        if request.path == "/early":
            return Answer(404, b"early")
        self.admitted += 1
        return 1000 if request.path == "/small" else 1 << 20

    def grow(self, request: Request, size: int) -> Answer | None:
        return Answer(429, b"no room") if size > self.room else None

    def answer(self, request: Request, respond: Respond) -> Work | None:
        self.asked.append((request.method, request.path, request.query, bytes(request.body)))
        if request.path == "/later":
            work = Work(self, respond)
            self.works.append(work)
            return work
        if request.path == "/big":
            respond(Answer(200, b"x" * (8 << 20)))
        else:
            respond(Answer(200, json.dumps([request.method, request.path, len(request.body)]).encode()))
        return None

    def too_large(self, request: Request) -> Answer:
        return Answer(413, b"too large")

    def too_slow(self, request: Request) -> Answer:
        return Answer(408, b"too slow")

    def refuse(self, status: int, message: str) -> Answer:
        return Answer(status, message.encode())

    def leave(self, request: Request) -> None:
        self.left += 1


class Running:
    """A listener with its event loop in a thread."""

    def __init__(self, config: WireConfig) -> None:
        self.app = Recorder()
        self.listener = Listener(self.app, config)
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: self.defects.append(str(context)))
        self.defects: list[str] = []
        listening = bind("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.listener.start(listening), self.loop).result(5)

    def call(self, what: Callable[..., object], *arguments: object) -> None:
        self.loop.call_soon_threadsafe(what, *arguments)

    def drain(self, seconds: float) -> "asyncio.Future[int]":
        return asyncio.run_coroutine_threadsafe(self.listener.drain(seconds), self.loop)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.listener.cut(), self.loop).result(5)
        self.call(self.loop.stop)
        self.thread.join(5)
        self.loop.close()
        assert not self.defects

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def raw(self, data: bytes) -> bytes:
        """Everything that is answered until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return rest(connection)


def rest(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(1 << 20):
            received += piece
    except ConnectionResetError:
        received += b"<reset>"
    return received


def statuses(received: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


@contextmanager
def running(config: WireConfig = CONFIG) -> Iterator[Running]:
    server = Running(config)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def sweeps_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(http1, "LINGER_SECONDS", 0.3)


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as one:
        yield one


def post(path: str = "/now", body: bytes = b"", *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}"))
    return head.encode() + b"\r\n" + body


CLOSE = "Connection: close"
HEAD = b"POST /now HTTP/1.1\r\nHost: x\r\n"
INSIDE = b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"

SMUGGLED: dict[str, bytes] = {
    "both lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INSIDE,
    "both, the other way": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + INSIDE,
    "length twice": HEAD + b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + INSIDE,
    "length twice, equal": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + INSIDE,
    "length list": HEAD + b"Content-Length: 0, 0\r\n\r\n" + INSIDE,
    "length signed": HEAD + b"Content-Length: +0\r\n\r\n" + INSIDE,
    "length hexadecimal": HEAD + b"Content-Length: 0x0\r\n\r\n" + INSIDE,
    "length with a space inside": HEAD + b"Content-Length: 0 0\r\n\r\n" + INSIDE,
    "length empty": HEAD + b"Content-Length: \r\n\r\n" + INSIDE,
    "length of another script": HEAD + "Content-Length: \u0660\r\n\r\n".encode() + INSIDE,
    "space before the colon": HEAD + b"Content-Length : 0\r\n\r\n" + INSIDE,
    "space before the colon of chunked": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INSIDE,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INSIDE,
    "chunked, then another": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INSIDE,
    "gzip, then chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INSIDE,
    "nearly chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INSIDE,
    "chunked with a tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + INSIDE,
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + INSIDE,
    "folded header": HEAD + b"A: b\r\n Content-Length: 0\r\n\r\n" + INSIDE,
    "folded first header": b"POST /now HTTP/1.1\r\n Host: x\r\n\r\n" + INSIDE,
    "bare line feed in the head": HEAD + b"Content-Length: 0\n\r\n" + INSIDE,
    "bare line feeds": b"POST /now HTTP/1.1\nHost: x\nContent-Length: 0\n\n" + INSIDE,
    "bare carriage return": HEAD + b"A: b\rContent-Length: 0\r\n\r\n" + INSIDE,
    "NUL in a value": HEAD + b"A: b\x00c\r\n\r\n" + INSIDE,
    "NUL in a name": HEAD + b"A\x00: b\r\n\r\n" + INSIDE,
    "header without a colon": HEAD + b"Content-Length\r\n\r\n" + INSIDE,
    "header without a name": HEAD + b": 0\r\n\r\n" + INSIDE,
    "name in brackets": HEAD + b"[A]: 0\r\n\r\n" + INSIDE,
    "chunk size signed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + INSIDE,
    "chunk size with 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + INSIDE,
    "chunk size empty": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n\r\n" + INSIDE,
    "chunk size beyond 64 bits": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + INSIDE,
    "chunk longer than its size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + INSIDE,
    "chunk ended by a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n" + INSIDE,
    "chunk size ended by a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n" + INSIDE,
    "chunk extension with a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n" + INSIDE,
    "version 9": b"GET /now HTTP/9.9\r\nHost: x\r\n\r\n" + INSIDE,
    "version 0.9": b"GET /now\r\n\r\n" + INSIDE,
    "version in lower case": b"GET /now http/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "tab for a space": b"GET\t/now HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "space in the path": b"GET /now now HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "no path": b"GET HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "unknown method": b"FROB /now HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "method in lower case": b"get /now HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "a response": b"HTTP/1.1 200 OK\r\n\r\n" + INSIDE,
    "connect": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "file scheme": b"GET file:///now HTTP/1.1\r\nHost: x\r\n\r\n" + INSIDE,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}


@pytest.fixture(scope="module")
def strict() -> Iterator[Running]:
    with running() as one:
        yield one


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_could_be_read_in_two_ways_is_refused(strict: Running, name: str) -> None:
    strict.app.asked.clear()
    received = strict.raw(SMUGGLED[name])
    assert statuses(received)[-1:] == [400], received
    assert b"connection: close" in received
    assert "/inside" not in [path for _, path, _, _ in strict.app.asked]
    assert statuses(strict.raw(post("/now", b"", CLOSE))) == [200]


def test_an_empty_header_stays_apart_from_the_next(server: Running) -> None:
    assert statuses(server.raw(b"POST /now HTTP/1.1\r\nA:\r\nContent-Length: 3\r\nB: \r\nConnection: close\r\n\r\nabc")) == [200]
    assert server.app.asked == [("POST", "/now", "", b"abc")]


def test_targets(server: Running) -> None:
    for target in ("/a%20b%2Fc?q=%20&r", "http://host:80/a%20b%2Fc?q=%20&r", "HTTPS://host/a%20b%2Fc?q=%20&r"):
        assert statuses(server.raw(post(target, b"", CLOSE))) == [200]
    server.raw(post("http://host", b"", CLOSE))
    server.raw(post("/%ff%zz", b"", CLOSE))
    assert [(path, query) for _, path, query, _ in server.app.asked] == [
        *[("/a b/c", "q=%20&r")] * 3,
        ("/", ""),
        ("/\ufffd%zz", ""),
    ]


def test_head_requests_and_old_versions(server: Running) -> None:
    received = server.raw(b"HEAD /now HTTP/1.1\r\nHost: x\r\n\r\n" + post("/now", b"", CLOSE))
    first, second, body = received.split(b"\r\n\r\n")
    assert first.endswith(b"content-length: %d" % len(b'["HEAD", "/now", 0]'))
    assert (statuses(second), body) == ([200], b'["POST", "/now", 0]')
    for old in (b"GET /now HTTP/1.0\r\n\r\n", b"GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"):
        assert b"connection: close" in server.raw(old + INSIDE)
    assert "/inside" not in [path for _, path, _, _ in server.app.asked]


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_upgrades_are_not_taken_up(server: Running, upgrade: str) -> None:
    offer = (f"Upgrade: {upgrade}", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    streamed = chunked(b"ab", b"cd").replace(CLOSE.encode(), "\r\n".join(offer).encode())
    received = server.raw(post("/now", b"", *offer) + post("/now", INSIDE, *offer) + streamed + post("/now", b"abcde", CLOSE))
    assert statuses(received) == [200, 200, 200, 200]
    assert [body for _, _, _, body in server.app.asked] == [b"", INSIDE, b"abcd", b"abcde"]


def test_answers_keep_the_order_of_requests(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/later", b"1") + post("/now", b"22") + post("/later", b"333") + post("/now", b"4444")[:-2])
        wait_until(lambda: len(server.app.works) == 1, "the first")
        assert len(server.app.asked) == 1  # one at a time
        connection.sendall(post("/now", b"4444")[-2:])
        connection.sendall(post("/now", b"55555", CLOSE))
        server.call(server.app.works[0].respond, Answer(200, b"first"))
        wait_until(lambda: len(server.app.works) == 2, "the third")
        server.call(server.app.works[1].respond, Answer(200, b"third"))
        received = rest(connection)
    bodies = re.findall(rb"\r\n\r\n([^H]*)(?=HTTP|$)", received)
    assert bodies == [b"first", b'["POST", "/now", 2]', b"third", b'["POST", "/now", 4]', b'["POST", "/now", 5]']


def test_many_requests_in_one_read(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/later") + post("/now") * 3000 + post("/now", b"", CLOSE))
        wait_until(lambda: server.app.works, "asked")
        server.call(server.app.works[0].respond, Answer(200, b"first"))
        assert statuses(rest(connection)) == [200] * 3002


def test_continue(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/now", b"abc", "Expect: 100-continue", CLOSE)[:-3])
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert statuses(rest(connection)) == [200]
    # Whether the body follows a refusal nobody can know: what comes is not taken for a request.
    assert statuses(server.raw(post("/early", INSIDE, "Expect: 100-continue"))) == [404]
    assert "/inside" not in [path for _, path, _, _ in server.app.asked]


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n", path: str = "/now") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def test_chunked_bodies(server: Running) -> None:
    text = bytes(range(256)) * 8
    server.raw(chunked(*(text[i : i + 1] for i in range(len(text)))))
    server.raw(chunked(text, b"x" * 300_000, end=b"0;name=value\r\nA: ignored\r\nExpect: 100-continue\r\n\r\n"))
    assert [body for _, _, _, body in server.app.asked] == [text, text + b"x" * 300_000]
    assert statuses(server.raw(chunked(b"x" * 999, b"x", path="/small"))) == [200]
    assert statuses(server.raw(chunked(b"x" * 999, b"xx", path="/small"))) == [413]
    server.app.room = 5000
    assert statuses(server.raw(chunked(b"x" * 5000))) == [200]
    assert statuses(server.raw(chunked(b"x" * 4000, b"x" * 4000))) == [429]
    assert server.app.left == 0  # all were told otherwise


def test_trailers_have_an_end(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(chunked(b"x", end=b"0\r\nA: "))
        for _ in range(40):
            connection.sendall(b"b" * 1000)
            time.sleep(0.001)
        assert statuses(rest(connection)) == [431]
    assert server.app.left == 1


def test_heads_have_an_end(server: Running) -> None:
    lines = "".join(f"A{i}: b\r\n" for i in range(99))
    assert statuses(server.raw(f"GET /now HTTP/1.1\r\n{lines}{CLOSE}\r\n\r\n".encode())) == [200]
    assert statuses(server.raw(f"GET /now HTTP/1.1\r\n{lines}A: b\r\n{CLOSE}\r\n\r\n".encode())) == [431]
    fits = 32768 - len("/now" + "A" + "Connection" + "close") - 8
    for size, status in ((fits, 200), (fits + 1, 431)):
        assert statuses(server.raw(f"GET /now HTTP/1.1\r\nA: {'b' * size}\r\n{CLOSE}\r\n\r\n".encode())) == [status]
    with server.connect() as connection:  # in small pieces, never whole
        connection.sendall(b"GET /now HTTP/1.1\r\nA: ")
        for _ in range(40):
            connection.sendall(b"b" * 1000)
            time.sleep(0.001)
        assert statuses(rest(connection)) == [431]


def test_a_body_that_is_refused_is_dropped(server: Running) -> None:
    refused = post("/early", b"x" * 90_000)
    assert statuses(server.raw(refused + post("/now", b"", CLOSE))) == [404, 200]
    large = server.raw(post("/early", b"x" * 200_000))
    assert statuses(large) == [404]
    assert b"connection: close" in large
    endless = b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2710\r\n%b\r\n" % (b"x" * 10_000) * 30
    assert statuses(server.raw(endless)) == [404]
    assert server.app.admitted == 1


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", []),
        (b"P", []),
        (b"GET /now HTT", [408]),
        (b"GET /now HTTP/1.1\r\nHost: x\r\n", [408]),
        (post("/now", b"abc")[:-1], [408]),
        (chunked(b"abc", end=b""), [408]),
        (post("/early", b"abc")[:-1], [404]),
    ],
)
def test_slow_callers(server: Running, sent: bytes, expected: list[int]) -> None:
    received = server.raw(sent)
    assert statuses(received) == expected
    assert server.app.left == 0
    wait_until(lambda: not server.listener.connections, "closed")


def test_an_idle_connection_is_kept_longer_than_a_slow_one() -> None:
    with running(WireConfig(request_seconds=0.1, idle_seconds=1.0)) as server, server.connect() as connection:
        connection.sendall(post())
        assert statuses(connection.recv(1000)) == [200]
        assert server.raw(b"") == b""  # one that came later, closed for its silence
        connection.sendall(post())
        assert statuses(connection.recv(1000)) == [200]
        assert rest(connection) == b""  # idle_seconds later


def test_a_caller_that_does_not_read_is_cut(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/big") * 20)
        wait_until(lambda: server.app.asked, "asked")
        wait_until(lambda: not server.listener.connections, "cut")
        assert len(server.app.asked) == 1  # no second answer beside the one that is not taken


def test_a_caller_that_reads_slowly_gets_all(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(post("/big") + post("/big", b"", CLOSE))
        received = rest(connection)
    assert received.count(b"x") == 2 * (8 << 20)


@pytest.mark.parametrize("reset", [False, True])
def test_a_caller_that_leaves_ends_the_work(server: Running, reset: bool) -> None:
    with server.connect() as connection, server.connect() as half:
        connection.sendall(post("/later"))
        half.sendall(post("/later", b"abc")[:-1])
        wait_until(lambda: server.app.admitted == 2 and server.app.works, "admitted")
        for one in (connection, half):
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
    wait_until(lambda: (server.app.cancelled, server.app.left) == (1, 1), "ended")
    assert not server.listener.connections


def test_one_connection_too_many() -> None:
    with running(WireConfig(connections=2)) as server, server.connect() as first, server.connect() as second:
        for connection in (first, second):
            connection.sendall(post("/later"))
        wait_until(lambda: len(server.app.works) == 2, "busy")
        received = server.raw(b"")
        assert statuses(received) == [503]
        assert b"more than 2 connections" in received
        first.close()
        wait_until(lambda: len(server.listener.connections) == 1, "closed")
        assert statuses(server.raw(post("/now", b"", CLOSE))) == [200]


def test_a_newcomer_takes_the_place_of_the_connection_that_has_been_idle_longest() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running(WireConfig(connections=3)))
        busy, first, second = (stack.enter_context(server.connect()) for _ in range(3))
        busy.sendall(post("/later"))
        for connection in (second, first, second):
            connection.sendall(post())
            assert statuses(connection.recv(1000)) == [200]
            swept = server.listener.connections.now
            wait_until(lambda swept=swept: server.listener.connections.now > swept, "a sweep")
        assert statuses(server.raw(post("/now", b"", CLOSE))) == [200]
        assert first.recv(1000) == b""
        second.sendall(post())
        assert statuses(second.recv(1000)) == [200]
        assert len(server.app.works) == 1


def test_drain(server: Running) -> None:
    with server.connect() as idle, server.connect() as busy:
        idle.sendall(post())
        assert statuses(idle.recv(1000)) == [200]
        busy.sendall(post("/later"))
        wait_until(lambda: server.app.works, "asked")
        done = server.drain(10)
        wait_until(lambda: server.listener.connections.draining, "draining")
        assert b"connection: close" in server.raw(post())  # accepted still
        idle.sendall(post())
        assert b"connection: close" in rest(idle)
        server.call(server.app.works[0].respond, Answer(200, b"done"))
        assert rest(busy).endswith(b"connection: close\r\ncontent-length: 4\r\n\r\ndone")
        assert done.result(10) == 0
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_a_drain_that_is_over_cuts(server: Running) -> None:
    with server.connect() as busy:
        busy.sendall(post("/later"))
        wait_until(lambda: server.app.works, "asked")
        assert server.drain(0.1).result(5) == 1
        asyncio.run_coroutine_threadsafe(server.listener.cut(), server.loop).result(5)
        assert rest(busy) == b""
        wait_until(lambda: server.app.cancelled == 1, "cancelled")


# --- laws -------------------------------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def answers(pieces: list[bytes]) -> tuple[bytes, Recorder]:
    app, wire = Recorder(), Wire()
    connection = Http1Connection(app, CONFIG, Connections())
    connection.connection_made(wire)
    for piece in pieces:
        if not wire.closed and piece:
            connection.data_received(piece)
    for work in app.works:  # grows while it is gone through
        if not wire.closed:
            work.respond(Answer(200, b"late"))
    connection.connection_lost(None)
    return wire.written, app


messages = st.sampled_from([
    post(), post("/now", b"abc"), post("/later", b"abc"), post("/early", b"abc"), post("/now", b"x" * 5000),
    post("/small", b"x" * 1001), post("/now", b"abc", "Upgrade: h2c", "Connection: upgrade"),
    b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD /now HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n" + post(), post("/now", b"", CLOSE),
    chunked(b"abc", b"defg").replace(b"Connection: close\r\n", b""), post("/now", b"", "Upgrade: h2c", "Connection: upgrade"),
    b"GET /now HTTP/1.0\r\n\r\n", b"bad\r\n\r\n",
])  # fmt: skip


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 6000), max_size=12))
@settings(max_examples=150)
def test_answers_do_not_depend_on_how_the_bytes_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(requests)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    whole, _ = answers([stream])
    cut, app = answers([stream[a:b] for a, b in pairwise(places)])
    assert statuses(cut) == statuses(whole)
    assert app.admitted >= len(app.asked)


@given(messages, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.binary(max_size=40))
@settings(max_examples=200)
def test_whatever_is_sent_is_answered_or_refused(message: bytes, changes: list[tuple[int, int]], more: bytes) -> None:
    changed = bytearray(message)
    for place, value in changes:
        changed[place % len(changed)] = value
    written, app = answers([bytes(changed) + more])
    assert set(statuses(written)) <= {200, 400, 404, 413, 431}
    assert app.cancelled == 0
