"""The evidence on rollouts, from the meter: whose it is, when it begins anew, and what a router that leaves may not fake."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.test_analysis import ERRORS, P95, PLAN

from slipway.api.status import RolloutStatus
from slipway.core.agreement_check import Compared
from slipway.core.clock import to_datetime
from slipway.core.figures import Counts, Figures, Slice
from slipway.core.jobs import job_name
from slipway.core.latency import Histogram, bucket_of
from slipway.core.observation import RouterSeen
from slipway.core.plan import NOBODY_JUDGED, UNJUDGED, AgreementBound, Plan, Step, Trial, Verdict
from slipway.core.polled import METRIC, NO_ANSWERS, Answer, Answers, Hook, MetricQuery, Outcome, Polled, Subject, Task
from slipway.core.revision import Target
from slipway.core.sequential import Tally
from slipway.core.state import Candidate, State
from slipway.judges import Judges
from slipway.kube.store import Store
from slipway.queue import Key

A, B = Target("m-a", "", None), Target("m-b", "", None)
ROLLING = RolloutStatus(revision="m-b", since="2026-01-01T00:00:00Z", step=1, steps=2, step_since="2026-01-01T00:00:01Z")
CANARY = State(stable=A, candidates=(Candidate(B, 25),), rollout=ROLLING)
BEFORE = replace(CANARY, candidates=(Candidate(B),), rollout=ROLLING.model_copy(update={"step": 0, "step_since": None}))


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
        return Figures(seconds, 1.0, 2, self.missing, self.in_flight.get(revision, 0), 0.0, total.counts, total.latency)

    def routers(self, namespace: str) -> tuple[RouterSeen, ...]:
        return tuple(RouterSeen(pod, ready=True, answered=True) for pod in self.pods)


class Nobody:
    """Pollers that remember whom they are to ask, and have no answer but those given."""

    def __init__(self) -> None:
        self.following: tuple[str, Subject] | None = None
        self.answers: dict[str, Answers] = {}
        self.asked: list[str] = []
        self.waited: dict[str, float] = {}

    def follow(
        self, key: Key, step: str, subject: Subject, checks: tuple[Polled, ...], waited: dict[str, float]
    ) -> dict[str, Answers]:
        self.following, self.asked, self.waited = (step, subject), [check.name for check in checks], waited
        return self.answers

    def forget(self, key: Key) -> None:
        self.following = None


class Alike:
    """Comparers that have counted what they are given."""

    def __init__(self) -> None:
        self.counted = Compared()

    def compared(self, namespace: str, model: str, stable: str, candidate: str) -> Compared:
        return self.counted


def model(plan: Plan = PLAN) -> Any:
    return SimpleNamespace(namespace="ns", name="m", plan=plan, identity=SimpleNamespace(uid="u"))


@pytest.fixture
def meter() -> Counted:
    return Counted()


@pytest.fixture
def judges(meter: Counted) -> Judges:
    return Judges(cast("Any", meter), cast("Any", Nobody()), cast("Any", Alike()), Store())


@pytest.mark.parametrize("state", [State(stable=A), BEFORE, replace(CANARY, stable=None)])
def test_nothing_is_judged_without_two_that_answer(judges: Judges, meter: Counted, state: State) -> None:
    meter.answer("m-b", 100, errors=100)
    assert judges.judge(model(), state, 1.0) == NOBODY_JUDGED


def test_what_was_counted_before_the_rollout_is_not_held_against_it(judges: Judges, meter: Counted) -> None:
    meter.answer("m-b", 100, errors=100)
    meter.answer("m-a", 100)
    for second in range(1, 4):
        told = judges.judge(model(), CANARY, float(second)).of("m-b")
        assert (told.verdict, told.reason) == (Verdict.WAIT, "InsufficientRequests")


def test_a_bad_candidate_is_told_and_another_rollout_begins_anew(judges: Judges, meter: Counted) -> None:
    def look(second: float, state: State = CANARY, plan: Plan = PLAN) -> str:
        return judges.judge(model(plan), state, second).of("m-b").reason

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
    assert judges.judge(model(), BEFORE, 1.0) == NOBODY_JUDGED
    meter.answer("m-a", 80)
    meter.in_flight["m-b"] = 8
    told = [judges.judge(model(), CANARY, float(second)).of("m-b").reason for second in range(2, 6)]
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
        told = judges.judge(model(), CANARY, float(second)).of("m-b")
    assert told.reason == reason


def test_a_router_that_is_silent_passes_nothing(judges: Judges, meter: Counted) -> None:
    for second in range(3):
        judges.judge(model(), CANARY, float(second))
        meter.answer("m-a", 300)
        meter.answer("m-b", 100)
    meter.missing = 1
    assert judges.judge(model(), CANARY, 3.0).of("m-b").reason == "MetricsStale"
    meter.missing = 0
    assert judges.judge(model(), CANARY, 4.0).of("m-b").verdict == Verdict.PASS


GATE, SMOKE = Polled("gate", 1, Hook("http://gate/"), 10, 5), Polled("smoke", 2, Task({"spec": {}}, 60))
ASKING = Plan((Step(25, judged=True), Step(100)), polled=(GATE, SMOKE))
GOOD = NO_ANSWERS.add(Answer(Outcome.GOOD))


def test_others_are_asked_while_a_judged_step_is_live(meter: Counted) -> None:
    pollers = Nobody()
    judges = Judges(cast("Any", meter), cast("Any", pollers), cast("Any", Alike()), Store())
    shifting = replace(CANARY, rollout=ROLLING.model_copy(update={"step_since": None}))
    last = replace(CANARY, candidates=(Candidate(B, 100),), rollout=ROLLING.model_copy(update={"step": 2}))
    asked: list[tuple[str, Subject] | None] = []
    for state in (BEFORE, shifting, CANARY, last, CANARY, State(stable=A)):
        judges.judge(model(ASKING), state, 1.0)
        asked.append(pollers.following)
    assert [each is not None for each in asked] == [False, False, True, False, True, False]
    assert asked[2] is not None
    assert asked[2][1] == Subject("ns", "m", "m-b", "", "m-a", 1, 25)
    judges.judge(model(ASKING), CANARY, 1.0)
    judges.forget(("ns", "m"))
    assert pollers.following is None


def test_what_others_say_and_what_the_job_says_are_judged_together(meter: Counted) -> None:
    pollers, store = Nobody(), Store()
    judges = Judges(cast("Any", meter), cast("Any", pollers), cast("Any", Alike()), store)

    def look() -> str:
        return judges.judge(model(ASKING), CANARY, 1.0).of("m-b").reason

    def put(version: int, uid: str = "u", **status: Any) -> None:
        metadata = {"name": job_name(ROLLING, SMOKE), "namespace": "ns", "uid": "j", "resourceVersion": str(version)}
        metadata |= {"labels": {"slipway.dev/model-deployment": "m"}, "ownerReferences": [{"uid": uid}]}
        store.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": status})

    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert look() == "InsufficientAnswers"
    pollers.answers = {"gate": GOOD}
    assert look() == "CheckRunning", "its Job is not even made"
    put(1, uid="somebody", **complete)
    assert look() == "CheckRunning", "somebody else's Job says nothing"
    put(2)
    assert look() == "CheckRunning"
    put(3, **complete)
    assert look() == "Passed"
    put(4, conditions=[{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}])
    assert look() == "JobCheckFailed"


def test_copies_of_requests_are_the_candidates(judges: Judges, meter: Counted) -> None:
    state = replace(CANARY, candidates=(Candidate(B),))
    judges.judge(model(), BEFORE, 1.0)
    meter.answer("m-a", 60)
    meter.answer("m-b-mirror", 10, errors=10)
    meter.answer("m-b-mirror-grpc", 10, errors=10)
    told = judges.judge(model(), state, 2.0).of("m-b")
    assert told.reason == "ErrorRateTooHigh"
    assert next(check.sample for check in told.checks if check.name == "errorRate") == 20


def test_an_ab_test_outlives_the_operator(meter: Counted) -> None:
    plan = Plan((Step(50, judged=True), Step(100)), trial=Trial(), min_requests=10)
    state = replace(CANARY, candidates=(Candidate(B, 50),))

    def another() -> Judges:
        return Judges(cast("Any", meter), cast("Any", Nobody()), cast("Any", Alike()), Store())

    first = another()
    first.judge(model(plan), BEFORE, 1.0)
    meter.answer("m-a", 300, errors=30)
    meter.answer("m-b", 300, errors=20)
    told = first.judge(model(plan), state, 2.0).trial
    assert told is not None
    (arm,) = told.arms
    assert (told.stable.errors, arm.errors, arm.verdict) == (30, 20, None)
    assert state.rollout is not None
    kept = replace(state, rollout=state.rollout.model_copy(update={"trial": told}))
    second = another()
    assert second.judge(model(plan), kept, 3.0).trial == told, "what the meter had counted is in status already"
    meter.answer("m-a", 3000, errors=300)
    meter.answer("m-b", 3000, errors=100)
    won = second.judge(model(plan), kept, 4.0).of("m-b")
    assert (won.verdict, won.reason) == (Verdict.PASS, "WonABTest")
    assert second.judge(model(plan), BEFORE, 5.0) == NOBODY_JUDGED
    assert second.judge(model(plan), kept, 6.0).of("m-b").reason == "InsufficientRequests", "another rollout: anew"


SALES = Polled(METRIC, 0, MetricQuery("sales{{revision}}"), 60.0, 5.0)
BEGUN = to_datetime("2026-01-01T00:00:01Z").timestamp()


def test_a_metric_outlives_the_operator_and_what_was_told_counts_once(meter: Counted) -> None:
    plan = Plan((Step(50, judged=True), Step(100)), trial=Trial(metric=SALES, higher_is_better=True), min_requests=10)
    state, pollers = replace(CANARY, candidates=(Candidate(B, 50),)), Nobody()

    def another() -> Judges:
        return Judges(cast("Any", meter), cast("Any", pollers), cast("Any", Alike()), Store())

    def said(*pairs: tuple[float, float]) -> None:
        last = Answer(Outcome.GOOD, "", *pairs[-1]) if pairs else None
        pollers.answers = {METRIC: Answers(last=last, pairs=pairs, age_seconds=2.0)}

    first = another()
    first.judge(model(plan), BEFORE, BEGUN)
    meter.answer("m-a", 100)
    meter.answer("m-b", 100)
    assert first.judge(model(plan), state, BEGUN + 5).of("m-b").reason == "NoWinnerYet"
    assert (pollers.asked, pollers.waited) == ([METRIC], {METRIC: 5.0}), "the first interval began with the step"
    said((3.0, 2.0), (4.0, 2.0))
    first.judge(model(plan), state, BEGUN + 64)
    said()
    told = first.judge(model(plan), state, BEGUN + 65).trial
    assert told is not None
    (metric,) = (arm.metric for arm in told.arms)
    assert metric is not None
    assert (metric.samples, metric.total, metric.squares) == (2, 3.0, 5.0)
    assert state.rollout is not None
    kept = replace(state, rollout=state.rollout.model_copy(update={"trial": told}))
    second = another()
    assert second.judge(model(plan), kept, BEGUN + 72).trial == told
    assert pollers.waited == {METRIC: 10.0}, "its interval goes on from the last one's end"
    said(*[(3.0 + number % 2, 2.0) for number in range(40)])
    won = second.judge(model(plan), kept, BEGUN + 80)
    assert (won.of("m-b").verdict, won.of("m-b").reason) == (Verdict.PASS, "WonABTest")
    assert won.trial is not None
    assert [arm.metric and arm.metric.samples for arm in won.trial.arms] == [42]
    said()
    second.judge(model(plan), BEFORE, BEGUN + 90)
    begun = second.judge(model(plan), kept, BEGUN + 91).trial
    assert begun is not None
    assert [arm.metric and arm.metric.samples for arm in begun.arms] == [0], "another rollout: anew"


def test_a_metric_is_asked_while_both_arms_have_callers(meter: Counted) -> None:
    plan = Plan((Step(50, judged=True), Step(100)), trial=Trial(metric=SALES), polled=(GATE,))
    pollers = Nobody()
    judges = Judges(cast("Any", meter), cast("Any", pollers), cast("Any", Alike()), Store())
    for weight, asked in ((50, ["gate", METRIC]), (0, ["gate"]), (100, ["gate"])):
        judges.judge(model(plan), replace(CANARY, candidates=(Candidate(B, weight),)), BEGUN + 5)
        assert pollers.asked == asked


def test_answers_that_differ_withdraw(meter: Counted) -> None:
    alike, plan = Alike(), replace(PLAN, bounds=(), agreement=AgreementBound(0.99, 50))
    judges = Judges(cast("Any", meter), cast("Any", Nobody()), cast("Any", alike), Store())
    judges.judge(model(plan), BEFORE, 1.0)
    assert judges.judge(model(plan), CANARY, 2.0).of("m-b").reason == "MetricsStale", "the comparer has not said anything yet"
    alike.counted = Compared(Tally(40, 0), age_seconds=1.0)
    assert judges.judge(model(plan), CANARY, 3.0).of("m-b").reason == "InsufficientRequests"
    alike.counted = Compared(Tally(60, 0), age_seconds=1.0)
    assert judges.judge(model(plan), CANARY, 4.0).of("m-b").verdict == Verdict.PASS
    told = UNJUDGED
    for second in range(5, 12):
        alike.counted = Compared(Tally(second * 20, second * 5), age_seconds=1.0)
        told = judges.judge(model(plan), CANARY, float(second)).of("m-b")
    assert (told.verdict, told.reason) == (Verdict.FAIL, "AgreementTooLow")
