"""Phase, conditions and events: what an SRE reads, from what is so."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from slipway.api.status import HindranceStatus, HistoryEntry, Phase, RolloutStatus, ScalingStatus, Status
from slipway.core.clock import stamp
from slipway.core.observation import RevisionSeen, RouterSeen, RoutesSeen, Symptom
from slipway.core.report import Subject, only_figures, report
from slipway.core.revision import Target
from slipway.core.state import Candidate, State, World
from slipway.core.transitions import event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = Target("m-a", "1", None), Target("m-b", "2", None)
SUBJECT = Subject("m", "ns", 3, url="http://m.ns")
ROUTER = RouterSeen("r", True, True, 1, {"m-a": 1, "m-b": 1})
ROLLING = RolloutStatus(revision="m-b", since=stamp(NOW))
FAILED = ROLLING.model_copy(update={"outcome": "Failed", "reason": "OOMKilled", "message": "more memory"})


def world(
    written: dict[str, int], *, settled: bool = True, routers: tuple[RouterSeen, ...] = (ROUTER,), **pods: RevisionSeen
) -> World:
    return World(
        target=A,
        replicas=1,
        revisions={f"m-{letter}": seen for letter, seen in pods.items()},
        known={},
        routes=RoutesSeen(written, settled, routers),
        deadline_seconds=600,
        timeout_seconds=30,
        now=NOW,
    )


UP, DOWN = RevisionSeen(1, 1), RevisionSeen(1, 0)
SICK = RevisionSeen(1, 0, Symptom("DigestMismatch", "it differs"))
SERVING = {"m-a": 100}

# name, subject, state, world -> phase, Ready (status, reason), Available
TABLE = [
    ("serves", SUBJECT, State(stable=A), world(SERVING, a=UP), Phase.READY, ("True", "Serving"), "True"),
    (
        "first starts",
        SUBJECT,
        State(candidates=(Candidate(A),), rollout=ROLLING),
        world({}, a=DOWN),
        Phase.PENDING,
        ("False", "WaitingForPods"),
        "False",
    ),
    (
        "first is bad",
        SUBJECT,
        State(candidates=(Candidate(A),), rollout=ROLLING),
        world({}, a=SICK),
        Phase.DEGRADED,
        ("False", "DigestMismatch"),
        "False",
    ),
    (
        "new one starts, old one serves",
        SUBJECT,
        State(stable=A, candidates=(Candidate(B),), rollout=ROLLING),
        world(SERVING, a=UP, b=DOWN),
        Phase.PROGRESSING,
        ("False", "WaitingForPods"),
        "True",
    ),
    (
        "new one is bad, old one serves",
        SUBJECT,
        State(stable=A, candidates=(Candidate(B),), rollout=ROLLING),
        world(SERVING, a=UP, b=SICK),
        Phase.DEGRADED,
        ("False", "DigestMismatch"),
        "True",
    ),
    (
        "was withdrawn",
        SUBJECT,
        State(stable=A, rollout=FAILED),
        world(SERVING, a=UP),
        Phase.DEGRADED,
        ("False", "OOMKilled"),
        "True",
    ),
    (
        "weights under way",
        SUBJECT,
        State(stable=A, candidates=(Candidate(B, 100),), rollout=ROLLING),
        world({"m-b": 100}, settled=False, a=UP, b=UP),
        Phase.PROGRESSING,
        ("False", "Shifting"),
        "True",
    ),
    (
        "routers do not see the new pods yet",
        SUBJECT,
        State(stable=A, candidates=(Candidate(B),), rollout=ROLLING),
        world(SERVING, routers=(replace(ROUTER, healthy={"m-a": 1}),), a=UP, b=UP),
        Phase.PROGRESSING,
        ("False", "WaitingForRouters"),
        "True",
    ),
    (
        "routers do not see the pods that came back yet",
        SUBJECT,
        State(stable=A),
        world(SERVING, routers=(replace(ROUTER, healthy={"m-a": 0}),), a=UP),
        Phase.PROGRESSING,
        ("False", "WaitingForRouters"),
        "False",
    ),
    (
        "scaling up",
        SUBJECT,
        State(stable=A),
        replace(world(SERVING, a=UP), replicas=3, minimum=3),
        Phase.PROGRESSING,
        ("False", "Scaling"),
        "True",
    ),
    ("pods gone", SUBJECT, State(stable=A), world(SERVING, a=DOWN), Phase.DEGRADED, ("False", "NoReadyPod"), "False"),
    ("pods sick", SUBJECT, State(stable=A), world(SERVING, a=SICK), Phase.DEGRADED, ("False", "DigestMismatch"), "False"),
    (
        "spec invalid",
        replace(SUBJECT, spec_error=Symptom("SpecInvalid", "spec.model: missing")),
        State(stable=A),
        world(SERVING, a=UP),
        Phase.DEGRADED,
        ("False", "SpecInvalid"),
        "True",
    ),
    (
        "name taken",
        replace(SUBJECT, hindrance=Symptom("NameClash", "Service m is not ours")),
        State(stable=A),
        world(SERVING, a=UP),
        Phase.DEGRADED,
        ("False", "NameClash"),
        "True",
    ),
    (
        "router silent",
        SUBJECT,
        State(stable=A),
        world(SERVING, settled=False, routers=(ROUTER, RouterSeen("s", True)), a=UP),
        Phase.DEGRADED,
        ("False", "RouterSilent"),
        "True",
    ),
    (
        "no router",
        SUBJECT,
        State(stable=A),
        replace(world(SERVING, a=UP), routes=RoutesSeen(SERVING, True, (), symptom=Symptom("ErrImagePull", "no image"))),
        Phase.DEGRADED,
        ("False", "ErrImagePull"),
        "False",
    ),
]


@pytest.mark.parametrize(
    ("subject", "state", "seen", "phase", "ready", "available"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE]
)
def test_table(subject: Subject, state: State, seen: World, phase: Phase, ready: tuple[str, str], available: str) -> None:
    status = report(Status(), subject, state, seen)
    conditions = {condition.type: condition for condition in status.conditions}
    assert (status.phase, (conditions["Ready"].status, conditions["Ready"].reason)) == (phase, ready)
    assert conditions["Available"].status == available
    assert len(conditions) == 6
    assert all(condition.message and condition.observed_generation == 3 for condition in status.conditions)


def test_a_transition_time_moves_only_with_its_status() -> None:
    first = report(Status(), SUBJECT, State(stable=A), world(SERVING, a=UP))
    later = replace(world(SERVING, a=UP), now=NOW + timedelta(hours=1))
    assert report(first, SUBJECT, State(stable=A), later) == first
    broken = report(first, SUBJECT, State(stable=A), replace(later, revisions={"m-a": DOWN}))
    moved = {condition.type for condition in broken.conditions if condition.last_transition_time != stamp(NOW)}
    assert moved == {"Ready", "Available"}


def test_a_transition_is_one_event_and_a_repetition_none() -> None:
    starting = report(
        Status(), SUBJECT, State(stable=A, candidates=(Candidate(B),), rollout=ROLLING), world(SERVING, a=UP, b=DOWN)
    )
    sick = report(starting, SUBJECT, State(stable=A, candidates=(Candidate(B),), rollout=ROLLING), world(SERVING, a=UP, b=SICK))
    assert event(Status(), starting) is None
    told = event(starting, sick)
    assert told is not None
    assert (told.type, told.reason) == ("Warning", "DigestMismatch")
    assert "m-a goes on serving" in told.message
    assert event(sick, sick) is None
    served = HistoryEntry(revision="m-b", version="2", outcome="Served", at=stamp(NOW))
    done = event(sick, report(sick, SUBJECT, State(stable=B, history=(served,)), world({"m-b": 100}, b=UP)))
    assert done is not None
    assert (done.type, done.reason, done.message) == ("Normal", "Promoted", "m-b (version 2) serves all requests")


def test_counts_and_words_are_figures_and_all_else_is_not() -> None:
    rolling = State(candidates=(Candidate(A),), rollout=ROLLING)
    before = report(Status(), SUBJECT, rolling, world({}, a=DOWN))
    assert only_figures(before, report(before, SUBJECT, rolling, world({}, a=UP))), "its pod is ready, the routers do not see it"
    assert not only_figures(before, report(before, replace(SUBJECT, generation=4), rolling, world({}, a=DOWN)))
    assert not only_figures(before, report(before, SUBJECT, replace(rolling, candidates=(Candidate(A, 100),)), world({}, a=UP)))
    assert not only_figures(before, report(before, SUBJECT, rolling, world({}, a=SICK))), "it is Degraded"
    assert not only_figures(before, report(before, SUBJECT, State(stable=A), world(SERVING, a=UP)))


def test_a_model_that_takes_long_to_come_is_told_of_stage_by_stage() -> None:
    def told(seen: RevisionSeen) -> Status:
        state = State(candidates=(Candidate(A),), rollout=ROLLING)
        return report(Status(), SUBJECT, state, world({}, a=replace(seen, replicas=1)))

    waiting, fetching = told(DOWN), told(replace(DOWN, stage=Symptom("FetchingModel", "fetching its model")))
    loading = told(replace(DOWN, stage=Symptom("LoadingModel", "loading its model (fetched 12 bytes)")))
    assert (fetching.phase, loading.phase) == (Phase.PENDING, Phase.PENDING)
    assert only_figures(waiting, fetching), "a stage alone is not worth an own write: quick ones are never told"
    assert only_figures(fetching, loading)
    first, second = event(waiting, fetching), event(fetching, loading)
    assert first is not None
    assert second is not None
    assert (first.type, first.reason, first.message) == ("Normal", "FetchingModel", "m-a is fetching its model")
    assert (second.reason, second.message) == ("LoadingModel", "m-a is loading its model (fetched 12 bytes)")
    assert event(loading, loading) is None


def test_trust_is_a_condition_where_it_is_given() -> None:
    state, seen = State(stable=A), world(SERVING, a=UP)
    conditions = {each.type: each for each in report(Status(), replace(SUBJECT, unsafe=True), state, seen).conditions}
    assert (conditions["UnsafeModel"].status, conditions["UnsafeModel"].reason) == ("True", "TrustUnsafe")
    assert conditions["Ready"].status == "True"
    assert "UnsafeModel" not in {each.type for each in report(Status(), SUBJECT, state, seen).conditions}


def test_each_step_of_a_canary_is_told_once_its_weight_is_live() -> None:
    def told(step: int, weight: int, since: str | None) -> Status:
        rolling = ROLLING.model_copy(update={"step": step, "steps": 3, "step_since": since})
        canary = State(stable=A, candidates=(Candidate(B, weight),), rollout=rolling)
        return report(Status(), SUBJECT, canary, world({"m-a": 100 - weight, "m-b": weight}, a=UP, b=UP))

    first, written = told(1, 5, "2026-01-01T00:00:00Z"), told(2, 25, None)
    second = told(2, 25, "2026-01-01T00:02:00Z")
    assert event(first, written) is None, "the routers do not do it yet"
    step = event(written, second)
    assert step is not None
    assert (step.type, step.reason, step.message) == ("Normal", "StepStarted", "step 2 of 3: m-b gets 25% of requests")
    assert event(second, second) is None


LIMITED = [
    ("enough", ScalingStatus(replicas=2, wanted=2, reason="Arrivals"), ("False", "WithinLimits", "as many")),
    ("max", ScalingStatus(replicas=2, wanted=4, reason="AtMaximum"), ("True", "AtMaximum", "asks for 4 replicas")),
    (
        "max, and requests refused",
        ScalingStatus(replicas=2, wanted=4, reason="AtMaximum", refused_per_second=12.5),
        ("True", "AtMaximum", "12.5 requests/s refused"),
    ),
    (
        "max is what is asked for, and bursts are refused",
        ScalingStatus(replicas=2, wanted=2, reason="Arrivals", refused_per_second=0.5),
        ("True", "AtMaximum", "0.5 requests/s refused"),
    ),
    (
        "pods do not come",
        ScalingStatus(replicas=2, wanted=4, reason="Hindered", hindrance=HindranceStatus(reason="Unschedulable", message="cpu")),
        ("True", "Unschedulable", "cpu"),
    ),
]


@pytest.mark.parametrize(("scaling", "expected"), [row[1:] for row in LIMITED], ids=[row[0] for row in LIMITED])
def test_what_limits_an_objective(scaling: ScalingStatus, expected: tuple[str, str, str]) -> None:
    found = report(Status(), SUBJECT, State(stable=A), replace(world(SERVING, a=UP), scaling=scaling))
    (condition,) = [each for each in found.conditions if each.type == "ScalingLimited"]
    assert (condition.status, condition.reason) == expected[:2]
    assert expected[2] in condition.message
