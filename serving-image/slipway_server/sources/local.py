"""Files: in the image (file), on a mounted volume claim (pvc), in a mounted ConfigMap (configmap)."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slipway_server.sources import CHUNK_BYTES, Chunk
from slipway_server.sources.uri import ModelURI
from slipway_server.termination import Reason, TerminalError

_KERNEL_FOLDERS = ("proc", "sys", "dev")


class LocalSource:
    """A regular file below a root folder (for `file`: the image's own root).

    Links are followed only to places inside the root: a ConfigMap volume is made of links through its own `..data`.
    """

    def __init__(self, uri: ModelURI, source_dir: Path) -> None:
        self.uri = uri
        self.label = uri.label
        self.root = Path("/") if uri.scheme == "file" else source_dir
        self.size: int | None = None

    def chunks(self) -> Iterator[Chunk]:
        """The file's bytes. Raises TerminalError: ModelNotFound, ModelUnreadable or InvalidURI (it leaves the root)."""
        try:
            # The path is already resolved: whoever swaps its last part for a link now gets an error, not another file.
            descriptor = os.open(self._resolve(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._failed(error) from None
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise TerminalError(Reason.MODEL_NOT_FOUND, f"{self.label} is a folder: name the model file in it")
            if not stat.S_ISREG(status.st_mode):
                raise TerminalError(Reason.MODEL_UNREADABLE, f"{self.label} is not a regular file")
            self.size = status.st_size
            offset = 0
            while data := self._read(descriptor):
                yield Chunk(offset, data)
                offset += len(data)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> bytes:
        try:
            return os.read(descriptor, CHUNK_BYTES)
        except OSError as error:
            raise self._failed(error) from None

    def _resolve(self) -> Path:
        root = self.root.resolve()
        try:
            path = (root / self.uri.path).resolve()
        except RuntimeError:  # how pathlib says ELOOP
            raise TerminalError(Reason.MODEL_UNREADABLE, f"{self.label} is a link that leads to itself") from None
        if not path.is_relative_to(root):
            raise TerminalError(
                Reason.INVALID_URI, f"{self.label} leads out of its volume by a link: name a file that lies inside it"
            )
        if self.uri.scheme == "file" and path.parts[1] in _KERNEL_FOLDERS:
            raise TerminalError(Reason.INVALID_URI, f"{self.label} is not a file of the image: name one that its build put there")
        return path

    def _failed(self, error: OSError) -> TerminalError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return TerminalError(Reason.MODEL_NOT_FOUND, self._missing())
        if isinstance(error, PermissionError):
            return TerminalError(
                Reason.MODEL_UNREADABLE,
                f"user {os.getuid()} may not read {self.label}: make it readable for that user (or set fsGroup)",
            )
        return TerminalError(Reason.MODEL_UNREADABLE, f"{self.label} cannot be read: {error.strerror or error}")

    def _missing(self) -> str:
        if self.uri.scheme == "file":
            return f"{self.label} is not in the image: check the path, or build the image with the file"
        try:
            names = sorted(entry.name for entry in self.root.iterdir() if not entry.name.startswith(".."))
        except OSError:
            names = []
        if self.uri.scheme == "pvc":
            top = f"at its top: {_some(names)}" if names else "the volume is empty"
            return f"{self.label}: the volume of claim {self.uri.authority} has no {self.uri.path} ({top})"
        if not names:
            return f"{self.label}: ConfigMap {self.uri.authority} does not exist in this namespace or is empty: create it"
        return f"{self.label}: ConfigMap {self.uri.authority} has no key {self.uri.path}; its keys: {_some(names)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
