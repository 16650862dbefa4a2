"""Files and folders: in the image (file), on a mounted volume claim (pvc), in a mounted ConfigMap (configmap)."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from slipway_server.sources import CHUNK_BYTES, MAX_DEPTH, MAX_FILES, Chunk, Listing
from slipway_server.sources.uri import ModelURI
from slipway_server.termination import Reason, TerminalError

_KERNEL_FOLDERS = ("proc", "sys", "dev")


def list_files(uri: ModelURI, source_dir: Path) -> Listing:
    """The file of a URI, or all regular files below a path that ends in "/".

    Raises TerminalError: ModelNotFound, ModelUnreadable, InvalidURI (it leaves the root) or ArchiveRefused (it holds links).
    """
    root = Path("/") if uri.scheme == "file" else source_dir
    if not uri.folder:
        return Listing([LocalFile(uri, root, uri.path, uri.name)], tree=False)
    top = LocalFile(uri, root, uri.path, "").resolve()
    try:
        files = [LocalFile(uri, root, uri.path + path, path) for path in sorted(_below(uri.label, top, ""))]
    except OSError as error:
        raise LocalFile(uri, root, uri.path, "").failed(error) from None
    return Listing(files, tree=True)


def _below(label: str, folder: Path, prefix: str) -> Iterator[str]:
    """The paths of all files below a folder. Links are refused: a folder is copied as it is."""
    for count, entry in enumerate(os.scandir(folder)):
        if count > MAX_FILES or prefix.count("/") > MAX_DEPTH:
            many = f"more than {MAX_FILES} files, or folders deeper than {MAX_DEPTH}"
            raise TerminalError(Reason.ARCHIVE_REFUSED, f"{label} holds {many}: name a smaller folder")
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _below(label, Path(entry), f"{path}/")
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            raise TerminalError(Reason.ARCHIVE_REFUSED, f"{label} holds {path!r}, which is no regular file or folder: remove it")


class LocalFile:
    """A regular file below a root folder (for `file`: the image's own root).

    Links are followed only to places inside the root: a ConfigMap volume is made of links through its own `..data`.
    """

    sha256: str | None = None
    unpack = False
    validator: str | None = None

    def __init__(self, uri: ModelURI, root: Path, place: str, path: str) -> None:
        self.label = uri.label if not uri.folder else f"{uri.label}{path}"
        self.path = path
        self.size: int | None = None
        self._uri = uri
        self._root = root
        self._place = place

    def chunks(self, offset: int = 0, validator: str | None = None) -> Iterator[Chunk]:
        """The file's bytes from 0. Raises TerminalError: ModelNotFound, ModelUnreadable or InvalidURI (it leaves the root)."""
        try:
            # The path is already resolved: whoever swaps its last part for a link now gets an error, not another file.
            descriptor = os.open(self.resolve(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self.failed(error) from None
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise TerminalError(
                    Reason.MODEL_NOT_FOUND, f"{self.label} is a folder: name the model file in it, or end the URI in '/' for all"
                )
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
            raise self.failed(error) from None

    def resolve(self) -> Path:
        """The path without links. Raises TerminalError: InvalidURI (it leaves the root) or ModelUnreadable (a circle)."""
        root = self._root.resolve()
        try:
            path = (root / self._place).resolve()
        except RuntimeError:  # how pathlib says ELOOP
            raise TerminalError(Reason.MODEL_UNREADABLE, f"{self.label} is a link that leads to itself") from None
        if not path.is_relative_to(root):
            raise TerminalError(
                Reason.INVALID_URI, f"{self.label} leads out of its volume by a link: name a file that lies inside it"
            )
        if self._uri.scheme == "file" and (len(path.parts) < 2 or path.parts[1] in _KERNEL_FOLDERS):
            raise TerminalError(Reason.INVALID_URI, f"{self.label} is not a file of the image: name one that its build put there")
        return path

    def failed(self, error: OSError) -> TerminalError:
        """What an error of reading means."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return TerminalError(Reason.MODEL_NOT_FOUND, self._missing())
        if isinstance(error, PermissionError):
            return TerminalError(
                Reason.MODEL_UNREADABLE,
                f"user {os.getuid()} may not read {self.label}: make it readable for that user (or set fsGroup)",
            )
        return TerminalError(Reason.MODEL_UNREADABLE, f"{self.label} cannot be read: {error.strerror or error}")

    def _missing(self) -> str:
        uri = self._uri
        if uri.scheme == "file":
            return f"{self.label} is not in the image: check the path, or build the image with the file"
        try:
            names = sorted(entry.name for entry in self._root.iterdir() if not entry.name.startswith(".."))
        except OSError:
            names = []
        if uri.scheme == "pvc":
            top = f"at its top: {_some(names)}" if names else "the volume is empty"
            return f"{self.label}: the volume of claim {uri.authority} has no {uri.path} ({top})"
        if not names:
            return f"{self.label}: ConfigMap {uri.authority} does not exist in this namespace or is empty: create it"
        return f"{self.label}: ConfigMap {uri.authority} has no key {uri.path}; its keys: {_some(names)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
