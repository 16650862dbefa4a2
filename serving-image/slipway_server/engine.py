"""Runs the model: short runs in place, long ones in a thread, so that probes and other requests go on."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from slipway_server.formats import Model, ModelCancelledError, RunHandle
from slipway_server.tensors import Array

INLINE_SECONDS = 0.001
"""A run expected to take less is made on the event loop: handing over to a thread and back costs 0.05-0.1 ms of CPU,
and a probe that waits a millisecond is a probe that did not wait."""
TICK_SECONDS = 0.02
"""A run in place that turns out longer than one to two of these is stopped, and made again in a thread."""
_RISE = 0.5  # how fast the expectation follows runs that are longer,
_FALL = 0.05  # and shorter: after a surprise it takes dozens of short runs to be trusted again


class Engine:
    """One model's runs. Not thread-safe: it belongs to the event loop."""

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="infer")
        self._watchdog = _Watchdog(model.new_handle())
        # Moving averages of a run's time and of its number of input elements. From this start the first runs go to a
        # thread, until they have shown to be short.
        self._seconds = 2 * INLINE_SECONDS
        self._elements = 1.0

    async def infer(self, feeds: Mapping[str, Array], outputs: Sequence[str], timeout_seconds: float) -> list[Array]:
        """One array for each name in `outputs`. Raises ModelInputError, ModelRunError, TimeoutError.

        When the time is over, the run is stopped, or not made if it still waits for a thread.
        """
        elements = 0
        for array in feeds.values():
            elements += array.size
        if self._seconds * max(1.0, elements / self._elements) < INLINE_SECONDS:
            self._watchdog.begin()
            try:
                return self._run(feeds, outputs, self._watchdog.handle, elements)
            except ModelCancelledError:
                self._watchdog.handle.reset()
            finally:
                self._watchdog.end()
        handle = self._model.new_handle()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await loop.run_in_executor(self._pool, self._run, feeds, outputs, handle, elements)
        finally:
            handle.cancel()  # when it was left early; else there is nothing to stop any more

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle, elements: int) -> list[Array]:
        started = time.perf_counter()
        try:
            return self._model.run(feeds, outputs, handle)
        finally:
            # Two threads may each lose the other's sample here: these are averages, the next run mends them.
            surprise = time.perf_counter() - started - self._seconds
            self._seconds += (_RISE if surprise > 0 else _FALL) * surprise
            self._elements += _FALL * (elements - self._elements)


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
