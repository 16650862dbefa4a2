"""The supervisor of the workers: starts them, watches their loading, starts again one that dies, ends all on SIGTERM.

It is process 1 of the container, and lives to tell whatever a model does to the process that loads it. The first worker's
load is the trial: the others start once it is ready. The supervisor has one thread, so that it can fork at any time, and
imports nothing heavy, so that it costs little. Workers accept from one listening socket that all inherit: what waits to be
accepted survives the death of any of them.
"""

import os
import select
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from slipway_server import logs
from slipway_server.termination import EXIT_CODE, Reason, TerminalError, report

if TYPE_CHECKING:
    from slipway_server.serve import Server

MAX_DEATHS = 5
"""So many deaths of workers within DEATHS_SECONDS end the server: something kills each that comes."""
DEATHS_SECONDS = 60.0
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Before a worker is started again, by the number of recent deaths."""
GRACE_SECONDS = 5.0
"""Beyond the drain's time, for a worker to end."""


class _Worker:
    """One worker's process, if it has one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0
        self.start_at: float | None = None
        """When it is to be started."""
        self.deadline: float | None = None
        """While it loads: when it must be ready."""
        self.late = False
        """It was ended because it was not."""


def supervise(server: "Server") -> int:
    """Runs the workers until SIGTERM or SIGINT; returns the exit code. Raises TerminalError."""
    return _Supervisor(server).run()


class _Supervisor:
    def __init__(self, server: "Server") -> None:
        self._server = server
        self._table = server.table
        self._workers = [_Worker(index) for index in range(server.workers)]
        self._deaths: deque[float] = deque()
        self._stopping = False
        self._told_ready = False
        self._wake, self._wake_writer = os.pipe()
        self._begun = time.monotonic()

    def run(self) -> int:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wake_writer, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # for its byte in the pipe
        self._workers[0].start_at = self._begun
        try:
            while not self._stopping:
                if code := self._look_after():
                    return code
                self._wait()
            return self._end()
        finally:
            self._kill()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _look_after(self) -> int:
        """Reaps, starts, hears who is ready; an exit code where the server has to end. Raises TerminalError."""
        now = time.monotonic()
        while ended := self._next_ended():
            if code := self._died(*ended, now):
                return code
        for worker in self._workers:
            if worker.deadline is not None and self._table.is_ready(worker.index):
                worker.deadline = None
                self._now_ready(now)
            if worker.deadline is not None and now >= worker.deadline and not worker.late:
                worker.late = True
                os.kill(worker.pid, signal.SIGKILL)
            if worker.start_at is not None and now >= worker.start_at:
                self._start(worker, now)
        return 0

    def _now_ready(self, now: float) -> None:
        """A worker has become ready."""
        for worker in self._workers:
            if not worker.pid and worker.start_at is None:  # never started: the first one's load was the trial
                worker.start_at = now
        if not self._told_ready and self._table.all_ready():
            self._told_ready = True
            server = self._server
            logs.info(
                "ready", port=server.port, workers=server.workers, threads=server.threads, start=f"{now - self._begun:.3f}s"
            )

    def _start(self, worker: _Worker, now: float) -> None:
        alone = not self._table.ready()
        worker.start_at = None
        worker.late = False
        worker.deadline = now + self._server.options.load_timeout
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        worker.pid = os.fork()
        if worker.pid == 0:
            os.close(self._wake)
            _child(self._server, worker.index, parent, self._wake_writer, alone)

    def _next_ended(self) -> tuple[_Worker, int] | None:
        """A worker that has ended, and how: with it ends what it started. Reaps orphans too, as process 1 must."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                return None
            if ended is None:
                return None
            worker = next((worker for worker in self._workers if worker.pid == ended.si_pid), None)
            if worker is not None:
                _kill_group(worker.pid)  # until it is reaped nobody else's group can have its number
                worker.pid = 0
            _, status = os.waitpid(ended.si_pid, 0)
            if worker is not None:
                self._table.forget(worker.index)
                return worker, status

    def _died(self, worker: _Worker, status: int, now: float) -> int:
        """Settles what follows from a worker's end: an exit code, or its next start. Raises TerminalError."""
        worker.deadline = None
        if not self._table.all_ready():
            if self._table.has_said_why(worker.index):
                return EXIT_CODE
            raise self._load_ended(worker, status)
        how = _how(status)
        self._deaths.append(now)
        while now - self._deaths[0] > DEATHS_SECONDS:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            raise TerminalError(
                Reason.MODEL_RUN_CRASHED,
                f"{MAX_DEATHS} workers died within {DEATHS_SECONDS:g} s, the last by {how}: "
                "requests kill the model's runtime, or the memory limit is too low",
            )
        delay_seconds = BACKOFF_SECONDS[min(len(self._deaths), len(BACKOFF_SECONDS)) - 1]
        worker.start_at = now + delay_seconds
        self._table.restarted()
        logs.error("a worker died and is started again", worker=worker.index, cause=how, delay=f"{delay_seconds:g}s")
        return 0

    def _load_ended(self, worker: _Worker, status: int) -> TerminalError:
        path = self._server.path
        if worker.late:
            return load_timed_out(path, self._server.options.load_timeout)
        error = load_ended(path, status)
        if worker.index and error.reason is Reason.OUT_OF_MEMORY:
            copies = f"{self._server.workers} workers have a copy of {path.name} each"
            return TerminalError(error.reason, f"{error.message}, or set fewer workers: {copies}")
        return error

    def _end(self) -> int:
        """Lets the workers drain; one that loads has nothing to finish."""
        deadline = time.monotonic() + self._server.options.drain_timeout + GRACE_SECONDS
        for worker in self._workers:
            if worker.pid and self._table.is_ready(worker.index):
                os.kill(worker.pid, signal.SIGTERM)
            elif worker.pid:
                os.kill(worker.pid, signal.SIGKILL)
                logs.info("stopped while the model was loading", worker=worker.index)
        while any(worker.pid for worker in self._workers) and time.monotonic() < deadline:
            if self._next_ended() is None:
                self._wait(deadline)
        return 0

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.pid:
                _kill_group(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                worker.pid = 0

    def _wait(self, until: float | None = None) -> None:
        """Until something happens, or the next thing is due."""
        due = [until, *(worker.start_at for worker in self._workers)]
        due += (worker.deadline for worker in self._workers if not worker.late)
        moments = [moment for moment in due if moment is not None]
        timeout_seconds = max(0.0, min(moments) - time.monotonic()) if moments else None
        select.select([self._wake], [], [], timeout_seconds)
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)


