"""Archives (.tar, .tar.gz, .tgz, .zip): unpacked entry by entry, into regular files and folders and nothing else.

Our own loop and not tarfile's: that takes garbage after the first entry for the end, reads headers of any claimed length into
memory, and its filter has let links out of the folder.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from slipway_server.termination import Reason, TerminalError
from slipway_server.tree import Tree

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
_OTHERS = (".tar.bz2", ".tar.xz", ".tar.zst", ".tbz2", ".txz", ".tzst", ".7z", ".rar")
MAX_BYTES = 64 << 30
"""Of all files together, where no --max-bytes says another limit."""
MAX_RATIO = 200
RATIO_FLOOR_BYTES = 100 << 20
"""Up to here the ratio is nobody's concern."""
_COPY_BYTES = 1 << 20
_BLOCK = 512
_MAX_HEADER_BYTES = 64 << 10  # of a long name or of pax records: real ones have a few hundred
_MAX_DIRECTORY_BYTES = 4 << 20  # of a zip's directory: 10,000 entries with paths of 300 bytes


def suffix_of(name: str) -> str:
    """The archive's suffix in a file name, "" where it is none. Raises TerminalError for archives that cannot be unpacked."""
    name = name.lower()
    if name.endswith(_OTHERS):
        raise TerminalError(
            Reason.ARCHIVE_REFUSED,
            f"{name[-80:]!r} is an archive of a kind that is not unpacked: use one of {', '.join(SUFFIXES)}",
        )
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def unpack(archive: Path, tree: Tree, max_bytes: int | None, suffix: str = "") -> None:
    """Unpacks an archive into a tree; what it is, its suffix says, or for "" (tar, compressed or not) its first bytes.

    Raises TerminalError(ArchiveRefused, or ModelTooLarge beyond `max_bytes` unpacked), OSError when the tree cannot be written.
    """
    budget = _Budget(tree, archive.stat().st_size, max_bytes)
    with archive.open("rb") as file:
        if suffix == ".zip":
            _unzip(file, tree, budget)
            return
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if suffix and packed != (suffix != ".tar"):
            raise tree.refuse(
                f"is named {suffix}, but is {'compressed by gzip' if packed else 'no gzip file'}: name it for what it is"
            )
        _untar(_Gunzip(file, tree) if packed else file, tree, budget)


