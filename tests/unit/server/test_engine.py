"""Where a run is made: in place, in a thread, or first here and then there; with whom; and that what is given up is stopped."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, repeat
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway_server import batching
from slipway_server import engine as engine_module
from slipway_server.batching import Batching
from slipway_server.engine import INLINE_SECONDS, Engine
from slipway_server.formats import Model, ModelCancelledError, ModelInputError, ModelRunError, RunHandle
from slipway_server.tensors import DATATYPES, Array, TensorSpec

FP64 = DATATYPES["FP64"]


class Counter:
    """What the engine tells the metrics."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    def observe_batch(self, requests: int, rows: int, queue_seconds: float) -> None:
        assert queue_seconds >= 0
        self.runs.append((requests, rows))


def engine_of(model: Model, max_size: int = 1, delay: float = 0.0) -> Engine:
    return Engine(model, Batching(max_size, delay), Counter())


async def ask(engine: Engine, feeds: Mapping[str, Array], outputs: Sequence[str], seconds: float) -> list[Array]:
    """As the application does."""
    answer = engine.run_now(feeds, outputs)
    return await engine.infer(feeds, outputs, seconds) if answer is None else answer


class Handle:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()

    def reset(self) -> None:
        self.cancelled.clear()


class Sleeper(Model):
    """A model that computes for the seconds that its input says, unless it is stopped."""

    inputs = (TensorSpec("x", FP64, ("rows",)),)
    row_wise = False

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.stopped = 0

    def new_handle(self) -> Handle:
        return Handle()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        self.threads.append(threading.current_thread().name.split("_")[0])
        assert isinstance(handle, Handle)
        end = time.thread_time() + float(feeds["x"].flat[0])
        while time.thread_time() < end:
            if handle.cancelled.is_set():
                self.stopped += 1
                raise ModelCancelledError("terminate flag")
        return [feeds["x"]]


def feeds(seconds: float, elements: int = 1) -> dict[str, Array]:
    return {"x": np.full(elements, seconds)}


@pytest.fixture
async def quick() -> tuple[Sleeper, Engine]:
    """An engine that has learned that its model is quick."""
    sleeper = Sleeper()
    engine = engine_of(sleeper)
    for _ in range(100):
        await ask(engine, feeds(0), ["y"], 5)
    return sleeper, engine


async def test_quick_runs_move_from_the_thread_to_the_loop(quick: tuple[Sleeper, Engine]) -> None:
    assert quick[0].threads[0] == "infer"
    assert quick[0].threads[-1] == "MainThread"


async def test_slow_runs_stay_in_the_thread() -> None:
    sleeper = Sleeper()
    engine = engine_of(sleeper)
    for _ in range(20):
        await ask(engine, feeds(2 * INLINE_SECONDS), ["y"], 5)
    assert set(sleeper.threads) == {"infer"}


async def test_a_batch_that_is_larger_goes_to_the_thread(quick: tuple[Sleeper, Engine]) -> None:
    sleeper, engine = quick
    await ask(engine, feeds(0, 100_000), ["y"], 5)
    assert sleeper.threads[-1] == "infer"


async def test_a_surprise_is_made_again_in_the_thread(quick: tuple[Sleeper, Engine]) -> None:
    sleeper, engine = quick
    started = time.monotonic()
    pending = asyncio.create_task(ask(engine, feeds(1), ["y"], 5))
    await asyncio.sleep(0)
    assert time.monotonic() - started < 0.8  # the loop was given back before the run was over
    assert (await pending)[0].tolist() == [1.0]
    assert sleeper.threads[-2:] == ["MainThread", "infer"]
    assert sleeper.stopped == 1
    for _ in range(200):
        await ask(engine, feeds(0), ["y"], 5)
    assert sleeper.threads[-1] == "MainThread"  # trusted again
    assert sleeper.stopped == 1  # and its handle is fit for use


async def test_what_takes_too_long_is_stopped(quick: tuple[Sleeper, Engine]) -> None:
    sleeper, engine = quick
    first = asyncio.create_task(ask(engine, feeds(60, 100_000), ["y"], 0.2))
    second = asyncio.create_task(ask(engine, feeds(60, 100_000), ["y"], 0.2))  # waits for the only thread
    runs = len(sleeper.threads)
    for task in (first, second):
        with pytest.raises(TimeoutError):
            await task
    assert len(sleeper.threads) == runs + 1  # the second was never made
    assert (await ask(engine, feeds(0, 100_000), ["y"], 1))[0].size == 100_000
    assert sleeper.stopped == 1


