"""Where models come from: one module a kind of source. Each lists the files of a URI, and each file yields its bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

CHUNK_BYTES = 1 << 20
MAX_FILES = 10_000
"""Files and folders of one model, more than any real one has."""
MAX_DEPTH = 32
"""Folders inside each other."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a file. `offset` is where it belongs: 0 again when the source had to begin anew."""

    offset: int
    data: bytes | bytearray


class SourceFile(Protocol):
    """One file, somewhere."""

    label: str
    """What to call it in logs and messages: without credentials."""
    path: str
    """Where it lies in its folder, with "/" between names; of a file on its own, its name."""
    size: int | None
    """Bytes, as soon as they are known (after the first chunk), else None."""
    sha256: str | None
    """The digest that the source promises, hexadecimal; None where it promises none."""
    unpack: bool
    """A tar archive whose entries are meant, whatever its name is."""
    validator: str | None
    """What changes when the bytes do (after the first chunk); None: nothing would tell."""

    def chunks(self, offset: int = 0, validator: str | None = None) -> Iterator[Chunk]:
        """The bytes in order, from `offset` if they are still those of `validator`, else from 0.

        Raises TerminalError when they cannot be had.
        """
        ...


@dataclass(frozen=True)
class Listing:
    """The files of a URI. Not `tree`: exactly one, the model or an archive of it."""

    files: Sequence[SourceFile]
    tree: bool
    revision: str = ""
    """What a name that may move led to: `revision <commit>` (hf) or `manifest <digest>` (oci)."""
