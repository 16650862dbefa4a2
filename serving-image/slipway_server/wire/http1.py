"""HTTP/1.1 connections, on httptools' parser: from bytes to Application and back, without a task or a future between.

One request of a connection is answered at a time, in order. What a caller sends ahead of its answer (pipelining) waits:
parsed if it came in the same read, unparsed otherwise, with reading paused; so at most two reads are ever held.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import cast

import httptools

from slipway_server.exchange import RESERVED_BYTES, Answer, Application, Request, Work
from slipway_server.wire import Connections, WireConfig
from slipway_server.wire.http1_heads import HEADS, METHODS, length_of, make_head, target_of

LINGER_SECONDS = 2.0
"""A caller that still sends when we have said all has this long to read it: a reset could destroy the answer."""
_COPIED_BYTES = 1 << 14  # a body up to this is joined to its head: one write costs less than the copy
_SPECIAL = frozenset((b"connection", b"expect", b"transfer-encoding", b"upgrade"))
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _OverError(Exception):
    """Thrown through the parser to stop it: nothing more of this connection is read."""


@dataclass(slots=True)
class _Message(Request):
    """A request, and what the connection knows of it."""

    keep_alive: bool = True
    expects: bool = False
    chunked: bool = False
    offered: bool = False
    """It offers an upgrade and has a body, which the parser leaves to the other protocol: see _read_body."""
    limit: int = 0
    """Bytes that the body may have; once the request is over, of the rest of it that is read and dropped."""
    size: int = 0
    complete: bool = False
    over: bool = False
    """Answered before its body had arrived."""


class Http1Connection(asyncio.Protocol):
    """One connection; it enters itself in `connections` while it is open."""

    __slots__ = (
        "_ahead", "_answer_bytes", "_app", "_chunked", "_config", "_connections", "_current", "_ended", "_expects", "_fresh",
        "_head_bytes", "_headers", "_in_head", "_incoming", "_last", "_parser", "_queue", "_read_bytes", "_refusal",
        "_replaying", "_resuming", "_served", "_since", "_special", "_stalled", "_transport", "_unsent", "_url",
        "_work",
    )  # fmt: skip

    def __init__(self, app: Application, config: WireConfig, connections: Connections) -> None:
        self._app = app
        self._config = config
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        # The head being read.
        self._in_head = False
        self._fresh = False  # it began in the read that is being parsed
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0  # in reads after the one that it began in
        self._read_bytes = 0
        self._special = self._last = self._expects = self._chunked = False
        self._replaying = False
        # The request whose body is being read, the one whose answer is due, those that wait, and bytes that wait.
        self._incoming: _Message | None = None
        self._current: _Message | None = None
        self._work: Work | None = None
        self._queue: deque[_Message] = deque()
        self._ahead = b""
        self._refusal: Answer | None = None
        self._resuming = False

        self._since = connections.now
        """When what the caller owes us now (a head, a body, to read its answer, to close) began."""
        self._served = False
        self._stalled = False
        self._unsent = self._answer_bytes = 0  # of `connections.unsent`; of the last large answer
        self._ended = False

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parses what came, unless an answer is due first."""
        if self._ended:
            return
        if (self._current is not None and self._current.complete) or self._stalled:
            self._ahead += data
            self._transport.pause_reading()
        else:
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Frees what the connection held."""
        self._connections.discard(self)
        self._ended = True
        self._count_unsent(0)
        if self._work is not None:
            self._work.cancel()
            self._work = None
        elif self._current is not None and not self._current.complete and not self._current.over:
            self._app.leave(self._current)
        self._current = self._incoming = None
        self._queue.clear()
        del self._parser  # which holds this object: no work for the garbage collector

    def pause_writing(self) -> None:
        """The caller takes its answers slower than they are made: make no more."""
        self._stalled = True
        self._count_unsent(max(self._answer_bytes, self._transport.get_write_buffer_size()))
        self._since = self._connections.now
        if not self._ended:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The caller has taken its answer."""
        self._stalled = False
        self._answer_bytes = 0
        self._count_unsent(0)
        self._since = self._connections.now
        if not self._ended:
            self._resume()

    def _count_unsent(self, size: int) -> None:
        self._connections.unsent += size - self._unsent
        self._unsent = size

    # --- what the listener calls --------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No byte of a request is being read, and no answer made or waiting to be written."""
        return not (self._in_head or self._stalled or self._ended or self._ahead) and self._current is None

    @property
    def since(self) -> float:
        """See Connection."""
        return self._since

    def sweep(self, now: float) -> None:
        """Closes or answers what is overdue."""
        waited = now - self._since
        if self._ended:
            if waited > (self._config.write_seconds if self._transport.get_write_buffer_size() else LINGER_SECONDS):
                self._transport.abort()
        elif self._stalled:
            if waited > self._config.write_seconds:
                self._transport.abort()
        elif self._current is not None:
            if waited > self._config.request_seconds and not self._current.complete:
                self._end(None if self._current.over else self._app.too_slow(self._current))
        elif self._in_head:
            if waited > self._config.request_seconds:
                message = f"the rest of the request did not come within {self._config.request_seconds:g} s"
                self._end(self._app.refuse(408, message))
        elif waited > (self._config.idle_seconds if self._served else self._config.request_seconds):
            self.close()

    def turn_away(self) -> None:
        """One connection too many: answers before anything is asked."""
        self._end(self._app.refuse(503, f"more than {self._config.connections} connections: try again later"))

    def shutdown(self) -> None:
        """Nothing now: while `Connections.draining` every answer says `connection: close`."""

    def close(self) -> None:
        """Closes when what was written is sent."""
        self._ended = True
        self._since = self._connections.now
        self._transport.close()

    def abort(self) -> None:
        """Cuts the connection."""
        self._transport.abort()

    # --- the parser's callbacks ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._replaying:
            return
        self._in_head = self._fresh = True
        self._head_bytes = 0
        if self._current is None:
            self._since = self._connections.now

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        if not self._replaying:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer of a chunked body, which has no use here."""
        if not self._in_head:
            return
        name = name.lower()
        if name in _SPECIAL:
            self._note(name, value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: the application decides, if no other request comes first."""
        if self._replaying:
            return
        self._in_head = False
        url, headers = self._url, self._headers
        self._url, self._headers = b"", []
        config = self._config
        if len(headers) > config.header_count or (
            (self._head_bytes or self._read_bytes > config.head_bytes)
            and len(url) + sum(len(name) + len(value) + 4 for name, value in headers) > config.head_bytes
        ):
            self._refuse_head()
            raise _OverError
        self._head_bytes = 0
        target = target_of(url)
        if target is None:
            self._refuse(400, "the request's target is not a path")
            raise _OverError
        parser = self._parser
        method = parser.get_method()
        message = _Message(METHODS.get(method) or method.decode(), target[0], target[1], headers)
        message.keep_alive = parser.should_keep_alive() and not self._last
        if not message.keep_alive and parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse(400, "not HTTP/1.1")
            raise _OverError
        if self._special:
            self._special = False
            message.expects, message.chunked = self._expects, self._chunked
            self._expects = self._chunked = False
            message.offered = parser.should_upgrade() and (message.chunked or length_of(message) > 0)
        self._incoming = message
        if self._current is not None or self._stalled or self._queue:
            self._queue.append(message)
        else:
            self._begin(message)
            if self._ended:
                raise _OverError

    def on_body(self, piece: bytes) -> None:
        """A piece of a body."""
        message = cast(_Message, self._incoming)
        message.size += len(piece)
        if message.over:
            if message.size > message.limit:
                self._end(None)
                raise _OverError
            return
        if message.size > message.limit and message is self._current:
            self._end(self._app.too_large(message))
            raise _OverError
        if not message.body:
            message.body = piece
        else:
            if isinstance(message.body, bytes):
                message.body = bytearray(message.body)
            message.body += piece  # not a list of pieces: one of a byte each would take forty times its size
        grows = message.chunked or message.size > RESERVED_BYTES
        if grows and message is self._current and (answer := self._app.grow(message, message.size)):
            self._answer_early(message, answer)
            if self._ended:
                raise _OverError

    def on_message_complete(self) -> None:
        """The body is whole."""
        message = cast(_Message, self._incoming)
        if message.offered:
            return
        message.complete = True
        if message is self._current:
            self._completed(message)
            if self._ended:
                raise _OverError

    # --- requests -----------------------------------------------------------------------------------------------------

    def _note(self, name: bytes, value: bytes) -> None:
        """Headers of the connection, not of the application. The parser has checked content-length and the framing."""
        self._special = True
        if name == b"connection":
            # A caller of HTTP/1.0 would want to be told that it may stay: it is not, and goes.
            self._last = self._last or self._parser.get_http_version() == "1.0"
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                self._refuse(400, "of transfer codings only chunked is served")
                raise _OverError
            self._chunked = True

    def _feed(self, data: bytes) -> None:
        self._fresh = False
        size_before = self._incoming.size if self._incoming is not None else 0
        self._read_bytes = len(data)
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:  # an offer that we need not take up (RFC 9110, 7.8)
                    data = data[upgrade.args[0] :]
                    if self._incoming is not None and self._incoming.offered:
                        self._read_body(self._incoming)
        except httptools.HttpParserError as error:
            if self._ended or self._refusal is not None:
                return
            if isinstance(error, httptools.HttpParserCallbackError):
                raise  # a defect of ours
            self._refuse(400, "not an HTTP/1.1 request")
            return
        # What the parser holds back of a head, or of the trailers of a body, must not grow without end.
        if self._in_head:
            if not self._fresh:
                self._head_bytes += len(data)
        elif self._incoming is not None and self._incoming.chunked and self._incoming.size == size_before:
            self._head_bytes += len(data)
        if self._head_bytes > self._config.head_bytes:
            self._refuse_head()

    def _read_body(self, message: _Message) -> None:
        """Goes on with a parser that has been told of the body, and nothing of the upgrade."""
        framing = b"Transfer-Encoding: chunked" if message.chunked else b"Content-Length: %d" % length_of(message)
        parser = httptools.HttpRequestParser(self)
        self._replaying = True
        parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        self._replaying = False
        self._parser = parser
        message.offered = False

    def _begin(self, message: _Message) -> None:
        """Its turn has come: asks the application about it."""
        self._current = message
        self._connections.requests += 1
        verdict = self._app.admit(message)
        if isinstance(verdict, Answer):
            self._answer_early(message, verdict)
            return
        message.limit = verdict
        if message.size > verdict:
            self._end(self._app.too_large(message))
        elif message.expects and not message.size and not message.complete:
            self._transport.write(_CONTINUE)

    def _answer_early(self, message: _Message, answer: Answer) -> None:
        """Answers before the body has arrived: the rest of it is dropped, or the connection closed."""
        message.over = True
        message.body = b""
        message.limit = self._config.discard_bytes
        length = length_of(message)
        rest = message.chunked or length > message.size
        # A caller who asked before sending may now send it or not: nobody could tell its next request from it.
        message.keep_alive = message.keep_alive and length <= message.limit and not (rest and message.expects)
        if rest and not message.complete and (answer.close or not message.keep_alive or self._connections.draining):
            self._end(answer)
        else:
            self._write(answer, message)

    def _completed(self, message: _Message) -> None:
        """The request whose turn it is has arrived whole."""
        if message.over:
            self._done(message)
        else:
            self._work = self._app.answer(message, self._respond)

    def _respond(self, answer: Answer) -> None:
        message = cast(_Message, self._current)
        self._work = None
        self._write(answer, message)
        self._done(message)

    def _write(self, answer: Answer, message: _Message) -> None:
        close = answer.close or not message.keep_alive or self._connections.draining
        message.keep_alive = not close
        self._send(answer, close, message.method == "HEAD")

    def _send(self, answer: Answer, close: bool, head_only: bool) -> None:
        key = (answer.status, answer.content_type, answer.headers, close)
        head = HEADS.get(key) or make_head(key)
        body = answer.body
        if head_only:
            self._transport.write(b"%b%d\r\n\r\n" % (head, len(body)))
        elif len(body) <= _COPIED_BYTES:
            self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        else:
            self._answer_bytes = len(body)  # held whole until all of it is sent
            self._transport.write(b"%b%d\r\n\r\n" % (head, len(body)))
            self._transport.write(body)

    def _done(self, message: _Message) -> None:
        """The request is answered and has arrived whole: on to the next."""
        if not message.keep_alive:
            self.close()
            return
        self._current = None
        self._served = True
        self._since = self._connections.now
        if self._queue or self._ahead or self._refusal is not None:
            self._resume()

    def _resume(self) -> None:
        """Goes on with what came while an answer was due, and then with reading."""
        if self._resuming:  # an answer made in place, below
            return
        self._resuming = True
        while not self._ended and not self._stalled and (self._current is None or not self._current.complete):
            if self._queue and self._current is None:
                message = self._queue.popleft()
                self._begin(message)
                if message.complete and not self._ended:
                    self._completed(message)
            elif self._refusal is not None:
                self._end(self._refusal)
            elif self._ahead:
                data, self._ahead = self._ahead, b""
                self._feed(data)
            else:
                self._transport.resume_reading()
                break
        self._resuming = False

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, message: str) -> None:
        """What came is no request: says so when all before it is answered, and closes."""
        answer = self._app.refuse(status, message)
        current = self._current
        if self._queue or self._stalled or (current is not None and current.complete):
            self._refusal = answer
        elif current is None:
            self._end(answer)
        elif current.over:
            self._end(None)
        else:
            self._app.leave(current)
            self._end(answer)

    def _refuse_head(self) -> None:
        config = self._config
        self._refuse(431, f"the request's head is larger than {config.head_bytes} bytes, or than {config.header_count} headers")

    def _end(self, answer: Answer | None) -> None:
        """Says the last, reads no more, and closes when the caller has, or LINGER_SECONDS later."""
        current = self._current
        if answer is not None:
            self._send(answer, close=True, head_only=current is not None and current.method == "HEAD")
        if current is not None:
            current.over = True
        self._ended = True
        self._ahead = b""
        self._since = self._connections.now
        self._transport.resume_reading()
        self._transport.write_eof()
