"""What is refused at max: how many requests may be in flight, what corrects that, and when routers are told of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scaling_world import BEGIN, KNOWN, SERVICE
from tests.unit.test_scaling_queueing import pods, services

from slipway.api.spec import Scaling
from slipway.api.status import HindranceStatus, RevisionStatus, ScalingStatus, Status
from slipway.core.figures import Counts, Slice
from slipway.core.latency import Histogram, bucket_of
from slipway.core.scaling.admission import concurrency_limit, correct
from slipway.core.scaling.decide import decide
from slipway.core.scaling.memory import ADMISSION, Learned, Look, Memory
from slipway.core.scaling.objective import Objective, Reason, Settings
from slipway.core.scaling.queueing import Pod
from slipway.core.shedding import limits
from slipway.core.sizing import TOLD_SECONDS, told

GOAL = Objective(latency_ms=200)
READY, MAXIMUM = 4, 4


@given(pods, services, st.floats(10, 1000), st.floats(*ADMISSION))
def test_a_limit_keeps_pods_busy_and_grows_with_the_latency(pod: Pod, service: Any, latency_ms: float, admission: float) -> None:
    learned = Learned(service, pod=pod, admission=admission)
    limit = concurrency_limit(Objective(latency_ms=latency_ms), learned)
    assert limit is not None
    assert limit >= pod.parallelism
    assert limit <= (concurrency_limit(Objective(latency_ms=2 * latency_ms), learned) or 0)


def test_what_asks_for_no_limit_has_none() -> None:
    assert concurrency_limit(GOAL, Learned()) is None, "nothing is known yet"
    assert concurrency_limit(Objective(requests_per_second=9), KNOWN) is None
    assert concurrency_limit(Objective(concurrency=7), Learned()) == pytest.approx(10)
    assert concurrency_limit(Objective(latency_ms=200, concurrency=1), KNOWN) == pytest.approx(1 / 0.7), "the tighter one"


class Overload:
    """Pods of `parallelism` servers, 40 ms a request, that get twice what they bear: the limit's worth is in flight."""

    def __init__(self, parallelism: float, believed: float = 1.0) -> None:
        self.parallelism = parallelism
        self.memory = Memory(replace(KNOWN, pod=Pod(believed, 0.7)))
        self.seconds = 0.0

    @property
    def limit(self) -> float:
        found = concurrency_limit(GOAL, self.memory.learned)
        assert found is not None
        return found

    @property
    def latency_ms(self) -> float:
        return max(self.limit / self.parallelism, 1.0) * 40

    def look(self) -> Look:
        answered = round(2 * READY * self.parallelism / 0.04)
        got = Slice(self.seconds, self.seconds + 2, Counts(requests=answered, refused=answered))
        got = replace(got, latency=Histogram({bucket_of(self.latency_ms): answered}))
        self.seconds += 2
        return Look(got, round(self.limit * READY), READY, READY, start_seconds=20)

    def run(self, seconds: float) -> list[float]:
        """Look for so long, and answer the limits."""
        found: list[float] = []
        for _ in range(int(seconds / 2)):
            self.memory = correct(self.memory, self.look(), GOAL, self.seconds)
            found.append(self.limit)
        return found


@pytest.mark.parametrize("parallelism", [0.5, 1.0, 2.0, 8.0])
def test_whatever_was_believed_latency_under_overload_comes_to_lie_below_the_objective(parallelism: float) -> None:
    world = Overload(parallelism)
    world.run(180)
    assert 0.6 * 200 <= world.latency_ms <= 200
    assert len(set(world.run(120))) == 1, "and then the limit stays as it is"


def test_a_few_refusals_and_a_backlog_from_before_teach_nothing() -> None:
    world = Overload(1.0)
    look = world.look()
    assert look.got is not None
    few = replace(look, got=replace(look.got, counts=Counts(requests=200, refused=1)))
    backlog = replace(look, got=replace(look.got, latency=Histogram({bucket_of(3000): 200})), in_flight=500)
    for seen in (few, backlog):
        memory = world.memory
        for second in range(0, 60, 2):
            memory = correct(memory, seen, GOAL, float(second))
        assert memory.learned == world.memory.learned


