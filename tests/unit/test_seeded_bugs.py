"""Known bugs of other controllers, seeded into the policy: the laws of test_rollout_laws.py and test_capacity_laws.py catch each.

A bug takes the place of one rule, or of how replicas are decided. Where the laws held all the same they would prove nothing.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.unit.test_capacity_laws import REPLICAS, Scaled
from tests.unit.test_rollout_laws import Trials

from slipway.core import capacity, rollout
from slipway.core.observation import RevisionSeen
from slipway.core.plan import Judged, Verdict, replicas_for
from slipway.core.state import Candidate, State, World
from slipway.core.steering import Sticky

Rule = Callable[[State, World], State | None]
# The same search each time, up to the first failure: it is known, and is not shrunk.
SEARCH = settings(
    max_examples=500,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
)


def traffic_before_readiness(advance: Rule) -> Rule:
    """Requests are shifted to pods that cannot take them yet. https://github.com/argoproj/argo-rollouts/issues/3420"""

    def seeded(state: State, world: World) -> State | None:
        all_of_them = {each.revision: world.replicas for each in state.candidates}
        ready = {**world.revisions, **{name: RevisionSeen(pods, pods) for name, pods in all_of_them.items()}}
        routers = tuple(replace(router, healthy={**router.healthy, **all_of_them}) for router in world.routes.routers)
        return advance(state, replace(world, revisions=ready, routes=replace(world.routes, routers=routers)))

    return seeded


def scaled_down_before_the_routers_moved(drain: Rule) -> Rule:
    """What served loses its pods as soon as its weight 0 is decided. https://github.com/argoproj/argo-rollouts/issues/2050"""

    def seeded(state: State, world: World) -> State | None:
        return replace(state, draining=()) if state.draining else drain(state, world)

    return seeded


def step_counted_from_when_it_was_written(settle: Rule) -> Rule:
    """A step's time runs though its weight is not live. https://github.com/argoproj/argo-rollouts/issues/701"""

    def seeded(state: State, world: World) -> State | None:
        if state.rollout is None or not state.step or state.rollout.step_since is not None:
            return settle(state, world)
        return replace(state, rollout=state.rollout.model_copy(update={"step_since": state.rollout.since}))

    return seeded


def nothing_measured_is_success(advance: Rule) -> Rule:
    """A metric that is NaN, for nobody asked, is below its threshold. https://github.com/fluxcd/flagger/pull/1095"""

    def seeded(state: State, world: World) -> State | None:
        none_waits = {name: told for name, told in world.judged.by_revision.items() if told.verdict != Verdict.WAIT}
        return advance(state, replace(world, judged=Judged(none_waits)))

    return seeded


def weight_0_is_dropped(judge: Rule) -> Rule:
    """A weight of 0 is not written, so that the one before stays. https://github.com/fluxcd/flagger/issues/930"""

    def seeded(state: State, world: World) -> State | None:
        after = judge(state, world)
        return replace(after, candidates=after.candidates or state.candidates) if after is not None else None

    return seeded


def step_judged_by_a_stale_cache(advance: Rule) -> Rule:
    """What was read before its own write arrived says since when it waits. https://github.com/argoproj/argo-rollouts/issues/720"""

    def seeded(state: State, world: World) -> State | None:
        after = advance(state, world)
        if after is None or after.rollout is None or state.rollout is None:
            return after
        return replace(after, rollout=after.rollout.model_copy(update={"step_since": state.rollout.step_since}))

    return seeded


def superseded_and_forgotten(supersede: Rule) -> Rule:
    """The pods of a superseded candidate go while it gets requests. https://github.com/argoproj/argo-rollouts/issues/4534"""

    def seeded(state: State, world: World) -> State | None:
        after = supersede(state, world)
        return None if after is None else replace(after, draining=state.draining)

    return seeded


def a_new_version_takes_over_the_steps(supersede: Rule) -> Rule:
    """What changes in the middle goes on where the version before was. https://github.com/fluxcd/flagger/issues/30"""

    def seeded(state: State, world: World) -> State | None:
        after = supersede(state, world)
        if after is None or state.rollout is None or world.target is None:
            return after
        taken = state.rollout.model_copy(update={"revision": world.target.revision})
        draining = tuple(entry for entry in after.draining if entry.revision != world.target.revision)
        return replace(after, candidates=(Candidate(world.target, state.weight),), rollout=taken, draining=draining)

    return seeded