def _child(server: "Server", index: int, parent: int, wake_writer: int, alone: bool) -> NoReturn:
    """A worker's process, from its beginning to its end."""
    code = EXIT_CODE
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        _die_with_parent(parent)

        from slipway_server.worker import run  # here, as the supervisor stays small

        run(server, index, lambda: os.write(wake_writer, b"\0"), alone=alone)
        code = 0
    except TerminalError as error:
        code = _say_why(server, index, error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}: report this as a defect"
        code = _say_why(server, index, TerminalError(Reason.INTERNAL_ERROR, message))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # whatever happened: never run on as a second supervisor


def _say_why(server: "Server", index: int, error: TerminalError) -> int:
    code = report(error)
    server.table.say_why(index)
    return code


def _die_with_parent(parent: int) -> None:
    """Lets the kernel end this process when its parent, of process number `parent`, is gone, however it went."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # gone before we could ask
        os._exit(EXIT_CODE)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def load_ended(path: Path, status: int) -> TerminalError:
    """What to say of a load that ended its process before it could say why; `status` as waitpid gives it."""
    if not os.WIFSIGNALED(status):
        return TerminalError(
            Reason.MODEL_LOAD_CRASHED,
            f"loading {path.name} ended its process with exit code {os.WEXITSTATUS(status)}: "
            "the file is damaged or hostile: export it again, and set its sha256",
        )
    if os.WTERMSIG(status) == signal.SIGKILL:
        return TerminalError(
            Reason.OUT_OF_MEMORY, f"the kernel killed the process that loaded {path.name}: raise the memory limit"
        )
    return TerminalError(
        Reason.MODEL_LOAD_CRASHED,
        f"loading {path.name} killed its process ({_how(status)}): the file is damaged or hostile, or needs more memory: "
        "export it again, set its sha256, or raise the memory limit",
    )


def load_timed_out(path: Path, timeout_seconds: float) -> TerminalError:
    """The error for a load that did not end in time."""
    return TerminalError(
        Reason.MODEL_LOAD_TIMEOUT,
        f"loading {path.name} took longer than {timeout_seconds:g} s: give it more CPU or time, or serve a smaller model",
    )


def _how(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
