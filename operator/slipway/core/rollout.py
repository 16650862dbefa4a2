"""The rollout policy: which revision serves, which is tried, which leaves.

`decide` runs the rules of `RULES` in order over the state that status holds. Each rule answers the state after it, or None
where it does not apply. What never breaks, whatever the rules do (tests/unit/test_rollout_laws.py):

1. weights sum to 100 once anything serves, and only a revision that every router sees ready gets some;
2. a revision loses its pods only after its weight 0 is live in every router and its requests are answered;
3. without a target (the spec is invalid) no step begins and nothing changes roles;
4. a step begins when its weight is live in every router, which status remembers, and never ends before its hold; where
   the plan changes meanwhile, the rollout goes on from the weight that it has;
5. a candidate gets more weight only with ready pods enough for it, and with a verdict that it passed: none is not one.
"""

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from slipway.api.status import Draining, HistoryEntry, Pinned, Request, RevisionStatus, RolloutStatus, Status, Verb
from slipway.core.clock import stamp, stamp_up, to_datetime
from slipway.core.observation import RevisionSeen, RoutesSeen
from slipway.core.plan import IMMEDIATE, UNJUDGED, Judgement, Plan, Verdict, replicas_for
from slipway.core.revision import Target

HISTORY_MAX = 20
# How often a step under way is looked at: measurements come without an event.
JUDGE_SECONDS = 1.0
# A router's count of requests in flight is as old as its scrape: an idle revision is believed after this long.
IDLE_SECONDS = 3.0
# Requests in flight end by their timeout. What a stuck count says after this much more is not waited for.
DRAIN_MARGIN_SECONDS = 5.0


@dataclass(frozen=True)
class World:
    """All that the policy sees."""

    target: Target | None
    replicas: int
    revisions: Mapping[str, RevisionSeen]
    known: Mapping[str, Target]
    routes: RoutesSeen
    deadline_seconds: float
    timeout_seconds: float
    now: datetime
    plan: Plan = IMMEDIATE
    judgement: Judgement = UNJUDGED

    def since(self, moment: str) -> float:
        """Answer how many seconds ago a moment that status remembers was."""
        return (self.now - to_datetime(moment)).total_seconds()

    def seen(self, revision: str) -> RevisionSeen:
        """Answer what is seen of a revision's pods; of one without a Deployment, none."""
        return self.revisions.get(revision, RevisionSeen())


@dataclass(frozen=True)
class State:
    """The roles of revisions: what status remembers of a rollout."""

    stable: Target | None = None
    candidate: Target | None = None
    weight: int = 0
    draining: tuple[Draining, ...] = ()
    rollout: RolloutStatus | None = None
    history: tuple[HistoryEntry, ...] = field(default=())
    pinned: Pinned | None = None
    handled: str = ""
    request: Request | None = None

    @property
    def weights(self) -> dict[str, int]:
        """Answer the percent of requests by revision: they sum to 100, or there are none while nothing serves yet."""
        weights: dict[str, int] = {}
        if self.candidate is not None and (self.weight or self.stable is not None):
            weights[self.candidate.revision] = self.weight
        if self.stable is not None:
            weights[self.stable.revision] = 100 - self.weight
        return weights

    @property
    def active(self) -> list[str]:
        """Answer the revisions that have pods: stable, candidate and those that drain."""
        roles = [role.revision for role in (self.stable, self.candidate) if role is not None]
        return roles + [entry.revision for entry in self.draining]

    @property
    def step(self) -> int:
        """Answer the step under way, counted from 1; 0 before the first."""
        return self.rollout.step if self.rollout is not None and self.candidate is not None else 0


def load(status: Status) -> State:
    """Read the state that status remembers."""

    def role(seen: RevisionStatus | None) -> Target | None:
        return None if seen is None else Target(seen.revision, seen.version, seen.digest)

    return State(
        stable=role(status.stable),
        candidate=role(status.candidate),
        weight=status.candidate.weight if status.candidate else 0,
        draining=tuple(status.draining),
        rollout=status.rollout,
        history=tuple(status.history),
        pinned=status.pinned,
        handled=status.handled,
        request=status.request,
    )


