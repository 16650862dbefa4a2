"""The processes of a benchmark: started, measured by /proc, ended."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.table import say

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Answer the CPU time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def tree(pid: int) -> list[int]:
    """Answer a process and its descendants, itself first."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def tree_cpu_seconds(pid: int) -> float:
    """Answer the CPU time of a process and its living descendants so far."""
    return sum(map(cpu_seconds, tree(pid)))


def tree_megabytes(pid: int) -> float:
    """Answer the resident size now of a process and its descendants; what they share counts for each."""
    return sum(_status(each, "VmRSS") for each in tree(pid))


def peak_megabytes(pid: int) -> float:
    """Answer the largest resident size that a process had."""
    return _status(pid, "VmHWM")


def _status(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


class Process:
    """One child process, its output in a log file."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Answer its id."""
        return self._child.pid

    def require(self) -> None:
        """Raise where it has ended."""
        if self._child.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self._child.args} ended with {self._child.returncode}:\n{tail}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def end(self, seconds: float = 10.0) -> None:
        """End it, by force where it does not obey."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"process {self.pid} does not end: killed")
            self._child.kill()
            self._child.wait()


def load_average() -> str:
    """Answer how busy the machine is."""
    return Path("/proc/loadavg").read_text().split()[0]
