"""Locks between processes, keys by content, and cache entries that appear whole or not at all."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from slipway_dev.console import say
from slipway_dev.paths import cache_folder


@contextmanager
def lock(path: Path) -> Generator[None]:
    """Hold an exclusive lock on a file; it ends with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
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
    """Return the cache's folder kind/key; when absent, build(folder) fills a temporary one that is then renamed."""
    folder = cache_folder() / kind / key
    if folder.exists():
        return folder
    with lock(cache_folder() / "locks" / f"{kind}-{key}".replace("/", "-")):
        if folder.exists():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        staging.chmod(0o755)
        try:
            build(staging)
            staging.rename(folder)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return folder