class _Budget:
    """Counts the bytes that come out of an archive."""

    def __init__(self, tree: Tree, packed_bytes: int, max_bytes: int | None) -> None:
        self._tree = tree
        self._max_bytes = max_bytes
        self._by_ratio = max(RATIO_FLOOR_BYTES, MAX_RATIO * packed_bytes)
        self._left = min(max_bytes if max_bytes is not None else MAX_BYTES, self._by_ratio)
        self._limit = self._left

    def take(self, count: int) -> None:
        self._left -= count
        if self._left >= 0:
            return
        if self._limit == self._max_bytes:
            raise TerminalError(
                Reason.MODEL_TOO_LARGE,
                self._tree.refuse(f"unpacks to more than {self._limit} bytes: raise the limit, or serve a smaller model").message,
            )
        ratio = f", {MAX_RATIO} times its own size" if self._limit == self._by_ratio else ""
        raise self._tree.refuse(f"unpacks to more than {self._limit} bytes{ratio}: pack the model alone")


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Gunzip:
    """Reads a gzip file of one or more members, in bounded memory. Its checksums are verified, nothing may follow it."""

    def __init__(self, file: IO[bytes], tree: Tree) -> None:
        self._file = file
        self._tree = tree
        self._inflate = zlib.decompressobj(wbits=31)
        self._buffer = b""

    def read(self, size: int, /) -> bytes:
        """`size` bytes; fewer only at the end."""
        pieces: list[bytes] = []
        while size and (piece := self._some(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _some(self, size: int) -> bytes:
        while True:
            if self._inflate.eof:
                self._buffer = self._inflate.unused_data or self._file.read(_COPY_BYTES)
                if not self._buffer:
                    return b""
                self._inflate = zlib.decompressobj(wbits=31)
            elif not self._buffer:
                self._buffer = self._file.read(_COPY_BYTES)
                if not self._buffer:
                    raise self._tree.refuse("is cut: its gzip data ends early; upload it again")
            try:
                data = self._inflate.decompress(self._buffer, size)
            except zlib.error:
                raise self._tree.refuse("is damaged: its gzip data cannot be read; upload it again") from None
            self._buffer = self._inflate.unconsumed_tail
            if data:
                return data


# --- tar --------------------------------------------------------------------------------------------------------------


def _untar(source: _Reader, tree: Tree, budget: _Budget) -> None:
    """Format: POSIX.1-2017 pax (ustar with extended headers), and GNU tar's long names and base-256 sizes."""
    name: str | None = None
    size: int | None = None
    entries = 0
    while header := _header(source, tree):
        kind, length = header[156:157], _number(header[124:136], tree)
        if kind in b"xgL":
            if length > _MAX_HEADER_BYTES:
                raise tree.refuse(f"holds a header of {length} bytes: pack it with plain names")
            budget.take(length)
            data = _exactly(source, _padded(length), tree)[:length]
            if kind == b"L":
                name = _text(data.rstrip(b"\0"), tree)
            elif kind == b"x":  # those of "g" are defaults of no interest here: comments, owners
                records = dict(_pax_records(data, tree))
                if any(key.startswith("GNU.sparse") for key in records):
                    raise tree.refuse("holds a sparse file: pack it without --sparse")
                name = records.get("path", name)
                size = _decimal(records["size"], tree) if "size" in records else size
            continue
        entries += 1
        path = _name(header, tree) if name is None else name
        length = length if size is None else size
        name = size = None
        folder = kind == b"5" or (kind in (b"0", b"\0") and path.endswith("/"))
        if folder and length == 0:
            if path.rstrip("/") not in (".", ""):
                tree.folder(path)
        elif kind in (b"0", b"\0", b"7") and not folder:
            with tree.create(path) as file:
                _copy(source, file, length, tree, budget)
            _exactly(source, _padded(length) - length, tree)
        else:
            raise tree.refuse(
                f"holds {path[:80]!r}, {_KINDS.get(kind, 'an entry of an unknown kind')}: pack regular files and folders only"
            )
    if name is not None or size is not None:
        raise tree.refuse("is cut: it ends after the name of a file; upload it again")
    if not entries:
        raise tree.refuse("is empty")
    while data := source.read(_COPY_BYTES):  # tar pads its last record with zeros
        budget.take(len(data))
        if data.strip(b"\0"):
            raise tree.refuse("holds something after its end: pack it again")


_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder with content",
    b"6": "a pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}


def _header(source: _Reader, tree: Tree) -> bytes:
    """The next header block; b"" at the end of the archive (a block of zeros)."""
    block = _exactly(source, _BLOCK, tree)
    if not block.strip(b"\0"):
        return b""
    signed_sum = sum(block[:148]) + 8 * 32 + sum(block[156:])
    if _number(block[148:156], tree) != signed_sum:
        raise tree.refuse("is damaged or no tar archive: a header's checksum is wrong; upload it again")
    return block


def _exactly(source: _Reader, size: int, tree: Tree) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise tree.refuse("is cut: it ends inside an entry; upload it again")
    return data


def _copy(source: _Reader, file: IO[bytes], size: int, tree: Tree, budget: _Budget) -> None:
    budget.take(size)
    while size:
        data = _exactly(source, min(size, _COPY_BYTES), tree)
        size -= len(data)
        write_all(file, data)


def _padded(size: int) -> int:
    return -size % _BLOCK + size


def _number(field: bytes, tree: Tree) -> int:
    """Octal digits, or GNU's base-256 for what does not fit them."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text and not text.strip(b"01234567"):
        return int(text, 8)
    if text:
        raise tree.refuse("is damaged or no tar archive: a header holds no number where one must be; upload it again")
    return 0


def _decimal(text: str, tree: Tree) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise tree.refuse("is damaged: a size is no number; upload it again")
    return int(text)


def _name(header: bytes, tree: Tree) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name, tree)


def _text(data: bytes, tree: Tree) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise tree.refuse(f"holds the name {data[:80]!r}, which is not UTF-8: rename it") from None


def _pax_records(data: bytes, tree: Tree) -> Iterator[tuple[str, str]]:
    """Records `LENGTH KEY=VALUE\\n`; LENGTH counts the whole record."""
    while data:
        digits, space, _ = data[:20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[:length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not length or len(record) != length or not record.endswith(b"\n") or not equals:
            raise tree.refuse("is damaged: a pax header cannot be read; upload it again")
        if key in (b"path", b"size"):
            if b"\0" in value:
                raise tree.refuse("holds a name with a NUL: rename it")
            yield key.decode(), _text(value, tree)
        else:
            yield key.decode(errors="replace"), ""
        data = data[length:]


# --- zip --------------------------------------------------------------------------------------------------------------


class _Bounded:
    """A file that refuses to be read in large pieces: zipfile reads a directory of any claimed length at once."""

    def __init__(self, file: IO[bytes], tree: Tree) -> None:
        self.tell = file.tell
        self.seekable: Callable[[], bool] = lambda: True
        self._file = file
        self._tree = tree

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0 and not 0 <= offset < 1 << 62:
            raise zipfile.BadZipFile
        return self._file.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        if size > _MAX_DIRECTORY_BYTES:
            raise self._tree.refuse(f"has a directory of {size} bytes: pack the model alone")
        return self._file.read(_MAX_DIRECTORY_BYTES if size < 0 else size)


def _unzip(file: IO[bytes], tree: Tree, budget: _Budget) -> None:
    try:
        with zipfile.ZipFile(_Bounded(file, tree)) as archive:  # pyright: ignore[reportArgumentType]
            if not archive.infolist():
                raise tree.refuse("is empty")
            for entry in archive.infolist():
                _unzip_entry(archive, entry, tree, budget)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, LookupError) as error:
        if isinstance(error, UnicodeError):
            raise tree.refuse("holds a name that is not UTF-8: rename it") from None
        raise tree.refuse(f"is damaged or no zip archive ({type(error).__name__}): upload it again") from None


def _unzip_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, tree: Tree, budget: _Budget) -> None:
    path = entry.orig_filename  # filename is what zipfile makes of it: cut at a NUL
    kind = stat.S_IFMT(entry.external_attr >> 16)
    folder = path.endswith("/")
    if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
        raise tree.refuse(f"holds {path[:80]!r}, a link or special file: pack regular files and folders only")
    if entry.flag_bits & 0x41:
        raise tree.refuse(f"holds {path[:80]!r}, which is encrypted: pack it without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise tree.refuse(f"holds {path[:80]!r}, compressed by method {entry.compress_type}: use deflate")
    if folder:
        if entry.file_size:
            raise tree.refuse(f"holds {path[:80]!r}, a folder with content: pack regular files and folders only")
        tree.folder(path)
        return
    with archive.open(entry) as source, tree.create(path) as target:
        size = 0
        while data := source.read(_COPY_BYTES):
            size += len(data)
            budget.take(len(data))
            write_all(target, data)
        if size != entry.file_size:
            raise tree.refuse(f"is damaged: {path[:80]!r} has {size} bytes, not the {entry.file_size} that its entry says")


def write_all(file: IO[bytes], data: bytes | bytearray) -> None:
    """Writes all of it to an unbuffered file."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
