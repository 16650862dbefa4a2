"""One sequence of changes in the simulated cluster, and what must hold of it."""

from typing import Any

from tests.transitions.same import differences, state
from tests.transitions.specs import Change, Spec
from tests.transitions.world import NAME, NAMESPACE, World

from slipway.api.status import ConditionType


def check(changes: list[Change]) -> None:
    """Apply the changes one after the other.

    A wrong one leaves what serves untouched, and once it is taken back all is as it was. In the end everything is as after a
    fresh apply of the last spec.
    """
    world = World()
    served: Spec | None = None
    for change in changes:
        if change.right:
            world.put(change.spec)
            served = change.spec
        else:
            _apply_wrong(world, change, served)
        if change.rests:
            world.rest()
        else:
            world.turns(change.turns)
        _answers(world)
    world.rest()
    last = changes[-1].spec
    _same(_state(world, last), _state(_fresh(last), last))


def _apply_wrong(world: World, change: Change, served: Spec | None) -> None:
    if change.rests and served is not None:
        world.rest()
    rested = change.rests and served is not None
    before, children = world.status, {child["metadata"]["uid"]: child for child in world.children()}
    world.put(change.spec)
    if change.rests:
        world.rest()
    else:
        world.turns(max(change.turns, 2))
    after = world.status
    assert any(each.type == ConditionType.SPEC_VALID and each.status == "False" for each in after.conditions)
    if before.stable is not None:
        assert after.stable is not None
        weights = [(role.revision, role.weight) for role in (before.stable, before.candidate) if role is not None]
        assert weights == [(role.revision, role.weight) for role in (after.stable, after.candidate) if role is not None]
    if rested:
        touched = differences({child["metadata"]["uid"]: child for child in world.children()}, children)
        assert not touched, "a wrong spec changed something:\n" + "\n".join(touched)
    _answers(world)
    if served is None:
        return
    world.put(served)
    if rested:
        world.rest()
        _same(_state(world, served), state(served, before, children.values(), NAMESPACE))


def _answers(world: World) -> None:
    """Every revision that the routers send requests to has a ready pod that they know."""
    routes = world.reconciler.routers.seen(NAMESPACE, NAME)
    for revision in routes.written:
        assert routes.healthy(revision), f"requests go to {revision}, which has no pod"
    status = world.status
    if status.stable is not None and status.stable.weight and routes.live is not None:
        assert sum(routes.written.values()) == 100


def _fresh(spec: Spec) -> World:
    world = World()
    world.put(spec)
    world.rest()
    return world


def _state(world: World, spec: Spec) -> dict[str, Any]:
    return state(spec, world.status, world.children(), NAMESPACE)


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert not (different := differences(found, wanted)), "\n".join(different)
    assert found["status"]["stable"] is not None
