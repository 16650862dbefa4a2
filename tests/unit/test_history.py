"""What routers counted lately: nothing negative, nothing twice, nothing of before anyone looked; and the past is bounded."""

from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core.figures import Counters, Counts, over
from slipway.core.latency import bucket_of
from slipway.meter.history import HISTORY_SECONDS, History
from slipway.meter.statistics import Statistics


def router(uptime: int, **requests: int) -> Statistics:
    """Answer what a router says that has answered so many requests of each revision, all in 5 ms."""
    statistics = Statistics()
    statistics.uptime_seconds = uptime
    statistics.healthy = dict.fromkeys(requests, 1)
    statistics.counts = {revision: Counters(answered=count) for revision, count in requests.items() if count}
    statistics.latency = {revision: f"5,0.1:{count}" for revision, count in requests.items() if count}
    return statistics


def history() -> History:
    return History(lambda _: 30.0)


def take(past: History, pod: str, at: float, uptime: int, **requests: int) -> None:
    past.take(pod, router(uptime, **requests), requests, at)


def counted(past: History, revision: str = "a") -> int:
    found = past.past(revision)
    assert found is not None
    assert found.total.latency.sample == found.total.counts.requests
    return found.total.counts.requests


def test_what_was_counted_before_anyone_looked_is_left_out() -> None:
    past = history()
    take(past, "r", 1000, 500, a=70)
    assert counted(past) == 0
    take(past, "r", 1002, 502, a=75)
    assert counted(past) == 5


def test_a_router_that_began_later_counts_from_its_start() -> None:
    past = history()
    take(past, "r", 1000, 500, a=70)
    take(past, "s", 1010, 3, a=8)
    assert counted(past) == 8
    take(past, "t", 1011, 400, a=9)  # it was there before, and did not answer
    assert counted(past) == 8


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=50))
def test_a_refusal_that_is_told_by_halves_is_no_error_again_and_again(told: list[tuple[int, int]]) -> None:
    """Of the latest refusals the reasons are not yet counted; with the next answer of the router they are, and others are not."""
    past, refused, overflows = history(), 0, 0
    take(past, "r", 1000, 500)
    for at, (more, late) in enumerate(told, 1001):
        refused += more
        overflows = max(overflows, refused - late)
        answer = router(500, a=0)
        answer.counts = {"a": Counters(refused, 0, refused, overflows=overflows, unavailable=refused)}
        past.take("r", answer, ["a"], at)
    found = past.past("a")
    assert found is not None
    assert found.total.counts.errors <= max(late for _, late in told)
    assert found.total.counts.refused == overflows


def test_a_revision_that_comes_counts_from_its_first_request() -> None:
    past = history()
    take(past, "r", 1000, 500, a=70)
    take(past, "r", 1002, 502, a=70, b=4)
    assert counted(past, "b") == 4
    take(past, "r", 1004, 504, a=70)
    past.take("r", router(506, a=70, b=3), ["b"], 1006)  # it went, and came back
    assert counted(past, "b") == 7


def test_another_process_in_the_same_pod_counts_from_its_start() -> None:
    past = history()
    take(past, "r", 1000, 500, a=70)
    take(past, "r", 1010, 3, a=90)  # more than before, and yet all new
    assert counted(past) == 90
    take(past, "r", 1012, 5, a=91)
    assert counted(past) == 91


def test_a_late_router_brings_all_that_it_counted_meanwhile() -> None:
    past = history()
    take(past, "r", 1000, 500, a=0)
    take(past, "s", 1000, 500, a=0)
    for at in range(1002, 1020, 2):
        take(past, "r", at, at - 500, a=(at - 1000) * 10)
    take(past, "s", 1018, 518, a=180)
    found = past.past("a")
    assert found is not None
    total, per_second = over(found.slices, 1000, 1018)
    assert total.counts.requests == 360
    assert round(over(found.slices, 1010, 1018)[1]) == round(per_second) == 20, "it is spread over the time that it was away"


def test_a_router_that_is_gone_takes_nothing_with_it_and_comes_back_without_its_past() -> None:
    past = history()
    take(past, "r", 1000, 500, a=0)
    take(past, "r", 1002, 502, a=10)
    past.forget([], 1003)
    assert counted(past) == 10
    take(past, "r", 1004, 504, a=12)
    assert counted(past) == 10
    past.forget([], 1004 + HISTORY_SECONDS)
    assert past.past("a") is None


def test_a_timeout_is_as_slow_as_its_limit() -> None:
    past = history()
    take(past, "r", 1000, 500, a=1)
    late = router(502, a=1)
    late.counts = {"a": Counters(answered=3, server_errors=2, timeouts=2, hung_up=2)}
    past.take("r", late, ["a"], 1002)
    found = past.past("a")
    assert found is not None
    assert found.total.counts == Counts(requests=2, errors=2, server_errors=2, timeouts=2)
    assert found.total.latency.counts == {bucket_of(30_000): 2}


def test_the_past_is_kept_in_few_slices_and_sums_to_the_same() -> None:
    past = history()
    for at in range(1000, 3000):
        for pod in ("r", "s"):
            take(past, pod, at, at - 500, a=(at - 1000) * 7)
        found = past.past("a")
        assert found is not None
        assert len(found.slices) <= 48
    assert counted(past) == 2 * 7 * 1999
    assert found is not None
    assert min(each.since for each in found.slices) >= 2999 - HISTORY_SECONDS - 24 - 6
    assert max(each.until - each.since for each in found.slices if each.until > 2995) <= 2.5
    for seconds in (5, 30, 60, 250):
        total, per_second = over(found.slices, 2999 - seconds, 2999)
        assert abs(per_second - 14) < 0.7, seconds
        assert seconds * 14 <= total.counts.requests <= (seconds + 24) * 14


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """Draw scrapes of routers that live, die and begin anew: (pod, at, uptime, requests since it began)."""
    scrapes: list[tuple[str, int, int, int]] = []
    for pod in ("r", "s"):
        at = 0
        for _ in range(draw(st.integers(1, 3))):
            began, requests = at, 0
            for _ in range(draw(st.integers(1, 5))):
                at += draw(st.integers(3, 9))
                requests += draw(st.integers(0, 20))
                scrapes.append((pod, at, at - began, requests))
    return sorted(scrapes, key=lambda scrape: scrape[1])


@settings(max_examples=200)
@given(lives())
def test_restarts_take_nothing_back_and_count_nothing_twice(scrapes: list[tuple[str, int, int, int]]) -> None:
    past, before = history(), 0
    for pod, at, uptime, requests in scrapes:
        take(past, pod, at, uptime, a=requests)
        assert counted(past) >= before
        before = counted(past)
    # Of each process the requests at its last scrape, less those that the routers' first processes had before anyone looked.
    last = {(pod, at - uptime): requests for pod, at, uptime, requests in scrapes}
    unseen = sum(next(requests for each, _, _, requests in scrapes if each == pod) for pod in ("r", "s"))
    assert counted(past) == sum(last.values()) - unseen
