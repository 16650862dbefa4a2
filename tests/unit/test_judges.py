"""The evidence on rollouts, from the meter: whose it is, when it begins anew, and what a router that leaves may not fake."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.test_analysis import ERRORS, P95, PLAN

from slipway.api.status import RolloutStatus
from slipway.core.figures import Counts, Figures, Slice
from slipway.core.latency import Histogram, bucket_of
from slipway.core.observation import RouterSeen
from slipway.core.plan import UNJUDGED, Plan, Verdict
from slipway.core.revision import Target
from slipway.core.state import State
from slipway.judges import Judges

A, B = Target("m-a", "", None), Target("m-b", "", None)
ROLLING = RolloutStatus(revision="m-b", since="2026-01-01T00:00:00Z", step=1, steps=2, step_since="2026-01-01T00:00:01Z")
CANARY = State(stable=A, candidate=B, weight=25, rollout=ROLLING)
BEFORE = replace(CANARY, weight=0, rollout=ROLLING.model_copy(update={"step": 0, "step_since": None}))


class Counted:
    """A meter as Judges asks it: totals and requests in flight by revision, over some routers."""

    def __init__(self) -> None:
        self.pods = ["r1", "r2"]
        self.totals: dict[str, Slice] = {}
        self.in_flight = {"m-a": 0, "m-b": 0}
        self.missing = 0

    def answer(self, revision: str, requests: int, errors: int = 0) -> None:
        """Let the revision answer so many more requests."""
        latency = Histogram({bucket_of(20): requests - errors} if requests > errors else {})
        more = Slice(0, 0, Counts(requests=requests, errors=errors), latency)
        self.totals[revision] = self.totals.get(revision, Slice(0, 0)) + more

    def total(self, namespace: str, revision: str) -> Slice | None:
        return self.totals.get(revision)

    def figures(self, namespace: str, revision: str, seconds: float) -> Figures:
        total = self.totals.get(revision, Slice(0, 0))
        return Figures(seconds, 1.0, 2, self.missing, self.in_flight[revision], 0.0, total.counts, total.latency)

    def routers(self, namespace: str) -> tuple[RouterSeen, ...]:
        return tuple(RouterSeen(pod, ready=True, answered=True) for pod in self.pods)


def model(plan: Plan = PLAN) -> Any:
    return SimpleNamespace(namespace="ns", name="m", plan=plan)


@pytest.fixture
def meter() -> Counted:
    return Counted()


@pytest.fixture
def judges(meter: Counted) -> Judges:
    return Judges(cast("Any", meter))


@pytest.mark.parametrize("state", [State(stable=A), BEFORE, replace(CANARY, stable=None)])
def test_nothing_is_judged_without_two_that_answer(judges: Judges, meter: Counted, state: State) -> None:
    meter.answer("m-b", 100, errors=100)
    assert judges.judge(model(), state, 1.0) == UNJUDGED


def test_what_was_counted_before_the_rollout_is_not_held_against_it(judges: Judges, meter: Counted) -> None:
    meter.answer("m-b", 100, errors=100)
    meter.answer("m-a", 100)
    for second in range(1, 4):
        told = judges.judge(model(), CANARY, float(second))
        assert (told.verdict, told.reason) == (Verdict.WAIT, "InsufficientRequests")


def test_a_bad_candidate_is_told_and_another_rollout_begins_anew(judges: Judges, meter: Counted) -> None:
    def look(second: float, state: State = CANARY, plan: Plan = PLAN) -> str:
        return judges.judge(model(plan), state, second).reason

    look(1.0)
    meter.answer("m-b", 20, errors=20)
    meter.answer("m-a", 60)
    assert look(2.0) == "ErrorRateTooHigh"
    assert look(3.0, plan=replace(PLAN, min_requests=7)) == "ErrorRateTooHigh", "the same checks, the same evidence"
    assert look(4.0, plan=replace(PLAN, bounds=(ERRORS, P95))) == "InsufficientRequests", "other checks: anew"
    look(5.0, BEFORE)
    assert look(6.0) == "InsufficientRequests", "another try of it: anew"


def test_callers_who_all_wait_for_the_candidate_at_once_are_evidence(judges: Judges, meter: Counted) -> None:
    """Its first requests take every caller with them, before the weight is looked at again: stable gets none any more."""
    meter.answer("m-a", 100)
    assert judges.judge(model(), BEFORE, 1.0) == UNJUDGED
    meter.answer("m-a", 80)
    meter.in_flight["m-b"] = 8
    told = [judges.judge(model(), CANARY, float(second)).reason for second in range(2, 6)]
    assert told[-1] == "LatencyTooHigh"


@pytest.mark.parametrize(("replaced", "reason"), [(False, "LatencyTooHigh"), (True, "InsufficientRequests")])
def test_what_a_router_took_with_it_does_not_hang(judges: Judges, meter: Counted, replaced: bool, reason: str) -> None:
    meter.answer("m-a", 100)
    judges.judge(model(), CANARY, 1.0)
    meter.in_flight["m-b"] = 8
    for second in range(2, 6):
        meter.answer("m-a", 20)
        if replaced:
            meter.pods = ["r1", f"r{second + 1}"]
        told = judges.judge(model(), CANARY, float(second))
    assert told.reason == reason


def test_a_router_that_is_silent_passes_nothing(judges: Judges, meter: Counted) -> None:
    for second in range(3):
        judges.judge(model(), CANARY, float(second))
        meter.answer("m-a", 300)
        meter.answer("m-b", 100)
    meter.missing = 1
    assert judges.judge(model(), CANARY, 3.0).reason == "MetricsStale"
    meter.missing = 0
    assert judges.judge(model(), CANARY, 4.0).verdict == Verdict.PASS
