"""An A/B test of several arms: each goes alone, the best takes all, and what the routers, status and people see of that."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_judges import Alike, Counted, Nobody
from tests.unit.test_judges import model as judged_model
from tests.unit.test_rollout_table import NOW, A, B, C, router

from slipway.api.status import Pinned, Request, RolloutStatus, Status, TrialStatus, Verb
from slipway.core import routing, transitions
from slipway.core.capacity import replicas
from slipway.core.clock import stamp
from slipway.core.observation import RevisionSeen, RoutesSeen
from slipway.core.plan import Arm, Judged, Judgement, Plan, Step, Trial, Verdict
from slipway.core.report import Subject, report
from slipway.core.revision import Target
from slipway.core.rollout import decide
from slipway.core.routing import RouterState, Wanted
from slipway.core.state import Candidate, State, World, load
from slipway.core.steering import UNSTEERED, Steering, Sticky
from slipway.core.trial import enrolled
from slipway.judges import Judges
from slipway.kube.store import Store
from slipway.kubectl import show, verbs
from slipway.manifests import children
from slipway.model import Identity, read
from slipway.settings import Settings

D = Target("m-d", "d", None)
BEGUN = enrolled([(B, 30), (C, 20), (D, 10)])
PLAN = Plan(
    (Step(60, 60, judged=True), Step(100)),
    step_seconds=3600,
    trial=Trial(),
    sticky=Sticky("x-user"),
    arms=(Arm(C, 20), Arm(D, 10)),
)
ROLLING = RolloutStatus(revision="m-b", since=stamp(NOW - timedelta(seconds=99)), trial=BEGUN)
WRITTEN = {"m-a": 40, "m-b": 30, "m-c": 20, "m-d": 10}
PASS, WAIT, FAIL = (Judgement(verdict, "X", f"it is to {verdict.value}") for verdict in Verdict)
SETTINGS = Settings(server_image="s", router_image="r")


def at(step: int, live_for: float | None = None, *tried: Candidate, **rollout: Any) -> State:
    """Answer the test at a step that has been live for so many seconds."""
    told = {"step": step, "steps": 2, "step_since": None if live_for is None else stamp(NOW - timedelta(seconds=live_for))}
    candidates = tried or tuple(Candidate(each, weight if step else 0) for each, weight in ((B, 30), (C, 20), (D, 10)))
    return State(stable=A, candidates=candidates, rollout=ROLLING.model_copy(update={**told, **rollout}))


def seen(written: dict[str, int], *verdicts: Judgement, target: Target = B, plan: Plan = PLAN, **pods: int) -> World:
    """Answer what is seen; verdicts on b, c and d, by default that each waits. -1 pods: it has no Deployment any more."""
    ready = {"m-a": 1, "m-b": 1, "m-c": 1, "m-d": 1} | {f"m-{letter}": count for letter, count in pods.items()}
    judged = dict(zip(("m-b", "m-c", "m-d"), verdicts or (WAIT, WAIT, WAIT), strict=False))
    sticky = Sticky("x-user", salt="m-b", arms=(("m-b", 30), ("m-c", 20), ("m-d", 10)))
    steering = Steering("m-b", sticky=sticky) if len(written) > 1 else UNSTEERED
    ready = {name: count for name, count in ready.items() if count >= 0}
    return World(
        target=target,
        replicas=1,
        revisions={name: RevisionSeen(1, count) for name, count in ready.items()},
        known={each.revision: each for each in (A, B, C, D)},
        routes=RoutesSeen(written, True, (router(dict.fromkeys(ready, 9)),), steering=steering),
        deadline_seconds=600,
        timeout_seconds=30,
        now=NOW,
        plan=plan,
        judged=Judged(judged),
    )


def not_settled(world: World) -> World:
    return replace(world, routes=replace(world.routes, settled=False))


def weights(state: State) -> dict[str, int]:
    return {each.revision: each.weight for each in state.candidates}


ONLY_A, ALL = {"m-a": 100}, {"m-b": 30, "m-c": 20, "m-d": 10}

# name, state before, world -> weights of the candidates, what drains, outcome of the rollout
TABLE: list[tuple[str, State, World, tuple[dict[str, int], list[str], str | None]]] = [
    ("the spec asks for them: all are tried", State(stable=A), seen(ONLY_A, b=0), ({"m-b": 0, "m-c": 0, "m-d": 0}, [], None)),
    ("all are ready: each gets its weight", at(0), seen(ONLY_A), (ALL, [], None)),
    ("one is not ready: none gets any", at(0), seen(ONLY_A, d=0), (dict.fromkeys(ALL, 0), [], None)),
    (
        "one is not ready by the deadline: the others begin",
        at(0, since=stamp(NOW - timedelta(seconds=601))),
        seen(ONLY_A, d=0),
        ({"m-b": 30, "m-c": 20}, ["m-d"], None),
    ),
    ("nothing is shown yet: it goes on", at(1, 99), seen(WRITTEN), (ALL, [], None)),
    ("one fails: it goes alone", at(1, 9), seen(WRITTEN, WAIT, FAIL, WAIT), ({"m-b": 30, "m-d": 10}, ["m-c"], None)),
    ("the spec's own fails: the arms go on", at(1, 9), seen(WRITTEN, FAIL), ({"m-c": 20, "m-d": 10}, ["m-b"], None)),
    ("two fail at once", at(1, 9), seen(WRITTEN, FAIL, WAIT, FAIL), ({"m-c": 20}, ["m-b", "m-d"], None)),
    ("all fail: the test has", at(1, 9), seen(WRITTEN, FAIL, FAIL, FAIL), ({}, ["m-b", "m-c", "m-d"], "Failed")),
    ("its last pod is gone: it goes alone", at(1, 9), seen(WRITTEN, b=0), ({"m-c": 20, "m-d": 10}, ["m-b"], None)),
    ("one is shown to be better, but the hold is not over", at(1, 59), seen(WRITTEN, WAIT, PASS), (ALL, [], None)),
    ("one wins: it gets all, the losers drain", at(1, 60), seen(WRITTEN, WAIT, PASS), ({"m-c": 100}, ["m-b", "m-d"], None)),
    ("no winner within the duration: nobody stays", at(1, 3660), seen(WRITTEN), ({}, ["m-b", "m-c", "m-d"], "Failed")),
    ("the spec returns: all are withdrawn", at(1, 9), seen(WRITTEN, target=A), ({}, ["m-b", "m-c", "m-d"], None)),
    (
        "other arms: the test begins anew",
        at(1, 9),
        seen(WRITTEN, plan=replace(PLAN, steps=(Step(50, judged=True), Step(100)), arms=(Arm(C, 20),)), b=0),
        ({"m-b": 0, "m-c": 0}, ["m-d"], None),
    ),
    (
        "an arm that is what serves is not tried",
        replace(at(0), stable=C, candidates=(), rollout=None),
        seen({"m-c": 100}, a=-1),
        ({"m-b": 30, "m-d": 10}, [], None),
    ),
    (
        "the winner fails before it is stable",
        at(2, None, Candidate(C, 100)),
        not_settled(seen({"m-c": 100}, c=0, b=-1, d=-1)),
        ({}, ["m-c"], "Failed"),
    ),
    ("paused: nobody gets more", at(1, 99, paused=True), seen(WRITTEN, WAIT, PASS), (ALL, [], None)),
    (
        "somebody chose one",
        at(1, 1, forced=1, chosen="m-d"),
        seen(WRITTEN),
        ({"m-d": 100}, ["m-b", "m-c"], None),
    ),
]


@pytest.mark.parametrize(("before", "view", "after"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(before: State, view: World, after: tuple[dict[str, int], list[str], str | None]) -> None:
    state = decide(before, view)
    assert (weights(state), sorted(entry.revision for entry in state.draining)) == after[:2]
    assert (state.rollout.outcome if state.rollout is not None else None) == after[2]
    assert sum(state.weights.values()) == 100


def test_an_arm_that_won_serves_instead_of_what_the_spec_asks_for() -> None:
    won = decide(at(2, None, Candidate(C, 100)), seen({"m-c": 100}))
    assert (won.stable, won.candidates) == (C, ())
    assert won.pinned == Pinned(revision="m-c", instead_of="m-b", at=stamp(NOW), won=True)
    told = report(Status(), SUBJECT, won, seen({"m-c": 100}))
    conditions = {each.type: each for each in told.conditions}
    assert (conditions["Ready"].status, conditions["Progressing"].reason) == ("True", "WonABTest")
    assert verbs_of(told).ended(told) == (True, "m-c (version c) serves: it won the A/B test")
    adopted = decide(won, seen({"m-c": 100}, target=C, plan=Plan()))
    assert (adopted.stable, adopted.pinned, adopted.candidates) == (C, None, ()), "its model became the spec's"
    again = decide(replace(won, request=Request(verb=Verb.RETRY, at="2")), seen({"m-c": 100}, b=0))
    assert list(weights(again)) == ["m-b", "m-d"], "the others are tried against it"
    back = decide(replace(won, request=Request(verb=Verb.ROLLBACK, at="2", revision="m-a")), seen({"m-c": 100}, a=0))
    assert list(weights(back)) == ["m-a"]


def test_onfailure_pause_keeps_all_as_they_are() -> None:
    paused = decide(at(1, 9), seen(WRITTEN, WAIT, FAIL, plan=replace(PLAN, pauses=True)))
    assert paused.rollout is not None
    assert (weights(paused), paused.rollout.paused_message) == (ALL, "m-c: it is to fail")


@pytest.mark.parametrize(
    ("view", "asked", "chosen"),
    [
        (seen(WRITTEN), None, None),
        (seen(WRITTEN), "m-c", "m-c"),
        (seen(WRITTEN), "m-a", None),
        (seen(WRITTEN, WAIT, WAIT, PASS), None, "m-d"),
    ],
)
def test_who_is_promoted_by_hand(view: World, asked: str | None, chosen: str | None) -> None:
    state = decide(replace(at(1, 1), request=Request(verb=Verb.PROMOTE, at="2", revision=asked)), view)
    assert weights(state) == (ALL if chosen is None else {chosen: 100})


def test_a_weight_set_by_hand_is_for_one_alone() -> None:
    state = decide(replace(at(1, 1), request=Request(verb=Verb.SET_WEIGHT, at="2", weight=10)), seen(WRITTEN))
    assert state.rollout is not None
    assert (weights(state), state.rollout.weight_set) == (ALL, None)


def test_only_who_goes_on_has_pods_for_all() -> None:
    view = replace(seen(WRITTEN), replicas=10)
    assert [replicas(at(0), view, f"m-{letter}") for letter in "abcd"] == [10, 3, 2, 1]
    assert [replicas(at(1, 1), view, f"m-{letter}") for letter in "abcd"] == [10, 3, 2, 1]
    won = replace(seen(WRITTEN, WAIT, PASS), replicas=10)
    assert [replicas(at(1, 99), won, f"m-{letter}") for letter in "abcd"] == [10, 3, 10, 1]


@given(
    st.lists(st.integers(1, 33), min_size=1, max_size=3),
    st.sets(st.integers(0, 2)),
    st.integers(0, 100),
)
def test_places_hold_the_weights_and_move_nobody_but_callers_of_who_left(sizes: list[int], gone: set[int], by_hand: int) -> None:
    sticky = Sticky("x", arms=tuple((f"m-{number}", size) for number, size in enumerate(sizes)))

    def by_percent(weights: dict[str, int]) -> list[str]:
        places = sticky.places(weights)
        told = [revision for revision, percent in places for _ in range(percent)]
        assert {name: told.count(name) for name in weights} == weights
        assert all(one[0] != other[0] for one, other in itertools.pairwise(places))
        return told

    begun = dict(sticky.arms) | {"m-s": 100 - sum(sizes)}
    left = {name: size for number, (name, size) in enumerate(sticky.arms) if number not in gone}
    after = by_percent(left | {"m-s": 100 - sum(left.values())})
    for had, has in zip(by_percent(begun), after, strict=True):
        assert has == (had if had in left else "m-s")
    by_percent({"m-0": by_hand, "m-s": 100 - by_hand})


def test_routers_are_told_who_has_which_callers() -> None:
    steering = at(1).steering(PLAN)
    assert steering.sticky == Sticky("x-user", salt="m-b", arms=(("m-b", 30), ("m-c", 20), ("m-d", 10)))
    after = decide(at(1, 9), seen(WRITTEN, FAIL))
    moved = after.steering(PLAN)
    assert (moved.revision, moved.sticky) == ("m-c", steering.sticky), "the salt and all places stay"
    wanted = Wanted(after.weights, {"m-a": 1, "m-b": 1, "m-c": 1, "m-d": 1}, steering=moved)
    state = routing.plan(RouterState(), {"m": wanted}, [], 0, 1)
    assert routing.load(state.dump()) == state


SUBJECT = Subject("m", "ns", 1)


def test_status_tells_of_all_arms_and_is_read_again() -> None:
    state = decide(at(1, 9), seen(WRITTEN, WAIT, FAIL))
    before, told = report(Status(), SUBJECT, at(1, 9), seen(WRITTEN)), report(Status(), SUBJECT, state, seen(WRITTEN))
    assert [(each.revision, each.weight) for each in told.candidates] == [("m-b", 30), ("m-d", 10)]
    assert load(told) == state
    assert told.rollout is not None
    assert told.rollout.trial is not None
    assert [arm.reason for arm in told.rollout.trial.arms] == [None, "X", None]
    event = transitions.event(before, told)
    assert event is not None
    assert (event.reason, event.message) == ("ArmWithdrawn", "m-c (version c) was withdrawn, and the test goes on: it is to fail")
    drawn = show.tree({"metadata": {"name": "m"}, "spec": {}, "status": told.model_dump(by_alias=True, mode="json")}, NOW)
    assert "├─ candidate  m-b  version b  30%" in drawn
    assert "├─ arm        m-d  version d  10%" in drawn
    assert "├─ withdrawn  m-c (version c)  X: it is to fail" in drawn


def verbs_of(status: Status) -> verbs.Wanted:
    wanted = verbs.Wanted()
    wanted.ended(status)
    return wanted


def test_promote_wants_the_name_of_an_arm_unless_one_is_better() -> None:
    status = report(Status(), SUBJECT, at(1, 9), seen(WRITTEN))

    def refusal(status: Status, verb: Verb = Verb.PROMOTE, **more: Any) -> str:
        return verbs.refusal(status, Request(verb=verb, at="1", **more), None) or ""

    assert "name the one to promote" in refusal(status)
    assert refusal(status, revision="m-c") == ""
    assert "m-a is not tried" in refusal(status, revision="m-a")
    assert "are tried together" in refusal(status, Verb.SET_WEIGHT, weight=5)
    assert status.rollout is not None
    arms = [BEGUN.arms[0].model_copy(update={"verdict": "Better"}), *BEGUN.arms[1:]]
    better = status.rollout.model_copy(update={"trial": TrialStatus(arms=arms)})
    assert refusal(status.model_copy(update={"rollout": better})) == ""


def test_each_arm_is_judged_and_outlives_the_operator() -> None:
    meter = Counted()
    judges = Judges(cast("Any", meter), cast("Any", Nobody()), cast("Any", Alike()), Store())
    plan = replace(PLAN, min_requests=10)
    judges.judge(judged_model(plan), at(0), 1.0)
    for revision, errors in (("m-a", 300), ("m-b", 300), ("m-c", 30), ("m-d", 3000)):
        meter.answer(revision, 3000, errors=errors)
    told = judges.judge(judged_model(plan), at(1, 1), 2.0)
    assert [told.of(name).verdict for name in ("m-b", "m-c", "m-d")] == [Verdict.WAIT, Verdict.PASS, Verdict.FAIL]
    assert told.trial is not None
    assert [arm.errors for arm in told.trial.arms] == [300, 30, 3000]
    kept = at(1, 1, Candidate(B, 30), Candidate(C, 20), trial=told.trial)
    another = Judges(cast("Any", meter), cast("Any", Nobody()), cast("Any", Alike()), Store())
    assert another.judge(judged_model(plan), kept, 3.0).trial == told.trial


def spec(**arm: Any) -> dict[str, Any]:
    model = {"uri": "configmap://models/2.onnx", "format": "ONNX", "version": "2"}
    arms = [{"weight": 20, "model": {**model, "version": "3", **arm}}]
    return {"model": model, "rollout": {"strategy": "ABTest", "abTest": {"header": "x-user", "arms": arms}}}


def stored(spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "m", "namespace": "ns", "generation": 1, "uid": "u", "resourceVersion": "1"}, "spec": spec}


def test_each_arm_is_a_revision_of_its_own_model() -> None:
    model = read(stored(spec()), SETTINGS)
    assert model.target is not None
    (arm,) = model.plan.arms
    assert (arm.target.version, arm.weight) == ("3", 20)
    assert arm.target == read(stored({"model": spec()["model"] | {"version": "3"}}), SETTINGS).target, "as if it were the spec's"
    state = State(stable=A, candidates=(Candidate(model.target), Candidate(arm.target)))
    world = replace(seen(ONLY_A), target=model.target, plan=model.plan)
    built = list(children.build(Identity("m", "ns", "u"), model.spec, state, world, children.Stored({}, ()), SETTINGS))
    made = {each["metadata"]["name"]: each for each in built if each["kind"] == "ControllerRevision"}
    assert {name: each["data"]["model"]["version"] for name, each in made.items()} == {
        model.target.revision: "2",
        arm.target.revision: "3",
    }
    assert len({each["revision"] for each in made.values()}) == 2


@pytest.mark.parametrize(
    ("arm", "settings", "reason", "message"),
    [
        ({"version": "2"}, SETTINGS, "SpecInvalid", "spec.rollout.abTest.arms[0].model is the same as spec.model"),
        (
            {"uri": "s3://b/k"},
            replace(SETTINGS, model_schemes=("configmap",)),
            "SchemeNotAllowed",
            "spec.rollout.abTest.arms[0].model.uri: s3:// is not allowed",
        ),
    ],
)
def test_what_an_arm_may_not_be(arm: dict[str, Any], settings: Settings, reason: str, message: str) -> None:
    error = read(stored(spec(**arm)), settings).spec_error
    assert error is not None
    assert error.reason == reason
    assert error.message.startswith(message)


def test_an_arm_that_is_not_safe_makes_the_resource_unsafe() -> None:
    assert not read(stored(spec()), SETTINGS).unsafe
    assert read(stored(spec(format="SKLearn", trust="Unsafe")), SETTINGS).unsafe
