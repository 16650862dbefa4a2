"""The steps of a canary as a table: what is seen at a step, and what is decided."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.test_rollout_table import NOW, A, B, C, router, routes, world

from slipway.api.rollout import Rollout
from slipway.api.status import RolloutStatus
from slipway.core.capacity import replicas
from slipway.core.clock import stamp
from slipway.core.observation import RevisionSeen, RoutesSeen, Symptom
from slipway.core.plan import Judged, Judgement, Plan, Step, Verdict, plan, replicas_for
from slipway.core.revision import Target
from slipway.core.rollout import decide, wake_after
from slipway.core.state import Candidate, State, World

PLAN = Plan((Step(5, 60, judged=True), Step(50, 120, judged=True), Step(100)), step_seconds=3600)
PASS = Judgement(Verdict.PASS, "Passed", "all checks pass")
WAIT = Judgement(Verdict.WAIT, "InsufficientRequests", "7 of 100 requests")
FAIL = Judgement(Verdict.FAIL, "ErrorRate", "errorRate 7%, limit 1%")


def at(step: int, live_for: float | None, stable: Target | None = A) -> State:
    """Answer a canary of B at a step whose weight has been live for so many seconds, or is not yet."""
    since = None if live_for is None else stamp(NOW - timedelta(seconds=live_for))
    rolling = RolloutStatus(revision=B.revision, since=stamp(NOW - timedelta(seconds=9999)), step=step, steps=3, step_since=since)
    return State(stable=stable, candidates=(Candidate(B, PLAN.step(step).weight if step else 0),), rollout=rolling)


def seen(
    written: dict[str, int] | RoutesSeen,
    judgement: Judgement = PASS,
    *,
    target: Target | None = B,
    plan: Plan = PLAN,
    **pods: int,
) -> World:
    return replace(world(target, written, **{"a": 1, "b": 1, **pods}), plan=plan, judged=Judged({"m-b": judgement}))


BEFORE = {"m-a": 100}
LEFT_BEHIND = {"m-a": RevisionSeen(1, 1), "m-b": RevisionSeen(1, 1, leaving=1)}
FIVE, FIFTY, ALL = {"m-a": 95, "m-b": 5}, {"m-a": 50, "m-b": 50}, {"m-b": 100}
NEW = replace(at(0, None), rollout=RolloutStatus(revision=B.revision, since=stamp(NOW)))

# Other plans that take PLAN's place in the middle.
ADDED = Plan((Step(1), Step(5, 60, judged=True), Step(50, 120, judged=True), Step(100)))
TAKEN = Plan((Step(50, 60, judged=True), Step(100)))
LARGER = Plan((Step(20, 10, judged=True), Step(100)))
SMALLER = Plan((Step(1), Step(10, 10, judged=True), Step(100)))
WHOLE = Plan((Step(50, 60, judged=True), Step(100, 60, judged=True)))


def by_hand(weight: int) -> State:
    """Answer a canary of B for which somebody asked for so much before it was ready."""
    assert NEW.rollout is not None
    return replace(NEW, rollout=NEW.rollout.model_copy(update={"weight_set": weight}))


def held(live_for: float) -> State:
    """Answer a canary of B that has had all requests for so many seconds, at the last step of WHOLE."""
    whole = at(3, live_for)
    assert whole.rollout is not None
    return replace(whole, rollout=whole.rollout.model_copy(update={"step": 2, "steps": 2}))


# name, state before, world -> (stable, candidate, weight, step, outcome)
TABLE: list[tuple[str, State, World, tuple[Target, Target | None, int, int, str | None]]] = [
    ("ready: the first step's weight, whatever the verdict", NEW, seen(BEFORE, WAIT), (A, B, 5, 1, None)),
    ("not ready: none", NEW, seen(BEFORE, b=0), (A, B, 0, 0, None)),
    ("ready pods of an earlier Deployment: none", NEW, replace(seen(BEFORE), revisions=LEFT_BEHIND), (A, B, 0, 0, None)),
    ("nor a weight by hand", by_hand(50), replace(seen(BEFORE), revisions=LEFT_BEHIND), (A, B, 0, 0, None)),
    ("a router does not see it: none", NEW, seen(routes(BEFORE, router({"m-a": 1}))), (A, B, 0, 0, None)),
    ("not ready by the deadline: withdrawn", at(0, None), seen(BEFORE, b=0), (A, None, 0, 0, "ProgressDeadlineExceeded")),
    ("weight not live: the step has not begun", at(1, None), seen(routes(FIVE, settled=False)), (A, B, 5, 1, None)),
    ("hold not over: stays", at(1, 59), seen(FIVE), (A, B, 5, 1, None)),
    ("hold over and passed: next step", at(1, 60), seen(FIVE), (A, B, 50, 2, None)),
    ("hold over, not enough requests: waits", at(1, 600), seen(FIVE, WAIT), (A, B, 5, 1, None)),
    (
        "not enough requests by the step's deadline: withdrawn",
        at(1, 3660),
        seen(FIVE, WAIT),
        (A, None, 0, 0, "InsufficientRequests"),
    ),
    ("fails: withdrawn, long before the hold is over", at(1, 2), seen(FIVE, FAIL), (A, None, 0, 0, "ErrorRate")),
    ("fails before its weight is live: withdrawn", at(1, None), seen(FIVE, FAIL), (A, None, 0, 0, "ErrorRate")),
    ("its last pod is gone: withdrawn at once", at(2, 5), seen(FIFTY, b=0), (A, None, 0, 0, "NoReadyPod")),
    ("last explicit step passed: all weight", at(2, 120), seen(FIFTY), (A, B, 100, 3, None)),
    (
        "all weight written but not live: stable keeps its role",
        at(3, None),
        seen(routes(ALL, settled=False)),
        (A, B, 100, 3, None),
    ),
    ("all weight live: stable, whatever is measured then", at(3, None), seen(ALL, FAIL), (B, None, 0, 0, None)),
    ("next step without its pods: waits with its weight", at(1, 60), seen(FIVE, b=0), (A, None, 0, 0, "NoReadyPod")),
    ("spec returns: withdrawn", at(2, 5), seen(FIFTY, target=A), (A, None, 0, 0, None)),
    ("a third version: supersedes it, stable stays", at(2, 5), seen(FIFTY, target=C, c=0), (A, C, 0, 0, None)),
    ("an invalid spec: the step does not end", at(1, 600), seen(FIVE, target=None), (A, B, 5, 1, None)),
    ("strategy Immediate meanwhile: all weight", at(2, 1), seen(FIFTY, WAIT, plan=Plan()), (A, B, 100, 1, None)),
    ("a step added before: the rollout goes on from its weight", at(1, 59), seen(FIVE, plan=ADDED), (A, B, 5, 2, None)),
    ("a step added before: then the next one", at(1, 60), seen(FIVE, plan=ADDED), (A, B, 50, 3, None)),
    ("a step taken out before: the next one is not skipped", at(2, 59), seen(FIFTY, plan=TAKEN), (A, B, 50, 1, None)),
    ("a step taken out before: then the next one", at(2, 60), seen(FIFTY, plan=TAKEN), (A, B, 100, 2, None)),
    ("all steps larger now: it passes the first one's hold", at(1, 9), seen(FIVE, plan=LARGER), (A, B, 5, 1, None)),
    ("all steps larger now: then the first one", at(1, 10), seen(FIVE, plan=LARGER), (A, B, 20, 1, None)),
    ("all steps larger now: not without a verdict", at(1, 10), seen(FIVE, WAIT, plan=LARGER), (A, B, 5, 1, None)),
    ("all steps smaller now: all weight is next", at(2, 10), seen(FIFTY, plan=SMALLER), (A, B, 100, 3, None)),
    ("a judged step of all requests: its hold", held(59), seen(ALL, plan=WHOLE), (A, B, 100, 2, None)),
    ("a judged step of all requests: stable once passed", held(60), seen(ALL, plan=WHOLE), (B, None, 0, 0, None)),
    ("a judged step of all requests: not without a verdict", held(60), seen(ALL, WAIT, plan=WHOLE), (A, B, 100, 2, None)),
    ("a judged step of all requests: withdrawn", held(5), seen(ALL, FAIL, plan=WHOLE), (A, None, 0, 0, "ErrorRate")),
    ("an invalid spec at all requests: not stable yet", held(5), seen(ALL, target=None, plan=Plan()), (A, B, 100, 2, None)),
    ("not looked at for long, and its pods are there: the first step", at(0, None), seen(BEFORE), (A, B, 5, 1, None)),
    ("passes after longer than pods may take: next step", at(1, 2000), seen(FIVE), (A, B, 50, 2, None)),
    (
        "status lost at half of all: what the spec asks for has not passed",
        State(),
        seen({"m-a": 20, "m-b": 80}),
        (A, B, 5, 1, None),
    ),
]


@pytest.mark.parametrize(("before", "view", "after"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(before: State, view: World, after: tuple[Target, Target | None, int, int, str | None]) -> None:
    state = decide(before, view)
    failed = state.rollout.reason if state.rollout is not None and state.rollout.outcome else None
    assert (state.stable, state.candidate, state.weight, state.step, failed) == after
    if failed:
        assert (state.history[0].outcome, state.history[0].revision) == ("Failed", "m-b")
        assert [entry.revision for entry in state.draining] == ["m-b"], "its requests are answered before its pods go"


def test_a_step_begins_when_its_weight_is_live_and_a_restart_changes_nothing() -> None:
    begun = decide(at(1, None), seen(FIVE))
    assert begun.rollout is not None
    assert begun.rollout.step_since == stamp(NOW)
    later = replace(seen(FIVE), now=NOW + timedelta(seconds=59))
    assert decide(begun, later).weight == 5, "status alone says how long the step has lasted"
    between = decide(at(1, None), replace(seen(FIVE), now=NOW + timedelta(milliseconds=10)))
    assert decide(between, replace(later, now=NOW + timedelta(seconds=60))).weight == 5, "its hold is not rounded down"
    assert decide(begun, replace(later, now=NOW + timedelta(seconds=60))).weight == 50


def test_the_live_weight_is_what_every_router_was_seen_to_do_last() -> None:
    def live(state: State, view: World) -> tuple[State, int]:
        after = decide(state, view)
        assert after.rollout is not None
        return after, after.rollout.live_weight

    state, first = live(at(1, 5), seen(FIVE))
    assert first == 5
    state, shifting = live(state, seen(routes(FIFTY, settled=False)))
    assert shifting == 5, "nobody knows better yet"
    state, withdrawn = live(state, seen(FIVE, FAIL))
    assert (state.candidate, withdrawn) == (None, 5), "decided, and not done"
    assert live(state, seen(BEFORE))[1] == 0


def test_capacity_is_there_before_weight_and_stable_keeps_its_own() -> None:
    many = replace(seen(BEFORE), replicas=10)
    wanted = [(replicas(at(step, 0), many, "m-a"), replicas(at(step, 0), many, "m-b")) for step in (0, 1, 2, 3)]
    assert wanted == [(10, 1), (10, 5), (10, 10), (10, 10)]
    few = replace(many, revisions={"m-a": RevisionSeen(10, 10), "m-b": RevisionSeen(5, 4)})
    few = replace(few, routes=routes(FIVE, router({"m-a": 10, "m-b": 4})))
    assert decide(at(1, 60), few).weight == 5, "four pods of the five that half of all requests need"
    enough = replace(few, revisions={**few.revisions, "m-b": RevisionSeen(5, 5)}, routes=routes(FIVE, router({"m-b": 5})))
    assert decide(at(1, 60), enough).weight == 50
    late = replace(
        few, now=NOW + timedelta(seconds=600), revisions={**few.revisions, "m-b": RevisionSeen(5, 4, Symptom("X", "y"))}
    )
    failed = decide(at(1, 60), late).rollout
    assert failed is not None
    assert (failed.outcome, failed.reason) == ("Failed", "X"), "pods that do not come within the deadline"


@pytest.mark.parametrize(("weight", "need"), [(0, 1), (1, 1), (5, 1), (10, 1), (11, 2), (50, 5), (99, 10), (100, 10)])
def test_a_weights_share_of_replicas_is_rounded_up(weight: int, need: int) -> None:
    assert replicas_for(weight, 10) == need


def test_the_first_revision_of_all_has_no_steps() -> None:
    state = decide(at(0, None, stable=None), seen({}))
    assert (state.weight, state.step) == (100, 3)
    assert decide(state, seen(ALL)).stable == B
    held = decide(at(0, None, stable=None), seen({}, plan=WHOLE))
    assert decide(held, seen(ALL, WAIT, plan=WHOLE)).stable == B, "there is nothing to compare it with, nor to go back to"


def test_a_step_without_a_hold_ends_at_once_at_whatever_part_of_a_second() -> None:
    between = replace(seen(ALL, plan=Plan()), now=NOW + timedelta(milliseconds=10))
    assert decide(replace(at(1, None), candidates=(Candidate(B, 100),)), between).stable == B


def test_a_step_is_looked_at_every_second() -> None:
    assert wake_after(at(1, 5), seen(FIVE)) == pytest.approx(1)
    assert wake_after(held(5), seen(ALL, plan=WHOLE)) == pytest.approx(1), "nor does the end of the last one come by itself"


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ({}, (Step(100),)),
        ({"strategy": "Canary", "steps": [{"weight": 5, "hold": "1m"}]}, (Step(5, 60, judged=True), Step(100))),
        ({"strategy": "Canary", "steps": [{"weight": 0}, {"weight": 100, "hold": "2s"}]}, (Step(0), Step(100, 2, judged=True))),
    ],
)
def test_a_plan_ends_with_all_requests(spec: dict[str, Any], steps: tuple[Step, ...]) -> None:
    assert plan(Rollout.model_validate(spec)).steps == steps
