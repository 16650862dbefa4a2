"""What the scaling policy answers in each situation, and why."""

from dataclasses import replace

import pytest
from tests.unit.scaling_world import KNOWN, LATENCY, SERVICE, World

from slipway.core.scaling.memory import Cpu, Learned, Memory, Tick
from slipway.core.scaling.needs import largest
from slipway.core.scaling.objective import Objective, Reason, Settings
from slipway.core.scaling.queueing import replicas_for
from slipway.core.scaling.schedule import Floor


@pytest.mark.parametrize(
    ("objective", "replicas", "reason"),
    [
        (Objective(requests_per_second=20), 6, Reason.REQUESTS_PER_SECOND),
        (Objective(concurrency=1), 5, Reason.CONCURRENCY),
        (Objective(cpu=0.5), 8, Reason.CPU),
        (Objective(latency_ms=100), 7, Reason.ARRIVALS),
        (Objective(latency_ms=100, requests_per_second=20, cpu=0.5), 8, Reason.CPU),
        (Objective(latency_ms=100, requests_per_second=2), 20, Reason.AT_MAXIMUM),
    ],
)
def test_each_objective_alone_and_the_largest_of_several(objective: Objective, replicas: int, reason: Reason) -> None:
    world = World(Settings(objective, 1, 20), replicas=4)
    for _ in range(20):  # four cores busy, however many pods share them
        decision = world.run(2, 100, cpu=Cpu(4.0))
    assert (decision.replicas, decision.reason) == (replicas, reason), decision.message
    assert decision.limited == (reason == Reason.AT_MAXIMUM)


def test_a_tighter_latency_needs_more_and_a_wider_one_tends_to_what_the_load_is() -> None:
    needed = [replicas_for(4.0, KNOWN.pod, SERVICE, limit, 0.01, 100) for limit in (45, 60, 100, 300, 5000)]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > needed[2] > needed[-1] == 5


def test_a_rise_is_followed_at_once_and_a_fall_after_a_hold_and_step_by_step() -> None:
    world = World()
    world.run(60, 50)
    low = world.replicas
    rising = [world.run(2, 250).replicas for _ in range(4)]
    assert rising[-1] >= 11, "a fivefold step was not followed within four looks"
    high = world.run(120, 250).replicas
    decision = world.run(40, 50)
    assert (decision.replicas, decision.reason) == (high, Reason.HOLDING)
    fell = [world.run(2, 50).replicas for _ in range(300)]
    assert fell[-1] in (low, low + 1)
    assert max(before - after for before, after in zip([high, *fell], fell, strict=False)) <= max(high // 10, 1)


def test_requests_that_have_not_ended_count_as_arrivals() -> None:
    world = World()
    world.run(60, 20)
    for number in range(5):  # every pod hangs: nothing ends, 100 a second come
        decision = world.looked(world.look(0, in_flight=200 * (number + 1)))
    assert decision.memory.ticks[-1].arrivals == 200
    assert decision.replicas >= 6


def test_a_steady_rise_is_met_ahead() -> None:
    flat, rising = World(), World()
    flat.run(60, 100)
    for second in range(0, 60, 2):
        decision = rising.run(2, 40 + second)
    assert decision.reason == Reason.TREND
    assert rising.replicas > flat.replicas


def test_arrivals_that_vary_get_head_room() -> None:
    calm, wild = World(), World()
    for number in range(60):
        calm.run(20, 100)
        wild.run(20, 100 + (40 if number % 4 < 2 else -40))
    calm.run(120, 100)
    wild.run(20, 100)
    found = wild.last
    assert found is not None
    assert wild.memory.learned.deviation > 3 * calm.memory.learned.deviation
    assert found.wanted > calm.replicas


@pytest.mark.parametrize(
    ("cpu", "replicas"),
    [
        (Cpu(2.0), 4),
        (Cpu(2.15), 4),  # within the tolerance
        (Cpu(2.6), 6),
        (Cpu(1.0), 2),
        (Cpu(1.0, unknown=1), 3),  # it may be as busy as the objective allows
        (Cpu(2.6, unknown=2), 6),  # they may be idle
        (Cpu(1.0, missing="metrics.k8s.io is not served"), 4),
    ],
)
def test_cpu(cpu: Cpu, replicas: int) -> None:
    look = replace(World().look(10), cpu=cpu, replicas=4, ready=4)
    memory = Memory(ticks=(Tick(2.0, 2.0, 10, 0, 10),))
    need = largest(memory, look, Settings(Objective(cpu=0.5), 1, 20))
    assert need is not None
    assert need.replicas == replicas
    assert (need.reason == Reason.NO_CPU_FIGURES) == bool(cpu.missing)


def test_each_revision_of_a_rollout_is_sized_as_if_it_had_all_requests() -> None:
    both = World()
    decision = both.run(60, 50, rolling=True, elsewhere=100, in_flight_elsewhere=2)  # of two seconds
    assert decision.replicas == World().run(60, 100).replicas


def test_nothing_known_changes_nothing() -> None:
    world = World(memory=Memory(), replicas=3)
    decision = world.run(30, 0)
    assert (decision.replicas, decision.reason) == (3, Reason.ARRIVALS)
    assert "no request was measured yet" in decision.message


def test_after_a_restart_what_is_there_is_kept_for_a_hold() -> None:
    world = World(memory=Memory(KNOWN), replicas=9)
    assert {world.run(2, 50).replicas for _ in range(25)} == {9}
    assert world.run(300, 50).replicas < 9


def test_min_and_max_the_same_keep_the_number_whatever_comes() -> None:
    world = World(replace(LATENCY, minimum=4, maximum=4), replicas=4)
    assert {world.run(2, rate).replicas for rate in (0, 500, 500, 0) for _ in range(60)} == {4}


def test_the_schedule_is_a_floor() -> None:
    world = World(replace(LATENCY, floors=(Floor("0 0 * * *", 1, 6), Floor("0 5 * * *", 1, 30))))
    decision = world.run(20, 1)
    assert (decision.replicas, decision.reason) == (6, Reason.SCHEDULE)
    assert world.run(60, 300).replicas > 6
    world.seconds = 2 * 3600.0
    assert world.run(600, 1).replicas == 1


def test_min_is_told_and_wins() -> None:
    decision = World(replace(LATENCY, minimum=3), replicas=3).run(200, 0.5)
    assert (decision.replicas, decision.reason) == (3, Reason.AT_MINIMUM)


def test_to_zero_after_idleness_and_back_for_the_first_who_waits() -> None:
    world = World(replace(LATENCY, minimum=0, idle_seconds=60.0))
    world.run(20, 5)
    assert world.run(50, 0).replicas >= 1
    decision = world.run(20, 0)
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)
    assert world.run(20, 0).replicas == 0
    assert world.looked(world.look(0, in_flight=1)).replicas >= 1
    assert World(replace(LATENCY, minimum=0)).run(3600, 0).replicas == 1