def an_arms_callers_are_shared_out(judge: Rule) -> Rule:
    """What one arm had the others get: callers change their arm though nothing became of it."""

    def seeded(state: State, world: World) -> State | None:
        after = judge(state, world)
        if after is None or not after.candidates or after.weight == state.weight:
            return after
        first, *others = after.candidates
        more = replace(first, weight=first.weight + state.weight - after.weight)
        return replace(after, candidates=(more, *others))

    return seeded


def losers_are_forgotten(advance: Rule) -> Rule:
    """The pods of arms that did not win go while they get requests."""

    def seeded(state: State, world: World) -> State | None:
        after = advance(state, world)
        return None if after is None else replace(after, draining=state.draining)

    return seeded


def whoever_is_first_wins(advance: Rule) -> Rule:
    """One arm has passed, and another gets all requests."""

    def seeded(state: State, world: World) -> State | None:
        after = advance(state, world)
        if after is None or after.weight < 100 or len(state.candidates) < 2:
            return after
        return replace(after, candidates=(replace(state.candidates[0], weight=100),))

    return seeded


SENT_TOO_EARLY = "which has no ready pod|whose endpoints it does not know|pods for it"
GONE_TOO_EARLY = "loses its pods while a router sends it requests"
ENDED_TOO_EARLY = "before the last was live in every router|a step ended before its hold"
NEVER_SERVED = "m-e"
# rule, bug that takes its place, law that it breaks
SEEDED: list[tuple[str, Callable[[Rule], Rule], str]] = [
    ("advance", traffic_before_readiness, SENT_TOO_EARLY),
    ("drain", scaled_down_before_the_routers_moved, GONE_TOO_EARLY),
    ("settle", step_counted_from_when_it_was_written, ENDED_TOO_EARLY),
    ("advance", step_judged_by_a_stale_cache, ENDED_TOO_EARLY),
    ("advance", nothing_measured_is_success, "more weight without a verdict"),
    ("judge", weight_0_is_dropped, "two roles"),
    ("supersede", superseded_and_forgotten, GONE_TOO_EARLY),
    ("supersede", a_new_version_takes_over_the_steps, f"{SENT_TOO_EARLY}|{NEVER_SERVED}"),
]


@pytest.mark.parametrize(("rule", "seeded", "law"), SEEDED, ids=[seeded.__name__ for _, seeded, _ in SEEDED])
def test_seeded(rule: str, seeded: Callable[[Rule], Rule], law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(monkeypatch, rule, seeded)
    with pytest.raises(AssertionError, match=law):
        run_state_machine_as_test(Scaled, settings=SEARCH)


# The same, of A/B tests with several arms.
ARMS: list[tuple[str, Callable[[Rule], Rule], str]] = [
    ("judge", an_arms_callers_are_shared_out, "others are touched"),
    ("advance", losers_are_forgotten, GONE_TOO_EARLY),
    ("advance", whoever_is_first_wins, "more weight without a verdict|two roles"),
]


@pytest.mark.parametrize(("rule", "seeded", "law"), ARMS, ids=[seeded.__name__ for _, seeded, _ in ARMS])
def test_seeded_with_arms(rule: str, seeded: Callable[[Rule], Rule], law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(monkeypatch, rule, seeded)
    with pytest.raises(AssertionError, match=law):
        run_state_machine_as_test(Trials, settings=SEARCH)


def test_places_that_close_up_move_callers_of_other_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are written in the order of names: where one arm has none, all that follow move."""
    monkeypatch.setattr(Sticky, "places", lambda _, weights: sorted(weights.items()))
    with pytest.raises(AssertionError, match="a caller of m-"):
        run_state_machine_as_test(Trials, settings=SEARCH)


def seed(monkeypatch: pytest.MonkeyPatch, rule: str, seeded: Callable[[Rule], Rule]) -> None:
    """Let a bug take the place of one rule."""
    place = [each.__name__ for each in rollout.RULES].index(rule)
    rules = (*rollout.RULES[:place], seeded(rollout.RULES[place]), *rollout.RULES[place + 1 :])
    monkeypatch.setattr(rollout, "RULES", rules)


def test_a_stable_scaled_down_with_its_share_cannot_take_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third version sends all requests to a stable of a few pods. https://github.com/argoproj/argo-rollouts/issues/3372"""
    decided = capacity.replicas

    def seeded(state: State, world: World, revision: str) -> int:
        if state.stable is not None and state.candidate is not None and revision == state.stable.revision:
            return replicas_for(100 - state.weight, REPLICAS)
        return decided(state, world, revision)

    monkeypatch.setattr(capacity, "replicas", seeded)
    with pytest.raises(AssertionError, match=f"of the {REPLICAS} pods for it|in the middle of a rollout|'m-e': {REPLICAS}"):
        run_state_machine_as_test(Scaled, settings=SEARCH)
