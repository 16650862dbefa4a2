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
from slipway.core.plan import IMMEDIATE, Arm, Judged, Judgement, Plan, Step, Trial, Verdict
from slipway.core.revision import Target
from slipway.core.routing import RouterState, Wanted
from slipway.core.state import State, World
from slipway.core.steering import UNSTEERED, Steering, Sticky
from slipway.core.verbs import aim, plan_in_force

REVISIONS = ("m-a", "m-b", "m-c")
ARMS = tuple(Arm(Target(f"m-{letter}", "", None), weight) for letter, weight in (("c", 20), ("x", 15), ("y", 25)))
TIMEOUT, DEADLINE = 30.0, 600.0
CANARY = Plan((Step(5, 30, judged=True), Step(50, 90, judged=True), Step(100)), step_seconds=300)
SHADOW = Plan((Step(0, 30, judged=True, mirror=20), Step(20, 10, pause_seconds=60, replicas=1), Step(100)), pauses=True)
BLUE_GREEN = Plan((Step(0, 40, judged=True, share=100), Step(100)), proportional=True, preview=True, keep_seconds=50)
OTHER = Plan((Step(20, 60, judged=True), Step(50), Step(100, 30, judged=True)), step_seconds=300)
# Of the arms one is what the spec may ask for itself, or what serves.
TESTED = Plan((Step(40, 30, judged=True), Step(100)), step_seconds=300, trial=Trial(), sticky=Sticky("x-user"), arms=ARMS[:1])
TESTED_ALL = replace(TESTED, steps=(Step(80, 20, judged=True, pause_seconds=40), Step(100)), arms=ARMS)
PLANS = (IMMEDIATE, CANARY, OTHER, TESTED, TESTED_ALL)
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


def rolling(state: State) -> tuple[object, ...]:
    """Answer what tells one rollout from another, and from one with other arms."""
    told = state.rollout
    if told is None or not state.candidates:
        return ()
    return told.revision, told.since, *(arm.revision for arm in (told.trial.arms if told.trial is not None else ()))


