"""`fetch`: brings one model file into a folder, verified before anything parses it."""

import argparse
import contextlib
import errno
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from slipway_server import formats, logs
from slipway_server.sources import Source
from slipway_server.sources.uri import ModelURI, parse
from slipway_server.termination import Reason, TerminalError

RECEIPT = "fetched.json"
"""Beside the model: what was fetched, for `serve` to tell in its metrics."""
PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Receipt:
    """What was fetched: URI without credentials, hexadecimal sha256, bytes, and the file's name in the folder."""

    uri: str
    sha256: str
    size: int
    file: str


def fetch(options: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises TerminalError."""
    logs.setup()
    formats.check(options.format)
    uri = parse(options.uri)
    dest: Path = options.dest
    file = dest / formats.file_name(options.format, uri.suffix)
    if options.sha256 and (present := _present(dest, file, options.sha256)):
        logs.info("already there, sha256 verified", file=str(file), size=present.size)
        return 0
    source = _open(uri, options)
    logs.info("fetching", uri=source.label, to=str(file))
    started = time.monotonic()
    part = dest / f".{file.name}.part"
    try:
        dest.mkdir(parents=True, exist_ok=True)
        sha256, size = _stream(source, part, options.max_bytes)
        if options.sha256 and sha256 != options.sha256:
            raise TerminalError(
                Reason.DIGEST_MISMATCH,
                f"{source.label} has sha256 {sha256}, but {options.sha256} is asked for: "
                "correct the sha256 if the file is the right one, else restore the file",
            )
        for old in formats.files_in(dest, options.format):
            old.unlink()
        _write_receipt(dest, Receipt(source.label, sha256, size, file.name))
        part.replace(file)
    except OSError as error:
        raise _storage_failed(dest, error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    logs.info("fetched", file=str(file), size=size, sha256=sha256, seconds=f"{time.monotonic() - started:.2f}")
    return 0


def read_receipt(dest: Path) -> Receipt | None:
    """The receipt in a model folder, or None where there is none that can be read."""
    try:
        return Receipt(**json.loads((dest / RECEIPT).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _open(uri: ModelURI, options: argparse.Namespace) -> Source:
    if uri.scheme in ("http", "https"):
        from slipway_server.sources.http import HttpSource  # 40 ms of imports that a file does not need

        return HttpSource(uri, options.timeout)
    from slipway_server.sources.local import LocalSource

    return LocalSource(uri, options.source_dir)


def _stream(source: Source, part: Path, max_bytes: int | None) -> tuple[str, int]:
    """Copies the source into `part`; returns (sha256, bytes). An OSError is the destination's."""
    digest = hashlib.sha256()
    size = 0
    last = time.monotonic()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for chunk in source.chunks():
            if chunk.offset != size:  # the source had to begin anew
                digest, size = hashlib.sha256(), 0
                file.seek(0)
                file.truncate()
            end = size + len(chunk.data)
            if max_bytes is not None and max(end, source.size or 0) > max_bytes:
                raise TerminalError(
                    Reason.MODEL_TOO_LARGE,
                    f"{source.label} has {source.size or f'more than {max_bytes}'} bytes, the limit is {max_bytes}: "
                    "raise the limit, or serve a smaller model",
                )
            _write_all(file.fileno(), chunk.data)
            digest.update(chunk.data)
            size = end
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                share = f"{100 * size // source.size}%" if source.size else "?"
                logs.info("fetching", received=size, of=source.size or "unknown", share=share)
    if size == 0:
        raise TerminalError(Reason.MODEL_NOT_FOUND, f"{source.label} is empty: 0 bytes")
    return digest.hexdigest(), size


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _present(dest: Path, file: Path, sha256: str) -> Receipt | None:
    """The receipt, if an earlier run of the init container already brought exactly this file."""
    receipt = read_receipt(dest)
    if receipt is None or receipt.sha256 != sha256 or receipt.file != file.name:
        return None
    try:
        with file.open("rb") as opened:
            return receipt if hashlib.file_digest(opened, "sha256").hexdigest() == sha256 else None
    except OSError:
        return None


def _write_receipt(dest: Path, receipt: Receipt) -> None:
    part = dest / f".{RECEIPT}.part"
    part.write_text(json.dumps(asdict(receipt)))
    part.replace(dest / RECEIPT)


def _storage_failed(dest: Path, error: OSError) -> TerminalError:
    cure = {
        errno.ENOSPC: "give the model volume a larger size limit",
        errno.EDQUOT: "give the model volume a larger size limit",
        errno.EFBIG: "give the model volume a larger size limit",
        errno.EROFS: "mount it writable in the init container",
        errno.EACCES: f"make it writable for user {os.getuid()}",
        errno.EPERM: f"make it writable for user {os.getuid()}",
    }.get(error.errno or 0, "check the volume")
    return TerminalError(Reason.STORAGE_FAILED, f"{dest} cannot be written ({error.strerror or error}): {cure}")
