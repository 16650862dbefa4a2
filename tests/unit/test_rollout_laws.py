"""Whole rollouts in simulated time: whatever happens in whatever order, the laws of core/rollout.py hold at every instant.

The simulated cluster runs the real policy and the real route planning. Pods become ready or fail, routers take over routes late
and see endpoints late, restart, go silent; the spec changes; the operator loses its status. After each event: does any router
send a request to where no pod is?
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from slipway.core import rollout, routing
from slipway.core.observation import RevisionSeen, RouterSeen
from slipway.core.plan import IMMEDIATE, Judgement, Plan, Step, Verdict
from slipway.core.revision import Target
from slipway.core.routing import RouterState, Wanted
from slipway.core.state import State, World
from slipway.core.steering import UNSTEERED, Steering

REVISIONS = ("m-a", "m-b", "m-c")
TIMEOUT, DEADLINE = 30.0, 600.0
CANARY = Plan((Step(5, 30, judged=True), Step(50, 90, judged=True), Step(100)), step_seconds=300)
SHADOW = Plan((Step(0, 30, judged=True, mirror=20), Step(20, 10, pause_seconds=60, replicas=1), Step(100)), pauses=True)
BLUE_GREEN = Plan((Step(0, 40, judged=True, share=100), Step(100)), proportional=True, preview=True, keep_seconds=50)
OTHER = Plan((Step(20, 60, judged=True), Step(50), Step(100, 30, judged=True)), step_seconds=300)
PASS = Judgement(Verdict.PASS, "Passed", "all checks pass")
WAIT = Judgement(Verdict.WAIT, "InsufficientRequests", "too few")
FAIL = Judgement(Verdict.FAIL, "ErrorRate", "too many errors")


class Router:
    """A router that does what its file said when it last looked."""

    def __init__(self, state: RouterState) -> None:
        self.loaded = state
        self.sees: dict[str, int] = {}
        self.up = True

    @property
    def weights(self) -> dict[str, int]:
        route = self.loaded.routes.get("m")
        return route.wanted.positive if route else {}

    @property
    def steering(self) -> Steering:
        route = self.loaded.routes.get("m")
        return route.wanted.steering if route else UNSTEERED

    def leads_to(self, revision: str) -> bool:
        """Tell whether a request, or a copy of one, may come to the revision."""
        return revision in self.weights or revision == self.steering.revision


class Rollouts(RuleBasedStateMachine):
    """The operator, its objects and the cluster."""

    last_plan = CANARY

    @initialize(routers=st.integers(1, 3))
    def start(self, routers: int) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.state = State()
        self.target: Target | None = Target("m-a", "", None)
        self.written = RouterState()
        self.routers = [Router(self.written) for _ in range(routers)]
        self.pods: dict[str, int] = {}
        self.lost = False
        self.broken: set[str] = set()
        self.judgement = PASS
        self.plan = IMMEDIATE
        self.live_since: datetime | None = None

    # What the world does

    @rule(revision=st.sampled_from(REVISIONS))
    def spec_changes(self, revision: str) -> None:
        self.target = Target(revision, "", None)

    @rule()
    def spec_becomes_invalid(self) -> None:
        self.target = None

    @rule(revision=st.sampled_from(REVISIONS))
    def model_is_broken(self, revision: str) -> None:
        if not self.pods.get(revision):
            self.broken.add(revision)

    @rule(data=st.data())
    def router_restarts(self, data: st.DataObject) -> None:
        router = data.draw(st.sampled_from(self.routers))
        self._look(router)

    @rule(data=st.data())
    def router_goes_silent(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.routers)).up = False

    @rule(seconds=st.sampled_from([0.4, 1, 4, 40, 700]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def candidate_is_found_bad(self) -> None:
        self.judgement = FAIL
        self.reconcile()

    @rule(plan=st.sampled_from([IMMEDIATE, CANARY, OTHER, SHADOW, BLUE_GREEN]))
    def rollout_settings_change(self, plan: Plan) -> None:
        self.plan = plan

    @precondition(lambda self: not self.lost)
    @rule()
    def status_is_lost(self) -> None:
        self.state = State()

    @rule(data=st.data())
    def turn(self, data: st.DataObject) -> None:
        """The operator acts, and of all that would follow some things happen: mostly all, for deep states are rare otherwise."""
        likely = st.sampled_from([True, True, False])
        self.judgement = data.draw(st.sampled_from([PASS, PASS, WAIT]), label="measured")
        self.now += timedelta(seconds=data.draw(st.sampled_from([0, 1, 40]), label="seconds"))
        for revision in self.pods:
            if revision not in self.broken and data.draw(likely, label=f"{revision} ready"):
                self.pods[revision] = True
        for router in self.routers:
            if router.up and data.draw(likely, label="sees endpoints"):
                router.sees = {name: ready for name, ready in self.pods.items() if name in router.loaded.clusters}
        self.reconcile()
        if data.draw(likely, label="routes written"):
            self.write_routes()
        for router in self.routers:
            if router.up and data.draw(likely, label="routes taken over"):
                router.loaded = self.written

    def _look(self, router: Router) -> None:
        router.up, router.loaded = True, self.written
        router.sees = {name: ready for name, ready in self.pods.items() if name in self.written.clusters}

    # What the operator does

    def reconcile(self) -> None:
        world = self.world()
        before = self.state
        self.state = rollout.decide(before, world)
        self.check_step(before, world)
        for revision in self.state.active:
            self.pods.setdefault(revision, False)
        for revision in [name for name in self.pods if name not in self.state.active]:
            for router in self.routers:
                assert not router.leads_to(revision), f"{revision} loses its pods while a router sends it requests"
            del self.pods[revision]

    def write_routes(self) -> None:
        known = self.state.active or "m" not in self.written.routes
        steering = self.state.steering(self.plan) if self.target is not None else self.written_steering()
        want = Wanted(self.state.weights, dict.fromkeys(self.state.active, 8080), steering=steering)
        live = max(router.loaded.version for router in self.routers)
        now_ms = int(self.now.timestamp() * 1000)
        self.written = routing.plan(self.written, {"m": want} if known else {}, [] if known else ["m"], live, now_ms)

    def written_steering(self) -> Steering:
        """Answer what is steered while the spec cannot be read: what was, to the same candidate."""
        route, candidate = self.written.routes.get("m"), self.state.candidate
        was = route.wanted.steering if route else UNSTEERED
        return was if candidate is not None and candidate.revision == was.revision else UNSTEERED

    def world(self) -> World:
        seen = tuple(
            RouterSeen(f"r{i}", True, router.up, router.loaded.version, router.sees) for i, router in enumerate(self.routers)
        )
        return World(
            target=self.target,
            replicas=1,
            revisions={name: RevisionSeen(1, int(ready)) for name, ready in self.pods.items()},
            known={name: Target(name, "", None) for name in REVISIONS},
            routes=routing.seen(self.written, "m", seen, None),
            deadline_seconds=DEADLINE,
            timeout_seconds=TIMEOUT,
            now=self.now,
            plan=self.plan if self.target is not None else IMMEDIATE,
            judgement=self.judgement,
        )

    # The laws

    def check_step(self, before: State, world: World) -> None:
        """A step's weight rises only when the step before was live for its hold, and its candidate passed."""
        same = before.candidate is not None and self.state.candidate == before.candidate
        live = {name: weight for name, weight in before.weights.items() if weight}, before.steering(world.plan)
        if not before.step or before.rollout is None or all(router.weights != live[0] for router in self.routers):
            self.live_since = None
        elif self.live_since is None and all((router.weights, router.steering) == live for router in self.routers):
            self.live_since = self.now
        promoted = before.stable is not None and before.step and self.state.stable == before.candidate
        if not promoted and (not same or not before.step or self.state.weight <= before.weight):
            return
        assert self.state.rollout is None or not self.state.rollout.paused, "a paused rollout went on"
        step = world.plan.step(rollout.align(before, world).step if rollout.align(before, world) else before.step)
        assert self.live_since is not None, "more weight before the last was live in every router"
        held = (self.now - self.live_since).total_seconds()
        assert held >= step.hold_seconds + step.pause_seconds, "a step ended before its hold and its pause"
        assert not step.judged or self.judgement.verdict == Verdict.PASS, "more weight without a verdict"
        self.live_since = None

    @invariant()
    def weights_sum_to_100_or_nothing_serves(self) -> None:
        weights = self.state.weights
        assert not weights or sum(weights.values()) == 100 or self.state.stable is None

    @invariant()
    def routers_send_requests_only_to_pods(self) -> None:
        for router in self.routers:
            for revision in router.weights:
                assert self.pods.get(revision), f"a router sends requests to {revision}, which has no ready pod"
                assert router.sees.get(revision), f"a router sends requests to {revision}, whose endpoints it does not know"

    @invariant()
    def once_served_always_served(self) -> None:
        if self.state.stable is not None and any(router.weights for router in self.routers):
            assert self.state.weights, "what was served is served no more"

    @invariant()
    def roles_are_distinct(self) -> None:
        assert len(self.state.active) == len(set(self.state.active))

    def finish(self, target: Target) -> None:
        """Let everything work until a revision is served."""
        self.target, self.judgement, self.plan = target, PASS, self.last_plan
        for _ in range(24):
            self.reconcile()
            self.write_routes()
            self.pods = dict.fromkeys(self.pods, True)
            for router in self.routers:
                self._look(router)
            self.now += timedelta(seconds=40)

    def teardown(self) -> None:
        """Whatever happened: once the last spec is right and everything works, it is served and nothing else is left."""
        if not hasattr(self, "state"):
            return
        self.finish(Target("m-e", "", None))
        assert self.state.stable == self.target
        assert replace(self.state, history=()) == State(stable=self.target)
        assert all(router.weights == {"m-e": 100} for router in self.routers)
        assert self.pods == {"m-e": True}


class Canaries(Rollouts):
    """The same, from the moment that a second revision is asked for."""

    last_plan = OTHER

    @initialize(routers=st.integers(1, 3))
    def start(self, routers: int) -> None:
        super().start(routers)
        self.finish(Target("m-a", "", None))
        self.target = Target("m-b", "", None)


TestCanaries = Canaries.TestCase
TestCanaries.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
