"""Whole rollouts in simulated time, as in test_rollout_laws.py, of a model that sleeps and wakes: no request finds nobody."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant, rule
from tests.unit.test_rollout_laws import Canaries

from slipway.core import capacity
from slipway.core.observation import RevisionSeen
from slipway.core.revision import Target
from slipway.core.state import State, World


class Sleeping(Canaries):
    """The operator, its objects and the cluster; `ordered` are the replicas of each revision."""

    @initialize(routers=st.integers(1, 3))
    def start(self, routers: int) -> None:
        self.may_sleep, self.asked, self.ordered = False, True, dict[str, int]()
        super().start(routers)

    @rule(may_sleep=st.sampled_from([True, True, False]))
    def min_changes(self, may_sleep: bool) -> None:
        self.may_sleep = may_sleep

    @rule(asked=st.sampled_from([True, False, False]))
    def somebody_asks_or_nobody_does(self, asked: bool) -> None:
        self.asked = asked

    @rule(data=st.data())
    def turn(self, data: st.DataObject) -> None:
        """A revision of which there is no replica never becomes ready."""
        broken, none = self.broken, {name for name, ordered in self.ordered.items() if not ordered}
        self.broken = broken | none
        super().turn(data)
        self.broken -= none - broken

    def reconcile(self) -> None:
        super().reconcile()
        world = self.world()
        self.ordered = {revision: capacity.replicas(self.state, world, revision) for revision in self.pods}
        for revision, ordered in self.ordered.items():
            if not ordered:
                assert self.state.candidate is None, f"{revision} sleeps in the middle of a rollout"
                for router in self.routers:
                    held = not router.leads_to(revision) or router.loaded.routes["m"].wanted.hold
                    assert held, f"{revision} goes to sleep while a router does not hold its requests"
                self.pods[revision] = False

    def world(self) -> World:
        asked = self.asked or not self.may_sleep
        seen = {name: RevisionSeen(self.ordered.get(name, 0), int(ready)) for name, ready in self.pods.items()}
        return replace(super().world(), replicas=int(asked), minimum=int(not self.may_sleep), revisions=seen)

    def holds(self) -> bool:
        written, stable = self.written.routes.get("m"), self.state.stable
        still = written is not None and written.wanted.hold and stable is not None and not self.pods.get(stable.revision)
        return self.may_sleep or still

    def check_step(self, before: State, world: World) -> None:
        super().check_step(before, world)
        after, had = self.state, before.weight if self.state.candidate == before.candidate else 0
        if after.candidate is not None and after.weight > had:
            assert self.pods.get(after.candidate.revision), "a candidate gets weight, and has no pod"
        ended = [entry.outcome for entry in after.history if entry not in before.history]
        if before.weight and {*ended} & {"Cancelled", "Superseded"} and after.stable is not None:
            assert self.pods.get(after.stable.revision), "stable takes all back, and has no pod"

    @invariant()
    def routers_send_requests_only_to_pods(self) -> None:
        """Or hold them."""
        for router in self.routers:
            for revision in router.weights:
                held = router.loaded.routes["m"].wanted.hold
                assert held or self.pods.get(revision), f"a router sends requests to {revision}, which has no ready pod"

    def finish(self, target: Target) -> None:
        self.asked = True
        super().finish(target)


TestSleeping = Sleeping.TestCase
TestSleeping.settings = settings(max_examples=200, stateful_step_count=40)
