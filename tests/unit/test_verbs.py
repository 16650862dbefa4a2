"""The verbs of `kubectl slipway` in the policy: what is asked for in which state, and what comes of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.test_canary_table import BEFORE, FAIL, FIFTY, FIVE, PLAN, WAIT, at, seen
from tests.unit.test_rollout_table import NOW, A, B, C, router, routes, world

from slipway.api.status import HistoryEntry, Pinned, Request, RolloutStatus, Status, Verb
from slipway.core.capacity import replicas
from slipway.core.clock import stamp
from slipway.core.observation import RevisionSeen
from slipway.core.plan import Plan, Step
from slipway.core.report import Subject, report
from slipway.core.revision import Target
from slipway.core.rollout import decide, wake_after
from slipway.core.state import Candidate, State, World, load
from slipway.core.transitions import event

ALL = {"m-b": 100}
D = Target("m-d", "d", None)


def asking(state: State, verb: Verb, **more: Any) -> State:
    """Answer the state with a request that was not obeyed yet."""
    return replace(state, request=Request(verb=verb, at="2026-01-01T00:00:00.000001Z", by="ops-1", **more))


def served(*revisions: Target) -> tuple[HistoryEntry, ...]:
    """Answer the history of revisions that served, the latest first."""
    return tuple(
        HistoryEntry(revision=each.revision, version=each.version, outcome="Served", at=stamp(NOW)) for each in revisions
    )


def with_rollout(state: State, **update: Any) -> State:
    assert state.rollout is not None
    return replace(state, rollout=state.rollout.model_copy(update=update))


PAUSED = with_rollout(at(1, 600), paused=True)
FAILED = State(
    stable=A,
    rollout=RolloutStatus(revision=B.revision, since=stamp(NOW), outcome="Failed", reason="X", message="y"),
    history=served(A, C),
)
SERVES_B = State(stable=B, history=served(B, A, C))
PINNED = Pinned(revision="m-a", instead_of="m-b", by="ops-1", at=stamp(NOW))
ROLLED_BACK = State(stable=A, pinned=PINNED, history=served(A, B, A, C))
ROLLING_BACK = replace(
    SERVES_B, candidates=(Candidate(A),), pinned=PINNED, rollout=RolloutStatus(revision="m-a", since=stamp(NOW))
)
LAST = with_rollout(replace(at(3, 5), candidates=(Candidate(B, 100),)), paused=True)
SHORT = Plan((Step(100, 600, judged=True),))

# name, state before, world -> stable, candidate, weight, step, revision pinned
TABLE: list[tuple[str, State, World, tuple[Target | None, Target | None, int, int, str | None]]] = [
    ("promote: the next step, long before its hold", asking(at(1, 2), Verb.PROMOTE), seen(FIVE, WAIT), (A, B, 50, 2, None)),
    (
        "promote while the weight is not live: not yet",
        asking(at(1, None), Verb.PROMOTE),
        seen(routes(FIVE, settled=False)),
        (A, B, 5, 1, None),
    ),
    ("promote without its pods: not yet", asking(at(1, 2), Verb.PROMOTE), replace(seen(FIVE), replicas=4), (A, B, 5, 1, None)),
    ("promote what is paused: the next step", asking(PAUSED, Verb.PROMOTE), seen(FIVE), (A, B, 50, 2, None)),
    ("promote before the first step: begins it", asking(at(0, None), Verb.PROMOTE), seen(BEFORE), (A, B, 5, 1, None)),
    (
        "promote what fails its checks: who says so answers for it",
        asking(at(1, 2), Verb.PROMOTE),
        seen(FIVE, FAIL),
        (A, B, 50, 2, None),
    ),
    (
        "promote without a candidate: passed over",
        asking(State(stable=A), Verb.PROMOTE),
        seen(BEFORE, target=A),
        (A, None, 0, 0, None),
    ),
    ("abort: withdrawn at once", asking(at(2, 5), Verb.ABORT), seen(FIFTY), (A, None, 0, 0, None)),
    ("abort of what is paused", asking(PAUSED, Verb.ABORT), seen(FIVE), (A, None, 0, 0, None)),
    ("abort of the first revision: passed over", asking(at(0, None, stable=None), Verb.ABORT), seen({}), (None, B, 100, 3, None)),
    (
        "abort without a candidate: passed over",
        asking(State(stable=A), Verb.ABORT),
        seen(BEFORE, target=A),
        (A, None, 0, 0, None),
    ),
    ("abort of a rollback: the spec's serves on", asking(ROLLING_BACK, Verb.ABORT), seen(ALL, target=B), (B, None, 0, 0, None)),
    ("pause: the step goes on past its hold", asking(at(1, 600), Verb.PAUSE), seen(FIVE), (A, B, 5, 1, None)),
    ("paused and failing: withdrawn", PAUSED, seen(FIVE, FAIL), (A, None, 0, 0, None)),
    ("paused and not measured: never overdue", with_rollout(at(1, 9999), paused=True), seen(FIVE, WAIT), (A, B, 5, 1, None)),
    ("paused before the first step: no weight", with_rollout(at(0, None), paused=True), seen(BEFORE), (A, B, 0, 0, None)),
    ("paused with all requests: not promoted", LAST, seen(ALL), (A, B, 100, 3, None)),
    (
        "pause of the first revision of all: passed over",
        asking(at(0, None, stable=None), Verb.PAUSE),
        seen({}),
        (None, B, 100, 3, None),
    ),
    ("resume: the next step", asking(PAUSED, Verb.RESUME), seen(FIVE), (A, B, 50, 2, None)),
    ("resume with all requests: promoted", asking(LAST, Verb.RESUME), seen(ALL), (B, None, 0, 0, None)),
    (
        "resume after long, not measured: it has its time again",
        asking(with_rollout(at(1, 9999), paused=True), Verb.RESUME),
        seen(FIVE, WAIT),
        (A, B, 5, 1, None),
    ),
    (
        "resume before the first step after long: its pods have their time again",
        asking(with_rollout(at(0, None), paused=True), Verb.RESUME),
        seen(BEFORE, b=0),
        (A, B, 0, 0, None),
    ),
    ("retry after a failure: tried again", asking(FAILED, Verb.RETRY), seen(BEFORE, b=0), (A, B, 0, 0, None)),
    ("retry after a rollback: tried again", asking(ROLLED_BACK, Verb.RETRY), seen(BEFORE, b=0), (A, B, 0, 0, None)),
    (
        "retry amid a rollback: what serves is what is asked for",
        asking(ROLLING_BACK, Verb.RETRY),
        seen(ALL, target=B),
        (B, None, 0, 0, None),
    ),
    ("retry without a failure: passed over", asking(at(1, 5), Verb.RETRY), seen(FIVE), (A, B, 5, 1, None)),
    ("rollback with a candidate: withdrawn", asking(at(1, 5), Verb.ROLLBACK), seen(FIVE), (A, None, 0, 0, None)),
    ("rollback: to what served before", asking(SERVES_B, Verb.ROLLBACK), seen(ALL, a=0), (B, A, 0, 0, "m-a")),
    (
        "rollback once more: to what served before that",
        asking(ROLLED_BACK, Verb.ROLLBACK),
        seen(BEFORE, c=0),
        (A, C, 0, 0, "m-c"),
    ),
    ("rollback to a kept revision", asking(SERVES_B, Verb.ROLLBACK, revision="m-c"), seen(ALL, c=0), (B, C, 0, 0, "m-c")),
    (
        "rollback to an unknown one: passed over",
        asking(SERVES_B, Verb.ROLLBACK, revision="m-z"),
        seen(ALL),
        (B, None, 0, 0, None),
    ),
    ("rollback to the spec's: passed over", asking(FAILED, Verb.ROLLBACK, revision="m-b"), seen(BEFORE), (A, None, 0, 0, None)),
    (
        "rollback where nothing served before: passed over",
        asking(State(stable=B, history=served(B)), Verb.ROLLBACK),
        seen(ALL),
        (B, None, 0, 0, None),
    ),
    (
        "rollback to stable amid a rollout: withdrawn, and refused",
        asking(at(1, 5), Verb.ROLLBACK, revision="m-a"),
        seen(FIVE),
        (A, None, 0, 0, "m-a"),
    ),
    (
        "rollback to a third amid a rollout: it takes the candidate's place",
        asking(replace(at(1, 5), history=served(A, C)), Verb.ROLLBACK, revision="m-c"),
        seen(FIVE, c=0),
        (A, C, 0, 0, "m-c"),
    ),
    (
        "rollback again to what could not start: tried again",
        asking(
            with_rollout(replace(ROLLING_BACK, candidates=()), outcome="Failed", reason="X", message="y"),
            Verb.ROLLBACK,
            revision="m-a",
        ),
        seen(ALL, a=0),
        (B, A, 0, 0, "m-a"),
    ),
    ("rolled back, the refused spec applied again: nothing", ROLLED_BACK, seen(BEFORE), (A, None, 0, 0, "m-a")),
    ("rolled back, the spec invalid: nothing", ROLLED_BACK, seen(BEFORE, target=None), (A, None, 0, 0, "m-a")),
    ("rolled back, another spec: it is tried", ROLLED_BACK, seen(BEFORE, target=C, c=0), (A, C, 0, 0, None)),
    ("rolled back, the spec follows: as it is", ROLLED_BACK, seen(BEFORE, target=A), (A, None, 0, 0, None)),
    ("amid a rollback, another spec: it is tried", ROLLING_BACK, seen(ALL, target=C, a=0, c=0), (B, C, 0, 0, None)),
]


@pytest.mark.parametrize(("before", "view", "after"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(before: State, view: World, after: tuple[Target | None, Target | None, int, int, str | None]) -> None:
    state = decide(before, view)
    pinned = state.pinned.revision if state.pinned is not None else None
    assert (state.stable, state.candidate, state.weight, state.step, pinned) == after
    assert state.handled == (before.request.at if before.request else ""), "obeyed or passed over, it is done with"


def test_promote_in_full_needs_no_hold_and_no_verdict_but_every_weight_live() -> None:
    state = asking(at(1, 2), Verb.PROMOTE, full=True)
    for written, weight in ((FIVE, 50), (FIFTY, 100)):
        state = decide(state, seen(written, WAIT))
        assert (state.stable, state.weight) == (A, weight)
        assert decide(state, seen(routes(written, settled=False), WAIT)).weight == weight, "not before it is live"
    state = decide(state, seen(ALL, WAIT))
    assert (state.stable, state.candidate) == (B, None)
    assert state.history[0].message == "promoted by ops-1"


def test_promote_in_full_ends_a_last_step_that_is_held_too() -> None:
    held = replace(with_rollout(at(1, 2), steps=1), candidates=(Candidate(B, 100),))
    assert decide(asking(held, Verb.PROMOTE, full=True), seen(ALL, WAIT, plan=SHORT)).stable == B


def test_promote_is_for_the_step_under_way_alone() -> None:
    state = decide(asking(at(1, 2), Verb.PROMOTE), seen(FIVE, WAIT))
    assert state.step == 2
    assert decide(state, seen(FIFTY, FAIL)).candidate is None, "the next step is judged"
    waits = decide(state, seen(FIFTY, WAIT))
    assert (waits.step, waits.weight) == (2, 50)


def test_an_abort_is_a_failure_that_tells_who() -> None:
    state = decide(asking(at(2, 5), Verb.ABORT), seen(FIFTY))
    assert state.rollout is not None
    assert (state.rollout.outcome, state.rollout.reason, state.rollout.message) == ("Failed", "Aborted", "aborted by ops-1")
    assert (state.history[0].outcome, state.history[0].message) == ("Failed", "aborted by ops-1")
    again = decide(state, seen(BEFORE))
    assert again.candidate is None, "the spec is applied again: it stays refused"
    assert decide(state, seen(BEFORE, target=C, c=0)).candidate == C


def test_a_request_is_obeyed_once() -> None:
    paused = decide(asking(at(1, 5), Verb.PAUSE), seen(FIVE))
    assert paused.rollout is not None
    assert paused.rollout.paused
    resumed = decide(with_rollout(paused, paused=False), seen(FIVE))
    assert resumed.rollout is not None
    assert not resumed.rollout.paused, "the request that stands in status was obeyed already"


def remembered(state: State, view: World) -> State:
    """Answer the state as another operator reads it from status."""
    status = report(Status(), Subject("m", "ns", 1), state, view)
    return load(Status.model_validate(status.model_dump(by_alias=True, mode="json", exclude_none=True)))


def test_requests_and_what_they_did_survive_a_restart() -> None:
    view = seen(FIVE)
    asked = remembered(asking(at(1, 600), Verb.PAUSE), view)
    assert asked.request is not None
    paused = remembered(decide(asked, view), view)
    assert decide(paused, view).weight == 5
    rolled_back = decide(asking(SERVES_B, Verb.ROLLBACK), seen(ALL, a=0))
    assert remembered(rolled_back, seen(ALL, a=0)).pinned == rolled_back.pinned


def test_a_rollback_takes_over_at_once_with_all_its_pods_whatever_the_plan() -> None:
    """The spec's steps ask for one pod of ten at first; a rollback has no steps."""
    view = replace(seen(routes(ALL, router({"m-b": 10})), a=0), replicas=10)
    state = decide(asking(SERVES_B, Verb.ROLLBACK), view)
    assert replicas(state, view, "m-a") == 10
    up = {"m-a": RevisionSeen(10, 10), "m-b": RevisionSeen(10, 10)}
    state = decide(state, replace(view, revisions=up, routes=routes(ALL, router({"m-a": 10, "m-b": 10}))))
    assert state.weights == {"m-a": 100, "m-b": 0}
    state = decide(state, replace(view, revisions=up, routes=routes(BEFORE, router({"m-a": 10, "m-b": 10}))))
    assert (state.stable, state.history[0].message) == (A, "rolled back by ops-1")


