"""The rollout policy: which revision serves, which is tried, which leaves.

`decide` runs the rules of `RULES` in order over the state that status holds. Each rule answers the state after it, or None
where it does not apply. What never breaks, whatever the rules do (tests/unit/test_rollout_laws.py):

1. weights sum to 100 once anything serves, and only a revision that every router sees ready gets some;
2. a revision loses its pods only after its weight 0 is live in every router and its requests are answered;
3. without a target (the spec is invalid) no step begins and nothing changes roles;
4. a step begins when its weight is live in every router, which status remembers, and never ends before its hold; where
   the plan changes meanwhile, the rollout goes on from the weight that it has;
5. a candidate gets more weight only with ready pods enough for it, and with a verdict that it passed: none is not one;
6. of several candidates one that fails goes alone: the others keep their weight, and stable has its share.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from slipway.api.status import Draining, Pinned, RolloutStatus
from slipway.core.capacity import has_room
from slipway.core.clock import stamp, stamp_up
from slipway.core.plan import Step, Verdict
from slipway.core.state import Candidate, State, World, checks_of, drop, ended, failed_with, tried, withdraw
from slipway.core.step import asked, at_step, held_seconds, is_over, may_go_on, next_number, verdict, waited_seconds, without_pods
from slipway.core.symptoms import PATIENCE_SECONDS
from slipway.core.trial import enrolled, joined
from slipway.core.verbs import aim, obey, unpin

# How often a step under way is looked at.
JUDGE_SECONDS = 1.0
# A router's count of requests in flight is as old as its scrape: an idle revision is believed after this long.
IDLE_SECONDS = 3.0
# Requests in flight end by their timeout. What a stuck count says after this much more is not waited for.
DRAIN_MARGIN_SECONDS = 5.0


def recover(state: State, world: World) -> State | None:
    """Status was lost (a backup restores none): what the routers serve is stable, the rest follows from the spec.

    Of those that serve, what the spec asks for is tried, whatever its weight: it has not passed.
    """
    if state.stable or state.candidates or not world.routes.written:
        return None
    mine = {arm.target.revision for arm in world.plan.arms} | {each.revision for each in [world.target] if each is not None}
    serving = max(world.routes.written, key=lambda revision: (revision not in mine, world.routes.written[revision]))
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
    """The spec returned to stable: what is tried is withdrawn at once, and a failure is forgotten."""
    if world.target is None or state.stable is None or world.target.revision != state.stable.revision:
        return None
    if not state.candidates:
        return replace(state, rollout=None) if state.rollout else None
    if not has_room(state, world):
        return None
    return replace(withdraw(state), history=ended(state, world, tried(state), "Cancelled", _rolled_back(state)))


def supersede(state: State, world: World) -> State | None:
    """The spec asks for a third revision, or for other arms: what is tried is withdrawn, stable stays stable."""
    if world.target is None or state.rollout is None or not state.candidates:
        return None
    arms = state.rollout.trial.arms if state.rollout.trial is not None else ()
    had = {each.revision for each in arms or tried(state)}
    if asked(state, world) == had or not has_room(state, world):
        return None
    return replace(withdraw(state), history=ended(state, world, tried(state), "Superseded", _rolled_back(state)))


def _rolled_back(state: State) -> str | None:
    """Say who rolled back, where a pinned revision is what is asked for."""
    return None if state.pinned is None else f"rolled back by {state.pinned.by or 'request'}"


def begin(state: State, world: World) -> State | None:
    """The spec asks for a revision that has no role, and that did not fail already: it becomes the candidate, beside its arms."""
    target = world.target
    if target is None or state.candidates:
        return None
    if state.stable is not None and state.stable.revision == target.revision:
        return None
    if state.rollout is not None and state.rollout.outcome and state.rollout.revision == target.revision:
        return None
    arms = [arm.target for arm in world.plan.arms] if state.stable is not None else []
    candidates = tuple(Candidate(each) for each in (target, *arms))
    return replace(
        state,
        candidates=candidates,
        rollout=RolloutStatus(revision=target.revision, since=stamp(world.now)),
        draining=tuple(entry for entry in state.draining if entry.revision not in [each.revision for each in candidates]),
    )


def enrol(state: State, world: World) -> State | None:
    """The rollout is an A/B test: whose are which callers is written down, for that stays so whatever becomes of an arm."""
    if world.plan.trial is None or state.stable is None or state.rollout is None or not state.candidates:
        return None
    if state.rollout.trial is not None and state.rollout.trial.arms:
        return None
    step = world.plan.step(1)
    arms = [(each, world.plan.share(each.revision, step)) for each in tried(state)]
    return replace(state, rollout=state.rollout.model_copy(update={"trial": enrolled(arms)}))


def lose(state: State, world: World) -> State | None:
    """A candidate has weight and no ready pod any more: stable takes its share back at once."""
    if state.stable is None:
        return None
    gone = [each.revision for each in state.candidates if each.weight and not world.seen(each.revision).ready]
    after = state
    for revision in gone:
        symptom = world.seen(revision).symptom
        reason, message = (symptom.reason, symptom.message) if symptom else ("NoReadyPod", "its last ready pod is gone")
        after = drop(after, world, revision, reason, message)
    return after if gone else None


def judge(state: State, world: World) -> State | None:
    """A candidate failed its checks, or none could be measured by the step's deadline."""
    if state.stable is None or not state.candidates or state.rollout is None or not state.step:
        return None
    if not world.plan.step(state.step).judged or state.step <= state.rollout.forced or state.rollout.paused_reason:
        return None
    failed = [each.revision for each in state.candidates if world.judged.of(each.revision).verdict == Verdict.FAIL]
    if failed:
        return _refuse(state, world, {revision: _why(world, revision) for revision in failed})
    told = verdict(state, world)
    overdue = not state.rollout.paused and waited_seconds(state, world) >= world.plan.step_seconds
    if told.verdict == Verdict.WAIT and overdue:
        message = f"step {state.step} found no clear result within {world.plan.step_seconds:g} s: {told.message}"
        return _paused_by(state, told.reason, message) if world.plan.pauses else failed_with(state, world, told.reason, message)
    return None


