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
from collections.abc import Callable
from dataclasses import replace

from slipway.api.status import Draining, RolloutStatus
from slipway.core.clock import stamp, stamp_up
from slipway.core.plan import Verdict, replicas_for
from slipway.core.state import State, World, ended, failed_with, withdraw
from slipway.core.verbs import aim, obey, unpin

# How often a step under way is looked at: measurements come without an event.
JUDGE_SECONDS = 1.0
# A router's count of requests in flight is as old as its scrape: an idle revision is believed after this long.
IDLE_SECONDS = 3.0
# Requests in flight end by their timeout. What a stuck count says after this much more is not waited for.
DRAIN_MARGIN_SECONDS = 5.0


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
    return replace(withdraw(state), history=ended(state, world, state.candidate, "Cancelled", _rolled_back(state)))


def supersede(state: State, world: World) -> State | None:
    """The spec asks for a third revision: the candidate is withdrawn, stable stays stable."""
    if world.target is None or state.candidate is None or world.target.revision == state.candidate.revision:
        return None
    return replace(withdraw(state), history=ended(state, world, state.candidate, "Superseded", _rolled_back(state)))


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
    return failed_with(state, world, reason, message)


def judge(state: State, world: World) -> State | None:
    """The candidate failed its checks, or could not be measured by the step's deadline: it is withdrawn."""
    if state.stable is None or state.candidate is None or not world.plan.step(state.step).judged or not state.weight:
        return None
    if state.rollout is not None and state.step <= state.rollout.forced:
        return None
    judgement = world.judgement
    if judgement.verdict == Verdict.FAIL:
        return failed_with(state, world, judgement.reason, judgement.message)
    paused = state.rollout is not None and state.rollout.paused
    overdue = not paused and _waited_seconds(state, world) >= world.plan.step_seconds
    if judgement.verdict == Verdict.WAIT and overdue:
        message = f"step {state.step} found no clear result within {world.plan.step_seconds:g} s: {judgement.message}"
        return failed_with(state, world, judgement.reason, message)
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
    return failed_with(state, world, reason, message)


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
        history=ended(state, world, state.candidate, "Served", _served_by(state)),
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
