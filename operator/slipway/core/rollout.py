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
from datetime import timedelta

from slipway.api.status import Draining, RolloutStatus
from slipway.core.clock import stamp, stamp_up
from slipway.core.plan import Step, Verdict, replicas_for
from slipway.core.state import State, World, ended, failed_with, withdraw
from slipway.core.verbs import aim, obey, unpin

# How often a step under way is looked at.
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
    if not _has_room(state, world):
        return None
    return replace(withdraw(state), history=ended(state, world, state.candidate, "Cancelled", _rolled_back(state)))


def supersede(state: State, world: World) -> State | None:
    """The spec asks for a third revision: the candidate is withdrawn, stable stays stable."""
    if world.target is None or state.candidate is None or world.target.revision == state.candidate.revision:
        return None
    if not _has_room(state, world):
        return None
    return replace(withdraw(state), history=ended(state, world, state.candidate, "Superseded", _rolled_back(state)))


def _has_room(state: State, world: World) -> bool:
    """Tell whether stable may take all requests back from a candidate that has not failed: it has its pods again."""
    if state.stable is None or not state.weight:
        return True
    seen = world.seen(state.stable.revision)
    if not world.plan.proportional and seen.replicas >= world.replicas:
        return True
    return min(seen.ready, world.routes.healthy(state.stable.revision)) >= world.replicas


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
    """The candidate failed its checks, or could not be measured by the step's deadline."""
    if state.stable is None or state.candidate is None or state.rollout is None or not state.step:
        return None
    if not world.plan.step(state.step).judged or state.step <= state.rollout.forced or state.rollout.paused_reason:
        return None
    judgement = world.judgement
    if judgement.verdict == Verdict.FAIL:
        return _refuse(state, world, judgement.reason, judgement.message)
    overdue = not state.rollout.paused and _waited_seconds(state, world) >= world.plan.step_seconds
    if judgement.verdict == Verdict.WAIT and overdue:
        message = f"step {state.step} found no clear result within {world.plan.step_seconds:g} s: {judgement.message}"
        return _refuse(state, world, judgement.reason, message)
    return None


def fail(state: State, world: World) -> State | None:
    """The candidate's pods for the next step were not ready by the deadline, where something else serves."""
    if state.stable is None or state.candidate is None or state.rollout is None or not _may_go_on(state, world):
        return None
    if _has_pods(state, world, _next(state, world)):
        return None  # nobody looked for long, or it took long to pass: that is no fault of its pods
    if _waited_seconds(state, world) < world.deadline_seconds:
        return None
    symptom = world.seen(state.candidate.revision).symptom
    reason = symptom.reason if symptom else "ProgressDeadlineExceeded"
    message = symptom.message if symptom else f"not ready within {world.deadline_seconds:g} s"
    return _refuse(state, world, reason, message)


def _refuse(state: State, world: World, reason: str, message: str) -> State:
    """Withdraw the candidate; or where the resource asks for that, pause the rollout as it is until somebody decides."""
    if not world.plan.pauses or state.rollout is None:
        return failed_with(state, world, reason, message)
    paused = {"paused": True, "paused_reason": reason, "paused_message": message}
    return replace(state, rollout=state.rollout.model_copy(update=paused))


def align(state: State, world: World) -> State | None:
    """The plan changed in the middle: the step under way is the one of the candidate's weight, and has lasted as long."""
    if state.stable is None or state.rollout is None or not state.step or world.target is None:
        return None
    steps = len(world.plan.steps)
    fits = state.rollout.steps == steps and state.weight in (world.plan.step(state.step).weight, state.rollout.weight_set)
    step = state.step if fits else world.plan.number(state.weight)
    if (state.step, state.rollout.steps) == (step, steps):
        return None
    moved = {name: max(getattr(state.rollout, name) + step - state.step, 0) for name in ("forced", "released")}
    return replace(state, rollout=state.rollout.model_copy(update={"step": step, "steps": steps, **moved}))


