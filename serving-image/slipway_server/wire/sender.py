"""The sending side of an HTTP/2 connection: answers as frames, at the pace that the peer's windows and the socket allow."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from slipway_server.exchange import Answer, Request, Work
from slipway_server.wire import Connections, frames, heads
from slipway_server.wire.hpack import EMPTY_TABLE, TABLE_BYTES

STREAM_WINDOW_BYTES = 1 << 20
"""What a caller may send on a stream before we say that we have read it. Bodies are limited by the application, not by this."""
SEND_BYTES = 64 << 10
"""Sent of one answer before the next one has its turn."""
PROGRESS_BYTES = 16 << 10
"""A caller has to take this much of an answer, or the rest of it, within `write_seconds`."""
HELD_PIECES = 128
"""Some 30 answers of a frame at most: then the socket has to take them before more are made."""
_BODYLESS = (204, 304)
_HEAD = frames.HEAD


@dataclass(slots=True, eq=False)
class Stream(Request):
    """A request, and what the connection knows of it."""

    id: int = 0
    length: int = -1
    """The body's declared length, -1 without."""
    limit: int = 0
    """Bytes that the body may have."""
    size: int = 0
    """Bytes of the body that came."""
    credit: int = STREAM_WINDOW_BYTES
    """Bytes of DATA that the caller may send."""
    since: float = 0.0
    """When the caller began to owe us what it owes: the rest of its body, or to take its answer."""
    complete: bool = False
    """The body has arrived, or is to be: no more DATA is due."""
    over: bool = False
    """The application has nothing to do with it any more."""
    work: Work | None = None
    window: int = 0
    """Bytes of DATA that we may send."""
    rest: memoryview | None = None
    """What is not yet sent of the answer's body."""
    taken: int = 0
    trailers: bytes = b""


