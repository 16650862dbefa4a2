"""The work queue: keys to reconcile, each at most once at a time, each once however often it is asked for."""

import asyncio
import heapq
import random
import time
from collections import deque

_BACKOFF_FIRST_SECONDS = 0.2
_BACKOFF_MAX_SECONDS = 60.0

Key = tuple[str, str]


class WorkQueue:
    """Deduplicating queue of keys (namespace, name) with delays, per-key serialisation and jittered back-off.

    A key added while it is being worked on is handed out again afterwards, so no event is lost and no two workers ever hold the
    same key. An earlier time wins over a later one for the same key.
    """

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._queued: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key, after: float = 0.0) -> None:
        """Ask for a key, now or after some seconds."""
        if after > 0:
            due = time.monotonic() + after
            if key in self._queued or self._due.get(key, due + 1) <= due:
                return
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
        elif key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._due.pop(key, None)
            self._queued.add(key)
            self._ready.append(key)
        self._wake.set()

    async def take(self) -> Key:
        """Answer the next key, waiting for one. `done` must follow."""
        while True:
            self._promote()
            if self._ready:
                key = self._ready.popleft()
                self._queued.discard(key)
                self._working.add(key)
                if self._ready:
                    self._wake.set()
                return key
            self._wake.clear()
            wait = self._heap[0][0] - time.monotonic() if self._heap else None
            try:
                async with asyncio.timeout(None if wait is None else max(wait, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def done(self, key: Key, *, failed: bool = False) -> None:
        """Give a key back. One that failed comes again, later each time."""
        self._working.discard(key)
        if failed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(_BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 16), _BACKOFF_MAX_SECONDS)
            self._again.discard(key)
            self.add(key, after=delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        else:
            self._failures.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _promote(self) -> None:
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
