"""The work queue: each key once at a time, none lost, delays and back-off."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from slipway.queue import Key, WorkQueue

A, B = ("ns", "a"), ("ns", "b")


async def take_all(queue: WorkQueue, seconds: float = 0.05) -> list[Key]:
    taken: list[Key] = []
    while True:
        try:
            async with asyncio.timeout(seconds):
                taken.append(await queue.take())
        except TimeoutError:
            return taken


async def test_a_key_asked_for_often_is_handed_out_once() -> None:
    queue = WorkQueue()
    for _ in range(5):
        queue.add(A)
    queue.add(B)
    assert await take_all(queue) == [A, B]


async def test_a_key_added_while_worked_on_comes_again_after_done() -> None:
    queue = WorkQueue()
    queue.add(A)
    assert await queue.take() == A
    queue.add(A)
    assert await take_all(queue) == []
    queue.done(A)
    assert await take_all(queue) == [A]


async def test_a_failed_key_comes_again_later_each_time() -> None:
    queue = WorkQueue()
    queue.add(A)
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    for _ in range(3):
        begun = loop.time()
        assert await queue.take() == A
        waits.append(loop.time() - begun)
        queue.done(A, failed=True)
    assert waits[0] < 0.1 < waits[1] < 2 * waits[2]


async def test_the_earlier_of_two_delays_wins() -> None:
    queue = WorkQueue()
    queue.add(A, after=30)
    queue.add(A, after=0.01)
    queue.add(B, after=0.02)
    queue.add(B, after=30)
    assert await take_all(queue, 0.2) == [A, B]


async def test_asking_now_overrides_a_delay() -> None:
    queue = WorkQueue()
    queue.add(A, after=30)
    queue.add(A)
    assert await take_all(queue) == [A]


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done", "fail"]), st.sampled_from([A, B])), max_size=40))
def test_no_key_is_ever_held_twice_nor_lost(steps: list[tuple[str, Key]]) -> None:
    async def run() -> None:
        queue = WorkQueue()
        held: set[Key] = set()
        wanted: set[Key] = set()
        for step, key in steps:
            if step == "add":
                queue.add(key)
                wanted.add(key)
            elif step == "take" and len(queue):
                taken = await queue.take()
                assert taken not in held
                held.add(taken)
                wanted.discard(taken)
            elif step in ("done", "fail") and key in held:
                queue.done(key, failed=step == "fail")
                held.discard(key)
                wanted |= {key} if step == "fail" else set()
        for key in held:
            queue.done(key)
        left: set[Key] = set()
        while wanted - left:
            async with asyncio.timeout(60):
                left.add(await queue.take())

    asyncio.run(run())
