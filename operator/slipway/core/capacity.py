"""How many pods each revision has, so that every request finds one: stable, candidates, and those that drain."""

from slipway.core.plan import Step, replicas_for
from slipway.core.state import Candidate, State, World
from slipway.core.step import asked, at_step, next_number, pods_for
from slipway.core.verbs import aim


def has_room(state: State, world: World) -> bool:
    """Tell whether stable may take all requests back from candidates that have not failed: it has its pods again."""
    if state.stable is None or not state.weight:
        return True
    seen = world.seen(state.stable.revision)
    if not world.plan.proportional and seen.replicas >= world.replicas:
        return True
    return min(seen.ready, world.routes.healthy(state.stable.revision)) >= world.replicas


def replicas(state: State, world: World, revision: str) -> int:
    """Answer a revision's replicas.

    Stable's are full to the end, so that it can take all back at once; where the resource asks for that, those of the larger of
    its shares asked and live. A candidate's are enough for its step and the next, so that they are there before its weight is.
    One that drains keeps what it has: its requests are not over.
    """
    if any(entry.revision == revision for entry in state.draining):
        return world.seen(revision).replicas
    if state.stable is not None and not state.candidates:
        return world.full(revision) or _sleeping(revision, world)
    world = aim(state, world).awake
    if state.stable is None:
        return world.full(revision)
    if revision == state.stable.revision:
        return _proportional(state, world) if world.plan.proportional else world.replicas
    candidate = next(each for each in state.candidates if each.revision == revision)
    need = _needed(candidate, state, world)
    if world.scaling is not None:  # nothing is scaled down during a rollout
        need = max(need, min(world.seen(revision).replicas, world.full(revision)))
    return _while_moving(need, revision, state, world)


def _sleeping(revision: str, world: World) -> int:
    """Answer the replicas of stable where nobody asks: as many as there are until every router holds requests for it."""
    return 0 if world.routes.hold and world.routes.live is not None else world.seen(revision).replicas


def _needed(candidate: Candidate, state: State, world: World) -> int:
    full = world.full(candidate.revision)
    has = Step(candidate.weight).pods(full)
    if state.rollout is not None and state.rollout.weight_set is not None:
        return max(has, Step(state.rollout.weight_set).pods(full))
    numbers = [next_number(state, world), *([state.step] if state.step else [])]
    mine = [(each, number) for number in numbers for each in at_step(state, world, number) if each.revision == candidate.revision]
    return max(has, *(pods_for(each, state, world, number) for each, number in mine), 1)


def _proportional(state: State, world: World) -> int:
    """Answer stable's replicas for its share; all, where it is to take all back from a candidate that has not failed."""
    assert state.stable is not None  # noqa: S101 - the caller checked it
    if world.target is not None and not asked(state, world).issuperset(each.revision for each in state.candidates):
        return world.replicas
    return _while_moving(replicas_for(100 - state.weight, world.replicas), state.stable.revision, state, world)


def _while_moving(need: int, revision: str, state: State, world: World) -> int:
    """Answer the replicas: while routers move, no fewer than there are."""
    moved = world.routes.does(state.weights, world.routes.steering)
    return need if moved else max(need, world.seen(revision).replicas)