def _ended(state: State, world: World, revision: Target, outcome: str, message: str | None = None) -> tuple[HistoryEntry, ...]:
    entry = HistoryEntry.model_validate(
        {
            "revision": revision.revision,
            "version": revision.version,
            "digest": revision.digest,
            "outcome": outcome,
            "at": stamp(world.now),
            "message": message,
        }
    )
    return (entry, *state.history)[:HISTORY_MAX]


def _withdraw(state: State) -> State:
    """Take the candidate out: all weight back to stable, its pods drained."""
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    leaving = Draining(revision=state.candidate.revision)
    return replace(state, candidate=None, weight=0, rollout=None, draining=(*state.draining, leaving))


def obey(state: State, world: World) -> State | None:
    """Somebody asked for something (`kubectl slipway`): it is done once. What makes no sense now is passed over."""
    request = state.request
    if request is None or request.at == state.handled:
        return None
    state = replace(state, handled=request.at)
    return _VERBS[request.verb](state, world, request) or state


def _promote_on_request(state: State, world: World, request: Request) -> State | None:
    """The step under way counts as passed; with `full` all that are left."""
    if state.candidate is None or state.rollout is None:
        return None
    forced = len(world.plan.steps) if request.full else max(state.step, 1)
    return _resumed(state, world, {"forced": forced, "forced_by": request.by})


def _abort_on_request(state: State, world: World, request: Request) -> State | None:
    """The candidate is withdrawn."""
    if state.candidate is None or state.stable is None:
        return None
    if world.target is not None and world.target.revision == state.stable.revision:
        state = replace(state, pinned=None)  # it was a rollback that is called off: the spec's revision serves all along
    return _failed(state, world, "Aborted", f"aborted by {request.by or 'request'}")


def _pause_on_request(state: State, world: World, request: Request) -> State | None:
    """No step begins until Resume or Promote. Where nothing serves yet there is no step, and nothing to hold back."""
    if state.candidate is None or state.stable is None or state.rollout is None:
        return None
    return replace(state, rollout=state.rollout.model_copy(update={"paused": True}))


def _resume_on_request(state: State, world: World, request: Request) -> State | None:
    """Steps begin again."""
    return None if state.candidate is None else _resumed(state, world, {})


def _resumed(state: State, world: World, update: dict[str, object]) -> State | None:
    """Answer the state with a rollout that goes on: if it was paused, its deadlines count from now."""
    if state.rollout is None:
        return None
    resumed = stamp(world.now) if state.rollout.paused else state.rollout.resumed
    return replace(state, rollout=state.rollout.model_copy(update={**update, "paused": False, "resumed": resumed}))


def _retry_on_request(state: State, world: World, request: Request) -> State | None:
    """What the spec asks for is tried again, though it failed or was rolled back from."""
    failed = state.rollout is not None and state.rollout.outcome
    return replace(state, pinned=None, rollout=None if failed else state.rollout)


def _roll_back_on_request(state: State, world: World, request: Request) -> State | None:
    """A kept revision serves again, and the spec's is refused."""
    if world.target is None or state.stable is None:
        return None
    if request.revision is None and state.candidate is not None:
        return _abort_on_request(state, world, request)
    revision = request.revision or served_before(state.history, world.known, state.stable.revision, world.target.revision)
    if revision is None or revision not in world.known or revision == world.target.revision:
        return None
    pinned = Pinned(revision=revision, instead_of=world.target.revision, by=request.by, at=stamp(world.now))
    failed = state.rollout is not None and state.rollout.outcome
    return replace(state, pinned=pinned, rollout=None if failed else state.rollout)


def served_before(history: Iterable[HistoryEntry], known: Container[str], *than: str) -> str | None:
    """Answer the kept revision that served last, other than some; None where there is none."""
    served = (entry.revision for entry in history if entry.outcome == "Served")
    return next((revision for revision in served if revision in known and revision not in than), None)


_VERBS: Mapping[Verb, Callable[[State, World, Request], State | None]] = {
    Verb.PROMOTE: _promote_on_request,
    Verb.ABORT: _abort_on_request,
    Verb.PAUSE: _pause_on_request,
    Verb.RESUME: _resume_on_request,
    Verb.RETRY: _retry_on_request,
    Verb.ROLLBACK: _roll_back_on_request,
}


