"""Requests that hang are counted before they end, and once; those that are only many are not."""

import random

import pytest

from slipway.core.hanging import Flight, Foreseen, Look
from slipway.core.sequential import Tally


def seen(service: list[tuple[float, float]], at: float) -> Look:
    """Answer what a router shows at that time of requests, each with its arrival and how long it takes."""
    return Look(
        at,
        sum(arrived <= at < arrived + takes for arrived, takes in service),
        sum(arrived + takes <= at for arrived, takes in service),
    )


@pytest.mark.parametrize("takes", [0.01, 0.2, 2.0, 1000.0])
def test_what_hangs_is_never_overstated_and_soon_seen(takes: float) -> None:
    chance = random.Random(3)  # noqa: S311 - a simulation
    service = [(each / 10, takes * chance.expovariate(1)) for each in range(600)]
    flight = Flight()
    for second in range(60):
        flight = flight.add(seen(service, second))
        found = flight.longer_than(0.5)
        surely = sum(arrived + 0.5 <= second < arrived + duration for arrived, duration in service)
        assert found <= surely, "some of them have not been in flight for so long"
        if takes == 1000.0 and second > 10:
            assert found >= 0.8 * surely


def test_a_burst_that_has_ended_does_not_hang_and_counters_may_begin_anew() -> None:
    flight = Flight().add(Look(0, 100, 0)).add(Look(3, 0, 20))
    assert flight.longer_than(1) == 0, "nothing is in flight, whatever became of it"
    assert flight.add(Look(6, 5, 0)).longer_than(1) == 0
    assert Flight().longer_than(1) == 0


def test_a_request_that_hangs_is_counted_once() -> None:
    none = Tally()
    first, foreseen = Foreseen().add(none, 0, 5)
    assert first == Tally(5, 5)
    again, foreseen = foreseen.add(none, 0, 7)
    assert again == Tally(2, 2), "two more"
    ended, foreseen = foreseen.add(Tally(10, 6), 0, 1)
    assert ended == Tally(4, 0), "six of the ten were counted, one hangs still"
    left, foreseen = foreseen.add(none, 1, 0)
    assert (left, foreseen.count) == (none, 0), "its caller gave up"