def _each_percent(places: list[tuple[str, int]]) -> list[str]:
    return [revision for revision, percent in places for _ in range(percent)]


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
        self.verdicts: dict[str, Judgement] = {}
        self.plan = IMMEDIATE
        self.live_since: datetime | None = None
        self.one_left = False

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

    @precondition(lambda self: self.state.candidates)
    @rule(data=st.data())
    def candidate_is_found_bad(self, data: st.DataObject) -> None:
        found = data.draw(st.sampled_from([each.revision for each in self.state.candidates]))
        self.verdicts = {each.revision: FAIL if each.revision == found else WAIT for each in self.state.candidates}
        self.reconcile()

    @rule(plan=st.sampled_from([*PLANS, SHADOW, BLUE_GREEN]))
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
        self.measure(data)
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

    def measure(self, data: st.DataObject) -> None:
        """Of several candidates one passes at the most, and one may fail."""
        names = [each.revision for each in self.state.candidates]
        passes = data.draw(st.sampled_from([*names, *names, None] if names else [None]), label="passes")
        fails = data.draw(st.sampled_from([*names, None, None]), label="fails") if len(names) > 1 else None
        self.verdicts = {name: FAIL if name == fails else PASS if name == passes else WAIT for name in names}

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
        plan = plan_in_force(self.state, self.spec_plan())
        steering = self.state.steering(plan) if self.target is not None else self.written_steering()
        want = Wanted(self.state.weights, dict.fromkeys(self.state.active, 8080), steering=steering, hold=self.holds())
        live = max(router.loaded.version for router in self.routers)
        now_ms = int(self.now.timestamp() * 1000)
        self.written = routing.plan(self.written, {"m": want} if known else {}, [] if known else ["m"], live, now_ms)

    def holds(self) -> bool:
        """Tell whether requests may wait for a first pod."""
        return False

    def written_steering(self) -> Steering:
        """Answer what is steered while the spec cannot be read: what was, to the same candidate."""
        route = self.written.routes.get("m")
        was = route.wanted.steering if route else UNSTEERED
        return was if was.revision in [each.revision for each in self.state.candidates] else UNSTEERED

    def spec_plan(self) -> Plan:
        """Answer the plan of a spec that can be read: no arm is what it asks for anyhow."""
        return self.plan.without(self.target.revision) if self.target is not None else IMMEDIATE

    def world(self) -> World:
        seen = tuple(
            RouterSeen(f"r{i}", True, router.up, router.loaded.version, router.sees) for i, router in enumerate(self.routers)
        )
        return World(
            target=self.target,
            replicas=1,
            revisions={name: RevisionSeen(1, int(ready)) for name, ready in self.pods.items()},
            known={name: Target(name, "", None) for name in (*REVISIONS, "m-x", "m-y", "m-e")},
            routes=routing.seen(self.written, "m", seen, None),
            deadline_seconds=DEADLINE,
            timeout_seconds=TIMEOUT,
            now=self.now,
            plan=self.spec_plan(),
            judged=Judged(dict(self.verdicts)),
        )

    # The laws

    def check_step(self, before: State, world: World) -> None:
        """A candidate's weight rises only when the step before was live for its hold, and the candidate passed."""
        world, after = aim(before, world), self.state
        if before.rollout is not None and rolling(before) == rolling(after) and len(after.candidates) < len(before.candidates):
            self.check_withdrawal(before, world)
        live = {name: weight for name, weight in before.weights.items() if weight}, before.steering(world.plan)
        as_asked = all((router.weights, router.steering) == live for router in self.routers)
        self.one_left = self.one_left and not as_asked
        elsewhere = not self.one_left and all(router.weights != live[0] for router in self.routers)
        if not before.step or before.rollout is None or elsewhere:
            self.live_since = None
        elif self.live_since is None and as_asked:
            self.live_since = self.now
        self.one_left = self.one_left or (rolling(before) == rolling(after) and len(after.candidates) < len(before.candidates))
        promoted = before.stable is not None and before.step and self.state.stable == before.candidate
        had = {each.revision: each.weight for each in before.candidates}
        more = [each.revision for each in after.candidates if each.weight > had.get(each.revision, 0)]
        if not promoted and (rolling(before) != rolling(after) or not before.step or not more):
            return
        assert after.rollout is None or not after.rollout.paused, "a paused rollout went on"
        step = world.plan.step(rollout.align(before, world).step if rollout.align(before, world) else before.step)
        assert self.live_since is not None, "more weight before the last was live in every router"
        held = (self.now - self.live_since).total_seconds()
        assert held >= step.hold_seconds + step.pause_seconds, "a step ended before its hold and its pause"
        passed = all(world.judged.of(revision).verdict == Verdict.PASS for revision in more or [before.candidate.revision])
        assert not step.judged or passed, "more weight without a verdict"
        self.live_since, self.one_left = None, False

    def check_withdrawal(self, before: State, world: World) -> None:
        """Of several candidates one goes alone: the others keep their weight and their callers, stable has its own."""
        after = self.state
        if after.weight > before.weight or not after.candidates:
            return
        weights = {each.revision: each.weight for each in after.candidates}
        assert weights.items() <= {each.revision: each.weight for each in before.candidates}.items(), "others are touched"
        was, is_ = (state.steering(world.plan).sticky for state in (before, after))
        if was is None or is_ is None or not before.weights or before.stable is None:
            return
        callers = zip(_each_percent(was.places(before.weights)), _each_percent(is_.places(after.weights)), strict=True)
        for had, has in callers:
            assert has == had or (had not in weights and has == before.stable.revision), f"a caller of {had} moves to {has}"

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
        assert len(self.state.active) == len(set(self.state.active)), "a revision has two roles"

    def finish(self, target: Target) -> None:
        """Let everything work until a revision is served."""
        self.target, self.verdicts, self.plan = target, {}, self.last_plan
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


class Trials(Canaries):
    """The same, from the moment that an A/B test of three arms is asked for."""

    last_plan = TESTED_ALL

    @initialize(routers=st.integers(1, 3))
    def start(self, routers: int) -> None:
        super().start(routers)
        self.plan = TESTED_ALL

    @rule(data=st.data(), turns=st.integers(1, 6))
    def turn(self, data: st.DataObject, turns: int) -> None:
        """The operator acts some times, and each time some of all that would follow happens."""
        for _ in range(turns):
            super().turn(data)


TestTrials = Trials.TestCase
TestTrials.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestCanaries = Canaries.TestCase
TestCanaries.settings = settings(max_examples=200, stateful_step_count=40)
TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=300, stateful_step_count=40)