class Sender:
    """Writes frames: at once, or at the end of a read (`hold`), so that what it completes leaves in one piece."""

    __slots__ = (
        "_connections", "_first_window", "_frame_bytes", "_out", "_prefix", "_transport", "_waiting", "_window",
        "hold", "sent", "stalled", "waiting_bytes",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, connections: Connections) -> None:
        self._transport = transport
        self._connections = connections
        self.sent: Callable[[Stream], None]
        """Told of each stream whose answer has been written whole."""
        self._out: list[bytes | memoryview] = []
        self._first_window = self._window = frames.WINDOW_BYTES
        self._frame_bytes = frames.FRAME_BYTES
        self._prefix = b""
        self._waiting: dict[int, Stream] = {}
        self.waiting_bytes = 0
        """Of answers that wait for the peer."""
        self.hold = False
        self.stalled = False
        """The socket takes no more."""

    def write(self, *pieces: bytes) -> None:
        """Whole frames."""
        self._out.extend(pieces)
        if not self.hold:
            self.flush()

    def flush(self) -> None:
        """Hands what was written to the socket."""
        out = self._out
        if out:
            self._transport.write(b"".join(out))
            out.clear()

    def answer(self, stream: Stream, answer: Answer) -> None:
        """Sends an answer, or as much of it as the caller's windows take now."""
        body = answer.body
        size = len(body)
        block = heads.answer_block(answer.status, answer.content_type, answer.headers)
        trailers = b""
        if answer.trailers:
            trailers = heads.trailers_block(answer.trailers)
        elif answer.status not in _BODYLESS:
            block += heads.length_block(size)
        if not size or stream.method == "HEAD":
            self.headers(stream.id, frames.END_STREAM, block + trailers)  # with trailers: gRPC's Trailers-Only
            self.sent(stream)
        elif size <= self._frame_bytes and size <= self._window and size <= stream.window:
            self._window -= size
            self.headers(stream.id, 0, block)
            self._data(stream.id, body, trailers, last=True)
            self.sent(stream)
        else:
            self.headers(stream.id, 0, block)
            stream.rest = memoryview(body)
            stream.trailers = trailers
            stream.since = self._connections.now
            self.waiting_bytes += size
            self._connections.unsent += size  # held whole until all of it is sent
            self._waiting[stream.id] = stream
            self.resume()
        if not self.hold or len(self._out) > HELD_PIECES:
            self.flush()

    def resume(self) -> None:
        """Sends of the waiting answers, in turns, what the windows and the socket take."""
        sent = True
        while sent and self._waiting and not self.stalled:
            sent = False
            for stream in tuple(self._waiting.values()):
                rest = cast(memoryview, stream.rest)
                size = min(len(rest), stream.window, self._window, self._frame_bytes)
                if size <= 0:
                    continue
                sent = True
                stream.window -= size
                self._window -= size
                self.waiting_bytes -= size
                stream.rest = rest[size:]
                stream.taken += size
                if stream.taken >= PROGRESS_BYTES:
                    stream.taken = 0
                    stream.since = self._connections.now
                last = size == len(rest)
                self._data(stream.id, rest[:size], stream.trailers, last)
                if last:
                    self._connections.unsent -= len(cast(bytes, rest.obj))
                    stream.rest = None
                    del self._waiting[stream.id]
                    self.sent(stream)
                self.flush()
                if self.stalled:
                    break

    def drop(self, stream: Stream) -> None:
        """Forgets what is left of an answer."""
        if stream.rest is not None:
            del self._waiting[stream.id]
            self.waiting_bytes -= len(stream.rest)
            self._connections.unsent -= len(cast(bytes, stream.rest.obj))
            stream.rest = None

    def headers(self, stream_id: int, flags: int, block: bytes) -> None:
        """HEADERS, and CONTINUATION where the block is larger than a frame; written with what comes next."""
        if self._prefix:
            block = self._prefix + block
            self._prefix = b""
        out, most = self._out, frames.FRAME_BYTES
        if len(block) <= most:
            out.append(_HEAD.pack(len(block) << 8 | frames.HEADERS, flags | frames.END_HEADERS, stream_id))
            out.append(block)
            return
        out.append(frames.frame(frames.HEADERS, flags, stream_id, block[:most]))
        for at in range(most, len(block), most):
            ends = frames.END_HEADERS if at + most >= len(block) else 0
            out.append(frames.frame(frames.CONTINUATION, ends, stream_id, block[at : at + most]))

    def _data(self, stream_id: int, data: bytes | memoryview, trailers: bytes, last: bool) -> None:
        """A DATA frame, after the last one the trailers."""
        flags = frames.END_STREAM if last and not trailers else 0
        self._out.append(_HEAD.pack(len(data) << 8 | frames.DATA, flags, stream_id))
        self._out.append(data)
        if last and trailers:
            self.headers(stream_id, frames.END_STREAM, trailers)

    # --- what the peer lets us do -------------------------------------------------------------------------------------

    def begin(self, stream: Stream) -> None:
        """A stream has begun."""
        stream.window = self._first_window

    def widen(self, stream: Stream | None, increment: int) -> bool:
        """The peer's WINDOW_UPDATE, of the connection or of a stream; False: the window is then too large."""
        if stream is None:
            self._window += increment
            return self._window <= frames.LARGEST_WINDOW_BYTES
        stream.window += increment
        return stream.window <= frames.LARGEST_WINDOW_BYTES

    def settle(self, setting: int, value: int, streams: dict[int, Stream]) -> None:
        """One of the peer's SETTINGS. Raises ConnectionFault."""
        if setting == frames.HEADER_TABLE_SIZE and value < TABLE_BYTES:
            self._prefix = EMPTY_TABLE
        elif setting == frames.MAX_FRAME_SIZE:
            self._frame_bytes = min(value, SEND_BYTES)
        elif setting == frames.INITIAL_WINDOW_SIZE:
            for stream in streams.values():
                if not self.widen(stream, value - self._first_window):
                    raise frames.ConnectionFault(frames.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window above 2^31-1")
            self._first_window = value
