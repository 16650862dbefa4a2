"""The frames of HTTP/2 (RFC 9113): numbers, limits and the bytes of those that we send."""

from struct import Struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
HAS_PRIORITY = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
FRAME_BYTES = 16384
"""The largest payload of a frame that both sides take unless told otherwise; we never say otherwise."""
LARGEST_FRAME_BYTES = (1 << 24) - 1
WINDOW_BYTES = 65535
"""Flow-control windows at the start."""
LARGEST_WINDOW_BYTES = LAST_STREAM = (1 << 31) - 1

HEAD = Struct(">IBI")
"""Length (24 bits) and type (8), flags, stream."""
_WORD_FRAME = Struct(">IBII")
_SETTING = Struct(">HI")


class ConnectionFault(Exception):  # noqa: N818 - RFC 9113 calls it a connection error; ConnectionError is Python's
    """The peer broke the connection's rules: GOAWAY with this code, and the end (RFC 9113, 5.4.1)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Budget:
    """Counts frames that ask for nothing or take back what they asked: each costs a peer less than it costs us.

    A thousand in a burst, 500 more each second (of resets, the dearest, 1% of a core) and 4 for each answer: gRPC clients ping
    up to once an answer to measure the bandwidth.
    """

    __slots__ = ("_at", "_left")

    _MOST = 1000
    _PER_SECOND = 500
    _PER_ANSWER = 4

    def __init__(self, now: float) -> None:
        self._left = self._MOST
        self._at = now, 0

    def spend(self, now: float, answers: int) -> None:
        """Counts one, at loop time `now`, `answers` having been sent so far. Raises ConnectionFault when it is one too many."""
        self._left -= 1
        if self._left < 0:
            then, answers_then = self._at
            earned = int((now - then) * self._PER_SECOND) + (answers - answers_then) * self._PER_ANSWER
            self._at = now, answers
            self._left = min(self._MOST, earned) - 1
            if self._left < 0:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too many resets, pings, settings or empty frames")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def window_update(stream: int, increment: int) -> bytes:
    """Lets the peer send so much more DATA (on the connection: stream 0)."""
    return _WORD_FRAME.pack(4 << 8 | WINDOW_UPDATE, 0, stream, increment)


def reset(stream: int, code: int) -> bytes:
    """Ends a stream at once."""
    return _WORD_FRAME.pack(4 << 8 | RST_STREAM, 0, stream, code)


def settings(values: dict[int, int]) -> bytes:
    """Our SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in values.items()))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The peer's, in order; checked (RFC 9113, 6.5.2). Raises ConnectionFault."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    values = list(_SETTING.iter_unpack(payload))
    for setting, value in values:
        if setting == ENABLE_PUSH and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if setting == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW_BYTES:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1")
        if setting == MAX_FRAME_SIZE and not FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
    return values


def goaway(last_stream: int, code: int, message: str) -> bytes:
    """The end of the connection's taking new streams."""
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + message.encode())


def unpadded(data: bytes, at: int, after: int) -> tuple[int, int]:
    """Where the content of a PADDED payload begins and ends. Raises ConnectionFault."""
    if at == after or (end := after - data[at]) <= at:
        raise ConnectionFault(PROTOCOL_ERROR if at < after else FRAME_SIZE_ERROR, "padding longer than the frame")
    return at + 1, end
