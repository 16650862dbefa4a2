"""The rollout policy as a table: what is seen, and what is decided."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slipway.api.status import Draining, RolloutStatus, ScalingStatus
from slipway.core.capacity import replicas
from slipway.core.clock import stamp
from slipway.core.observation import RevisionSeen, RouterSeen, RoutesSeen, Symptom
from slipway.core.plan import Plan, Step
from slipway.core.revision import Target
from slipway.core.rollout import decide, wake_after
from slipway.core.state import Candidate, State, World
from slipway.core.symptoms import PATIENCE_SECONDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C = (Target(f"m-{letter}", letter, None) for letter in "abc")


def router(healthy: dict[str, int] | None = None, active: dict[str, int] | None = None, *, answered: bool = True) -> RouterSeen:
    return RouterSeen("r", ready=True, answered=answered, route_version=1, healthy=healthy or {}, active=active or {})


def routes(written: dict[str, int], *routers: RouterSeen, settled: bool = True) -> RoutesSeen:
    return RoutesSeen(written, settled, routers or (router({"m-a": 1, "m-b": 1, "m-c": 1}),))


def world(target: Target | None, written: dict[str, int] | RoutesSeen, **pods: int) -> World:
    revisions = {f"m-{letter}": RevisionSeen(1, ready) for letter, ready in pods.items()}
    return World(
        target=target,
        replicas=1,
        revisions=revisions,
        known={each.revision: each for each in (A, B, C)},
        routes=written if isinstance(written, RoutesSeen) else routes(written),
        deadline_seconds=600,
        timeout_seconds=30,
        now=NOW,
    )


def rolling(revision: Target, age: float = 1) -> RolloutStatus:
    return RolloutStatus(revision=revision.revision, since=stamp(NOW - timedelta(seconds=age)))


def draining(revision: Target, age: float | None = None) -> Draining:
    return Draining(revision=revision.revision, since=None if age is None else stamp(NOW - timedelta(seconds=age)))


SERVING_A = State(stable=A)
TRYING_B = State(stable=A, candidates=(Candidate(B),), rollout=rolling(B))
SHIFTING_B = replace(TRYING_B, candidates=(Candidate(B, 100),))
FAILED_B = State(stable=A, rollout=rolling(B).model_copy(update={"outcome": "Failed", "reason": "X", "message": "y"}))

# name, state before, world -> (stable, candidate, weight, draining)
TABLE = [
    ("first apply: a candidate without weight", State(), world(A, {}), (None, A, 0, [])),
    (
        "first candidate ready: all weight",
        State(candidates=(Candidate(A),), rollout=rolling(A)),
        world(A, {}, a=1),
        (None, A, 100, []),
    ),
    (
        "first candidate not ready: none",
        State(candidates=(Candidate(A),), rollout=rolling(A)),
        world(A, {}, a=0),
        (None, A, 0, []),
    ),
    (
        "first candidate live everywhere: stable",
        State(candidates=(Candidate(A, 100),), rollout=rolling(A)),
        world(A, {"m-a": 100}, a=1),
        (A, None, 0, []),
    ),
    ("steady: nothing", SERVING_A, world(A, {"m-a": 100}, a=1), (A, None, 0, [])),
    ("spec changes: candidate", SERVING_A, world(B, {"m-a": 100}, a=1), (A, B, 0, [])),
    ("candidate not ready: waits", TRYING_B, world(B, {"m-a": 100}, a=1, b=0), (A, B, 0, [])),
    (
        "the spec returns to a revision that slept: it waits for its pod",
        replace(TRYING_B, candidates=(Candidate(B, 50),)),
        replace(world(A, {"m-a": 50, "m-b": 50}, b=1), replicas=0),
        (A, B, 50, []),
    ),
    (
        "candidate ready but a router does not see it: waits",
        TRYING_B,
        world(B, routes({"m-a": 100}, router({"m-b": 1}), router({})), a=1, b=1),
        (A, B, 0, []),
    ),
    ("candidate ready and seen: all weight", TRYING_B, world(B, {"m-a": 100}, a=1, b=1), (A, B, 100, [])),
    (
        "weight written but not live: still candidate",
        SHIFTING_B,
        world(B, routes({"m-b": 100}, settled=False), a=1, b=1),
        (A, B, 100, []),
    ),
    ("weight live: promoted, the old one drains", SHIFTING_B, world(B, {"m-b": 100}, a=1, b=1), (B, None, 0, ["m-a"])),
    ("spec returns: candidate withdrawn", TRYING_B, world(A, {"m-a": 100}, a=1, b=1), (A, None, 0, ["m-b"])),
    ("spec returns while shifting: weight back", SHIFTING_B, world(A, {"m-b": 100}, a=1, b=1), (A, None, 0, ["m-b"])),
    ("third version: supersedes the candidate", TRYING_B, world(C, {"m-a": 100}, a=1, b=0), (A, C, 0, ["m-b"])),
    (
        "third version while weight is under way: stable takes all back",
        SHIFTING_B,
        world(C, routes({"m-b": 100}, settled=False), a=1, b=1),
        (A, C, 0, ["m-b"]),
    ),
    (
        "third version once the second is live: the second is stable",
        SHIFTING_B,
        world(C, {"m-b": 100}, a=1, b=1),
        (B, C, 0, ["m-a"]),
    ),
    ("spec invalid: nothing changes roles", TRYING_B, world(None, {"m-a": 100}, a=1, b=0), (A, B, 0, [])),
    (
        "deadline passed: withdrawn",
        replace(TRYING_B, rollout=rolling(B, 601)),
        world(B, {"m-a": 100}, a=1, b=0),
        (A, None, 0, ["m-b"]),
    ),
    (
        "deadline passed with nothing else to serve: goes on trying",
        State(candidates=(Candidate(A),), rollout=rolling(A, 9999)),
        world(A, {}, a=0),
        (None, A, 0, []),
    ),
    ("failed revision is not tried again", FAILED_B, world(B, {"m-a": 100}, a=1), (A, None, 0, [])),
    ("another spec after a failure is tried", FAILED_B, world(C, {"m-a": 100}, a=1), (A, C, 0, [])),
    (
        "weight 0 not live yet: its pods stay",
        State(stable=B, draining=(draining(A),)),
        world(B, routes({"m-b": 100}, settled=False), a=1, b=1),
        (B, None, 0, ["m-a"]),
    ),
    (
        "drained long enough and idle: gone",
        State(stable=B, draining=(draining(A, 4),)),
        world(B, {"m-b": 100}, a=1, b=1),
        (B, None, 0, []),
    ),
    (
        "requests in flight: stays",
        State(stable=B, draining=(draining(A, 4),)),
        world(B, routes({"m-b": 100}, router({"m-b": 1}, {"m-a": 2})), a=1, b=1),
        (B, None, 0, ["m-a"]),
    ),
    (
        "requests in flight longer than their timeout: gone",
        State(stable=B, draining=(draining(A, 36),)),
        world(B, routes({"m-b": 100}, router({"m-b": 1}, {"m-a": 2})), a=1, b=1),
        (B, None, 0, []),
    ),
    (
        "a silent router may still send requests: stays",
        State(stable=B, draining=(draining(A, 4),)),
        world(B, routes({"m-b": 100}, router(answered=False), settled=False), a=1, b=1),
        (B, None, 0, ["m-a"]),
    ),
    (
        "a drained revision is asked for again: candidate, and ready already",
        State(stable=B, draining=(draining(A, 1),)),
        world(A, {"m-b": 100}, a=1, b=1),
        (B, A, 100, []),
    ),
    ("status lost: what is served is stable", State(), world(A, {"m-a": 100}, a=1), (A, None, 0, [])),
    ("status lost in a rollout: the rest follows", State(), world(B, {"m-a": 100}, a=1, b=0), (A, B, 0, [])),
    ("pods without a role: drained", SERVING_A, world(A, {"m-a": 100}, a=1, c=1), (A, None, 0, ["m-c"])),
    (
        "first candidate superseded: its successor starts",
        State(candidates=(Candidate(A),), rollout=rolling(A)),
        world(B, {}, a=0),
        (None, B, 0, ["m-a"]),
    ),
]


@pytest.mark.parametrize(("before", "seen", "after"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(before: State, seen: World, after: tuple[Target | None, Target | None, int, list[str]]) -> None:
    state = decide(before, seen)
    assert (state.stable, state.candidate, state.weight, [entry.revision for entry in state.draining]) == after


def test_a_drain_begins_anew_where_a_late_write_names_the_revision_again() -> None:
    """The routes were being written as it was withdrawn: its weight 0 was live, and then was not."""
    idle = State(stable=B, draining=(draining(A, 4),))
    assert decide(idle, world(B, routes({"m-a": 20, "m-b": 80}), a=1, b=1)).draining == (draining(A),)
    assert decide(idle, world(B, routes({"m-b": 100}, settled=False), a=1, b=1)).draining == idle.draining
    assert decide(idle, world(B, {"m-b": 100}, a=1, b=1)).draining == ()


def test_drain_starts_once_weight_0_is_live_in_every_router() -> None:
    waiting = State(stable=B, draining=(draining(A),))
    assert decide(waiting, world(B, routes({"m-b": 100}, settled=False), a=1, b=1)).draining == waiting.draining
    assert decide(waiting, world(B, {"m-b": 100}, a=1, b=1)).draining == (draining(A, 0),)


def test_an_invalid_spec_has_no_deadline() -> None:
    seen = replace(world(None, {"m-a": 100}, a=1, b=0), deadline_seconds=float("inf"))
    assert decide(TRYING_B, seen) == TRYING_B
    assert wake_after(TRYING_B, seen) == PATIENCE_SECONDS, "only what takes so long is told"
    assert wake_after(replace(TRYING_B, draining=(draining(C, 1),)), seen) == pytest.approx(2)


def test_failure_names_the_symptom() -> None:
    seen = world(B, {"m-a": 100}, a=1)
    seen = replace(seen, revisions={**seen.revisions, "m-b": RevisionSeen(1, 0, Symptom("DigestMismatch", "differs"))})
    state = decide(replace(TRYING_B, rollout=rolling(B, 601)), seen)
    assert state.rollout is not None
    assert (state.rollout.outcome, state.rollout.reason, state.rollout.message) == ("Failed", "DigestMismatch", "differs")
    assert (state.history[0].outcome, state.history[0].revision) == ("Failed", "m-b")


def test_history_tells_how_each_rollout_ended() -> None:
    promoted = decide(SHIFTING_B, world(B, {"m-b": 100}, a=1, b=1))
    cancelled = decide(TRYING_B, world(A, {"m-a": 100}, a=1, b=1))
    superseded = decide(TRYING_B, world(C, {"m-a": 100}, a=1, b=1))
    assert [state.history[0].outcome for state in (promoted, cancelled, superseded)] == ["Served", "Cancelled", "Superseded"]
    assert [state.history[0].revision for state in (promoted, cancelled, superseded)] == ["m-b"] * 3


def test_history_is_bounded() -> None:
    state = SERVING_A
    for _ in range(40):
        state = replace(state, candidates=(Candidate(B),), rollout=rolling(B))
        state = replace(decide(state, world(A, {"m-a": 100}, a=1)), draining=())
    assert len(state.history) == 20


def test_wakes_at_the_deadline_and_after_the_drain() -> None:
    assert wake_after(SERVING_A, world(A, {"m-a": 100}, a=1)) is None
    assert wake_after(TRYING_B, world(B, {"m-a": 100})) == pytest.approx(599)
    assert wake_after(State(stable=B, draining=(draining(A, 1),)), world(B, {"m-b": 100})) == pytest.approx(2)


@pytest.mark.parametrize(
    ("state", "seen", "looks"),
    [
        (State(candidates=(Candidate(A),)), RevisionSeen(1, 0), True),
        (SERVING_A, RevisionSeen(2, 1), True),
        (SERVING_A, RevisionSeen(1, 1, leaving=1), True),
        (SERVING_A, RevisionSeen(1, 0, Symptom("OOMKilled", "told")), False),
        (SERVING_A, RevisionSeen(0, 0), False),
    ],
    ids=["a first one starts", "one of two", "about to go", "told already", "asleep"],
)
def test_looks_again_where_something_takes_long(state: State, seen: RevisionSeen, looks: bool) -> None:
    there = replace(world(A, {"m-a": 100}), revisions={"m-a": seen})
    assert wake_after(state, there) == (PATIENCE_SECONDS if looks else None)
    away = replace(there, routes=RoutesSeen({"m-a": 100}))
    assert wake_after(state, away) == PATIENCE_SECONDS
    told = replace(away, routes=replace(away.routes, symptom=Symptom("Unschedulable", "no node")))
    assert wake_after(state, told) == (PATIENCE_SECONDS if looks else None)


def sized(seen: World, **more: Any) -> World:
    """Answer a world with an objective, in which the candidate needs three times the replicas of stable."""
    return replace(seen, replicas=2, sizes={"m-a": 2, "m-b": 6}, scaling=ScalingStatus(replicas=2), **more)


def seeing(pods: int, written: dict[str, int] | None = None) -> World:
    """Answer a world in which the candidate has so many pods, ready and seen by the router."""
    seen = routes(written or {"m-a": 100}, router({"m-a": 2, "m-b": pods}))
    revisions = {"m-a": RevisionSeen(2, 2), "m-b": RevisionSeen(pods, pods)}
    return sized(world(B, seen), revisions=revisions)


def test_a_slower_candidate_has_the_pods_that_it_needs_itself_before_its_weight() -> None:
    assert replicas(TRYING_B, seeing(2), "m-a") == 2
    assert replicas(TRYING_B, seeing(2), "m-b") == 6
    assert decide(TRYING_B, seeing(2)).weight == 0, "as many as stable has are too few"
    assert decide(TRYING_B, seeing(6)).weight == 100
    live = seeing(6, {"m-b": 100})
    promoted = decide(SHIFTING_B, live)
    assert promoted.stable == B
    assert replicas(promoted, live, "m-b") == 6, "it keeps them when it is stable"


def test_under_an_objective_no_candidate_loses_pods_during_its_rollout() -> None:
    canary = replace(TRYING_B, candidates=(Candidate(B, 10),), rollout=rolling(B).model_copy(update={"step": 1, "steps": 2}))
    plan = Plan((Step(10), Step(20), Step(100)))
    seen = replace(seeing(5, {"m-a": 90, "m-b": 10}), plan=plan)
    assert replicas(canary, seen, "m-b") == 5
    assert replicas(canary, replace(seen, scaling=None), "m-b") == 2, "its share of a fixed number"
    assert replicas(canary, replace(seen, sizes={"m-a": 2, "m-b": 3}), "m-b") == 3, "never more than for all requests"
