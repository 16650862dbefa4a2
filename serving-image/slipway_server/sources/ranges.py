"""A large file in ranges: several are on their way at once, and they are yielded in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from slipway_server.sources import Chunk

RANGE_BYTES = 8 << 20
AT_ONCE = 4  # 32 MiB of memory, however large the file
LARGE_BYTES = 64 << 20


class StoppedError(Exception):
    """Nobody wants the range any more."""


def in_order(read: Callable[[int, int, threading.Event], bytearray], begin: int, end: int) -> Iterator[Chunk]:
    """Yields the bytes [begin, end) as `read(from, to, stop)` brings them.

    What a `read` raises is raised here, once all before it is yielded; reads under way are told by `stop` to end.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="range")
    waiting: deque[tuple[int, Future[bytearray]]] = deque()
    starts = iter(range(begin, end, RANGE_BYTES))
    try:
        while True:
            while len(waiting) < AT_ONCE and (start := next(starts, None)) is not None:
                waiting.append((start, pool.submit(read, start, min(start + RANGE_BYTES, end), stop)))
            if not waiting:
                return
            start, future = waiting.popleft()
            yield Chunk(start, future.result())
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