def test_refused_requests_are_demand_and_teach_no_service_times() -> None:
    settings, memory = Settings(GOAL, 1, MAXIMUM), Memory(KNOWN)
    decision = decide(Look(None, 14, READY, READY), settings, memory, BEGIN)
    for second in range(2, 80, 2):
        got = Slice(second - 2, second, Counts(requests=180, refused=120), Histogram({bucket_of(150): 180}))
        decision = decide(Look(got, 14, READY, READY), settings, memory, BEGIN + timedelta(seconds=second))
        memory = decision.memory
    assert decision.reason == Reason.AT_MAXIMUM
    assert "150.0 requests/s" in decision.message
    assert decision.limited
    assert decision.refused_per_second == pytest.approx(60)
    assert memory.learned.service == SERVICE


def status(told_: dict[str, Any], **roles: RevisionStatus) -> Status:
    scaling = ScalingStatus(replicas=4, concurrency_limit=2.8).model_copy(update=told_)
    return Status(scaling=scaling).model_copy(update=roles)


STABLE = RevisionStatus(revision="m-a", weight=100, ready=4, replicas=4)
CANDIDATE = RevisionStatus(revision="m-b", weight=25, ready=1, replicas=2)
NO_NODE = HindranceStatus(reason="Unschedulable")
TABLE: list[tuple[str, dict[str, Any], dict[str, RevisionStatus], dict[str, int]]] = [
    ("at max", {}, {"stable": STABLE}, {"m-a": 6}),
    ("below max more pods come", {"replicas": 3}, {"stable": STABLE}, {}),
    ("nothing is known", {"concurrency_limit": None}, {"stable": STABLE}, {}),
    ("pods that start count", {}, {"stable": STABLE.model_copy(update={"ready": 1})}, {"m-a": 6}),
    ("no pod: requests wait for the first", {}, {"stable": STABLE.model_copy(update={"ready": 0})}, {}),
    ("each revision its share", {}, {"stable": STABLE, "candidate": CANDIDATE}, {"m-a": 6, "m-b": 3}),
    (
        "pods that do not come do not count, and then there is no more than there is",
        {"replicas": 3, "hindrance": NO_NODE},
        {"stable": STABLE.model_copy(update={"ready": 2})},
        {"m-a": 3},
    ),
    (
        "slow ones do come",
        {"replicas": 3, "hindrance": HindranceStatus(reason="SlowStart")},
        {"stable": STABLE.model_copy(update={"ready": 2})},
        {},
    ),
    ("one at the least", {"concurrency_limit": 0.1}, {"stable": STABLE}, {"m-a": 1}),
]


@pytest.mark.parametrize(("said", "roles", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_routers_refuse_only_where_no_more_replicas_can_be_had(
    said: dict[str, Any], roles: dict[str, RevisionStatus], expected: dict[str, int]
) -> None:
    asked = Scaling.model_validate({"max": 4, "objective": {"latency": "200ms"}})
    assert limits(asked, status(said, **roles), routers=2) == expected
    assert limits(Scaling(min=4), status(said, **roles), routers=2) == {}, "a number by hand, or by another autoscaler"


def test_status_tells_of_limits_and_refusals_where_they_have_moved_and_else_is_not_written() -> None:
    settings = Settings(GOAL, 1, MAXIMUM)
    decision = decide(Look(Slice(0, 2), 0, READY, READY), settings, Memory(KNOWN), BEGIN)
    decision = replace(decision, concurrency_limit=2.8)
    first = told(None, decision, BEGIN)
    late = BEGIN + timedelta(seconds=TOLD_SECONDS)
    assert told(first, replace(decision, concurrency_limit=3.2), late) is first
    assert told(first, replace(decision, concurrency_limit=3.4), BEGIN).concurrency_limit == 3.4
    refusing = told(first, replace(decision, refused_per_second=20.0), BEGIN)
    assert refusing.refused_per_second == 20.0, "told at once"
    assert told(refusing, replace(decision, refused_per_second=40.0), BEGIN) is refusing, "then once a minute at most"
    assert told(refusing, replace(decision, refused_per_second=22.0), late) is refusing
    assert told(refusing, replace(decision, refused_per_second=40.0), late).refused_per_second == 40.0
    assert told(refusing, decision, BEGIN).refused_per_second is None