def unpin(state: State, world: World) -> State | None:
    """The spec asks for another revision than the one that was rolled back from, or the pinned one is no longer kept."""
    if state.pinned is None or world.target is None:
        return None
    kept = state.pinned.revision in world.known
    return None if kept and world.target.revision == state.pinned.instead_of else replace(state, pinned=None)


def aim(state: State, world: World) -> World:
    """Answer the world as the rules see it: a pinned revision is what is asked for, and takes over at once."""
    if state.pinned is None or world.target is None or state.pinned.revision not in world.known:
        return world
    return replace(world, target=world.known[state.pinned.revision], plan=IMMEDIATE, judgement=UNJUDGED)


def recover(state: State, world: World) -> State | None:
    """Status was lost (a backup restores none): what the routers serve is stable, the rest follows from the spec.

    Of two that serve, the one that the spec asks for is the candidate, whatever its weight: it has not passed.
    """
    if state.stable or state.candidate or not world.routes.written:
        return None
    tried = world.target.revision if world.target is not None else ""
    serving = max(world.routes.written, key=lambda revision: (revision != tried, world.routes.written[revision]))
    return replace(state, stable=world.known[serving]) if serving in world.known else None


def adopt_strays(state: State, world: World) -> State | None:
    """Pods of a revision without a role (a crash between two writes) leave as any other: drained."""
    strays = [revision for revision in world.revisions if revision not in state.active]
    if world.target is not None:
        strays = [revision for revision in strays if revision != world.target.revision]
    if not strays:
        return None
    return replace(state, draining=(*state.draining, *(Draining(revision=revision) for revision in strays)))


def cancel(state: State, world: World) -> State | None:
    """The spec returned to stable: the candidate is withdrawn at once, and a failure is forgotten."""
    if world.target is None or state.stable is None or world.target.revision != state.stable.revision:
        return None
    if state.candidate is None:
        return replace(state, rollout=None) if state.rollout else None
    return replace(_withdraw(state), history=_ended(state, world, state.candidate, "Cancelled", _rolled_back(state)))


def supersede(state: State, world: World) -> State | None:
    """The spec asks for a third revision: the candidate is withdrawn, stable stays stable."""
    if world.target is None or state.candidate is None or world.target.revision == state.candidate.revision:
        return None
    return replace(_withdraw(state), history=_ended(state, world, state.candidate, "Superseded", _rolled_back(state)))


def _rolled_back(state: State) -> str | None:
    """Say who rolled back, where a pinned revision is what is asked for."""
    return None if state.pinned is None else f"rolled back by {state.pinned.by or 'request'}"


def begin(state: State, world: World) -> State | None:
    """The spec asks for a revision that has no role, and that did not fail already: it becomes the candidate."""
    target = world.target
    if target is None or state.candidate is not None:
        return None
    if state.stable is not None and state.stable.revision == target.revision:
        return None
    if state.rollout is not None and state.rollout.outcome and state.rollout.revision == target.revision:
        return None
    return replace(
        state,
        candidate=target,
        weight=0,
        rollout=RolloutStatus(revision=target.revision, since=stamp(world.now)),
        draining=tuple(entry for entry in state.draining if entry.revision != target.revision),
    )


def lose(state: State, world: World) -> State | None:
    """The candidate has weight and no ready pod any more: stable takes all back at once."""
    if state.stable is None or state.candidate is None or not state.weight or world.seen(state.candidate.revision).ready:
        return None
    symptom = world.seen(state.candidate.revision).symptom
    reason, message = (symptom.reason, symptom.message) if symptom else ("NoReadyPod", "its last ready pod is gone")
    return _failed(state, world, reason, message)


def judge(state: State, world: World) -> State | None:
    """The candidate failed its checks, or could not be measured by the step's deadline: it is withdrawn."""
    if state.stable is None or state.candidate is None or not world.plan.step(state.step).judged or not state.weight:
        return None
    if state.rollout is not None and state.step <= state.rollout.forced:
        return None
    judgement = world.judgement
    if judgement.verdict == Verdict.FAIL:
        return _failed(state, world, judgement.reason, judgement.message)
    paused = state.rollout is not None and state.rollout.paused
    overdue = not paused and _waited_seconds(state, world) >= world.plan.step_seconds
    if judgement.verdict == Verdict.WAIT and overdue:
        message = f"step {state.step} found no clear result within {world.plan.step_seconds:g} s: {judgement.message}"
        return _failed(state, world, judgement.reason, message)
    return None


