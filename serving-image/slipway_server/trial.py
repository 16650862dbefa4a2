"""The first load of a model, in a disposable child process: whatever it does there, this process lives to tell.

The child is a fork, which costs milliseconds where a new interpreter costs a third of a second. A fork is sound only
while the process has a single thread: `start` refuses otherwise.
"""

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from slipway_server import logs
from slipway_server.batching import probe
from slipway_server.formats import Model, ModelInputError, ModelMemoryError, ModelRunError
from slipway_server.tensors import Array, TensorSpec
from slipway_server.termination import MAX_BYTES, Reason, TerminalError

_LEFT_FREE_BYTES = 8 << 20  # of the container's memory: what this process itself still needs
_SERVED = "served"
_PROBED_SECONDS = 0.25  # a model whose run takes longer is not probed: that makes ten runs and more


class Trial:
    """A running trial. Exactly one of `finish` and `kill` ends it."""

    def __init__(self, pid: int, pipe: int, deadline: float, timeout_seconds: float, path: Path) -> None:
        self.pid = pid
        self.pipe = pipe
        """Readable when the child has ended."""
        self.deadline = deadline
        """time.monotonic() by which it must have ended."""
        self._timeout_seconds = timeout_seconds
        self._path = path

    def kill(self) -> None:
        """Ends the child at once."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()
        os.close(self.pipe)

    def timed_out(self) -> TerminalError:
        """Ends the child; what to say when `deadline` passes first."""
        self.kill()
        return load_timed_out(self._path, self._timeout_seconds)

    def finish(self) -> None:
        """Waits for the child to end. Raises the TerminalError that it met, or that its death means."""
        os.set_blocking(self.pipe, True)  # an event loop that watched it may have changed that
        verdict = b""
        while piece := os.read(self.pipe, 65536):
            verdict += piece
        os.close(self.pipe)
        status = self._reap()
        if os.WIFSIGNALED(status):
            raise self._killed(os.WTERMSIG(status))
        try:
            if os.WEXITSTATUS(status) == 0 and (said := json.loads(verdict)) != _SERVED:
                raise TerminalError(Reason(said[0]), said[1])
        except (ValueError, TypeError, LookupError):  # a model's code may end the process, or write what it likes
            verdict = b""
        if os.WEXITSTATUS(status) or not verdict:
            raise TerminalError(
                Reason.MODEL_LOAD_CRASHED,
                f"loading {self._path.name} ended the trial process with exit code {os.WEXITSTATUS(status)}: "
                "the file is damaged or hostile: export it again, and set its sha256",
            )

    def _reap(self) -> int:
        """How the child ended; with it goes what it started and left behind."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # until it is reaped nobody else's group can have its number
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]

    def _killed(self, number: int) -> TerminalError:
        if number == signal.SIGKILL:
            return TerminalError(
                Reason.OUT_OF_MEMORY,
                f"the kernel killed the trial process while it loaded {self._path.name}: raise the memory limit",
            )
        if number == signal.SIGALRM:
            return load_timed_out(self._path, self._timeout_seconds)
        return TerminalError(
            Reason.MODEL_LOAD_CRASHED,
            f"loading {self._path.name} killed the trial process ({signal.Signals(number).name}): "
            "the file is damaged or hostile, or needs more memory: "
            "export it again, set its sha256, or raise the memory limit",
        )


def start(load: Callable[[], Model], path: Path, timeout_seconds: float, memory_bytes: int | None) -> Trial:
    """Loads and warms a model in a child that may take `memory_bytes` (None: no limit) and `timeout_seconds`."""
    if sum(1 for _ in Path("/proc/self/task").iterdir()) != 1:
        raise RuntimeError("the trial must start while the process has one thread")
    reader, writer = os.pipe()
    deadline = time.monotonic() + timeout_seconds
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(load, path, writer, parent, timeout_seconds, memory_bytes)
    os.close(writer)
    return Trial(pid, reader, deadline, timeout_seconds, path)


