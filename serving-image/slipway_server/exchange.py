"""What the wire and the application say to each other: a request, its answer, and who may say no when.

`wire/` turns bytes of a connection into a Request and an Answer into bytes; it knows HTTP/1.1 and HTTP/2 and nothing of
models. `app.py` turns a Request into an Answer; it knows paths and codecs and nothing of connections.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Headers = tuple[tuple[bytes, bytes], ...]
Respond = Callable[["Answer"], None]
RESERVED_BYTES = 64 << 10
"""A declared body up to this counts as held once it is admitted. Larger ones count as they come: else a few callers who
declare much and send nothing would keep all others out."""


@dataclass(slots=True)
class Request:
    """One request. Header names are lower-case; pseudo-headers of HTTP/2 are not among them.

    `path` is percent-decoded and without the query. `body` is empty until it has arrived whole.
    """

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    http2: bool = False
    body: bytes | bytearray = b""
    call: object = None
    """The application's own note of an admitted request; no business of the wire."""


@dataclass(slots=True)  # not frozen: that would make it four times as slow to make
class Answer:
    """One answer, unchanged once made. The wire adds content-length, and `connection: close` or GOAWAY while it drains.

    `trailers` (gRPC's status) are sent over HTTP/2 only. With `close` the connection ends after the answer.
    """

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: Headers = ()
    trailers: Headers = ()
    close: bool = False


class Work(Protocol):
    """An answer that is being made."""

    def cancel(self) -> object:
        """The caller has left: stop, free what is held, do not respond."""
        ...


class Application(Protocol):
    """What the wire calls, always on the event loop. Per request: `admit` once; then, if admitted, `grow` any number of
    times, and one of `answer`, `too_large`, `too_slow` and `leave`, unless `grow` has ended it."""

    def admit(self, request: Request) -> Answer | int:
        """Decides by the head alone, before the body is read: an early answer (the request is then over), or the bytes
        that its body may have."""
        ...

    def grow(self, request: Request, size: int) -> Answer | None:
        """Told when more has arrived of a body of undeclared length, or of one beyond RESERVED_BYTES, `size` bytes so far:
        an Answer ends the request (the bodies held together are too many); its place is free again."""
        ...

    def answer(self, request: Request, respond: Respond) -> Work | None:
        """Answers a request whose body has arrived. `respond` is called exactly once: before this returns (then None), or
        later (then the Work to cancel if the caller leaves first). Never raises."""
        ...

    def too_large(self, request: Request) -> Answer:
        """The answer to an admitted request whose body grew beyond what `admit` allowed; its place is free again."""
        ...

    def too_slow(self, request: Request) -> Answer:
        """The answer to an admitted request whose body did not arrive in time; its place is free again."""
        ...

    def refuse(self, status: int, message: str) -> Answer:
        """The answer to what never became a request: malformed, a head too large or too slow, too many connections."""
        ...

    def leave(self, request: Request) -> None:
        """The caller of an admitted request left before the body had arrived; its place is free again."""
        ...
