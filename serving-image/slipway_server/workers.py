"""Several workers, one a core: forks them, starts again one that dies, ends all on SIGTERM.

The supervisor has one thread and no event loop: it must be able to fork at any time. Workers accept from one listening
socket that all inherit, so that what waits to be accepted survives the death of any of them.
"""

import asyncio
import os
import select
import signal
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from slipway_server import logs
from slipway_server.termination import EXIT_CODE, Reason, TerminalError, report
from slipway_server.trial import Trial, die_with_parent

if TYPE_CHECKING:
    from slipway_server.serve import Server

MAX_DEATHS = 5
"""So many deaths of workers within DEATHS_SECONDS end the server: something kills each that comes."""
DEATHS_SECONDS = 60.0
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Before a worker is started again, by the number of recent deaths."""
GRACE_SECONDS = 5.0
"""Beyond the drain's time, for a worker to end."""
_TICK_SECONDS = 0.1


class _Worker:
    """One worker's process, if it has one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0
        self.start_at: float | None = None
        """When it is to be started again."""
        self.go = -1
        """Where to say that the model may be loaded; closed without a word, that it may not."""


def supervise(server: "Server", attempt: Trial) -> int:
    """Runs the workers until SIGTERM or SIGINT; returns the exit code. Raises TerminalError."""
    return _Supervisor(server).run(attempt)


class _Supervisor:
    def __init__(self, server: "Server") -> None:
        self._server = server
        self._workers = [_Worker(index) for index in range(server.workers)]
        self._deaths: deque[float] = deque()
        self._stopping = False
        self._told_ready = False
        self._wake, self._wake_writer = os.pipe()

    def run(self, attempt: Trial) -> int:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wake_writer, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # for its byte in the pipe
        try:
            for worker in self._workers:
                self._fork(worker, loaded_before=False)
            if not self._trial(attempt):
                return self._end()
            while not self._stopping:
                code = self._look_after()
                if code:
                    return code
                self._wait()
            return self._end()
        finally:
            self._kill()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _trial(self, attempt: Trial) -> bool:
        """Waits for the trial and tells the workers; False when it was stopped. Raises what the trial ended with."""
        poll = select.poll()
        poll.register(attempt.pipe, select.POLLIN | select.POLLHUP)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = dict(poll.poll(max(0.0, attempt.deadline - time.monotonic()) * 1000))
            if self._stopping:
                attempt.kill()
                return False
            if attempt.pipe in ready:
                attempt.finish()
                break
            if time.monotonic() >= attempt.deadline:
                raise attempt.timed_out()
            self._drop_wakes()
        for worker in self._workers:
            if worker.go >= 0:
                os.write(worker.go, b"1")
                os.close(worker.go)
                worker.go = -1
        return True

    def _look_after(self) -> int:
        """Reaps, starts again, tells of readiness; an exit code where the server has to end. Raises TerminalError."""
        now = time.monotonic()
        if not self._told_ready and self._server.table.all_ready():
            self._told_ready = True
            server = self._server
            logs.info("ready", port=server.port, workers=server.workers, threads=server.threads)
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    worker.pid = 0
                    code = self._died(worker, status, now)
                    if code:
                        return code
            elif worker.start_at is not None and now >= worker.start_at:
                worker.start_at = None
                self._server.table.restarted()
                self._fork(worker, loaded_before=True)
        return 0

    def _died(self, worker: _Worker, status: int, now: float) -> int:
        self._server.table.forget(worker.index)
        how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        if not self._server.table.all_ready():
            if not os.WIFSIGNALED(status):
                return os.WEXITSTATUS(status) or EXIT_CODE  # it has said why
            name = self._server.path.name
            if os.WTERMSIG(status) == signal.SIGKILL:
                message = (
                    f"{self._server.workers} workers with a copy of {name} each: raise the memory limit or set fewer workers"
                )
                raise TerminalError(Reason.OUT_OF_MEMORY, f"the kernel killed a worker that loaded its model; {message}")
            raise TerminalError(Reason.MODEL_LOAD_CRASHED, f"loading {name} killed a worker ({how}): set workers: 1")
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
        logs.error("a worker died and is started again", worker=worker.index, cause=how, delay=f"{delay_seconds:g}s")
        return 0

    def _fork(self, worker: _Worker, *, loaded_before: bool) -> None:
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            _child(self._server, worker.index, parent, self._wake, self._wake_writer, reader, restarted=loaded_before)
        os.close(reader)
        worker.pid = pid
        if loaded_before:
            os.close(writer)
        else:
            worker.go = writer

    def _end(self) -> int:
        """Lets the workers drain."""
        deadline = time.monotonic() + self._server.options.drain_timeout + GRACE_SECONDS
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, signal.SIGTERM)
        while any(worker.pid for worker in self._workers) and time.monotonic() < deadline:
            for worker in self._workers:
                if worker.pid and os.waitpid(worker.pid, os.WNOHANG)[0]:
                    worker.pid = 0
            if any(worker.pid for worker in self._workers):
                self._wait()
        return 0

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                worker.pid = 0

    def _wait(self) -> None:
        """Until something happens, or a tick where something is awaited that no signal tells of."""
        awaited = not self._told_ready or any(worker.start_at is not None for worker in self._workers)
        select.select([self._wake], [], [], _TICK_SECONDS if awaited else None)
        self._drop_wakes()

    def _drop_wakes(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            return


def _child(server: "Server", index: int, parent: int, wake: int, wake_writer: int, go: int, *, restarted: bool) -> NoReturn:
    """A worker's whole life."""
    from slipway_server.serve import exit_at_once, work

    code = EXIT_CODE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, exit_at_once)
        os.close(wake)
        os.close(wake_writer)
        die_with_parent(parent)

        import uvloop

        async def permission() -> None:
            if restarted:
                return
            loop = asyncio.get_running_loop()
            said = asyncio.Event()
            loop.add_reader(go, said.set)
            await said.wait()
            loop.remove_reader(go)
            os.set_blocking(go, True)
            if not os.read(go, 1):
                await asyncio.Event().wait()  # the trial failed: the supervisor ends us

        code = uvloop.run(work(server, index, permission, restarted=restarted))
    except TerminalError as error:
        code = report(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}: report this as a defect"
        code = report(TerminalError(Reason.INTERNAL_ERROR, message))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # whatever happened: never run on as a second supervisor