class Clocked(Model):
    """A model on clocks of its own, which `seconds(rows)` of computing move, and `stalls`: time that others take."""

    inputs = (TensorSpec("x", FP64, ("rows",)),)
    row_wise = True

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds
        self.stalls: Iterator[float] = repeat(0.0)
        self.wall = self.cpu = 0.0
        clocks = SimpleNamespace(perf_counter=lambda: self.wall, thread_time=lambda: self.cpu, sleep=time.sleep)
        monkeypatch.setattr(engine_module, "time", clocks)
        self.counter = Counter()
        self.engine = Engine(self, Batching(), self.counter)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        seconds = self.seconds(feeds["x"].size)
        self.wall += seconds + next(self.stalls)
        self.cpu += seconds
        return [feeds["x"]]

    def now(self) -> bool:
        """Whether a request of one row is answered at once."""
        self.wall += 0.00002
        return self.engine.run_now(feeds(0), ["y"]) is not None

    async def together(self, count: int, times: int) -> float:
        """The mean number of requests in a run when so many come at once, so many times."""
        self.counter.runs.clear()
        for _ in range(times):
            await asyncio.gather(*(ask(self.engine, feeds(0), ["y"], 5) for _ in range(count)))
        return count * times / len(self.counter.runs)


async def test_a_short_run_stays_in_place_whatever_takes_the_processor_away(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clocked(monkeypatch, lambda rows: 5e-6)
    await model.together(1, 200)
    model.stalls = cycle([0.1, 0.0, 0.0003, 0.0, 0.02, 0.004])
    assert all(model.now() for _ in range(600))


async def test_a_run_that_computes_for_long_leaves_the_loop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clocked(monkeypatch, lambda rows: 5e-6)
    await model.together(1, 200)
    model.seconds = lambda rows: 0.01
    assert [model.now() for _ in range(3)] == [True, False, False]


async def test_requests_share_runs_where_that_saves_more_than_the_queue_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clocked(monkeypatch, lambda rows: 4e-5 + rows * 1e-6)  # XGBoost
    await model.together(1, 300)
    assert sum(model.now() for _ in range(64)) > 60  # nobody to share with
    await model.together(32, 100)
    assert await model.together(32, 30) > 10
    await model.together(1, 300)
    assert sum(model.now() for _ in range(64)) > 60
    model = Clocked(monkeypatch, lambda rows: 5e-6 + rows * 3e-5)  # a small convolution
    await model.together(32, 100)
    assert await model.together(32, 30) < 2


# --- requests that share runs -----------------------------------------------------------------------------------------


class Rows(Model):
    """y = twice x, row by row; refuses whole runs with a negative number in them, and fails those with a NaN."""

    inputs = (TensorSpec("x", FP64, ("rows", None)), TensorSpec("k", FP64, ("rows",)))
    outputs = (TensorSpec("y", FP64, ("rows", None)), TensorSpec("z", FP64, ("rows",)))
    default_outputs = ("y", "z")
    row_wise = True

    def __init__(self, in_place: bool = False) -> None:
        self.in_place = in_place
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.handles: list[Handle] = []
        self.seen: list[int] = []

    def new_handle(self) -> Handle:
        self.handles.append(Handle())
        return self.handles[-1]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        x: Any = feeds["x"]
        self.seen.append(len(x))
        self.entered.release()
        self.open.wait(10)
        assert isinstance(handle, Handle)
        if handle.cancelled.is_set():
            raise ModelCancelledError("stopped")
        if (x < 0).any():
            raise ModelInputError("negative")
        if np.isnan(x).any():
            raise ModelRunError("NaN")
        answers: dict[str, Any] = {"y": 2 * x, "z": x.sum(1) + feeds["k"]}
        return [answers[name] for name in outputs]

    def explain(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"why": feeds["k"]}


def rows(*values: float, width: int = 2) -> dict[str, Array]:
    return {"x": np.array([[value] * width for value in values], float), "k": np.array(values, float)}


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - threads do not set asyncio's events
            await asyncio.sleep(0.001)


class Held:
    """An engine whose only thread is in a run that ends when `release` says so, so that whatever is asked waits."""

    def __init__(self, max_size: int = 64, delay: float = 0.0) -> None:
        self.model = Rows()
        self.model.open.clear()
        self.engine = engine_of(self.model, max_size, delay)
        self.first = asyncio.create_task(self.engine.infer(rows(1), ["y"], 10))
        self.tasks: list[asyncio.Task[list[Array]]] = []

    def ask(self, feeds: dict[str, Array], outputs: Sequence[str] = ("y", "z"), timeout: float = 10.0) -> None:
        self.tasks.append(asyncio.create_task(self.engine.infer(feeds, outputs, timeout)))

    async def release(self) -> list[Any]:
        await until(lambda: self.model.seen)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.model.open.set()
        await self.first
        return list(await asyncio.gather(*self.tasks, return_exceptions=True))


async def test_what_waits_shares_a_run() -> None:
    held = Held()
    for number in range(5):
        held.ask(rows(number, number + 10))
    answers = await held.release()
    assert held.model.seen == [1, 10]
    assert [answer[1].tolist() for answer in answers] == [[3 * n, 3 * n + 30] for n in range(5)]


async def test_only_what_fits_together_shares_a_run() -> None:
    held = Held()
    held.ask(rows(1))
    held.ask(rows(2, width=3))  # another shape
    held.ask(rows(3), ["z"])  # other outputs
    held.ask(rows(4))
    held.ask({"x": np.ones((2, 2)), "k": np.ones(1)})  # rows differ: never shared
    answers = await held.release()
    assert held.model.seen == [1, 2, 1, 1, 2]
    assert answers[3][1].tolist() == [12]
    assert answers[1][0].shape == (1, 3)


async def test_a_run_has_at_most_max_size_rows_and_the_first_goes_first() -> None:
    held = Held(max_size=4)
    for count in (3, 3, 1, 9, 1):
        held.ask(rows(*range(count)))
    await held.release()
    assert held.model.seen == [1, 3, 4, 9, 1]


async def test_without_batching_each_has_a_run_of_its_own() -> None:
    held = Held(max_size=1)
    held.ask(rows(1))
    held.ask(rows(2))
    await held.release()
    assert held.model.seen == [1, 1, 1]


async def test_one_bad_request_fails_alone() -> None:
    held = Held()
    for value in (1, -1, 2, float("nan"), 3):
        held.ask(rows(value))
    answers = await held.release()
    assert [type(answer).__name__ for answer in answers] == ["list", "ModelInputError", "list", "ModelRunError", "list"]
    assert held.model.seen == [1, 5, 1, 1, 1, 1, 1]
    assert answers[4][0].tolist() == [[6, 6]]


async def test_who_leaves_the_queue_is_not_run() -> None:
    held = Held()
    for value in (1, 2, 3):
        held.ask(rows(value))
    held.ask(rows(4), timeout=0.01)
    await until(lambda: held.tasks[3].done())
    held.tasks[1].cancel()
    answers = await held.release()
    assert held.model.seen == [1, 2]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert isinstance(answers[3], TimeoutError)
    assert answers[2][0].tolist() == [[6, 6]]


async def test_who_is_just_being_cancelled_is_not_run() -> None:
    engine = engine_of(model := Rows(), 64)
    task = asyncio.create_task(engine.infer(rows(1), ["y"], 10))
    await asyncio.sleep(0)  # it waits in the queue, which is looked at in the next round of the loop
    task.cancel()
    await asyncio.wait([task])
    assert (await engine.infer(rows(2, 3), ["y"], 10))[0].shape == (2, 2)
    assert model.seen == [2]


async def test_large_requests_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BYTES", 2 * 5 * 24)  # two of five rows of three numbers
    held = Held()
    for _ in range(3):
        held.ask(rows(1, 2, 3, 4, 5))
    await held.release()
    assert held.model.seen == [1, 10, 5]


async def test_a_shared_run_is_stopped_when_all_have_left() -> None:
    model = Rows()
    engine = engine_of(model, 64)
    model.open.clear()
    tasks = [asyncio.create_task(engine.infer(rows(value), ["y"], 10)) for value in (1, 2)]
    await until(lambda: model.seen)
    handle = model.handles[-1]
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert not handle.cancelled.is_set()
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert handle.cancelled.is_set()
    model.open.set()
    assert (await engine.infer(rows(3), ["y"], 10))[0].tolist() == [[6, 6]]  # its place is free again


async def test_what_cannot_be_stopped_keeps_its_thread() -> None:
    model = Rows()
    engine = engine_of(model, 1)
    model.open.clear()
    with pytest.raises(TimeoutError):
        await engine.infer(rows(1), ["y"], 0.05)
    waiting = asyncio.create_task(engine.infer(rows(2), ["y"], 10))
    await asyncio.sleep(0.05)
    assert model.seen == [1]  # one thread: the second is not begun beside the first
    model.open.set()
    assert (await waiting)[0].tolist() == [[4, 4]]


async def test_as_many_runs_at_once_as_the_model_allows() -> None:
    model = Rows()
    model.concurrency = 3
    model.open.clear()
    engine = engine_of(model)
    tasks = [asyncio.create_task(engine.infer(rows(value), ["y"], 10)) for value in range(5)]
    await until(lambda: len(model.seen) == 3)
    await asyncio.sleep(0.05)
    assert len(model.seen) == 3
    model.open.set()
    assert [answer[0].tolist() for answer in await asyncio.gather(*tasks)] == [[[2 * value] * 2] for value in range(5)]


async def test_a_delay_waits_for_company_but_not_for_a_full_run() -> None:
    model = Rows()
    engine = engine_of(model, 4, 30.0)
    pairs = [asyncio.create_task(engine.infer(rows(1, 2), ["y"], 10)) for _ in range(2)]
    await asyncio.gather(*pairs)
    assert model.seen == [4]
    engine = engine_of(model, 4, 0.05)
    await asyncio.gather(engine.infer(rows(1), ["y"], 10), engine.infer(rows(1), ["y"], 10))
    assert model.seen == [4, 2]


async def test_explanations_are_made_in_the_thread() -> None:
    held = Held()
    explanation = asyncio.create_task(held.engine.explain(rows(7), 10))
    held.ask(rows(1))
    await held.release()
    assert (await explanation)["why"].tolist() == [7]


async def test_a_model_that_breaks_its_word_is_not_shared_any_more() -> None:
    class Wrong(Rows):
        def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
            return [answer[:1] for answer in super().run(feeds, outputs, handle)]

    engine = engine_of(model := Wrong(), 64)
    for _ in range(2):
        answers = await asyncio.gather(*(engine.infer(rows(value), ["y"], 10) for value in (1, 2)))
        assert [answer[0].tolist() for answer in answers] == [[[2, 2]], [[4, 4]]]
    assert model.seen == [2, 1, 1, 1, 1]


async def test_runs_are_counted() -> None:
    model = Rows()
    counter = Counter()
    engine = Engine(model, Batching(64), counter)
    await asyncio.gather(*(engine.infer(rows(value, value), ["y"], 10) for value in (1, 2, 3)))
    assert counter.runs == [(3, 6)]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, -1.0]), min_size=1, max_size=4),
            st.integers(1, 2),  # width
            st.sampled_from([("y",), ("z", "y")]),
            st.integers(0, 3),  # rounds of the loop before it comes
            st.sampled_from([None, None, 0, 1, 3]),  # rounds before its caller leaves
        ),
        max_size=12,
    ),
    in_place=st.booleans(),
    threads=st.integers(1, 2),
    max_size=st.integers(1, 8),
    delay=st.sampled_from([0.0, 0.0, 0.001]),
)
def test_each_gets_the_answer_that_it_would_get_alone(
    requests: list[Any], in_place: bool, threads: int, max_size: int, delay: float
) -> None:
    async def caller(engine: Engine, request: Any) -> None:
        values, width, outputs, come, leave = request
        for _ in range(come):
            await asyncio.sleep(0)
        task = asyncio.create_task(ask(engine, rows(*values, width=width), outputs, 10))
        if leave is not None:
            for _ in range(leave):
                await asyncio.sleep(0)
            task.cancel()
        try:
            answers = dict(zip(outputs, await task, strict=True))
        except asyncio.CancelledError:
            assert leave is not None
            return
        except ModelInputError:
            assert min(values) < 0
            return
        assert min(values) > 0
        assert answers["y"].tolist() == [[2 * value] * width for value in values]
        if "z" in answers:
            assert answers["z"].tolist() == [value * (width + 1) for value in values]

    async def all_of_them() -> None:
        model = Rows(in_place)
        model.concurrency = threads
        engine = engine_of(model, max_size, delay)
        for _ in range(20 if in_place else 0):  # learns that they are short
            await ask(engine, rows(1), ["y"], 10)
        await asyncio.gather(*(caller(engine, request) for request in requests))
        assert (await ask(engine, rows(4), ["y"], 10))[0].tolist() == [[8, 8]]

    asyncio.run(all_of_them())