def settle(state: State, world: World) -> State | None:
    """What the step asks of the routers is live in every one: the step begins now."""
    if state.rollout is None or not state.step or state.rollout.step_since is not None:
        return None
    if world.target is None or not world.routes.does(state.weights, state.steering(world.plan)):
        return None
    return replace(state, rollout=state.rollout.model_copy(update={"step_since": stamp_up(world.now)}))


def set_weight(state: State, world: World) -> State | None:
    """Somebody set the candidate's weight by hand: it gets it once it has pods enough for it, and keeps it until resumed."""
    if state.stable is None or state.candidate is None or state.rollout is None or world.target is None:
        return None
    weight = state.rollout.weight_set
    if weight is None or (weight == state.weight and state.step):
        return None
    if weight > state.weight and not _has_pods(state, world, Step(weight)):
        return None
    return _begin_step(replace(state, weight=weight), state.rollout, world.plan.number(weight), world)


def advance(state: State, world: World) -> State | None:
    """The step is over and pods enough are ready, and seen by every router, for the next one: the candidate gets its weight.

    Where nothing serves yet, the first ready pod serves.
    """
    if state.candidate is None or state.rollout is None or not _may_go_on(state, world):
        return None
    step = _next(state, world)
    if not _has_pods(state, world, step):
        return None
    return _begin_step(replace(state, weight=step.weight), state.rollout, _next_number(state, world), world)


def _begin_step(state: State, was: RolloutStatus, number: int, world: World) -> State:
    begun = {"step": number, "steps": len(world.plan.steps), "step_since": None}
    return replace(state, rollout=was.model_copy(update=begun))


def promote(state: State, world: World) -> State | None:
    """The candidate has all requests in every router and its last step is over: it is stable, and what was stable drains."""
    if state.candidate is None or world.routes.live != {state.candidate.revision: 100}:
        return None
    if state.stable is not None and state.step and (world.target is None or not _is_over(state, world)):
        return None
    if state.stable is not None and state.rollout is not None and state.rollout.paused:
        return None
    until = stamp_up(world.now + timedelta(seconds=world.plan.keep_seconds)) if world.plan.keep_seconds else None
    was = () if state.stable is None else (Draining(revision=state.stable.revision, until=until),)
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
    if state.candidate is None or world.target.revision != state.candidate.revision:
        return False  # it is on its way out
    return not state.weight if not state.step else state.weight < 100 and _is_over(state, world)


def _next_number(state: State, world: World) -> int:
    """Answer the number of the next step: where nothing serves yet, the last."""
    return len(world.plan.steps) if state.stable is None else world.plan.after(state.step, state.weight)


def _next(state: State, world: World) -> Step:
    return world.plan.step(_next_number(state, world))


def _has_pods(state: State, world: World, step: Step) -> bool:
    """Tell whether the candidate has pods enough for a step, ready and seen by every router."""
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    need = 1 if state.stable is None else step.pods(world.replicas)
    return min(world.seen(state.candidate.revision).ready, world.routes.healthy(state.candidate.revision)) >= need


def _is_over(state: State, world: World) -> bool:
    """Tell whether the step under way has lasted its hold, the candidate passed it, and nobody's word is waited for."""
    step, rollout = world.plan.step(state.step), state.rollout
    if rollout is None or rollout.step_since is None:
        return False
    if state.step <= rollout.forced:
        return True
    pause = 0.0 if state.step <= rollout.released else step.pause_seconds
    if _held_seconds(state, world) < step.hold_seconds + pause:
        return False
    return not step.judged or world.judgement.verdict == Verdict.PASS


def awaits_word(state: State, world: World) -> bool:
    """Tell whether the step under way is over but for its pause."""
    step, rollout = world.plan.step(state.step), state.rollout
    if (
        rollout is None
        or rollout.step_since is None
        or not step.pause_seconds
        or state.step <= max(rollout.forced, rollout.released)
    ):
        return False
    held = step.hold_seconds <= _held_seconds(state, world) < step.hold_seconds + step.pause_seconds
    return held and (not step.judged or world.judgement.verdict == Verdict.PASS)


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
        step = world.plan.step(state.step)
        pause = step.pause_seconds if math.isfinite(step.pause_seconds) and state.step > state.rollout.released else 0.0
        waited = _held_seconds(state, world) - step.hold_seconds - pause
    return waited if state.rollout.resumed is None else min(waited, world.since(state.rollout.resumed))


