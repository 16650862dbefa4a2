"""What a fetch has brought so far, in a folder of its own beside the model: a killed or cut fetch goes on from there."""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway_server import archive, logs
from slipway_server.sources import SourceFile
from slipway_server.termination import Reason, TerminalError

NAME = ".fetch"
PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Part:
    """One file, brought: where it lies, its hexadecimal sha256 and its bytes."""

    place: Path
    sha256: str
    size: int


class Staging:
    """The folder `.fetch` in `dest`: parts by number, and for each the validator that says whether it may be gone on with.

    What lies there from an earlier run is kept only if that run was to bring the same files. `model` is an empty folder for
    what becomes of the parts. Methods raise OSError when the folder cannot be written.
    """

    def __init__(self, dest: Path, uri: str, files: Sequence[SourceFile]) -> None:
        self.folder = dest / NAME
        self.model = self.folder / "model"
        self._record = self.folder / "state"
        identity = _identity(uri, files)
        self._validators = self._read(identity)
        if not self._validators:
            self.remove()
        shutil.rmtree(self.model, ignore_errors=True)
        self.model.mkdir(parents=True)
        self.model.chmod(0o755)
        if not self._validators:
            self._record.write_text(identity + "\n")

    def download(self, number: int, file: SourceFile, transfer: "Transfer") -> Part:
        """Brings a file, going on with what is there; raises TerminalError when it cannot be had or is another than promised."""
        place = self._part(number)
        validator = self._validators.get(number)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as opened:
            os.fchmod(descriptor, 0o644)  # whatever the umask
            if validator is None:
                opened.truncate()
            digest = hashlib.file_digest(opened, "sha256")  # pyright: ignore[reportArgumentType]
            size = opened.tell()
            if size:
                logs.info("going on", file=file.path, received=size)
            transfer.begin(file, size)
            for chunk in file.chunks(size, validator):
                if chunk.offset != size:  # the source had to begin anew
                    digest, size = hashlib.sha256(), 0
                    opened.seek(0)
                    opened.truncate()
                if file.validator != validator:
                    validator = file.validator
                    self._note(number, validator)
                transfer.count(size + len(chunk.data))
                archive.write_all(opened, chunk.data)
                digest.update(chunk.data)
                size += len(chunk.data)
        transfer.end(size)
        sha256 = digest.hexdigest()
        if file.sha256 is not None and sha256 != file.sha256:
            raise TerminalError(
                Reason.DIGEST_MISMATCH,
                f"{file.label} has sha256 {sha256}, but its source promises {file.sha256}: upload it there again",
            )
        return Part(place, sha256, size)

    def resumable(self) -> bool:
        """Whether a later run can go on with something."""
        return any(self._part(number).stat().st_size for number in self._validators)

    def remove(self) -> None:
        """Removes all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self, number: int) -> Path:
        return self.folder / f"part{number}"

    def _read(self, identity: str) -> dict[int, str]:
        """Validators by part; a last line that was cut is passed over, and none are read of other files."""
        validators: dict[int, str] = {}
        with contextlib.suppress(OSError, ValueError):
            first, *lines = self._record.read_text().splitlines()
            for line in lines if first == identity else ():
                number, validator = json.loads(line)
                if validator is None:
                    validators.pop(number, None)
                else:
                    validators[number] = validator
        return validators

    def _note(self, number: int, validator: str | None) -> None:
        self._validators.pop(number, None)
        if validator is not None:
            self._validators[number] = validator
        with self._record.open("a") as record:
            record.write(json.dumps([number, validator]) + "\n")


class Transfer:
    """Counts the bytes of all files of a model: for the limit, and for the log."""

    def __init__(self, label: str, files: Sequence[SourceFile], max_bytes: int | None) -> None:
        self._label = label
        self._max_bytes = max_bytes
        self._file: SourceFile | None = None
        self._done = 0
        sizes = [file.size for file in files]
        self._announced = sum(size for size in sizes if size is not None)
        self._whole = None not in sizes
        self._last = time.monotonic()
        self._last_received = 0
        self._check(self._announced)

    def begin(self, file: SourceFile, size: int) -> None:
        """A file is next, of which `size` bytes are here already."""
        self._file = file
        self._last_received += size

    def count(self, size: int) -> None:
        """The file will have `size` bytes here. Raises TerminalError(ModelTooLarge)."""
        assert self._file is not None  # noqa: S101 - begin was called
        received = self._done + size
        total = self._announced if self._whole else self._done + self._file.size if self._file.size else None
        self._check(max(received, total or 0), known=bool(total and total >= received))
        elapsed = time.monotonic() - self._last
        if elapsed >= PROGRESS_SECONDS:
            share = f"{100 * received // total}%" if total else "?"
            rate = f"{(received - self._last_received) / elapsed / 1e6:.1f}MB/s"
            logs.info("fetching", received=received, of=total or "unknown", share=share, rate=rate)
            self._last, self._last_received = time.monotonic(), received

    def end(self, size: int) -> None:
        """All of the file is here, `size` bytes."""
        self._done += size

    def _check(self, size: int, known: bool = True) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise TerminalError(
                Reason.MODEL_TOO_LARGE,
                f"{self._label} has {size if known else f'more than {self._max_bytes}'} bytes, the limit is {self._max_bytes}: "
                "raise the limit, or serve a smaller model",
            )


def _identity(uri: str, files: Sequence[SourceFile]) -> str:
    """A digest, because a URI may hold credentials."""
    listing = [uri, *([file.path, file.size, file.sha256] for file in files)]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
