"""The streams of an HTTP/2 connection: from header blocks and DATA to requests, and what becomes of each."""

from functools import partial
from typing import Protocol

from slipway_server.exchange import RESERVED_BYTES, Answer, Application
from slipway_server.wire import Connections, WireConfig, frames
from slipway_server.wire.frames import ConnectionFault
from slipway_server.wire.heads import HeadReader, MalformedError
from slipway_server.wire.hpack import encode
from slipway_server.wire.sender import STREAM_WINDOW_BYTES, Sender, Stream

WAITING_BYTES = 64 << 20
"""Answers that wait for the caller's windows; with more, new streams are refused (REFUSED_STREAM: not begun, may be retried)."""
IGNORED_STREAMS = 1024
"""Streams ended by us whose callers may not know it yet, so that what they still send is no fault."""
_CONTINUE = encode([(b":status", b"100")])


class Owner(Protocol):
    """The connection."""

    def emptied(self) -> None:
        """The last stream has ended."""
        ...

    def shutdown(self) -> None:
        """An answer wants the connection to end."""
        ...


class Streams:
    """The streams of one connection. Methods that read what the peer sent raise ConnectionFault and HpackError."""

    __slots__ = (
        "_answers", "_app", "_budget", "_config", "_connections", "_heads", "_ignored", "_owner", "_sender", "closed", "last_id",
        "open",
    )  # fmt: skip

    def __init__(self, app: Application, config: WireConfig, connections: Connections, sender: Sender, owner: Owner) -> None:
        self._app = app
        self._config = config
        self._connections = connections
        self._sender = sender
        self._owner = owner
        sender.sent = self._sent
        self._heads = HeadReader(config.head_bytes, config.header_count)
        self._ignored: dict[int, None] = {}
        self._answers = 0
        self._budget = frames.Budget(connections.now)
        self.open: dict[int, Stream] = {}
        self.last_id = 0
        """The last that the peer began."""
        self.closed = False
        """No more are taken."""

    # --- what the peer sends ------------------------------------------------------------------------------------------

    def block(self, stream_id: int, ended: int, block: bytes) -> None:
        """A whole header block: a request's head, its trailers, or what belongs to a stream that is no more."""
        if stream_id <= self.last_id:
            self._trailers(stream_id, ended, block)
            return
        self.last_id = stream_id
        try:
            head = self._heads.request(block)
        except MalformedError:
            self._refuse_stream(stream_id, ended, frames.PROTOCOL_ERROR)
            return
        if head is not None and ended and head.length > 0:
            self._refuse_stream(stream_id, ended, frames.PROTOCOL_ERROR)
            return
        if len(self.open) >= self._config.streams or self._sender.waiting_bytes > WAITING_BYTES or self.closed:
            self._refuse_stream(stream_id, ended, frames.REFUSED_STREAM)
            return
        stream = Stream(head.method, head.path, head.query, head.headers.copy(), True) if head else Stream("", "", "", [], True)
        stream.id = stream_id
        stream.since = self._connections.now
        stream.complete = bool(ended)
        self._sender.begin(stream)
        self.open[stream_id] = stream
        self._connections.requests += 1
        if head is None:
            most = f"{self._config.head_bytes} bytes or {self._config.header_count} in number"
            self._refuse(stream, self._app.refuse(431, f"the request's headers are more than {most}"))
            return
        stream.length = head.length
        verdict = self._app.admit(stream)
        if isinstance(verdict, Answer):
            self._refuse(stream, verdict)
            return
        stream.limit = verdict
        if ended:
            self._begin(stream)
        elif head.expects:
            self._sender.headers(stream_id, 0, _CONTINUE)

    def _trailers(self, stream_id: int, ended: int, block: bytes) -> None:
        sound = self._heads.trailers(block)
        stream = self.open.get(stream_id)
        if stream is None:
            if stream_id not in self._ignored:
                raise ConnectionFault(frames.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which has ended")
            if ended:
                del self._ignored[stream_id]
        elif stream.complete:
            self.fault(stream, frames.STREAM_CLOSED)
        elif not ended or not sound or stream.length not in (-1, stream.size):
            self.fault(stream, frames.PROTOCOL_ERROR)
        elif stream.over:
            self._discard(stream, ended)
        else:
            self._begin(stream)

    def data(self, stream_id: int, ended: int, length: int, piece: bytes) -> None:
        """A piece of a body that came in DATA of `length` bytes with its padding."""
        stream = self.open.get(stream_id)
        if stream is None:
            self._stray_data(stream_id, ended)
            return
        stream.credit -= length
        size = stream.size = stream.size + len(piece)
        if stream.complete:
            self.fault(stream, frames.STREAM_CLOSED)
        elif stream.credit < 0:
            self.fault(stream, frames.FLOW_CONTROL_ERROR)
        elif stream.length >= 0 and (size > stream.length or (ended and size != stream.length)):
            self.fault(stream, frames.PROTOCOL_ERROR)
        elif stream.over:
            self._discard(stream, ended)
        elif size > stream.limit:
            stream.complete = bool(ended)
            self._refuse(stream, self._app.too_large(stream))
        else:
            if not stream.body:
                stream.body = piece
            else:
                if isinstance(stream.body, bytes):
                    stream.body = bytearray(stream.body)
                stream.body += piece
            if ended:
                self._begin(stream)
            else:
                self._grow(stream, len(piece))

    def _stray_data(self, stream_id: int, ended: int) -> None:
        if stream_id not in self._ignored:
            self.check_begun("DATA", stream_id)
            raise ConnectionFault(frames.STREAM_CLOSED, f"DATA on stream {stream_id}, which has ended")
        if ended:
            del self._ignored[stream_id]

    def reset(self, stream_id: int) -> None:
        """The caller wants no answer."""
        self.check_begun("RST_STREAM", stream_id)
        stream = self.open.get(stream_id)
        if stream is None or stream.since == self._connections.now:  # others have waited: no flood, a deadline
            self.spend()
        if stream is not None:
            self._forget(stream)

    def check_begun(self, name: str, stream_id: int) -> None:
        """Raises ConnectionFault if a frame of this name can have no business on the stream yet."""
        if stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"{name} on stream {stream_id}, which was never begun")

    def spend(self) -> None:
        """Counts a frame that asks for nothing, or takes back what it asked. Raises ConnectionFault."""
        self._budget.spend(self._connections.now, self._answers)

    def fault(self, stream: Stream, code: int) -> None:
        """Ends a stream whose caller broke its rules."""
        self.spend()
        self._cut(stream, code)

    def _refuse_stream(self, stream_id: int, ended: int, code: int) -> None:
        """Ends a stream before it has begun."""
        self.spend()
        if not ended:
            self._ignore(stream_id)
        self._sender.write(frames.reset(stream_id, code))

    # --- what becomes of a request ------------------------------------------------------------------------------------

    def _grow(self, stream: Stream, size: int) -> None:
        """A piece of `size` bytes has come, not the last: that is at most a frame, and not worth a call for each small body."""
        if not size:
            self.spend()
        if stream.length < 0 or stream.size > RESERVED_BYTES:
            answer = self._app.grow(stream, stream.size)
            if answer is not None:
                self._refuse(stream, answer)
                return
        if stream.credit < STREAM_WINDOW_BYTES >> 1:
            self._sender.write(frames.window_update(stream.id, STREAM_WINDOW_BYTES - stream.credit))
            stream.credit = STREAM_WINDOW_BYTES

    def _begin(self, stream: Stream) -> None:
        """The request is whole."""
        stream.complete = True
        work = self._app.answer(stream, partial(self._respond, stream))
        if not stream.over:
            stream.work = work

    def _respond(self, stream: Stream, answer: Answer) -> None:
        """What the application calls. Nobody may be there to hear it: a request is also over when its caller has left."""
        if not stream.over:
            stream.over = True
            stream.work = None
            self._sender.answer(stream, answer)
            if answer.close:
                self._owner.shutdown()

    def _refuse(self, stream: Stream, answer: Answer) -> None:
        """Answers a request that the application has done with, or never had."""
        stream.body = b""
        self._respond(stream, answer)

    def _sent(self, stream: Stream) -> None:
        """An answer has been written whole."""
        self._answers += 1
        self._end_if_read(stream)

    def _discard(self, stream: Stream, ended: int) -> None:
        """More of a body whose request is answered: read up to a point, so that the caller gets to see the answer."""
        stream.complete = bool(ended)
        if stream.rest is None:
            self._end_if_read(stream)

    def _end_if_read(self, stream: Stream) -> None:
        """Ends a stream whose answer is sent if its body has come, or too much of that is left."""
        if stream.complete:
            del self.open[stream.id]
            if not self.open:
                self._owner.emptied()
        elif stream.size >= min(self._config.discard_bytes, STREAM_WINDOW_BYTES):
            self._cut(stream, frames.NO_ERROR)

    def _cut(self, stream: Stream, code: int) -> None:
        """Ends a stream before its time."""
        if not stream.complete:
            self._ignore(stream.id)
        self._sender.write(frames.reset(stream.id, code))
        self._forget(stream)

    def _ignore(self, stream_id: int) -> None:
        self._ignored[stream_id] = None
        if len(self._ignored) > IGNORED_STREAMS:
            del self._ignored[next(iter(self._ignored))]

    def _forget(self, stream: Stream) -> None:
        """Frees what a stream holds, here and in the application."""
        del self.open[stream.id]
        self._sender.drop(stream)
        over, stream.over = stream.over, True
        if stream.work is not None:
            stream.work.cancel()
            stream.work = None
        elif not over and not stream.complete:
            self._app.leave(stream)
        if not self.open:
            self._owner.emptied()

    def sweep(self, now: float) -> None:
        """Ends the streams whose callers owe us something for too long."""
        for stream in list(self.open.values()):
            waited = now - stream.since
            if stream.rest is not None:
                if waited > self._config.write_seconds:
                    self._cut(stream, frames.CANCEL)
            elif not stream.complete and waited > self._config.request_seconds:
                if not stream.over:
                    self._refuse(stream, self._app.too_slow(stream))
                if stream.rest is None and stream.id in self.open:
                    self._cut(stream, frames.NO_ERROR)

    def end(self) -> None:
        """The connection is no more."""
        self.closed = True
        for stream in list(self.open.values()):
            self._forget(stream)
