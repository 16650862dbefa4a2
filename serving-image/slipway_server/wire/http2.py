"""HTTP/2 connections without TLS, by prior knowledge (RFC 9113): gRPC, and REST for proxies that prefer it.

For requests whose body arrives whole and answers that are sent whole; no push, no priorities. What a read brings is parsed
and answered in one go, and written at once. Every rule of the RFC that a peer can break ends its stream or its connection.
"""

import asyncio
from typing import ClassVar, cast

from slipway_server.exchange import Application
from slipway_server.wire import Connections, WireConfig, frames
from slipway_server.wire.frames import ConnectionFault
from slipway_server.wire.hpack import HpackError
from slipway_server.wire.sender import STREAM_WINDOW_BYTES, Sender
from slipway_server.wire.streams import Streams

CONNECTION_WINDOW_BYTES = 16 << 20
CONTINUATIONS = 32
"""CONTINUATION frames of one header block."""
LINGER_SECONDS = 2.0
"""After a fault the peer has this long to read GOAWAY: closing a socket with unread bytes would destroy it."""
SMALL_UPDATE_BYTES = 64
_LAST_WORD = b"slipway!"
"""The PING whose answer says that the peer has seen our first GOAWAY."""
_HEAD = frames.HEAD


class Http2Connection(asyncio.Protocol):
    """One connection; enters itself in `connections` while it is open. The first bytes it is given are the preface's."""

    __slots__ = (
        "_app", "_block", "_block_frames", "_block_of", "_buffer", "_config", "_connections", "_credit", "_draining", "_ended",
        "_expected", "_idle_id", "_idle_since", "_last_word", "_preface", "_sender", "_since", "_streams", "_transport",
    )  # fmt: skip

    def __init__(self, app: Application, config: WireConfig, connections: Connections) -> None:
        self._app = app
        self._config = config
        self._connections = connections
        self._buffer = b""
        self._preface = True  # is still to come
        self._expected = frames.SETTINGS  # the only kind of frame that may come next; -1: any
        self._block = bytearray()  # what has come of a header block, of which stream and with which flags, in how many frames
        self._block_of = (0, 0)
        self._block_frames = 0
        self._credit = CONNECTION_WINDOW_BYTES
        self._since = connections.now  # when the frame or block that is not whole, the stall or the end began
        self._idle_since = connections.now
        self._idle_id = 0
        self._draining = False  # the first GOAWAY is sent
        self._last_word = False  # and the second, which names the last stream
        self._ended = False

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection and says our SETTINGS."""
        self._transport = cast(asyncio.Transport, transport)
        self._sender = Sender(self._transport, self._connections)
        self._streams = Streams(self._app, self._config, self._connections, self._sender, self)
        self._connections.add(self)
        ours = {
            frames.MAX_CONCURRENT_STREAMS: self._config.streams,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            frames.MAX_HEADER_LIST_SIZE: self._config.head_bytes,
        }
        self._sender.write(frames.settings(ours), frames.window_update(0, CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES))
        if self._connections.draining:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        """Parses what came and answers what it completes."""
        if self._ended:
            return
        if self._buffer:
            data = self._buffer + data
        elif self._expected < 0:
            self._since = self._connections.now
        if self._preface:
            if len(data) < len(frames.PREFACE) and frames.PREFACE.startswith(data):
                self._buffer = data
                return
            if not data.startswith(frames.PREFACE):
                self._fail(ConnectionFault(frames.PROTOCOL_ERROR, "not the preface of HTTP/2"))
                return
            data = data[len(frames.PREFACE) :]
            self._preface = False
        self._sender.hold = True
        try:
            at = self._parse(data)
            self._buffer = data[at:]
        except ConnectionFault as fault:
            self._fail(fault)
        except HpackError as error:
            self._fail(ConnectionFault(frames.COMPRESSION_ERROR, str(error)))
        self._sender.hold = False
        self._sender.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Frees what the connection held."""
        self._connections.discard(self)
        self._end()

    def pause_writing(self) -> None:
        """The caller takes its answers slower than they are made: make no more, and read nothing that asks for more."""
        self._sender.stalled = True
        self._since = self._connections.now
        if not self._ended:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The caller takes its answers again: go on with what had to wait, then read more."""
        self._sender.stalled = False
        self._since = self._connections.now
        if not self._ended:
            self._sender.resume()
            if self._buffer and not self._sender.stalled:
                self.data_received(b"")
            if not self._sender.stalled and not self._transport.is_closing():
                self._transport.resume_reading()

    # --- what the listener calls --------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No byte of a request is being read, and no answer made or waiting to be written."""
        reading = self._buffer or self._expected == frames.CONTINUATION
        return not (self._streams.open or reading or self._sender.stalled or self._ended)

    @property
    def since(self) -> float:
        """See Connection."""
        return self._since

    def sweep(self, now: float) -> None:
        """Closes or answers what is overdue."""
        config = self._config
        waited = now - self._since
        if self._ended:
            if waited > (config.write_seconds if self._transport.get_write_buffer_size() else LINGER_SECONDS):
                self._transport.abort()
        elif self._sender.stalled and waited > config.write_seconds:
            self._transport.abort()
        elif (self._buffer or self._expected >= 0) and not self._sender.stalled and waited > config.request_seconds:
            message = f"the rest of a frame did not come within {config.request_seconds:g} s"
            self._fail(ConnectionFault(frames.PROTOCOL_ERROR, message))
        else:
            self._streams.sweep(now)
            if self._streams.open or self._idle_id != self._streams.last_id:
                self._idle_since, self._idle_id = now, self._streams.last_id
            elif now - self._idle_since > config.idle_seconds:
                self.close()

    def shutdown(self) -> None:
        """Asks the peer to go elsewhere, and closes when what it has begun by the time it knows is answered."""
        if not self._draining and not self._ended:
            self._draining = True
            farewell = frames.goaway(frames.LAST_STREAM, frames.NO_ERROR, "")
            self._sender.write(farewell, frames.frame(frames.PING, 0, 0, _LAST_WORD))

    def close(self) -> None:
        """Says which streams were answered, and closes when what was written is sent."""
        if not self._ended:
            self._end()
            self._sender.write(frames.goaway(self._streams.last_id, frames.NO_ERROR, ""))
            self._sender.flush()
            self._transport.close()

    def abort(self) -> None:
        """Cuts the connection."""
        self._transport.abort()

    # --- frames -------------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> int:
        """Handles the whole frames of `data` while the caller takes the answers; where the rest begins. Raises ConnectionFault
        and HpackError."""
        at, end = 0, len(data)
        while end - at >= frames.HEAD_BYTES and not self._sender.stalled:
            word, flags, stream_id = _HEAD.unpack_from(data, at)
            kind = word & 0xFF
            length = word >> 8
            stream_id &= frames.LAST_STREAM
            if self._expected >= 0 and kind != self._expected:
                raise ConnectionFault(frames.PROTOCOL_ERROR, f"frame {kind} where only frame {self._expected} may come")
            if length > frames.FRAME_BYTES:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes, more than {frames.FRAME_BYTES}")
            begin = at + frames.HEAD_BYTES
            after = begin + length
            if after > end:
                break
            if kind == frames.DATA:
                self._on_data(flags, stream_id, data, begin, after)
            elif kind == frames.HEADERS:
                self._on_headers(flags, stream_id, data, begin, after)
            elif kind <= frames.CONTINUATION:
                self._HANDLERS[kind](self, flags, stream_id, data[begin:after])
            if self._ended:
                return end
            at = after
        if at and self._expected < 0:
            self._since = self._connections.now
        return at

    def _on_headers(self, flags: int, stream_id: int, data: bytes, at: int, after: int) -> None:
        if not stream_id & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}: a caller's streams are odd")
        if flags & frames.PADDED:
            at, after = frames.unpadded(data, at, after)
        if flags & frames.HAS_PRIORITY:
            if after - at < 5:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS without room for its priority")
            self._on_priority(0, stream_id, data[at : at + 5])
            at += 5
        if flags & frames.END_HEADERS:
            self._streams.block(stream_id, flags & frames.END_STREAM, data[at:after])
        else:
            self._since = self._connections.now
            self._expected = frames.CONTINUATION
            self._block = bytearray(data[at:after])
            self._block_of = stream_id, flags & frames.END_STREAM
            self._block_frames = 0

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._expected != frames.CONTINUATION or stream_id != self._block_of[0]:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block += payload
        self._block_frames += 1
        if self._block_frames > CONTINUATIONS or len(self._block) > 2 * self._config.head_bytes + frames.FRAME_BYTES:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            self._expected = -1
            block = bytes(self._block)
            self._block = bytearray()
            self._streams.block(*self._block_of, block)

    def _on_data(self, flags: int, stream_id: int, data: bytes, at: int, after: int) -> None:
        length = after - at
        self._credit -= length
        if self._credit < CONNECTION_WINDOW_BYTES >> 1:  # so it is never used up
            self._sender.write(frames.window_update(0, CONNECTION_WINDOW_BYTES - self._credit))
            self._credit = CONNECTION_WINDOW_BYTES
        if flags & frames.PADDED:
            at, after = frames.unpadded(data, at, after)
        self._streams.data(stream_id, flags & frames.END_STREAM, length, data[at:after])

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Ignored, once it is seen to be one (RFC 9113, 5.3.2)."""
        if len(payload) != 5:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
        if stream_id == 0 or int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY of no stream, or on itself")

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        self._streams.reset(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload or self._expected >= 0:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR if payload else frames.PROTOCOL_ERROR, "a bad answer to SETTINGS")
            return
        self._expected = -1
        self._streams.spend()
        for setting, value in frames.parse_settings(payload):
            self._sender.settle(setting, value, self._streams.open)
        self._sender.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._sender.resume()

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "PUSH_PROMISE from a caller")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING of a wrong length")
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING on a stream")
        if not flags & frames.ACK:
            self._streams.spend()
            self._sender.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _LAST_WORD and self._draining and not self._last_word:
            self._last_word = self._streams.closed = True
            self._sender.write(frames.goaway(self._streams.last_id, frames.NO_ERROR, ""))
            self.emptied()

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Ignored: a caller that leaves closes when it has its answers."""
        if len(payload) < 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "GOAWAY on a stream")

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        increment = int.from_bytes(payload, "big") & frames.LAST_STREAM
        stream = self._streams.open.get(stream_id)
        if stream_id and stream is None:
            self._streams.check_begun("WINDOW_UPDATE", stream_id)
        elif not increment or not self._sender.widen(stream, increment):
            code = frames.FLOW_CONTROL_ERROR if increment else frames.PROTOCOL_ERROR
            if stream is None:
                raise ConnectionFault(code, f"WINDOW_UPDATE by {increment}")
            self._streams.fault(stream, code)
        elif self._sender.waiting_bytes:
            if increment < SMALL_UPDATE_BYTES:
                self._streams.spend()  # asks for frames that are all head
            self._sender.resume()

    _HANDLERS: ClassVar = {
        frames.PRIORITY: _on_priority,
        frames.RST_STREAM: _on_reset,
        frames.SETTINGS: _on_settings,
        frames.PUSH_PROMISE: _on_push,
        frames.PING: _on_ping,
        frames.GOAWAY: _on_goaway,
        frames.WINDOW_UPDATE: _on_window_update,
        frames.CONTINUATION: _on_continuation,
    }

    # --- the end ------------------------------------------------------------------------------------------------------

    def _fail(self, fault: ConnectionFault) -> None:
        """Says what the peer did wrong and stops listening to it; the sweep closes."""
        self._end()
        self._sender.write(frames.goaway(self._streams.last_id, fault.code, str(fault)))
        self._sender.flush()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def emptied(self) -> None:
        """The last stream has ended."""
        if self._last_word and not self._streams.open and not self._ended:
            self._end()
            self._sender.flush()
            self._transport.close()

    def _end(self) -> None:
        """Frees what the connection holds; nothing is read any more."""
        if not self._ended:
            self._ended = True
            self._since = self._connections.now
            self._streams.end()
            self._buffer = b""
            self._block.clear()
