"""Runs the model: short runs in place, long ones in a thread, and requests that wait together in one run."""

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from slipway_server import logs
from slipway_server.batching import Batching, Job, Queue, Run, join, rows_of, split
from slipway_server.formats import Model, ModelCancelledError, ModelInputError, ModelRunError, RunHandle
from slipway_server.tensors import Array

INLINE_SECONDS = 0.001
"""A run expected to take less is made on the event loop: handing over to a thread and back costs 0.05-0.1 ms of CPU,
and a probe that waits a millisecond is a probe that did not wait."""
QUEUE_SECONDS = 0.000012
"""A request waits for company in the queue where a shared run saves it more, which is the CPU time that the queue costs it.
At 64 connections, us of CPU a request alone and shared: a logistic regression as ONNX 13 and 19, a small CNN 43 and 43,
XGBoost of 100 trees 41 and 19, scikit-learn's forest of 500 trees 61 and 24."""
_LOOK_AGAIN = 31
"""Of so many requests that could share a run one goes the other way than the rest: either may have become the better. A
prime, so that it is not always the last of those that come together."""
_KNOWN_RUNS = 8
"""Before so many runs of a size nothing is said of what they take."""
TICK_SECONDS = 0.02
"""A run in place that turns out longer than one to two of these is stopped, and made again in a thread."""
_CPU_READ_SECONDS = 0.0005  # reading the clock of a thread's CPU time costs 0.2-0.9 us: read so often at most before a run
_FOLLOW = 0.25  # how fast an expectation follows the runs,
_RISE = 0.5  # those that block the loop,
_FALL = 0.05  # and those after: it takes dozens of short runs to be trusted again


class Observer(Protocol):
    """Counts runs."""

    def observe_batch(self, requests: int, rows: int, queue_seconds: float) -> object:
        """A run for so many requests, of `rows` together, whose first has waited `queue_seconds`."""
        ...