def test_a_pace_is_kept() -> None:
    world = World(replace(LATENCY, up_per_minute=2))
    decision = world.run(50, 300)
    assert (decision.replicas, decision.reason) == (3, Reason.PACE)
    assert decision.limited
    assert world.run(420, 300).replicas > 10


def test_a_service_time_is_learned_and_so_is_a_faster_one() -> None:
    world = World(memory=Memory(), replicas=10)
    world.run(300, 50, latency_ms=60.5)
    slower = world.memory.learned.service
    assert slower is not None
    assert slower.mean_ms == pytest.approx(60.5, abs=2.0)
    world.run(300, 50, latency_ms=30.5)
    faster = world.memory.learned.service
    assert faster is not None
    assert faster.mean_ms == pytest.approx(30.5, abs=2.0)


def test_a_slow_down_that_more_replicas_do_not_better_is_told_and_not_chased() -> None:
    world = World(memory=Memory(), replicas=6)
    world.run(300, 60)
    before = world.replicas
    reasons, most = set[Reason](), before
    for _ in range(300):
        decision = world.run(2, 60, latency_ms=250.0)
        reasons.add(decision.reason)
        most = max(most, decision.replicas)
    assert Reason.TRYING_MORE in reasons
    assert most <= before * 1.5 + 1
    assert decision.reason == Reason.MORE_REPLICAS_DO_NOT_HELP
    assert decision.replicas <= before + 1
    decision = world.run(120, 60)
    assert decision.reason not in (Reason.MORE_REPLICAS_DO_NOT_HELP, Reason.TRYING_MORE)


def test_a_slow_down_that_more_replicas_better_gets_them() -> None:
    world = World(memory=Memory(), replicas=6)
    world.run(300, 60)
    before = world.replicas
    for _ in range(200):
        # Work has trebled, and a queue grows unless there are pods for it.
        world.run(2, 60, latency_ms=95.0 if world.replicas > before else 900.0)
    assert world.last is not None
    assert world.last.reason not in (Reason.MORE_REPLICAS_DO_NOT_HELP, Reason.TRYING_MORE)
    assert world.replicas > before * 1.3
    learned = world.memory.learned.service
    assert learned is not None
    assert learned.mean_ms == pytest.approx(95, abs=3), "what a request takes now was not learned from the trial"


def test_requests_too_slow_by_themselves_do_not_run_to_max() -> None:
    world = World(memory=Memory(), replicas=5)
    decision = world.run(600, 40, latency_ms=150.0)
    assert decision.reason == Reason.MORE_REPLICAS_DO_NOT_HELP
    assert "100% of requests take longer than 100 ms without waiting" in decision.message
    assert decision.replicas <= 14


def test_violations_make_cautious_and_quiet_times_less_so() -> None:
    world = World(replicas=8)
    world.run(300, 100)
    assert world.memory.learned.caution == 1.0
    for _ in range(60):
        world.run(8, 100, ready=7)  # pods come and go: nothing is learned of them then
        world.run(2, 100, ready=6, latency_ms=150.0)
    cautious = world.memory.learned.caution
    assert cautious > 1.3
    world.run(3600, 100)
    assert world.memory.learned.caution < cautious / 1.2


def test_what_is_learned_survives_in_a_status() -> None:
    kept = KNOWN.store()
    assert Learned.restore(kept) == KNOWN
    assert len(str(kept)) < 400
