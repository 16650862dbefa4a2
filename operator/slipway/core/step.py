"""The step under way and the next one: what each candidate gets, what is measured, how long it has lasted, whether it is over."""

import math
from dataclasses import replace

from slipway.core.plan import Judgement, Verdict
from slipway.core.state import Candidate, State, World


def asked(state: State, world: World) -> set[str]:
    """Answer the revisions that the spec wants tried; a first one has nothing to be compared with, and is alone."""
    arms = world.plan.arms if state.stable is not None else ()
    return {each.revision for each in (world.target, *(arm.target for arm in arms)) if each is not None}


def contender(state: State, world: World) -> Candidate | None:
    """Answer the candidate that goes on: the only one; of several the one that somebody chose, or that passed."""
    if len(state.candidates) == 1 or state.rollout is None:
        return next(iter(state.candidates), None)
    chosen = [each for each in state.candidates if each.revision == state.rollout.chosen]
    passed = [each for each in state.candidates if world.judged.of(each.revision).verdict == Verdict.PASS]
    return next(iter(chosen or passed), None)


def verdict(state: State, world: World) -> Judgement:
    """Answer the verdict on the step under way: that on the candidate that goes on; without one, what each waits for."""
    one = contender(state, world)
    if one is not None:
        return world.judged.of(one.revision)
    waiting = {each.revision: world.judged.of(each.revision) for each in state.candidates}
    message = "; ".join(f"{revision}: {judgement.message}" for revision, judgement in waiting.items())
    return Judgement(Verdict.WAIT, next(iter(waiting.values())).reason, message)


def next_number(state: State, world: World) -> int:
    """Answer the number of the next step: where nothing serves yet, the last."""
    return len(world.plan.steps) if state.stable is None else world.plan.after(state.step, state.given)


def at_step(state: State, world: World, number: int) -> tuple[Candidate, ...]:
    """Answer the candidates as a step has them: each with its share, or the one that goes on with all; nobody where none does."""
    step = world.plan.step(number)
    if step.weight < 100:
        return tuple(replace(each, weight=world.plan.share(each.revision, step)) for each in state.candidates)
    one = contender(state, world)
    return (replace(one, weight=100),) if one is not None else ()


def pods_for(candidate: Candidate, state: State, world: World, number: int) -> int:
    """Answer how many pods a candidate needs for a step, with the weight that it has there."""
    if state.stable is None:
        return 1
    return replace(world.plan.step(number), weight=candidate.weight).pods(world.full(candidate.revision))


def without_pods(state: State, world: World, number: int) -> list[str]:
    """Answer the candidates that a step has and that lack pods for it, ready and seen by every router."""
    return [
        each.revision
        for each in at_step(state, world, number)
        if min(world.seen(each.revision).staying, world.routes.healthy(each.revision)) < pods_for(each, state, world, number)
    ]


def may_go_on(state: State, world: World) -> bool:
    """Tell whether nothing but pods keeps the candidates from their next step."""
    if world.target is None or state.rollout is None or state.rollout.paused or not state.candidates:
        return False
    if not asked(state, world).issuperset(each.revision for each in state.candidates):
        return False  # they are on their way out
    return not state.weight if not state.step else state.weight < 100 and is_over(state, world)


def is_over(state: State, world: World) -> bool:
    """Tell whether the step under way has lasted its hold, a candidate passed it, and nobody's word is waited for."""
    step, rollout = world.plan.step(state.step), state.rollout
    if rollout is None or rollout.step_since is None:
        return False
    if state.step <= rollout.forced:
        return True
    pause = 0.0 if state.step <= rollout.released else step.pause_seconds
    if held_seconds(state, world) < step.hold_seconds + pause:
        return False
    return not step.judged or verdict(state, world).verdict == Verdict.PASS


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
    held = step.hold_seconds <= held_seconds(state, world) < step.hold_seconds + step.pause_seconds
    return held and (not step.judged or verdict(state, world).verdict == Verdict.PASS)


def held_seconds(state: State, world: World) -> float:
    """Answer how long the step under way has lasted; 0 before its weight is live."""
    if state.rollout is None or state.rollout.step_since is None:
        return 0.0
    return max(world.since(state.rollout.step_since), 0.0)  # its beginning was rounded up


def waited_seconds(state: State, world: World) -> float:
    """Answer how long the next step has been waited for: since the candidate was made, its step's hold, or a pause was over."""
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    waited = world.since(state.rollout.since)
    if state.step:
        step = world.plan.step(state.step)
        pause = step.pause_seconds if math.isfinite(step.pause_seconds) and state.step > state.rollout.released else 0.0
        waited = held_seconds(state, world) - step.hold_seconds - pause
    return waited if state.rollout.resumed is None else min(waited, world.since(state.rollout.resumed))