def fail(state: State, world: World) -> State | None:
    """The candidate's pods for the next step were not ready by the deadline: it is withdrawn where something else serves."""
    if state.stable is None or state.candidate is None or state.rollout is None or not _may_go_on(state, world):
        return None
    if _has_pods(state, world):
        return None  # nobody looked for long, or it took long to pass: that is no fault of its pods
    if _waited_seconds(state, world) < world.deadline_seconds:
        return None
    symptom = world.seen(state.candidate.revision).symptom
    reason = symptom.reason if symptom else "ProgressDeadlineExceeded"
    message = symptom.message if symptom else f"not ready within {world.deadline_seconds:g} s"
    return _failed(state, world, reason, message)


def _failed(state: State, world: World, reason: str, message: str) -> State:
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    ended = {"outcome": "Failed", "reason": reason, "message": message}
    failed = state.rollout.model_copy(update={**ended, "checks": list(world.judgement.checks)})
    return replace(_withdraw(state), rollout=failed, history=_ended(state, world, state.candidate, "Failed", message))


def align(state: State, world: World) -> State | None:
    """The plan changed in the middle: the step under way is the one of the candidate's weight, and has lasted as long."""
    if state.stable is None or state.rollout is None or not state.step or world.target is None:
        return None
    step, steps = world.plan.number(state.weight), len(world.plan.steps)
    if (state.step, state.rollout.steps) == (step, steps):
        return None
    forced = max(state.rollout.forced + step - state.step, 0)
    return replace(state, rollout=state.rollout.model_copy(update={"step": step, "steps": steps, "forced": forced}))


def settle(state: State, world: World) -> State | None:
    """The weight of the step is live in every router: the step begins now."""
    if state.rollout is None or not state.step or state.rollout.step_since is not None:
        return None
    if world.routes.live != {revision: weight for revision, weight in state.weights.items() if weight}:
        return None
    return replace(state, rollout=state.rollout.model_copy(update={"step_since": stamp_up(world.now)}))


def advance(state: State, world: World) -> State | None:
    """The step is over and pods enough are ready, and seen by every router, for the next one: the candidate gets its weight.

    Where nothing serves yet, the first ready pod serves.
    """
    if state.candidate is None or state.rollout is None or not _may_go_on(state, world) or not _has_pods(state, world):
        return None
    number = _next_step(state, world)
    weight = world.plan.step(number).weight
    begun = state.rollout.model_copy(update={"step": number, "steps": len(world.plan.steps), "step_since": None})
    return replace(state, weight=weight, rollout=begun)


def promote(state: State, world: World) -> State | None:
    """The candidate has all requests in every router and its last step is over: it is stable, and what was stable drains."""
    if state.candidate is None or world.routes.live != {state.candidate.revision: 100}:
        return None
    if state.stable is not None and state.step and (world.target is None or not _is_over(state, world)):
        return None
    if state.stable is not None and state.rollout is not None and state.rollout.paused:
        return None
    was = () if state.stable is None else (Draining(revision=state.stable.revision),)
    return replace(
        state,
        stable=state.candidate,
        candidate=None,
        weight=0,
        rollout=None,
        draining=(*state.draining, *was),
        history=_ended(state, world, state.candidate, "Served", _served_by(state)),
    )


def _served_by(state: State) -> str | None:
    """Say who asked for what was promoted by request, not by its checks or for want of any."""
    rollout = state.rollout
    if rollout is None or not rollout.forced:
        return _rolled_back(state)
    steps = "" if rollout.forced >= rollout.steps else f" from step {rollout.forced}"
    return f"promoted{steps} by {rollout.forced_by or 'request'}"


def _may_go_on(state: State, world: World) -> bool:
    """Tell whether nothing but pods keeps the candidate from its next step."""
    if world.target is None or state.rollout is None or state.rollout.paused:
        return False
    return not state.weight if not state.step else state.weight < 100 and _is_over(state, world)


def _next_step(state: State, world: World) -> int:
    """Answer the number of the next step: where nothing serves yet, the last."""
    return len(world.plan.steps) if state.stable is None else world.plan.after(state.step, state.weight)