def warm_up(model: Model, path: Path) -> str | None:
    """Runs the model on zeros, and on ones if zeros do not suit it, and finds out whether its requests may share runs.

    Returns what it objected to where neither suited it. Raises TerminalError: OutOfMemory, or ModelCorrupt when nothing of
    its inputs had to be guessed: such a model would fail on any request.
    """
    objection = ""
    for value in (0, 1):
        feeds = {spec.name: _filled(spec, value, model.known_texts.get(spec.name, ())) for spec in model.inputs}
        started = time.monotonic()
        try:
            model.run(feeds, [spec.name for spec in model.outputs], model.new_handle())
        except ModelMemoryError:
            raise _out_of_memory(path) from None
        except (ModelInputError, ModelRunError) as error:
            objection = str(error)
        else:
            _settle_batching(model, time.monotonic() - started)
            return None
    model.row_wise = False
    guessed = any(dim is None or isinstance(dim, str) for spec in model.inputs for dim in spec.dims or (None,))
    if guessed or any(spec.datatype.element is str for spec in model.inputs):
        return objection
    message = f"{path.name} loads, but fails its first run ({objection}): export it again and try it with its own runtime"
    raise TerminalError(Reason.MODEL_CORRUPT, message)


def _settle_batching(model: Model, run_seconds: float) -> None:
    cause = probe(model) if run_seconds < _PROBED_SECONDS else "a single run takes too long to try many"
    model.row_wise = cause is None
    if cause is None:
        logs.info("requests that wait together share a run")
    else:
        logs.info("each request has a run of its own", cause=cause)


def _filled(spec: TensorSpec, value: int, texts: Sequence[str]) -> Array:
    array = spec.filled(value)
    if texts and spec.datatype.element is str:
        array[...] = texts[value % len(texts)]
    return array


def load_timed_out(path: Path, timeout_seconds: float) -> TerminalError:
    """The error for a load that did not end in time."""
    return TerminalError(
        Reason.MODEL_LOAD_TIMEOUT,
        f"loading {path.name} took longer than {timeout_seconds:g} s: give it more CPU or time, or serve a smaller model",
    )


def _child(
    load: Callable[[], Model], path: Path, writer: int, parent: int, timeout_seconds: float, memory_bytes: int | None
) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.register_at_fork(after_in_child=lambda: os.close(writer))  # its end is the sign that this process has ended
        _hush()
        die_with_parent(parent)
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds + 1)  # should nobody watch `deadline`
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes is not None:
            # Private memory, mapped or grown: the kernel's OOM killer would choose between us and the parent.
            limit = _data_bytes() + max(0, memory_bytes - _LEFT_FREE_BYTES)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            error = _attempt(load, path)
        except MemoryError:
            error = _out_of_memory(path)
        os.write(writer, json.dumps([error.reason, error.message[:MAX_BYTES]] if error else _SERVED).encode())
        code = 0
    finally:
        os._exit(code)  # whatever happened: never run on as a second server


def _attempt(load: Callable[[], Model], path: Path) -> TerminalError | None:
    try:
        warm_up(load(), path)
    except TerminalError as error:
        return error
    except MemoryError:
        raise
    except Exception as error:  # not why: a library's message may quote the file
        message = f"loading {path.name} raised {type(error).__name__}: the file is damaged or hostile: export it again"
        return TerminalError(Reason.MODEL_LOAD_CRASHED, message)
    return None


def _out_of_memory(path: Path) -> TerminalError:
    return TerminalError(
        Reason.OUT_OF_MEMORY, f"{path.name} needs more memory to load and run than the container has: raise its limit"
    )


def die_with_parent(parent: int) -> None:
    """Lets the kernel end this process when its parent, of process number `parent`, is gone, however it went."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # gone before we could ask
        os._exit(1)


def _hush() -> None:
    """Drops what is printed and logged: the parent loads the model again and prints the same, and what a library says of a
    broken file are bytes of that file.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _data_bytes() -> int:
    """This process's private writable memory, which RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