def _why(world: World, revision: str) -> tuple[str, str]:
    judgement = world.judged.of(revision)
    return judgement.reason, judgement.message


def fail(state: State, world: World) -> State | None:
    """A candidate's pods for the next step were not ready by the deadline, where something else serves."""
    if state.stable is None or not state.candidates or state.rollout is None or not may_go_on(state, world):
        return None
    if waited_seconds(state, world) < world.deadline_seconds:
        return None
    late: dict[str, tuple[str, str]] = {}
    # Nobody looked for long, or it took long to pass: that is no fault of those that have their pods.
    for revision in without_pods(state, world, next_number(state, world)):
        symptom = world.seen(revision).symptom
        message = symptom.message if symptom else f"not ready within {world.deadline_seconds:g} s"
        late[revision] = (symptom.reason if symptom else "ProgressDeadlineExceeded", message)
    return _refuse(state, world, late) if late else None


def _refuse(state: State, world: World, why: Mapping[str, tuple[str, str]]) -> State:
    """Withdraw candidates; or where the resource asks for that, pause the rollout as it is until somebody decides."""
    for revision, (reason, message) in why.items():
        if world.plan.pauses:
            return _paused_by(state, reason, message if len(state.candidates) == 1 else f"{revision}: {message}")
        state = drop(state, world, revision, reason, message)
    return state


def _paused_by(state: State, reason: str, message: str) -> State:
    assert state.rollout is not None  # noqa: S101 - the caller checked it
    paused = {"paused": True, "paused_reason": reason, "paused_message": message}
    return replace(state, rollout=state.rollout.model_copy(update=paused))


def align(state: State, world: World) -> State | None:
    """The plan changed in the middle: the step under way is the one of the weight that is given, and has lasted as long."""
    if state.stable is None or state.rollout is None or not state.step or world.target is None:
        return None
    steps = len(world.plan.steps)
    fits = state.rollout.steps == steps and state.given in (world.plan.step(state.step).weight, state.rollout.weight_set)
    step = state.step if fits else world.plan.number(state.given)
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
    if state.stable is None or len(state.candidates) != 1 or state.rollout is None or world.target is None:
        return None
    weight, (candidate,) = state.rollout.weight_set, state.candidates
    if weight is None or (weight == state.weight and state.step):
        return None
    ready = min(world.seen(candidate.revision).staying, world.routes.healthy(candidate.revision))
    if weight > state.weight and ready < Step(weight).pods(world.full(candidate.revision)):
        return None
    return _begin_step(state, (replace(candidate, weight=weight),), world.plan.number(weight), world)


def advance(state: State, world: World) -> State | None:
    """The step is over and pods enough are ready, and seen by every router, for the next one: the candidates get its weight.

    Where nothing serves yet, the first ready pod serves. Of several candidates one gets all, and the others leave.
    """
    if not may_go_on(state, world):
        return None
    number = next_number(state, world)
    candidates = at_step(state, world, number)
    if not candidates or without_pods(state, world, number):
        return None
    left = [each for each in tried(state) if each not in [each.target for each in candidates]]
    why = f"{candidates[0].revision} goes on alone"
    return replace(
        _begin_step(state, candidates, number, world),
        draining=(*state.draining, *(Draining(revision=each.revision) for each in left)),
        history=ended(state, world, left, "Superseded", why),
    )


def _begin_step(state: State, candidates: tuple[Candidate, ...], number: int, world: World) -> State:
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    begun = {"step": number, "steps": len(world.plan.steps), "step_since": None}
    return replace(state, candidates=candidates, rollout=state.rollout.model_copy(update=begun))