def _has_pods(state: State, world: World) -> bool:
    """Tell whether the candidate has pods enough for its next step, ready and seen by every router."""
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    need = 1
    if state.stable is not None:
        need = replicas_for(world.plan.step(_next_step(state, world)).weight, world.replicas)
    return min(world.seen(state.candidate.revision).ready, world.routes.healthy(state.candidate.revision)) >= need


def _is_over(state: State, world: World) -> bool:
    """Tell whether the step under way has lasted its hold and the candidate passed it."""
    step = world.plan.step(state.step)
    if state.rollout is not None and state.step <= state.rollout.forced:
        return state.rollout.step_since is not None
    if state.rollout is None or state.rollout.step_since is None or _held_seconds(state, world) < step.hold_seconds:
        return False
    return not step.judged or world.judgement.verdict == Verdict.PASS


def _held_seconds(state: State, world: World) -> float:
    """Answer how long the step under way has lasted; 0 before its weight is live."""
    if state.rollout is None or state.rollout.step_since is None:
        return 0.0
    return max(world.since(state.rollout.step_since), 0.0)  # its beginning was rounded up


def _waited_seconds(state: State, world: World) -> float:
    """Answer how long the candidate has waited for its next step: since it was made, its step's hold, or a pause was over."""
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    waited = world.since(state.rollout.since)
    if state.step:
        waited = _held_seconds(state, world) - world.plan.step(state.step).hold_seconds
    return waited if state.rollout.resumed is None else min(waited, world.since(state.rollout.resumed))


def replicas(state: State, world: World, revision: str) -> int:
    """Answer a revision's replicas: stable's are full to the end, so that it can take all back at once.

    The candidate's are enough for its next step, so that they are there before its weight is. One that drains keeps what it
    has: its requests are not over.
    """
    if any(entry.revision == revision for entry in state.draining):
        return world.seen(revision).replicas
    if state.stable is None or state.candidate is None or revision != state.candidate.revision:
        return world.replicas
    world = aim(state, world)
    weight = max(state.weight, world.plan.step(_next_step(state, world)).weight)
    return replicas_for(weight, world.replicas)


def drain(state: State, world: World) -> State | None:
    """A revision whose weight 0 is live in every router leaves once it is idle, or its requests must have timed out."""
    kept = tuple(entry for entry in (_drained(entry, world) for entry in state.draining) if entry is not None)
    return None if kept == state.draining else replace(state, draining=kept)


def _drained(entry: Draining, world: World) -> Draining | None:
    if entry.since is None:
        unreachable = world.routes.settled and entry.revision not in world.routes.written
        return entry.model_copy(update={"since": stamp(world.now)}) if unreachable else entry
    waited = world.since(entry.since)
    idle = waited >= IDLE_SECONDS and world.routes.idle(entry.revision)
    return None if idle or waited >= world.timeout_seconds + DRAIN_MARGIN_SECONDS else entry


RULES: tuple[Callable[[State, World], State | None], ...] = (
    recover,
    adopt_strays,
    cancel,
    align,
    settle,
    promote,
    supersede,
    begin,
    lose,
    judge,
    fail,
    advance,
    drain,
)


def decide(state: State, world: World) -> State:
    """Answer the state after all rules, with what every router gives the candidate and what is measured of it."""
    for rule in (obey, unpin):
        state = rule(state, world) or state
    world = aim(state, world)
    for rule in RULES:
        state = rule(state, world) or state
    if state.rollout is None:
        return state
    shown: dict[str, object] = {}
    if world.routes.live is not None:
        shown["live_weight"] = world.routes.live.get(state.rollout.revision, 0)
    if state.candidate is not None:
        shown["checks"] = list(world.judgement.checks)
    return replace(state, rollout=state.rollout.model_copy(update=shown))


def wake_after(state: State, world: World) -> float | None:
    """Answer in how many seconds time alone may change the decision, None where only events can."""
    waits: list[float] = []
    trying = state.candidate is not None and state.stable is not None and not state.step
    if trying and state.rollout is not None and not state.rollout.paused:
        waits.append(world.deadline_seconds - _waited_seconds(state, world))
    if state.stable is not None and state.step:
        waits.append(JUDGE_SECONDS)
    waits += [IDLE_SECONDS - world.since(entry.since) for entry in state.draining if entry.since is not None]
    soonest = min(waits, default=math.inf)
    return max(soonest, 0.5) if math.isfinite(soonest) else None