class Engine:
    """One model's runs. Not thread-safe: it belongs to the event loop."""

    def __init__(self, model: Model, batching: Batching, metrics: Observer) -> None:
        self._model = model
        self._metrics = metrics
        self._batches = batching.max_size > 1 and model.row_wise is True
        self._delay_seconds = batching.max_delay_seconds if self._batches else 0.0
        self._queue = Queue(model.inputs, batching.max_size)
        self._free = model.concurrency
        self._pool = ThreadPoolExecutor(self._free, thread_name_prefix="infer")
        self._watchdog = _Watchdog(model.new_handle())
        self._cost = _Cost()
        self._share = 0.0  # of what a request costs alone, this part it costs in the runs that the queue makes
        self._turn = 0
        self._cpu_seconds = 0.0  # what the loop's thread had taken
        self._cpu_read = -_CPU_READ_SECONDS  # at this time
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    def run_now(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array] | None:
        """One array for each name in `outputs`, at once; None where `infer` must be asked, because the run may be long, is
        worth sharing, or others wait. Raises ModelInputError, ModelRunError.
        """
        if self._queue or not self._model.in_place:
            return None
        elements = 0
        for array in feeds.values():
            elements += array.size
        expected = self._cost.expected(elements)
        if expected >= INLINE_SECONDS:
            return None
        if expected > QUEUE_SECONDS and self._batches and self._cost.knows(elements):
            self._turn += 1
            if (expected * (1 - self._share) > QUEUE_SECONDS) is (self._turn % _LOOK_AGAIN != 0):
                return None
        answer = self._run_in_place(feeds, outputs, elements)
        if answer is not None:
            self._metrics.observe_batch(1, rows_of(feeds), 0.0)
        return answer

    async def infer(self, feeds: Mapping[str, Array], outputs: Sequence[str], timeout_seconds: float) -> list[Array]:
        """One array for each name in `outputs`, perhaps from a run shared with other requests.

        Raises ModelInputError, ModelRunError, TimeoutError. When the time is over or the task is cancelled, the request
        leaves the queue, or its run is stopped if nobody else is in it.
        """
        return await self._wait(feeds, outputs, timeout_seconds, explain=False)

    async def explain(self, feeds: Mapping[str, Array], timeout_seconds: float) -> dict[str, Array]:
        """The model's own explanation, named arrays, where it has one. Raises as `infer` does."""
        return await self._wait(feeds, (), timeout_seconds, explain=True)

    async def _wait(self, feeds: Mapping[str, Array], outputs: Sequence[str], timeout_seconds: float, *, explain: bool) -> Any:
        loop = asyncio.get_running_loop()
        elements = size = 0
        for array in feeds.values():
            elements += array.size
            size += array.nbytes
        rows = rows_of(feeds)
        shared = self._batches and rows > 0 and not explain
        job = Job(feeds, outputs, loop.create_future(), loop.time(), rows, shared, elements, size, explain)
        self._queue.put(job)
        self._schedule(loop)
        timer = loop.call_later(timeout_seconds, self._expire, job)  # asyncio.timeout would take 3 us more
        try:
            return await job.answer
        finally:
            timer.cancel()
            if not job.answer.done() or job.answer.cancelled():
                self._leave(job)

    def _expire(self, job: Job) -> None:
        if not job.answer.done():
            job.answer.set_exception(TimeoutError())
            self._leave(job)

    def _leave(self, job: Job) -> None:
        job.answer.cancel()
        if job.run is None:
            self._queue.remove(job)
        elif all(other.answer.done() for other in job.run.jobs):
            job.run.handle.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks at the queue in the loop's next round: by then every request that has arrived is in it."""
        if self._queue and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._dispatch, loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts what can be started: one short run in place, or runs in threads while threads are free."""
        self._scheduled = False
        while self._queue:
            first = self._queue.first()
            short = self._is_short(first.elements) and not first.explain
            if not short and not self._free:
                return  # the run that ends next comes here again
            if self._delay_seconds and not self._queue.fills_run(first):
                due = first.arrived + self._delay_seconds
                if due > loop.time():
                    if self._timer:
                        self._timer.cancel()
                    self._timer = loop.call_at(due, self._schedule, loop)
                    return
            run = self._next_run()
            if not run.jobs:
                continue
            if short and self._is_short(run.elements):
                self._in_place(run, loop)
                self._schedule(loop)  # others first: connections and probes
                return
            if not self._free:
                self._put_back(run.jobs, apart=False)
                return
            self._in_thread(run, loop)

    def _next_run(self) -> Run:
        taken = self._queue.take()
        jobs = [job for job in taken if not job.answer.done()]  # a caller that is being cancelled has yet to come to _leave
        run = Run(jobs, self._watchdog.handle, sum(job.elements for job in jobs))
        for job in taken:
            job.run = run
        return run

    def _put_back(self, jobs: list[Job], *, apart: bool) -> None:
        for job in jobs:
            job.run = None
        self._queue.put_back(jobs, apart=apart)

    def _is_short(self, elements: int) -> bool:
        return self._model.in_place and self._cost.expected(elements) < INLINE_SECONDS

    def _in_place(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        result: Any
        try:
            result = self._run_in_place(join(run.jobs), run.jobs[0].outputs, run.elements)
        except Exception as error:  # for the callers, whatever it is
            result = error
        if result is None:
            self._put_back(run.jobs, apart=False)  # it is expected to be long now: a thread's
            return
        self._observe(run, loop)
        self._end(run, result)

    def _run_in_place(self, feeds: Mapping[str, Array], outputs: Sequence[str], elements: int) -> list[Array] | None:
        """None if the run was longer than could be waited for, and stopped."""
        watchdog = self._watchdog
        watchdog.begin()
        started = time.perf_counter()
        if started - self._cpu_read >= _CPU_READ_SECONDS:
            self._cpu_seconds = time.thread_time()
            self._cpu_read = started
        stopped = False
        try:
            return self._model.run(feeds, outputs, watchdog.handle)
        except ModelCancelledError:
            stopped = True
            watchdog.handle.reset()
            return None
        finally:
            watchdog.end()
            seconds = time.perf_counter() - started
            if seconds >= INLINE_SECONDS and not stopped:  # or was the processor taken away meanwhile?
                seconds = min(seconds, time.thread_time() - self._cpu_seconds)
            self._cost.learn(elements, seconds, sure=seconds >= INLINE_SECONDS)

    def _in_thread(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        run.handle = self._model.new_handle()
        self._free -= 1
        self._observe(run, loop)

        def work() -> None:
            result: Any
            try:
                result = self._run_or_explain(run)
            except BaseException as error:  # for the callers, whatever it is; the thread's place must be freed
                result = error
            loop.call_soon_threadsafe(self._thread_ended, run, result, loop)

        self._pool.submit(work)

    def _run_or_explain(self, run: Run) -> Any:
        job = run.jobs[0]
        if job.explain:
            return self._model.explain(job.feeds)
        started = time.thread_time()  # not the time it waits, for the interpreter's lock too
        try:
            return self._model.run(join(run.jobs), job.outputs, run.handle)
        finally:
            self._cost.learn(run.elements, time.thread_time() - started, sure=True)

    def _thread_ended(self, run: Run, result: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._free += 1
        self._end(run, result)
        if not self._scheduled:
            self._dispatch(loop)

    def _end(self, run: Run, result: Any) -> None:
        """Gives each job of a run its part of the result. An error may be one job's only: each is then run again, alone."""
        jobs = run.jobs
        if len(jobs) > 1:
            if not isinstance(result, BaseException):
                try:
                    for job, part in zip(jobs, split(jobs, result), strict=True):
                        if not job.answer.done():
                            job.answer.set_result(part)
                    return
                except ModelRunError as error:
                    logs.warning("requests do not share runs any more", cause=str(error))
                    self._batches = False
                    result = error
            if isinstance(result, (ModelInputError, ModelRunError)):
                self._put_back([job for job in jobs if not job.answer.done()], apart=True)
                return
        for job in jobs:
            if job.answer.done():
                continue
            if isinstance(result, BaseException):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    def _observe(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        jobs = run.jobs
        count = len(jobs)
        self._metrics.observe_batch(count, sum(job.rows for job in jobs), loop.time() - jobs[0].arrived)
        if self._batches:
            apart = count * self._cost.expected(run.elements // count)
            self._share += _FOLLOW * (min(1.0, self._cost.expected(run.elements) / apart) - self._share)


class _Cost:
    """What a run is expected to take, by its number of input elements: a moving average for each power of two."""

    def __init__(self) -> None:
        self._seconds: list[float | None] = [None] * 64
        self._unsure = [math.inf] * 64
        self._runs = [0] * 64

    def expected(self, elements: int) -> float:
        """Seconds. Where no runs of the size were made: in proportion to the nearest smaller ones, rather too much."""
        size = elements.bit_length()
        seconds = self._seconds[size]
        return self._guess(size) if seconds is None else seconds

    def knows(self, elements: int) -> bool:
        """Whether enough runs of the size were made."""
        return self._runs[elements.bit_length()] >= _KNOWN_RUNS

    def learn(self, elements: int, seconds: float, *, sure: bool) -> None:
        """Takes a run into account. Not `sure`: the processor may have been taken away meanwhile; two such runs one after the
        other count as the shorter of them. Two threads may each lose the other's sample: the next run mends the average.
        """
        size = elements.bit_length()
        self._runs[size] += 1
        if not sure:
            self._unsure[size], seconds = seconds, min(seconds, self._unsure[size])
        expected = self._seconds[size]
        if expected is None:
            expected = seconds if sure else min(seconds, self._guess(size))
        else:
            pace = _FOLLOW if expected < INLINE_SECONDS else _FALL
            expected += (_RISE if sure and seconds > expected else pace) * (seconds - expected)
        self._seconds[size] = expected
        for smaller in range(size - 1, -1, -1):  # those take no longer, and may not have been made alone for a while
            known = self._seconds[smaller]
            if known is not None:
                if known <= expected:
                    break
                self._seconds[smaller] = expected

    def _guess(self, size: int) -> float:
        for smaller in range(size - 1, -1, -1):
            seconds = self._seconds[smaller]
            if seconds is not None:
                return seconds * (1 << (size - smaller))
        # The very first run goes to a thread.
        return next((seconds for seconds in self._seconds[size:] if seconds is not None), 2 * INLINE_SECONDS)


class _Watchdog:
    """Stops a run on the event loop that blocks it for too long. Costs the hot path three assignments.

    Its thread looks every TICK_SECONDS, while there are runs: one that it sees twice has lasted at least a tick. It may
    come late and stop the next, innocent run: which is then made again, as any other that was stopped.
    """

    def __init__(self, handle: RunHandle) -> None:
        self.handle = handle
        self._serial = 0
        self._running = False
        self._asleep = True
        self._wake = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def begin(self) -> None:
        self._serial += 1
        self._running = True
        if self._asleep:
            self._wake.set()

    def end(self) -> None:
        self._running = False

    def _watch(self) -> None:
        seen = 0
        while True:
            self._asleep = True
            # `begin` counts first and looks at _asleep then, this the other way round: one of them sees the other.
            if self._serial == seen:
                self._wake.wait()
            self._wake.clear()
            self._asleep = False
            quiet = 0
            while quiet < 1 / TICK_SECONDS:  # a second without runs
                time.sleep(TICK_SECONDS)
                if self._serial != seen:
                    seen = self._serial
                    quiet = 0
                elif self._running:
                    self.handle.cancel()
                else:
                    quiet += 1