def replicas(state: State, world: World, revision: str) -> int:
    """Answer a revision's replicas.

    Stable's are full to the end, so that it can take all back at once; where the resource asks for that, those of the larger of
    its shares asked and live. The candidate's are enough for its step and the next, so that they are there before its weight is.
    One that drains keeps what it has: its requests are not over.
    """
    if any(entry.revision == revision for entry in state.draining):
        return world.seen(revision).replicas
    if state.stable is None or state.candidate is None:
        return world.replicas
    world = aim(state, world)
    if revision == state.stable.revision:
        return _proportional(state, world) if world.plan.proportional else world.replicas
    steps = [_next(state, world), world.plan.step(state.step)] if state.step else [_next(state, world)]
    if state.rollout is not None and state.rollout.weight_set is not None:
        steps = [Step(state.rollout.weight_set)]
    need = max(Step(state.weight).pods(world.replicas), *(step.pods(world.replicas) for step in steps))
    return _while_moving(need, revision, state, world)


def _proportional(state: State, world: World) -> int:
    """Answer stable's replicas for its share; all, where it is to take all back from a candidate that has not failed."""
    assert state.stable is not None  # noqa: S101 - the caller checked it
    assert state.candidate is not None  # noqa: S101 - the caller checked it
    if world.target is not None and world.target.revision != state.candidate.revision:
        return world.replicas
    return _while_moving(replicas_for(100 - state.weight, world.replicas), state.stable.revision, state, world)


def _while_moving(need: int, revision: str, state: State, world: World) -> int:
    """Answer the replicas: while routers move, no fewer than there are."""
    moved = world.routes.does(state.weights, world.routes.steering)
    return need if moved else max(need, world.seen(revision).replicas)


def drain(state: State, world: World) -> State | None:
    """A revision whose weight 0 is live in every router leaves once it is idle, or its requests must have timed out."""
    kept = tuple(entry for entry in (_drained(entry, world) for entry in state.draining) if entry is not None)
    return None if kept == state.draining else replace(state, draining=kept)


def _drained(entry: Draining, world: World) -> Draining | None:
    if entry.since is None:
        unreachable = world.routes.settled and not world.routes.names(entry.revision)
        return entry.model_copy(update={"since": stamp(world.now)}) if unreachable else entry
    if entry.until is not None and world.since(entry.until) < 0:
        return entry
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
    set_weight,
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
        shown["trial"] = world.judgement.trial or state.rollout.trial
        shown["mirror"] = state.steering(world.plan).mirror
    return replace(state, rollout=state.rollout.model_copy(update=shown))


def wake_after(state: State, world: World) -> float | None:
    """Answer in how many seconds time alone may change the decision, None where only events can."""
    waits: list[float] = []
    world = aim(state, world)
    trying = state.candidate is not None and state.stable is not None and not state.step
    if trying and state.rollout is not None and not state.rollout.paused:
        waits.append(world.deadline_seconds - _waited_seconds(state, world))
    if state.stable is not None and state.step:
        waits.append(_step_wait(state, world))
    for entry in state.draining:
        if entry.since is not None:
            kept = 0.0 if entry.until is None else -world.since(entry.until)
            waits.append(max(IDLE_SECONDS - world.since(entry.since), kept))
    soonest = min(waits, default=math.inf)
    return max(soonest, 0.5) if math.isfinite(soonest) else None


def _step_wait(state: State, world: World) -> float:
    """Answer in how many seconds the step under way is to be looked at: measurements come without an event."""
    step, held = world.plan.step(state.step), _held_seconds(state, world)
    if step.judged or state.rollout is None or state.rollout.step_since is None:
        return JUDGE_SECONDS
    left = step.hold_seconds - held
    left = left if left > 0 else left + step.pause_seconds
    return left if left > 0 else JUDGE_SECONDS
