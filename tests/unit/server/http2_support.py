"""A server of HTTP/2 in a thread with an application of the tests' own, and a peer that sends it any frames."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop
from tests.unit.server.support import wait_until

from slipway_server.exchange import Answer, Request, Respond
from slipway_server.wire import WireConfig, frames, listener
from slipway_server.wire.hpack import Decoder, Field, encode
from slipway_server.wire.sockets import bind

T = TypeVar("T")
GRPC = ((b"grpc-status", b"0"),)


@dataclass
class Echo:
    """Answers with the request's body, but for some paths: `/later` when told to, `/big/N` with N bytes, `/deny` at once."""

    limit: int = 8 << 20
    most_growth: int = 1 << 40
    events: list[str] = field(default_factory=list)
    waiting: list[Respond] = field(default_factory=list)
    held: int = 0
    seen: Request | None = None

    def admit(self, request: Request) -> Answer | int:
        self.seen = request
        if request.path == "/deny":
            return Answer(429, b"denied")
        self.held += 1
        return self.limit

    def grow(self, request: Request, size: int) -> Answer | None:
        return None if size <= self.most_growth else self._over("grow", Answer(503, b"too much"))

    def answer(self, request: Request, respond: Respond) -> "Echo._Work | None":
        if request.path == "/later":
            self.waiting.append(respond)
            return Echo._Work(self)
        self.held -= 1
        body = bytes(request.body) if request.method == "POST" else b"ok"
        if request.path.startswith("/big/"):
            body = b"x" * int(request.path[5:])
        if request.path.startswith("/error/"):
            message = b"m" * int(request.path[7:])
            respond(Answer(200, b"", b"application/grpc", trailers=((b"grpc-status", b"3"), (b"grpc-message", message))))
        elif request.path.startswith("/test.Echo/"):
            respond(Answer(200, body, b"application/grpc", trailers=GRPC))
        else:
            respond(Answer(204 if request.path == "/none" else 200, body, close=request.path == "/close"))
        return None

    def too_large(self, request: Request) -> Answer:
        return self._over("too_large", Answer(413, b"too large"))

    def too_slow(self, request: Request) -> Answer:
        return self._over("too_slow", Answer(408, b"too slow"))

    def refuse(self, status: int, message: str) -> Answer:
        return Answer(status, message.encode())

    def leave(self, request: Request) -> None:
        self._over("leave", None)

    def _over(self, event: str, answer: T) -> T:
        self.held -= 1
        self.events.append(event)
        return answer

    @dataclass
    class _Work:
        app: "Echo"

        def cancel(self) -> None:
            self.app._over("cancel", None)


@dataclass
class Running:
    app: Echo
    port: int
    listener: listener.Listener
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function on the server's loop."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        wait_until(lambda: self.call(condition), what)

    def drain(self, seconds: float) -> int:
        return asyncio.run_coroutine_threadsafe(self.listener.drain(seconds), self.loop).result(20)

    @contextmanager
    def peer(self, **settings: int) -> Iterator["Peer"]:
        peer = Peer(self.port)
        with peer.socket:
            peer.greet({int(name[1:]): value for name, value in settings.items()})
            yield peer


@contextmanager
def running(config: WireConfig | None = None, **options: int) -> Iterator[Running]:
    """A server of `Echo(**options)` in a thread of its own."""
    started = threading.Event()
    found: list[Running] = []
    stop = asyncio.Event()

    async def serve() -> None:
        app = Echo(**options)
        server = listener.Listener(app, config or WireConfig())
        listening = bind("127.0.0.1", 0)
        await server.start(listening)
        found.append(Running(app, listening.getsockname()[1], server, asyncio.get_running_loop()))
        started.set()
        await stop.wait()
        await server.cut()

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[4 * (self.kind == frames.GOAWAY) :][:4], "big")


@dataclass
class Reply:
    """What came on a stream until its end."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None
    sizes: list[int] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.headers[b":status"])


class Peer:
    """A connection to the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.decoder = Decoder()
        self._received = b""
        self.frames: list[Frame] = []

    def greet(self, settings: dict[int, int]) -> None:
        self.send(frames.PREFACE, frames.settings(settings))

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while len(self._received) < 9 or len(self._received) < 9 + int.from_bytes(self._received[:3], "big"):
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                more = b""
            if not more:
                assert not self._received
                return None
            self._received += more
        word, flags, stream = frames.HEAD.unpack_from(self._received)
        after = 9 + (word >> 8)
        payload, self._received = self._received[9:after], self._received[after:]
        self.frames.append(Frame(word & 0xFF, flags, stream, payload))
        return self.frames[-1]

    def expect(self, *kinds: int) -> Frame:
        """The next frame of these kinds; others are passed over."""
        while (frame := self.frame()) is not None:
            if frame.kind in kinds:
                return frame
        raise AssertionError(f"the connection ended without a frame of {kinds}: {self.frames}")

    def reply(self, stream: int) -> Reply:
        """All of a stream's answer."""
        reply = Reply()
        block = b""
        last = False
        while not reply.ended and reply.reset is None:
            frame = self.expect(frames.HEADERS, frames.CONTINUATION, frames.DATA, frames.RST_STREAM, frames.GOAWAY)
            assert frame.kind != frames.GOAWAY or frame.code == 0, frame
            if frame.stream != stream:
                continue
            if frame.kind == frames.RST_STREAM:
                reply.reset = frame.code
            elif frame.kind == frames.DATA:
                reply.body += frame.payload
                reply.sizes.append(len(frame.payload))
                reply.ended = bool(frame.flags & frames.END_STREAM)
            else:
                block += frame.payload
                last = last or bool(frame.kind == frames.HEADERS and frame.flags & frames.END_STREAM)
                if frame.flags & frames.END_HEADERS:
                    fields = self.decoder.decode(block, 1 << 20, 100)
                    assert fields is not None
                    (reply.trailers if reply.headers else reply.headers).update(fields)
                    block = b""
                    reply.ended = last
        return reply

    def ping(self) -> list[Frame]:
        """All frames up to the answer to a PING: what the server had to say to what was sent before."""
        begun = len(self.frames)
        self.send(frames.frame(frames.PING, 0, 0, b"01234567"))
        while True:
            frame = self.expect(frames.PING)
            if frame.flags & frames.ACK:
                return self.frames[begun:]

    def closed(self) -> bool:
        """Reads to the end of the connection."""
        while self.frame() is not None:
            pass
        return True


def block(*extra: Field, method: str = "POST", path: str = "/echo", drop: bytes = b"-") -> bytes:
    """A request's header block."""
    fields = [(b":method", method.encode()), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"a"), *extra]
    return encode([field for field in fields if field[0] != drop])


def headers(stream: int, *extra: Field, end: bool = False, **options: Any) -> bytes:
    """HEADERS of a request."""
    flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
    return frames.frame(frames.HEADERS, flags, stream, block(*extra, **options))


def data(stream: int, payload: bytes = b"", end: bool = True) -> bytes:
    """A body or a piece of it, in frames of 16 KiB."""
    pieces = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
    last = len(pieces) - 1
    return b"".join(
        frames.frame(frames.DATA, frames.END_STREAM if end and at == last else 0, stream, piece)
        for at, piece in enumerate(pieces)
    )
