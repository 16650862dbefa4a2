"""To zero and back: what puts a model to sleep, what wakes it, and what does neither."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.unit.scaling_world import LATENCY, World

from slipway.core.scaling.memory import Look, Memory
from slipway.core.scaling.objective import Objective, Reason, Settings
from slipway.core.scaling.schedule import Floor

IDLE = 60.0
SLEEPS = Settings(Objective(), minimum=0, maximum=1, idle_seconds=IDLE)
KEPT = replace(LATENCY, minimum=0, idle_seconds=IDLE)


def changed(world: World, seen: dict[str, Any]) -> Look:
    """Answer a look at nobody who asks, but for what is seen."""
    return replace(world.look(0), **seen)


@pytest.mark.parametrize("settings", [SLEEPS, KEPT])
def test_it_sleeps_when_nobody_has_asked_for_long(settings: Settings) -> None:
    world = World(settings, Memory())
    assert world.run(30, 1).replicas >= 1
    assert world.run(IDLE - 4, 0).replicas >= 1
    decision = world.run(10, 0)
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)


@pytest.mark.parametrize("settings", [SLEEPS, KEPT])
@pytest.mark.parametrize("seen", [{"woken": True}, {"in_flight": 1}, {"rolling": True}, {"got": "one"}])
def test_whoever_asks_wakes_it_at_once(settings: Settings, seen: dict[str, Any]) -> None:
    world = World(settings, Memory(), replicas=0)
    look = world.look(1) if "got" in seen else changed(world, seen)
    decision = world.looked(look)
    assert (decision.replicas, decision.reason) == (1, Reason.WOKEN)


def test_it_is_woken_though_the_routers_tell_nothing() -> None:
    world = World(SLEEPS, Memory(), replicas=0)
    assert world.looked(replace(world.look(0), got=None, reliable=False, woken=True)).replicas == 1


@pytest.mark.parametrize("seen", [{}, {"got": None}, {"reliable": False}])
def test_an_operator_that_starts_anew_wakes_nobody(seen: dict[str, Any]) -> None:
    world = World(SLEEPS, Memory(), replicas=0)
    assert {world.looked(changed(world, seen)).replicas for _ in range(10)} == {0}


def test_an_operator_that_starts_anew_counts_from_then() -> None:
    world = World(SLEEPS, Memory())
    assert world.run(IDLE - 2, 0).replicas == 1
    assert world.run(6, 0).replicas == 0


@pytest.mark.parametrize("seen", [{"got": None}, {"reliable": False}, {"in_flight": 1}, {"rolling": True}, {"ready": 0}])
def test_it_does_not_sleep(seen: dict[str, Any]) -> None:
    world = World(SLEEPS, Memory())
    world.run(10, 1)
    assert {world.looked(changed(world, seen)).replicas for _ in range(300)} == {1}
    assert world.run(IDLE - 2, 0).replicas == 1, "what was no idleness does not count"


def test_a_schedule_keeps_it_awake_and_wakes_it() -> None:
    world = World(replace(KEPT, floors=(Floor("0 5 * * *", 1, 3),)), Memory(), replicas=0)
    assert world.run(10, 0).replicas == 0
    world.seconds = 5 * 3600.0
    decision = world.run(2, 0)
    assert (decision.replicas, decision.reason) == (3, Reason.SCHEDULE)
    assert world.run(1800, 0).replicas == 3


def test_who_waited_for_a_first_pod_teaches_nothing() -> None:
    world = World(KEPT, Memory(), replicas=0)
    world.looked(world.look(0, in_flight=40))
    for _ in range(3):
        world.looked(replace(world.look(0, in_flight=40), ready=0))
    world.looked(world.look(60, latency_ms=8000.0))
    learned = world.run(120, 5).memory.learned.service
    assert learned is not None
    assert learned.mean_ms < 100


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans(), st.booleans()), max_size=80))
def test_no_one_who_asks_finds_it_asleep_for_longer_than_a_look(looks: list[tuple[int, int, bool, bool]]) -> None:
    world, asked_at = World(SLEEPS, Memory()), 0.0
    for arrivals, in_flight, reliable, woken in looks:
        look = replace(world.look(arrivals, in_flight=in_flight), reliable=reliable, woken=woken)
        before = world.replicas
        decision = world.looked(look, every=7.0)
        if arrivals or in_flight or woken:
            asked_at = world.seconds
            assert decision.replicas == 1
        if before and not decision.replicas:
            assert world.seconds - asked_at >= IDLE
            assert reliable, "stale figures put nobody to sleep"
