"""Bytes of connections into requests, answers into bytes: HTTP/1.1 and HTTP/2 on one port. Knows nothing of models."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WireConfig:
    """What connections may take of us."""

    request_seconds: float = 60.0
    """From a request's first byte to its last; then 408 (HTTP/1.1) or an answer to the stream (HTTP/2)."""
    head_bytes: int = 32 << 10
    """A request's line and headers (HTTP/2: the decoded header list by RFC 9113's count); more is 431."""
    header_count: int = 100
    """Headers of one request; more is 431."""
    connections: int = 4096
    """Open at once. One more takes the place of the one that has been idle longest; where none is, it is answered 503."""
    idle_seconds: float = 620.0
    """A connection without a request is kept longer than most load balancers keep theirs, so that they close first."""
    write_seconds: float = 60.0
    """A caller that leaves more than the socket's buffer of its answer untaken for this long is cut off."""
    discard_bytes: int = 1 << 20
    """The rest of a body whose request is already answered (404, 413, 429) is read and dropped up to this, so that the
    caller sees the answer and keeps the connection; beyond, the connection is closed."""
    streams: int = 128
    """Requests at once on one HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS)."""


class Connection(Protocol):
    """What the listener needs of a connection, which enters itself in Connections while it is open."""

    @property
    def idle(self) -> bool:
        """No byte of a request is being read, and no answer made or waiting to be written."""
        ...

    @property
    def since(self) -> float:
        """Of one that is idle: the loop's time when it began to be, or a sweep's before."""
        ...

    def sweep(self, now: float) -> None:
        """Called every second or so with the loop's time: closes or answers what is overdue."""
        ...

    def shutdown(self) -> None:
        """The server drains (`Connections.draining` is set): go on answering, and tell the peer to go elsewhere.

        HTTP/1.1: every answer says `connection: close`. HTTP/2: GOAWAY that still admits what is under way.
        """
        ...

    def close(self) -> None:
        """Closes an idle connection in good order (HTTP/2: a last GOAWAY)."""
        ...

    def abort(self) -> None:
        """Cuts the connection at once; whoever makes an answer for it is told to stop."""
        ...


class Connections(set[Connection]):
    """The open connections of one listener, and what they share."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        """The loop's time as of the last sweep: deadlines need no better, and reading a clock for each request costs."""
        self.requests = 0
        """Requests begun so far, on all connections."""
        self.draining = False
        self.unsent = 0
        """Bytes of answers that callers have not taken whole, where a socket does not hold them."""
        self._idle: list[Connection] = []
        self._looked = -1.0

    def make_room(self) -> bool:
        """Closes the connection that has been idle longest; False where none has been since the last sweep."""
        if not self._idle and self._looked < self.now:  # a look at thousands takes a millisecond: one a sweep
            self._looked = self.now
            idle = (connection for connection in self if connection.idle and connection.since < self.now)
            self._idle = sorted(idle, key=_since, reverse=True)
        while self._idle:
            connection = self._idle.pop()
            if connection in self and connection.idle:
                self.discard(connection)
                connection.close()
                return True
        return False


def _since(connection: Connection) -> float:
    return connection.since
