"""Where models come from: one module a kind of source. Each yields the bytes of one file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """A piece of the file. `offset` is where it belongs: 0 again when a source had to begin anew."""

    offset: int
    data: bytes


class Source(Protocol):
    """One file, somewhere."""

    label: str
    """What to call it in logs and messages: the URI without credentials."""
    size: int | None
    """Bytes, as soon as they are known (after the first chunk), else None."""

    def chunks(self) -> Iterator[Chunk]:
        """The file's bytes in order. Raises TerminalError when they cannot be had."""
        ...