def promote(state: State, world: World) -> State | None:
    """The candidate has all requests in every router and its last step is over: it is stable, and what was stable drains."""
    if state.candidate is None or world.routes.live != {state.candidate.revision: 100}:
        return None
    if state.stable is not None and state.step and (world.target is None or not is_over(state, world)):
        return None
    if state.stable is not None and state.rollout is not None and state.rollout.paused:
        return None
    until = stamp_up(world.now + timedelta(seconds=world.plan.keep_seconds)) if world.plan.keep_seconds else None
    was = () if state.stable is None else (Draining(revision=state.stable.revision, until=until),)
    return replace(
        state,
        stable=state.candidate,
        candidates=(),
        rollout=None,
        draining=(*state.draining, *was),
        pinned=_won(state, world) or state.pinned,
        history=ended(state, world, [state.candidate], "Served", _served_by(state)),
    )


def _won(state: State, world: World) -> Pinned | None:
    """Answer that an arm serves instead of the spec's own revision, beside which it was tried; None where it is no arm."""
    if state.candidate is None or state.rollout is None or world.target is None:
        return None
    if world.target.revision != state.rollout.revision or state.candidate.revision == state.rollout.revision:
        return None
    return Pinned(revision=state.candidate.revision, instead_of=state.rollout.revision, at=stamp(world.now), won=True)


def _served_by(state: State) -> str | None:
    """Say who asked for what was promoted by request, not by its checks or for want of any."""
    rollout = state.rollout
    if rollout is None or not rollout.forced:
        return _rolled_back(state)
    steps = "" if rollout.forced >= rollout.steps else f" from step {rollout.forced}"
    return f"promoted{steps} by {rollout.forced_by or 'request'}"


def drain(state: State, world: World) -> State | None:
    """A revision whose weight 0 is live in every router leaves once it is idle, or its requests must have timed out."""
    kept = tuple(entry for entry in (_drained(entry, world) for entry in state.draining) if entry is not None)
    return None if kept == state.draining else replace(state, draining=kept)


def _drained(entry: Draining, world: World) -> Draining | None:
    if entry.since is None:
        unreachable = world.routes.settled and not world.routes.names(entry.revision)
        return entry.model_copy(update={"since": stamp(world.now)}) if unreachable else entry
    if world.routes.names(entry.revision):
        return entry.model_copy(update={"since": None})  # what another leader had sent before it died came late
    if entry.until is not None and world.since(entry.until) < 0:
        return entry
    waited = world.since(entry.since)
    idle = waited >= IDLE_SECONDS and world.routes.settled and world.routes.idle(entry.revision)
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
    enrol,
    lose,
    judge,
    fail,
    set_weight,
    advance,
    drain,
)


def decide(state: State, world: World) -> State:
    """Answer the state after all rules, with what every router gives the candidates and what is measured of them."""
    judged_since = state.rollout and state.rollout.judged_since
    for rule in (obey, unpin):
        state = rule(state, world) or state
    counts = (state.rollout and state.rollout.judged_since) == judged_since
    seen = world if counts else replace(world, judged=world.judged.anew())
    for rule in RULES:
        world = aim(state, seen).awake  # an arm that is promoted takes the place of what the spec asks for
        state = rule(state, world) or state
    world = aim(state, seen).awake
    if state.rollout is None:
        return state
    shown: dict[str, object] = {}
    if world.routes.live is not None:
        revisions = [each.revision for each in state.candidates] or [state.rollout.revision]
        shown["live_weight"] = sum(world.routes.live.get(revision, 0) for revision in revisions)
    if state.candidates:
        shown["checks"] = checks_of(state, world)
        shown["trial"] = joined(state.rollout.trial, world.judged.trial)
        shown["mirror"] = state.steering(world.plan).mirror
    return replace(state, rollout=state.rollout.model_copy(update=shown))


def wake_after(state: State, world: World) -> float | None:
    """Answer in how many seconds time alone may change the decision or what is told of it, None where only events can."""
    world = aim(state, world)
    waits = [PATIENCE_SECONDS] if _awaits_pods(state, world) else []
    trying = bool(state.candidates) and state.stable is not None and not state.step
    if trying and state.rollout is not None and not state.rollout.paused:
        waits.append(world.deadline_seconds - waited_seconds(state, world))
    if state.stable is not None and state.step:
        waits.append(_step_wait(state, world))
    for entry in state.draining:
        if entry.since is not None:
            kept = 0.0 if entry.until is None else -world.since(entry.until)
            waits.append(max(IDLE_SECONDS - world.since(entry.since), kept))
    soonest = min(waits, default=math.inf)
    return max(soonest, 0.5) if math.isfinite(soonest) else None


def _awaits_pods(state: State, world: World) -> bool:
    """Tell whether pods are on their way of which nothing is told yet: what takes so long is, in time."""
    if state.active and not world.routes.ready and world.routes.symptom is None:
        return True
    return any(seen.staying < seen.replicas and seen.symptom is None for seen in map(world.seen, state.active))


def _step_wait(state: State, world: World) -> float:
    """Answer in how many seconds the step under way is to be looked at: measurements come without an event."""
    step, held = world.plan.step(state.step), held_seconds(state, world)
    if step.judged or state.rollout is None or state.rollout.step_since is None:
        return JUDGE_SECONDS
    left = step.hold_seconds - held
    left = left if left > 0 else left + step.pause_seconds
    return left if left > 0 else JUDGE_SECONDS
