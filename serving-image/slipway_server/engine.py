"""Runs the model: short runs in place, long ones in a thread, and requests that wait together in one run."""

import asyncio
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
BATCH_SECONDS = 0.00005
"""A run that can be shared and takes longer is worth waiting for company: the queue costs a request 8-10 us of CPU. At 64
connections, us of CPU a request alone and shared: a logistic regression as ONNX 5 and 11, a small CNN 18 and 21, XGBoost of
20 trees 65 and 12, scikit-learn's logistic regression 135 and 15, its forest of 500 trees 16,500 and 260."""
_LOOK_AGAIN = 256
"""Of so many requests that wait for company one is run alone nevertheless: it may have become short."""
TICK_SECONDS = 0.02
"""A run in place that turns out longer than one to two of these is stopped, and made again in a thread."""
_RISE = 0.5  # how fast the expectation follows runs that are longer,
_FALL = 0.05  # and shorter: after a surprise it takes dozens of short runs to be trusted again


class Observer(Protocol):
    """Counts runs."""

    def observe_batch(self, requests: int, rows: int, queue_seconds: float) -> object:
        """A run for so many requests, of `rows` together, whose first has waited `queue_seconds`."""
        ...


class Engine:
    """One model's runs. Not thread-safe: it belongs to the event loop."""

    def __init__(self, model: Model, threads: int, batching: Batching, metrics: Observer) -> None:
        self._model = model
        self._metrics = metrics
        self._batches = batching.max_size > 1 and model.row_wise is True
        self._delay_seconds = batching.max_delay_seconds if self._batches else 0.0
        self._queue = Queue(model.inputs, batching.max_size)
        self._free = min(threads, model.concurrency)
        self._pool = ThreadPoolExecutor(self._free, thread_name_prefix="infer")
        self._watchdog = _Watchdog(model.new_handle())
        self._cost = _Cost()
        self._scheduled = False
        self._deferred = 0
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
        if expected >= BATCH_SECONDS and self._batches:
            self._deferred += 1
            if self._deferred % _LOOK_AGAIN:
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
        try:
            async with asyncio.timeout(timeout_seconds):
                return await job.answer
        finally:
            if not job.answer.done() or job.answer.cancelled():
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
        try:
            return self._model.run(feeds, outputs, watchdog.handle)
        except ModelCancelledError:
            watchdog.handle.reset()
            return None
        finally:
            watchdog.end()
            self._cost.learn(elements, time.perf_counter() - started)

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
        started = time.perf_counter()
        try:
            return self._model.run(join(run.jobs), job.outputs, run.handle)
        finally:
            self._cost.learn(run.elements, time.perf_counter() - started)

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
        rows = sum(job.rows for job in run.jobs)
        self._metrics.observe_batch(len(run.jobs), rows, loop.time() - run.jobs[0].arrived)


class _Cost:
    """What a run is expected to take, by its number of input elements: a moving average for each power of two."""

    def __init__(self) -> None:
        self._seconds: list[float | None] = [None] * 64

    def expected(self, elements: int) -> float:
        """Seconds. Where no runs of the size were made: in proportion to the nearest smaller ones, rather too much."""
        size = elements.bit_length()
        seconds = self._seconds[size]
        return self._guess(size) if seconds is None else seconds

    def learn(self, elements: int, seconds: float) -> None:
        """Takes a run into account. Two threads may each lose the other's sample: the next run mends the average."""
        expected = self.expected(elements)
        surprise = seconds - expected
        size = elements.bit_length()
        self._seconds[size] = expected = expected + (_RISE if surprise > 0 else _FALL) * surprise
        for smaller in range(size):  # those take no longer, and may not have been made alone for a while
            known = self._seconds[smaller]
            if known is not None and known > expected:
                self._seconds[smaller] = expected

    def _guess(self, size: int) -> float:
        for smaller in range(size - 1, -1, -1):
            seconds = self._seconds[smaller]
            if seconds is not None:
                return seconds * (1 << (size - smaller))
        # From this start the first runs go to a thread, until they have shown to be short.
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