def test_a_rollback_amid_a_rollout_is_told_of_the_candidate() -> None:
    for revision, outcome in (("m-a", "Cancelled"), ("m-c", "Superseded")):
        before = replace(at(1, 5), history=served(A, C))
        state = decide(asking(before, Verb.ROLLBACK, revision=revision), seen(FIVE, c=0))
        assert (state.history[0].revision, state.history[0].outcome) == ("m-b", outcome)
        assert state.history[0].message == "rolled back by ops-1"


def test_a_pause_is_not_looked_at_again_and_again() -> None:
    assert wake_after(with_rollout(at(0, None), paused=True), seen(BEFORE)) is None


def told(before: State, view: World) -> tuple[str, str]:
    """Answer the event of a decision."""
    subject = Subject("m", "ns", 1)
    after = decide(before, view)
    found = event(report(Status(), subject, before, view), report(Status(), subject, after, view))
    assert found is not None
    assert found.type == "Normal"
    return found.reason, found.message


ASKED = "asked by ops-1 at 2026-01-01T00:00:00.000001Z"


@pytest.mark.parametrize(
    ("before", "view", "reason", "message"),
    [
        (asking(at(1, 2), Verb.PAUSE), seen(FIVE), "PauseRequested", ASKED),
        (asking(at(1, 2), Verb.PROMOTE), seen(FIVE), "PromoteRequested", ASKED),
        (
            asking(at(1, 2), Verb.ABORT),
            seen(FIVE),
            "AbortRequested",
            f"{ASKED}: m-b (version b) was withdrawn: aborted by ops-1",
        ),
        (asking(SERVES_B, Verb.ROLLBACK), seen(ALL, a=0), "RollbackRequested", ASKED),
        (
            asking(State(stable=A), Verb.PROMOTE),
            seen(BEFORE, target=A),
            "PromoteRequested",
            f"{ASKED}; passed over, for there was nothing to do",
        ),
    ],
)
def test_events(before: State, view: World, reason: str, message: str) -> None:
    assert told(before, view) == (reason, message)


