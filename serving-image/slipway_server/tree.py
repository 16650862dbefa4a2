"""A folder of a model in the making: nothing that an archive or a listing names can lie outside it, or twice in it."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from slipway_server.sources import MAX_DEPTH, MAX_FILES
from slipway_server.termination import Reason, TerminalError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024


class Tree:
    """Makes files and folders below `root`, a fresh folder of our own that nobody else writes to; it never makes a link.

    `label` names the archive or folder in messages. Paths are refused (ArchiveRefused) unless they are relative, of plain names
    and new: not there, and not there in another case or Unicode form, which other file systems would take for the same.
    """

    def __init__(self, root: Path, label: str) -> None:
        self.root = root
        self._label = label
        self._kinds: dict[str, tuple[str, bool]] = {}  # folded path -> the path as given, whether it is a folder

    def folder(self, path: str) -> None:
        """Makes a folder, and those above it; one that is there already is no error."""
        names = self._names(path)
        for depth in range(1, len(names) + 1):
            self._folder(names[:depth])

    def create(self, path: str) -> IO[bytes]:
        """Opens a new file for writing, mode 0644; the folders above it are made, mode 0755."""
        place = self.claim(path)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever the umask
        return os.fdopen(descriptor, "wb", buffering=0)

    def claim(self, path: str) -> Path:
        """Where a file of this path is to lie, no two at one place; the folders above it are made."""
        names = self._names(path)
        for depth in range(1, len(names)):
            self._folder(names[:depth])
        self._enter(names, folder=False)
        return self.root.joinpath(*names)

    def refuse(self, why: str) -> TerminalError:
        """The error that ends it all: ArchiveRefused."""
        return TerminalError(Reason.ARCHIVE_REFUSED, f"{self._label} {why}")

    def _folder(self, names: list[str]) -> None:
        if self._enter(names, folder=True):
            place = self.root.joinpath(*names)
            place.mkdir(exist_ok=True)
            place.chmod(0o755)

    def _enter(self, names: list[str], folder: bool) -> bool:
        """Whether the path is new; a folder may come again."""
        path = "/".join(names)
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        known = self._kinds.get(key)
        if known is not None:
            if known == (path, True) and folder:
                return False
            raise self.refuse(f"holds {_shown(known[0])} and {_shown(path)}, which are one place: pack each file once")
        if len(self._kinds) >= MAX_FILES:
            raise self.refuse(f"holds more than {MAX_FILES} files and folders: pack the model alone")
        self._kinds[key] = (path, folder)
        return True

    def _names(self, path: str) -> list[str]:
        while path.startswith("./"):
            path = path[2:]
        names = path.removesuffix("/").split("/")
        if path.startswith("/"):
            raise self.refuse(f"holds the absolute path {_shown(path)}: pack with relative paths")
        if any(name in ("", ".", "..") for name in names):
            raise self.refuse(f"holds {_shown(path)}, a path with an empty, '.' or '..' part: pack with plain paths")
        if "\\" in path or not all(character.isprintable() for character in path):
            raise self.refuse(f"holds {_shown(path)}, a name with a backslash or a character that is not printable: rename it")
        if (
            len(path.encode()) > MAX_PATH_BYTES
            or len(names) > MAX_DEPTH
            or any(len(name.encode()) > MAX_NAME_BYTES for name in names)
        ):
            raise self.refuse(
                f"holds {_shown(path)}, longer than names may be ({MAX_NAME_BYTES} bytes, a path {MAX_PATH_BYTES} "
                f"and {MAX_DEPTH} folders deep): shorten it"
            )
        return names


def digest(files: Iterable[tuple[str, str]]) -> str:
    """The sha256 of a tree, of (path, sha256) of each file: of the text that sha256sum prints for them, sorted by path.

    In the folder: `find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`.
    """
    total = hashlib.sha256()
    for path, sha256 in sorted(files, key=lambda file: file[0].encode()):
        total.update(f"{sha256}  {path}\n".encode())
    return total.hexdigest()


def digest_of(root: Path) -> tuple[str, int]:
    """The sha256 of the tree at a folder, as `digest`, and the bytes of its files. Raises OSError."""
    files: list[tuple[str, str]] = []
    size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            place = Path(folder, name)
            with place.open("rb") as file:
                files.append((place.relative_to(root).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()))
                size += file.tell()
    return digest(files), size


def _shown(path: str) -> str:
    return repr(path if len(path) <= 80 else path[:77] + "...")
