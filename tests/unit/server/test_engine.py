"""Where a run is made: in place, in a thread, or first here and then there; and that what is given up is stopped."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from slipway_server.engine import INLINE_SECONDS, Engine
from slipway_server.formats import ModelCancelledError
from slipway_server.tensors import Array, TensorSpec


class Handle:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    def reset(self) -> None:
        self.cancelled.clear()


class Sleeper:
    """A model that takes the seconds that its input says, unless it is stopped."""

    platform = "sleep"
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.stopped = 0

    def new_handle(self) -> Handle:
        return Handle()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: Handle) -> list[Array]:
        self.threads.append(threading.current_thread().name.split("_")[0])
        if handle.cancelled.wait(float(feeds["x"].flat[0])):
            self.stopped += 1
            raise ModelCancelledError("terminate flag")
        return [feeds["x"]]


def feeds(seconds: float, elements: int = 1) -> dict[str, Array]:
    return {"x": np.full(elements, seconds)}


@pytest.fixture
async def quick() -> tuple[Sleeper, Engine]:
    """An engine that has learned that its model is quick."""
    sleeper = Sleeper()
    engine = Engine(sleeper, 1)  # pyright: ignore[reportArgumentType]
    for _ in range(100):
        await engine.infer(feeds(0), ["y"], 5)
    return sleeper, engine


async def test_quick_runs_move_from_the_thread_to_the_loop(quick: tuple[Sleeper, Engine]) -> None:
    assert quick[0].threads[0] == "infer"
    assert quick[0].threads[-1] == "MainThread"


async def test_slow_runs_stay_in_the_thread() -> None:
    sleeper = Sleeper()
    engine = Engine(sleeper, 1)  # pyright: ignore[reportArgumentType]
    for _ in range(20):
        await engine.infer(feeds(2 * INLINE_SECONDS), ["y"], 5)
    assert set(sleeper.threads) == {"infer"}


async def test_a_batch_that_is_larger_goes_to_the_thread(quick: tuple[Sleeper, Engine]) -> None:
    sleeper, engine = quick
    await engine.infer(feeds(0, 100_000), ["y"], 5)
    assert sleeper.threads[-1] == "infer"


async def test_a_surprise_is_made_again_in_the_thread(quick: tuple[Sleeper, Engine]) -> None:
    sleeper, engine = quick
    started = time.monotonic()
    pending = asyncio.create_task(engine.infer(feeds(0.3), ["y"], 5))
    await asyncio.sleep(0)
    assert time.monotonic() - started < 0.2  # the loop was given back before the run was over
    assert (await pending)[0].tolist() == [0.3]
    assert sleeper.threads[-2:] == ["MainThread", "infer"]
    assert sleeper.stopped == 1
    for _ in range(200):
        await engine.infer(feeds(0), ["y"], 5)
    assert sleeper.threads[-1] == "MainThread"  # trusted again
    assert sleeper.stopped == 1  # and its handle is fit for use


async def test_what_takes_too_long_is_stopped(quick: tuple[Sleeper, Engine]) -> None:
    sleeper, engine = quick
    first = asyncio.create_task(engine.infer(feeds(60, 100_000), ["y"], 0.2))
    second = asyncio.create_task(engine.infer(feeds(60, 100_000), ["y"], 0.2))  # waits for the only thread
    runs = len(sleeper.threads)
    for task in (first, second):
        with pytest.raises(TimeoutError):
            await task
    assert len(sleeper.threads) == runs + 1  # the second was never made
    assert (await engine.infer(feeds(0, 100_000), ["y"], 1))[0].size == 100_000
    assert sleeper.stopped == 1
