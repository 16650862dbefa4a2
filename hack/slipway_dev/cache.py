"""Locks between processes, keys by content, and cache entries that appear whole or not at all."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from slipway_dev.console import say
from slipway_dev.paths import cache_folder

_UNFINISHED = ".new-"


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Generator[bool]:
    """Hold an exclusive lock on a file; it ends with the process, however that ends.

    Yield whether it is held: not where another process holds it and this one must not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            say(f"waiting for another process that holds {path}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield True
    finally:
        os.close(descriptor)


def content_key(parts: Iterable[str | bytes | Path], length: int = 12) -> str:
    """Hash strings and whole files or folders (names, modes and content) into a short hexadecimal key."""
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "big") + data)

    for part in parts:
        if isinstance(part, Path):
            for name, file in files_below(part):
                add(name.encode())
                add(b"x" if os.access(file, os.X_OK) else b"-")
                add(file.read_bytes())
        else:
            add(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:length]


def files_below(path: Path) -> list[tuple[str, Path]]:
    """List the files of a folder that are sources (relative name, path), in a fixed order; a file lists itself."""
    if path.is_file():
        return [(path.name, path)]
    return sorted(
        (str(file.relative_to(path)), file)
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    )


def entry(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the cache's folder kind/key; when absent, build(folder) fills a temporary one that is then renamed.

    Its time of modification is that of its last use.
    """
    folder = cache_folder() / kind / key
    with lock(_lock_of(kind, key)):
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{key}-", dir=folder.parent))
            staging.chmod(0o755)
            try:
                build(staging)
                staging.rename(folder)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        os.utime(folder)
    return folder


def is_wanted(kind: str, key: str) -> bool:
    """Tell whether an entry is there, or a process makes it or removes it now."""
    if (cache_folder() / kind / key).exists():
        return True
    with lock(_lock_of(kind, key), wait=False) as free:
        return not free


def prune(kind: str, kept: int, recent_seconds: float) -> list[str]:
    """Remove old entries of a kind whose keys are HASH or NAME-HASH: of each name all but so many that were used last.

    One that was used in the last seconds stays, and one that a process holds. What a killed process left unfinished goes, too.
    Answer the keys removed.
    """
    folder = cache_folder() / kind
    for unfinished in folder.glob(f"{_UNFINISHED}*"):
        with lock(_lock_of(kind, unfinished.name.removeprefix(_UNFINISHED).rpartition("-")[0]), wait=False) as free:
            if free:
                shutil.rmtree(unfinished, ignore_errors=True)
    by_name: dict[str, list[Path]] = {}
    for found in folder.glob("[!.]*"):
        by_name.setdefault(found.name.rpartition("-")[0], []).append(found)
    old = [each for found in by_name.values() for each in sorted(found, key=_used, reverse=True)[kept:]]
    return [each.name for each in sorted(old) if _remove_unused(kind, each, recent_seconds)]


def _remove_unused(kind: str, folder: Path, recent_seconds: float) -> bool:
    with lock(_lock_of(kind, folder.name), wait=False) as free:
        if not free or not folder.exists() or time.time() - _used(folder) < recent_seconds:
            return False
        # Renamed first: an entry is whole or absent, also where this process is killed now.
        shutil.rmtree(folder.rename(folder.with_name(f"{_UNFINISHED}{folder.name}-removed")))
        return True


def _used(folder: Path) -> float:
    """Answer when an entry was used last; 0 where another process has removed it meanwhile."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _lock_of(kind: str, key: str) -> Path:
    return cache_folder() / "locks" / f"{kind}-{key}".replace("/", "-")
