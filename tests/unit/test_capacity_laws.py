"""Whole rollouts in simulated time, as in test_rollout_laws.py, with many pods: no revision gets more than its pods can take."""

from dataclasses import replace
from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant, rule
from tests.unit.test_rollout_laws import PLANS, Canaries, Router

from slipway.core import capacity
from slipway.core.observation import RevisionSeen
from slipway.core.plan import Plan, replicas_for
from slipway.core.revision import Target
from slipway.core.state import World

REPLICAS = 10


class Scaled(Canaries):
    """The operator, its objects and the cluster; `pods` counts a revision's ready ones, `wanted` those asked for.

    What is asked for less leaves at once; what is asked for more comes as late as it likes.
    """

    def status_is_lost(self) -> None:
        """Never: who has forgotten what it decided may ask for fewer pods than routers still send requests to."""

    @initialize(routers=st.integers(1, 3))
    def start(self, routers: int) -> None:
        self.wanted: dict[str, int] = {}
        super().start(routers)

    @rule(plan=st.sampled_from(PLANS))
    def rollout_settings_change(self, plan: Plan) -> None:
        self.plan = plan

    @rule(data=st.data(), turns=st.integers(1, 5))
    def turn(self, data: st.DataObject, turns: int) -> None:
        """The operator acts some times, and each time some of all that would follow happens."""
        for _ in range(turns):
            self.act(data, st.sampled_from([True, True, False]))
            self.pods_are_enough_for_the_weight()

    def act(self, data: st.DataObject, likely: st.SearchStrategy[bool]) -> None:
        self.measure(data)
        self.now += timedelta(seconds=data.draw(st.sampled_from([0, 40, 40]), label="seconds"))
        for revision, ready in self.pods.items():
            missing = self.wanted[revision] - ready
            if missing and revision not in self.broken:
                self.pods[revision] += data.draw(st.sampled_from([missing, missing, missing // 2]), label=f"more of {revision}")
        for router in self.routers:
            if router.up and data.draw(likely, label="sees endpoints"):
                self.see(router)
        self.reconcile()
        if data.draw(likely, label="routes written"):
            self.write_routes()
        for router in self.routers:
            if router.up and data.draw(likely, label="routes taken over"):
                router.loaded = self.written

    def see(self, router: Router) -> None:
        router.sees = {name: ready for name, ready in self.pods.items() if name in router.loaded.clusters}

    def reconcile(self) -> None:
        super().reconcile()
        world = self.world()
        self.wanted = {revision: capacity.replicas(self.state, world, revision) for revision in self.pods}
        self.pods = {revision: min(ready, self.wanted[revision]) for revision, ready in self.pods.items()}

    def world(self) -> World:
        seen = {name: RevisionSeen(self.wanted.get(name, 0), ready) for name, ready in self.pods.items()}
        return replace(super().world(), replicas=REPLICAS, revisions=seen)

    @invariant()
    def pods_are_enough_for_the_weight(self) -> None:
        for router in self.routers:
            for revision, weight in router.weights.items():
                ready, need = self.pods[revision], replicas_for(weight, REPLICAS)
                assert ready >= need, f"a router gives {weight}% to {revision}, which has {ready} of the {need} pods for it"

    @invariant()
    def stable_can_take_all_back(self) -> None:
        stable = self.state.stable
        if stable is not None and self.state.candidate is not None:
            ready = self.pods[stable.revision]
            assert ready == REPLICAS, f"stable {stable.revision} has {ready} pods of {REPLICAS} in the middle of a rollout"

    def finish(self, target: Target) -> None:
        """Let everything work until a revision is served."""
        self.target, self.verdicts, self.plan = target, {}, self.last_plan
        for _ in range(24):
            self.reconcile()
            self.write_routes()
            self.pods = {revision: self.wanted[revision] for revision in self.pods}
            for router in self.routers:
                self._look(router)
            self.now += timedelta(seconds=40)

    def teardown(self) -> None:
        """Whatever happened: once the last spec is right and everything works, it is served by all its pods."""
        if hasattr(self, "state"):
            self.finish(Target("m-e", "", None))
            assert self.pods == {"m-e": REPLICAS}


TestScaled = Scaled.TestCase
TestScaled.settings = settings(max_examples=100, stateful_step_count=40)
