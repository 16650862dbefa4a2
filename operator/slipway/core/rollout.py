"""The rollout policy: which revision serves, which is tried, which leaves.

`decide` runs the rules of `RULES` in order over the state that status holds. Each rule answers the state after it, or None
where it does not apply. What never breaks, whatever the rules do (tests/unit/test_rollout_laws.py):

1. weights sum to 100 once anything serves, and only a revision that every router sees ready gets some;
2. a revision loses its pods only after its weight 0 is live in every router and its requests are answered;
3. without a target (the spec is invalid) no step begins and nothing changes roles;
4. a step begins when its weight is live in every router, which status remembers, and never ends before its hold;
5. a candidate gets more weight only with ready pods enough for it, and with a verdict that it passed: none is not one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from slipway.api.status import Draining, HistoryEntry, RevisionStatus, RolloutStatus, Status
from slipway.core.clock import stamp, to_datetime
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


def recover(state: State, world: World) -> State | None:
    """Status was lost (a backup restores none): what the routers serve is stable, the rest follows from the spec."""
    if state.stable or state.candidate or not world.routes.written:
        return None
    serving = max(world.routes.written, key=lambda revision: world.routes.written[revision])
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
    return replace(_withdraw(state), history=_ended(state, world, state.candidate, "Cancelled"))


def supersede(state: State, world: World) -> State | None:
    """The spec asks for a third revision: the candidate is withdrawn, stable stays stable."""
    if world.target is None or state.candidate is None or world.target.revision == state.candidate.revision:
        return None
    return replace(_withdraw(state), history=_ended(state, world, state.candidate, "Superseded"))


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
    judgement = world.judgement
    if judgement.verdict == Verdict.FAIL:
        return _failed(state, world, judgement.reason, judgement.message)
    overdue = _held_seconds(state, world) >= world.plan.step(state.step).hold_seconds + world.plan.step_seconds
    if judgement.verdict == Verdict.WAIT and overdue:
        message = f"step {state.step} found no clear result within {world.plan.step_seconds:g} s: {judgement.message}"
        return _failed(state, world, judgement.reason, message)
    return None


def fail(state: State, world: World) -> State | None:
    """The candidate's pods for the next step were not ready by the deadline: it is withdrawn where something else serves."""
    if state.stable is None or state.candidate is None or state.rollout is None or not _may_go_on(state, world):
        return None
    waited = world.since(state.rollout.since)
    if state.step:
        waited = _held_seconds(state, world) - world.plan.step(state.step).hold_seconds
    if waited < world.deadline_seconds:
        return None
    symptom = world.seen(state.candidate.revision).symptom
    reason = symptom.reason if symptom else "ProgressDeadlineExceeded"
    message = symptom.message if symptom else f"not ready within {world.deadline_seconds:g} s"
    return _failed(state, world, reason, message)


def _failed(state: State, world: World, reason: str, message: str) -> State:
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    failed = state.rollout.model_copy(update={"outcome": "Failed", "reason": reason, "message": message, "live_weight": 0})
    return replace(_withdraw(state), rollout=failed, history=_ended(state, world, state.candidate, "Failed", message))


def settle(state: State, world: World) -> State | None:
    """The weight of the step is live in every router: the step begins now."""
    if state.rollout is None or not state.step or state.rollout.step_since is not None:
        return None
    if world.routes.live != {revision: weight for revision, weight in state.weights.items() if weight}:
        return None
    return replace(state, rollout=state.rollout.model_copy(update={"step_since": stamp(world.now)}))


def advance(state: State, world: World) -> State | None:
    """The step is over and pods enough are ready, and seen by every router, for the next one: the candidate gets its weight.

    Where nothing serves yet, the first ready pod serves.
    """
    if state.candidate is None or state.rollout is None or not _may_go_on(state, world):
        return None
    number = state.step + 1 if state.stable is not None else len(world.plan.steps)
    weight = world.plan.step(number).weight if state.stable is not None else 100
    need = replicas_for(weight, world.replicas) if state.stable is not None else 1
    if min(world.seen(state.candidate.revision).ready, world.routes.healthy(state.candidate.revision)) < need:
        return None
    begun = state.rollout.model_copy(update={"step": number, "steps": len(world.plan.steps), "step_since": None})
    return replace(state, weight=weight, rollout=begun)


def promote(state: State, world: World) -> State | None:
    """The candidate has all requests in every router and its last step is over: it is stable, and what was stable drains."""
    if state.candidate is None or world.routes.live != {state.candidate.revision: 100}:
        return None
    if state.step and not (world.plan.is_last(state.step) and _is_over(state, world)):
        return None
    was = () if state.stable is None else (Draining(revision=state.stable.revision),)
    return replace(
        state,
        stable=state.candidate,
        candidate=None,
        weight=0,
        rollout=None,
        draining=(*state.draining, *was),
        history=_ended(state, world, state.candidate, "Served"),
    )


def _may_go_on(state: State, world: World) -> bool:
    """Tell whether nothing but pods keeps the candidate from its next step."""
    if world.target is None:
        return False
    return not state.weight if not state.step else not world.plan.is_last(state.step) and _is_over(state, world)


def _is_over(state: State, world: World) -> bool:
    """Tell whether the step under way has lasted its hold and the candidate passed it."""
    step = world.plan.step(state.step)
    if state.rollout is None or state.rollout.step_since is None or _held_seconds(state, world) < step.hold_seconds:
        return False
    return not step.judged or world.judgement.verdict == Verdict.PASS


def _held_seconds(state: State, world: World) -> float:
    """Answer how long the step under way has lasted; 0 before its weight is live."""
    return world.since(state.rollout.step_since) if state.rollout is not None and state.rollout.step_since else 0.0


def replicas(state: State, world: World, revision: str) -> int:
    """Answer a revision's replicas: stable's are full to the end, so that it can take all back at once.

    The candidate's are enough for its next step, so that they are there before its weight is. One that drains keeps what it
    has: its requests are not over.
    """
    if any(entry.revision == revision for entry in state.draining):
        return world.seen(revision).replicas
    if state.stable is None or state.candidate is None or revision != state.candidate.revision:
        return world.replicas
    weight = max(state.weight, world.plan.step(state.step + 1).weight)
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
    """Answer the state after all rules, with what every router gives the candidate."""
    for rule in RULES:
        state = rule(state, world) or state
    if state.rollout is not None and state.candidate is not None:
        live = (world.routes.live or {}).get(state.candidate.revision, 0)
        state = replace(state, rollout=state.rollout.model_copy(update={"live_weight": live}))
    return state


def wake_after(state: State, world: World) -> float | None:
    """Answer in how many seconds time alone may change the decision, None where only events can."""
    waits: list[float] = []
    if state.candidate is not None and state.rollout is not None and state.stable is not None and not state.step:
        waits.append(world.deadline_seconds - world.since(state.rollout.since))
    if state.stable is not None and state.step and not world.plan.is_last(state.step):
        waits.append(JUDGE_SECONDS)
    waits += [IDLE_SECONDS - world.since(entry.since) for entry in state.draining if entry.since is not None]
    soonest = min(waits, default=math.inf)
    return max(soonest, 0.5) if math.isfinite(soonest) else None
