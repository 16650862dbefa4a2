"""Whole rollouts in simulated time, as in test_rollout_laws.py, with people who promote, pause, abort and roll back amid them."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import invariant, rule
from tests.unit.test_rollout_laws import REVISIONS, Canaries

from slipway.api.status import Request, Verb
from slipway.core.plan import Plan, Step
from slipway.core.revision import Target
from slipway.core.state import State, World


class Steered(Canaries):
    """The operator, its objects, the cluster, and whoever uses `kubectl slipway`."""

    asked = 0

    @rule(verb=st.sampled_from(Verb), full=st.booleans(), revision=st.sampled_from([None, *REVISIONS]))
    def somebody_asks(self, verb: Verb, full: bool, revision: str | None) -> None:
        self.asked += 1
        self.state = replace(self.state, request=Request(verb=verb, at=str(self.asked), full=full, revision=revision))

    def check_step(self, before: State, world: World) -> None:
        """Who promotes or rolls back answers for hold and verdict; a weight is live all the same before there is more."""
        request = before.request if before.request is not None and before.request.at != before.handled else None
        asked = request.verb if request is not None else None
        forced = before.rollout is not None and world.plan.number(before.weight) <= before.rollout.forced
        if asked == Verb.PROMOTE or forced or self.state.pinned is not None:
            world = replace(world, plan=Plan(tuple(Step(step.weight) for step in world.plan.steps)))
        super().check_step(before, world)

        same = before.candidate is not None and self.state.candidate == before.candidate
        stable_too = self.state.stable == before.stable is not None
        if same and stable_too and before.rollout is not None and before.rollout.paused and asked is None:
            assert self.state.weight <= before.weight, "a paused rollout goes on"
        if asked == Verb.ABORT and before.stable is not None and stable_too:
            assert not same, "an aborted rollout goes on"
        assert self.state.request is None or self.state.handled == self.state.request.at, "a request is left"

    @invariant()
    def what_was_rolled_back_from_is_not_tried(self) -> None:
        pinned, request = self.state.pinned, self.state.request
        if pinned is not None and self.state.candidate is not None and (request is None or request.at == self.state.handled):
            assert self.state.candidate.revision != pinned.instead_of

    def teardown(self) -> None:
        """Whatever was asked for, another spec is served in the end."""
        if not hasattr(self, "state"):
            return
        self.reconcile()  # what was asked for last was asked of the spec before
        self.finish(Target("m-e", "", None))
        assert replace(self.state, history=(), request=None, handled="") == State(stable=self.target)
        assert all(router.weights == {"m-e": 100} for router in self.routers)
        assert self.pods == {"m-e": True}


TestSteered = Steered.TestCase
TestSteered.settings = settings(max_examples=200, stateful_step_count=40)
