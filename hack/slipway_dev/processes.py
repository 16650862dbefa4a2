"""Processes that outlive the command that starts them, recognised again without mistake."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway_dev.console import CommandError


@dataclass(frozen=True)
class Process:
    """One process: its id, its start in clock ticks after boot, and the boot. A reused id differs in its start."""

    pid: int
    start_ticks: int
    boot: str

    def alive(self) -> bool:
        """Tell whether this very process still runs (a zombie does not)."""
        return identify(self.pid) == self

    def kill(self, timeout_seconds: float = 10.0) -> None:
        """End it with SIGKILL and wait until it is gone. Never touches another process that got the same id."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive():  # checked after the handle is held: the id cannot change hands any more
                return
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)
        deadline = time.monotonic() + timeout_seconds
        while self.alive():
            if time.monotonic() > deadline:
                raise CommandError(f"process {self.pid} did not end within {timeout_seconds:.0f} s of SIGKILL")
            time.sleep(0.01)


def _stat_fields(pid: int) -> list[str] | None:
    """Return /proc/PID/stat from its third field (state) on; the second, the name, may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(pid: int) -> Process | None:
    """Return the identity of a running process, None when there is none."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def child_of(pid: int) -> int | None:
    """Return the only child of a process, None while it has none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields is not None and fields[1] == str(pid):
                return int(entry.name)
    return None


def spawn(arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a process in a session of its own, its output in a log file, and return its identity."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
            cwd="/",
        )
    process = identify(child.pid)
    if process is None:
        raise CommandError(f"{arguments[0]} ended at once: see {log}")
    child.returncode = 0  # it outlives this command on purpose: spare the interpreter's warning about a running child
    return process


def run(
    arguments: Sequence[str | Path],
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return its stdout; raise a CommandError with its stderr when it fails."""
    words = [str(argument) for argument in arguments]
    result = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    if result.returncode != 0:
        raise CommandError(f"{' '.join(words)}: exit status {result.returncode}: {(result.stderr or result.stdout).strip()}")
    return result.stdout