def test_conditions_tell_of_a_pause_and_of_a_rollback() -> None:
    def ready(state: State, view: World) -> tuple[str, str]:
        status = report(Status(), Subject("m", "ns", 1), state, view)
        return status.phase.value, status.conditions[0].reason

    assert ready(with_rollout(at(0, None), paused=True), seen(BEFORE)) == ("Paused", "Paused")
    assert ready(PAUSED, seen(FIVE)) == ("Paused", "Paused")
    assert ready(ROLLED_BACK, seen(BEFORE)) == ("Degraded", "RolledBack")
    shifting = replace(
        ROLLING_BACK, candidates=(Candidate(A, 100),), rollout=RolloutStatus(revision="m-a", since=stamp(NOW), step=1, steps=1)
    )
    assert ready(shifting, seen(routes(BEFORE, settled=False), FAIL)) == ("Progressing", "Shifting")
    held = with_rollout(shifting, step_since=stamp(NOW - timedelta(seconds=100)))
    assert ready(held, seen(BEFORE, FAIL))[1] != FAIL.reason, "a rollback is not judged"


def test_a_pause_that_ended_does_not_count() -> None:
    resumed = decide(asking(with_rollout(at(1, 9999), paused=True), Verb.RESUME), seen(FIVE, WAIT))
    later = replace(seen(FIVE, WAIT), now=NOW + timedelta(seconds=PLAN.step_seconds - 1))
    assert decide(resumed, later).candidate == B
    assert decide(resumed, replace(later, now=NOW + timedelta(seconds=PLAN.step_seconds))).candidate is None


def test_revisions_that_nobody_kept_are_no_rollback() -> None:
    gone = replace(seen(ALL, c=0), known={each.revision: each for each in (B, C)})
    assert decide(asking(SERVES_B, Verb.ROLLBACK), gone).candidate == C, "m-a is not kept: the one before it"
    assert decide(ROLLED_BACK, replace(world(B, BEFORE, a=1, b=0), known={"m-b": B, "m-d": D})).pinned is None
