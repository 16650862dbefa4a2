"""What people ask of a rollout by hand: each request in status is obeyed once, before any rule of the policy."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace

from slipway.api.status import HistoryEntry, Pinned, Request, Verb
from slipway.core.clock import stamp
from slipway.core.plan import IMMEDIATE, NOBODY_JUDGED, Plan
from slipway.core.state import State, World, failed_with
from slipway.core.step import contender


def obey(state: State, world: World) -> State | None:
    """Somebody asked for something (`kubectl slipway`): it is done once. What makes no sense now is passed over."""
    request = state.request
    if request is None or request.at == state.handled:
        return None
    state = replace(state, handled=request.at)
    return _VERBS[request.verb](state, world, request) or state


def _promote_on_request(state: State, world: World, request: Request) -> State | None:
    """The step under way counts as passed; with `full` all that are left. Of several candidates one is named, or has passed."""
    if state.candidate is None or state.rollout is None:
        return None
    chosen = request.revision or next((each.revision for each in [contender(state, world)] if each is not None), None)
    if chosen not in [each.revision for each in state.candidates]:
        return None
    forced = len(world.plan.steps) if request.full else max(state.step, 1)
    return _resumed(state, world, {"forced": forced, "forced_by": request.by, "chosen": chosen})


def _abort_on_request(state: State, world: World, request: Request) -> State | None:
    """The candidate is withdrawn."""
    if state.candidate is None or state.stable is None:
        return None
    if world.target is not None and world.target.revision == state.stable.revision:
        state = replace(state, pinned=None)  # it was a rollback that is called off: the spec's revision serves all along
    return failed_with(state, world, "Aborted", f"aborted by {request.by or 'request'}")


def _pause_on_request(state: State, world: World, request: Request) -> State | None:
    """No step begins until Resume or Promote. Where nothing serves yet there is no step, and nothing to hold back."""
    if state.candidate is None or state.stable is None or state.rollout is None:
        return None
    return replace(state, rollout=state.rollout.model_copy(update={"paused": True}))


def _resume_on_request(state: State, world: World, request: Request) -> State | None:
    """Steps begin again. Where a step waits for a word, this is one; what failed is judged anew."""
    if state.candidate is None or state.rollout is None:
        return None
    if not state.rollout.paused:
        return _resumed(state, world, {"released": state.step})
    return _resumed(state, world, {"judged_since": stamp(world.now)} if state.rollout.paused_reason else {})


def _set_weight_on_request(state: State, world: World, request: Request) -> State | None:
    """The only candidate gets that weight as soon as it has pods enough, and keeps it until Resume or Promote."""
    if len(state.candidates) != 1 or state.stable is None or state.rollout is None or request.weight is None:
        return None
    return replace(state, rollout=state.rollout.model_copy(update={"paused": True, "weight_set": request.weight}))


def _resumed(state: State, world: World, update: dict[str, object]) -> State | None:
    """Answer the state with a rollout that goes on: its deadlines count from now."""
    if state.rollout is None:
        return None
    ended = {"paused": False, "paused_reason": None, "paused_message": None, "weight_set": None, "resumed": stamp(world.now)}
    return replace(state, rollout=state.rollout.model_copy(update={**ended, **update}))


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
    Verb.SET_WEIGHT: _set_weight_on_request,
}


def unpin(state: State, world: World) -> State | None:
    """The spec asks for another revision than the one that was rolled back from, or the pinned one is no longer kept."""
    if state.pinned is None or world.target is None:
        return None
    kept = state.pinned.revision in world.known
    return None if kept and world.target.revision == state.pinned.instead_of else replace(state, pinned=None)


def plan_in_force(state: State, plan: Plan) -> Plan:
    """Answer the plan that is followed: a pinned revision takes over at once, and an arm that is stable is no candidate."""
    if state.pinned is not None:
        return IMMEDIATE
    return plan if state.stable is None else plan.without(state.stable.revision)


def aim(state: State, world: World) -> World:
    """Answer the world as the rules see it: a pinned revision is what is asked for."""
    plan = plan_in_force(state, world.plan)
    if state.pinned is None:
        return world if plan is world.plan else replace(world, plan=plan)
    if world.target is None or state.pinned.revision not in world.known:
        return world
    return replace(world, target=world.known[state.pinned.revision], plan=plan, judged=NOBODY_JUDGED)
