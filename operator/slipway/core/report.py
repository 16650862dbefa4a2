"""The status that tells the truth: phase and conditions, from the roles and what is seen. And the events of a transition."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from slipway.api.status import Condition, ConditionType, Phase, RevisionStatus, RolloutStatus, Status
from slipway.core import plan
from slipway.core.capacity import replicas
from slipway.core.clock import stamp
from slipway.core.observation import Symptom
from slipway.core.revision import Target
from slipway.core.routing import preview_name
from slipway.core.state import Candidate, State, World
from slipway.core.step import asked, awaits_word, contender, verdict
from slipway.core.verbs import aim

Verdict = tuple[bool | None, str, str]

# Reasons of a condition Ready that is on its way to True by itself: nobody need do anything.
STAGES = ("FetchingModel", "LoadingModel")
_UNCLEAR = {
    "InsufficientRequests",
    "MetricsStale",
    "CommonCause",
    "Unclear",
    "NoWinnerYet",
    "InsufficientAnswers",
    "CheckRunning",
    "CheckUnanswered",
}
# What is measured is not known: told at once, not only when the hold is over.
_UNKNOWN = ("MetricsStale", "CheckUnanswered")
_UNDER_WAY = {"WaitingForPods", *STAGES, "WaitingForRouters", "Shifting", "Holding", *_UNCLEAR, "Updating", "Scaling", "Waking"}


@dataclass(frozen=True)
class Subject:
    """Which ModelDeployment is reported on, and what is wrong with the resource itself or its children."""

    name: str
    namespace: str
    generation: int
    spec_error: Symptom | None = None
    hindrance: Symptom | None = None
    url: str = ""
    selector: str = ""
    unsafe: bool = False
    exposed: Verdict | None = None
    """Whether callers outside the cluster reach it; None where that is not asked for."""


def spec_valid(subject: Subject, state: State, world: World) -> Verdict:
    """Whether Slipway can read the spec."""
    if subject.spec_error:
        return False, subject.spec_error.reason, subject.spec_error.message
    return True, "Valid", "the spec is valid"


def available(subject: Subject, state: State, world: World) -> Verdict:
    """Whether callers get answers now, from whatever revision."""
    serving = [name for name, weight in world.routes.written.items() if weight]
    if not serving:
        return False, "NothingServes", "no revision is ready yet"
    if not world.routes.ready:
        return _no_router(subject, world)
    if _sleeps(state, world):
        return True, "ScaledToZero", f"{_list(serving)} has no pod, for nobody asks: the next request waits for a first one"
    down = [name for name in serving if not world.seen(name).ready]
    if down and world.routes.hold and not world.seen(down[0]).symptom:
        return False, "Waking", f"a first pod of {down[0]} is on its way: requests wait for it"
    if down:
        symptom = world.seen(down[0]).symptom
        why = f": {symptom.message}" if symptom else ""
        return False, symptom.reason if symptom else "NoReadyPod", f"{down[0]} has no ready pod{why}"
    unreached = [name for name in serving if not world.routes.reached(name)]
    if unreached and not world.routes.hold:
        return False, "WaitingForRouters", f"the routers do not see a ready pod of {unreached[0]} yet"
    return True, "Serving", f"{_list(serving)} answers requests"


def routes_live(subject: Subject, state: State, world: World) -> Verdict:
    """Whether every router does what was decided."""
    routes = world.routes
    if routes.config_error:
        return False, routes.config_error.reason, routes.config_error.message
    if not state.weights:
        return False, "NothingToRoute", "no revision is ready yet"
    if not routes.ready:
        return _no_router(subject, world)
    steering = state.steering(world.plan) if world.target is not None else routes.steering
    if routes.live is None or not routes.does(state.weights, steering):
        silent = [router.pod for router in routes.routers if router.ready and not router.answered]
        if silent:
            return None, "RouterSilent", f"{_list(silent)} does not answer on its statistics port"
        refusing = [router.pod for router in routes.routers if router.rejected and not routes.settled]
        if refusing:
            return False, "ConfigRejected", f"{_list(refusing)} refused a configuration and keeps the one before: see its log"
        return False, "Updating", "the routers are taking over the new weights"
    copied = f", and copies {steering.mirror}% to {steering.revision}" if steering.mirror else ""
    return True, "Live", f"every router gives {_weights(routes.live)}{copied}"


def progressing(subject: Subject, state: State, world: World) -> Verdict:
    """Whether a revision is on its way in."""
    if state.rollout is not None and state.rollout.outcome:
        failed = state.rollout
        return False, failed.reason or "Failed", f"{failed.revision} was withdrawn: {failed.message}"
    if state.candidate is None and state.pinned is not None:
        pinned = state.pinned
        if pinned.won:
            told = (
                f"{pinned.revision} serves since {pinned.at}: it won the A/B test of the spec, whose own is {pinned.instead_of}"
            )
            return False, "WonABTest", f"{told}; put its model into spec.model"
        by = f" by {pinned.by}" if pinned.by else ""
        return False, "RolledBack", f"{pinned.revision} serves since {pinned.at}{by}, instead of the spec's {pinned.instead_of}"
    if state.candidate is None:
        return False, "Complete", "no rollout is under way"
    if state.stable is not None and state.step:
        return _stepping(state, world)
    if state.weight:
        return True, "Shifting", f"the routers are moving all requests to {state.candidate.revision}"
    return _starting(_slowest(state, world).revision, subject, state, world)


def _slowest(state: State, world: World) -> Candidate:
    """Answer the candidate that the first step waits for longest: one with a symptom, else one with the fewest ready pods."""
    return min(state.candidates, key=lambda each: (world.seen(each.revision).symptom is None, world.seen(each.revision).ready))


def _starting(name: str, subject: Subject, state: State, world: World) -> Verdict:
    """How far a candidate is that gets no requests yet."""
    seen = world.seen(name)
    if seen.symptom:
        return True, seen.symptom.reason, f"{name}: {seen.symptom.message}"
    if state.rollout is not None and state.rollout.paused:
        return True, "Paused", f"{name} gets no requests until resumed or promoted"
    if not seen.staying and seen.stage:
        return True, seen.stage.reason, f"{name} is {seen.stage.message}"
    if not seen.staying:
        return True, "WaitingForPods", f"{name} is starting"
    if not world.routes.ready:
        return True, _no_router(subject, world)[1], _no_router(subject, world)[2]
    if world.routes.healthy(name) < seen.ready:
        return True, "WaitingForRouters", f"the routers do not see all ready pods of {name} yet"
    return True, "WaitingForPods", f"{name} has fewer ready pods than the {world.full(name)} it needs"


def _stepping(state: State, world: World) -> Verdict:
    """How far the candidate is that gets requests."""
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    step, rollout, judgement = world.plan.step(state.step), state.rollout, verdict(state, world)
    who = ", ".join(f"{each.revision} gets {_share(each, step)}" for each in state.candidates)
    where = f"step {state.step} of {rollout.steps}: {who}"
    if world.target is not None and not asked(state, world).issuperset(each.revision for each in state.candidates):
        return True, "WaitingForPods", f"{where}: waiting for stable's pods to take all requests back"
    if rollout.paused_reason:
        return True, "Paused", f"{where}; {rollout.paused_reason}: {rollout.paused_message}; resume, promote or abort it"
    if rollout.weight_set is not None and rollout.weight_set != state.weight:
        return True, "WaitingForPods", f"{where}: waiting for pods enough for the {rollout.weight_set}% set by hand"
    if rollout.paused:
        return True, "Paused", f"{where} until resumed or promoted"
    if rollout.step_since is None:
        return True, "Shifting", f"the routers are taking over step {state.step}: {who}"
    where = f"{where} since {rollout.step_since}"
    if step.judged and judgement.reason in _UNKNOWN:
        return True, judgement.reason, f"{where}: {judgement.message}"
    if world.since(rollout.step_since) < step.hold_seconds:
        return True, "Holding", f"{where}, for {step.hold_seconds:g} s at the least"
    if step.judged and judgement.verdict != plan.Verdict.PASS:
        return True, judgement.reason, f"{where}: {judgement.message}"
    if awaits_word(state, world):
        end = "" if math.isinf(step.pause_seconds) else f", or {step.pause_seconds:g} s after its hold"
        one = contender(state, world)
        passed = f"{one.revision} passed" if one is not None and len(state.candidates) > 1 else "passed"
        return True, "Paused", f"{where}: {passed}, waits to be promoted or resumed{end}"
    return True, "WaitingForPods", f"{where}: waiting for pods enough for the next step"


def _share(candidate: Candidate, step: plan.Step) -> str:
    """Say what a candidate gets at the step under way."""
    weight = candidate.weight
    if step.mirror and weight < 100:
        copies = f"copies of {step.mirror}% of the requests"
        return f"{weight}% of requests and {copies}" if weight else copies
    return "all requests" if weight == 100 else f"{weight}% of requests" if weight else "no live requests"


def scaling_active(subject: Subject, state: State, world: World) -> Verdict:
    """Whether Slipway sets the number of replicas."""
    if world.scaling is None:
        return True, "FixedReplicas", f"each serving revision has {world.replicas} replicas, as spec.scaling.min says"
    return True, world.scaling.reason, world.scaling.message


def scaling_limited(subject: Subject, state: State, world: World) -> Verdict:
    """Whether something keeps the objective from the replicas that it asks for."""
    scaling, serving = world.scaling, state.stable or state.candidate
    assert scaling is not None  # noqa: S101 - only then is it asked
    if scaling.hindrance is not None:
        return True, scaling.hindrance.reason, scaling.hindrance.message
    if serving is not None and world.seen(serving.revision).symptom and world.seen(serving.revision).ready < scaling.replicas:
        symptom = world.seen(serving.revision).symptom
        assert symptom is not None  # noqa: S101 - there is one
        return True, symptom.reason, symptom.message
    refused = f"{scaling.refused_per_second:g} requests/s refused" if scaling.refused_per_second is not None else ""
    if scaling.wanted > scaling.replicas:
        told = f"the objective asks for {scaling.wanted} replicas; {scaling.message}"
        return True, scaling.reason, f"{told}; {refused}" if refused else told
    if refused:
        return True, "AtMaximum", f"{scaling.replicas} replicas do not answer all requests in time: {refused}"
    return False, "WithinLimits", "there are as many replicas as are asked for"


def unsafe_model(subject: Subject, state: State, world: World) -> Verdict:
    """Whether the resource lets a model run code of its author when it is loaded."""
    return True, "TrustUnsafe", "spec.model.trust is Unsafe: loading the model runs whatever code its author put in"


def ready(subject: Subject, state: State, world: World) -> Verdict:
    """Whether the current spec serves, wholly: the one condition to wait for."""
    for condition in (spec_valid, _unhindered, available):
        held, reason, message = condition(subject, state, world)
        if not held and (condition is not available or state.candidate is None):
            return False, reason, message
    if state.rollout is not None or state.candidate is not None or (state.pinned is not None and not state.pinned.won):
        _, reason, message = progressing(subject, state, world)
        still = f"; {state.stable.revision} goes on serving" if state.stable and available(subject, state, world)[0] else ""
        return False, reason, message + still
    held, reason, message = routes_live(subject, state, world)
    if not held:
        return False, reason, message
    assert state.stable is not None  # noqa: S101 - something is available, and no candidate
    if _sleeps(state, world):
        return available(subject, state, world)
    seen = world.seen(state.stable.revision)
    if seen.ready < world.minimum:
        why = seen.symptom or Symptom("Scaling", f"{state.stable.revision} has fewer ready pods than its replicas")
        return False, why.reason, why.message
    won = "; it won the A/B test" if state.pinned is not None else ""
    return True, "Serving", f"{_named(state.stable)} serves all requests{won}"


def _sleeps(state: State, world: World) -> bool:
    """Tell whether what serves has no pod because nobody asks."""
    return state.stable is not None and state.candidate is None and not replicas(state, world, state.stable.revision)


def _no_router(subject: Subject, world: World) -> Verdict:
    why = world.routes.symptom
    if why is None:
        return False, "WaitingForRouters", f"no router of namespace {subject.namespace} is ready yet"
    return False, why.reason, f"no router of namespace {subject.namespace} is ready: {why.message}"


def _unhindered(subject: Subject, state: State, world: World) -> Verdict:
    hindrance = subject.hindrance or world.routes.config_error
    return (False, hindrance.reason, hindrance.message) if hindrance else (True, "", "")


CONDITIONS = (
    (ConditionType.READY, ready),
    (ConditionType.AVAILABLE, available),
    (ConditionType.PROGRESSING, progressing),
    (ConditionType.ROUTES_LIVE, routes_live),
    (ConditionType.SPEC_VALID, spec_valid),
    (ConditionType.SCALING_ACTIVE, scaling_active),
)


def report(before: Status, subject: Subject, state: State, world: World) -> Status:
    """Answer the status. A condition's `lastTransitionTime` moves only when its status does."""
    world = aim(state, world)
    verdicts = CONDITIONS if world.scaling is None else (*CONDITIONS, (ConditionType.SCALING_LIMITED, scaling_limited))
    if subject.unsafe:
        verdicts = (*verdicts, (ConditionType.UNSAFE_MODEL, unsafe_model))
    if (exposed := subject.exposed) is not None:
        verdicts = (*verdicts, (ConditionType.EXPOSED, lambda *_: exposed))  # Ready does not ask: callers inside need it not
    conditions = [_condition(before, kind, verdict(subject, state, world), subject, world) for kind, verdict in verdicts]

    def role(target: Target) -> RevisionStatus:
        seen = world.seen(target.revision)
        return RevisionStatus(
            revision=target.revision,
            version=target.version,
            digest=target.digest,
            weight=state.weights.get(target.revision, 0),
            ready=seen.ready,
            replicas=seen.replicas,
        )

    serving = state.stable or state.candidate
    return Status(
        observed_generation=subject.generation,
        phase=_phase(state, conditions[0]),
        url=subject.url,
        selector=subject.selector,
        replicas=world.seen(serving.revision).replicas if serving else 0,
        stable=None if state.stable is None else role(state.stable),
        candidate=None if state.candidate is None else role(state.candidate),
        arms=[role(each.target) for each in state.candidates[1:]],
        draining=list(state.draining),
        scaling=world.scaling,
        activation=before.activation,
        rollout=_explained(state, world, subject),
        pinned=state.pinned,
        handled=state.handled,
        request=state.request,
        history=list(state.history),
        conditions=conditions,
    )


def _explained(state: State, world: World, subject: Subject) -> RolloutStatus | None:
    """Answer the rollout with the candidate's present symptom, and where it answers alone."""
    if state.rollout is None or state.candidate is None:
        return state.rollout
    symptom = world.seen(_slowest(state, world).revision).symptom
    preview = f"http://{preview_name(subject.name)}.{subject.namespace}" if state.steering(world.plan).preview else ""
    told = {"reason": symptom.reason if symptom else None, "message": symptom.message if symptom else None, "preview": preview}
    return state.rollout.model_copy(update=told)


def _phase(state: State, ready_condition: Condition) -> Phase:
    if ready_condition.status == "True":
        return Phase.SCALED_TO_ZERO if ready_condition.reason == "ScaledToZero" else Phase.READY
    if ready_condition.reason == "Paused":
        return Phase.PAUSED
    if ready_condition.reason in _UNDER_WAY:
        return Phase.PROGRESSING if state.stable else Phase.PENDING
    return Phase.DEGRADED


def _condition(before: Status, kind: ConditionType, verdict: Verdict, subject: Subject, world: World) -> Condition:
    held, reason, message = verdict
    status = "Unknown" if held is None else "True" if held else "False"
    was = next((condition for condition in before.conditions if condition.type == kind), None)
    since = was.last_transition_time if was is not None and was.status == status else stamp(world.now)
    return Condition(
        type=kind.value,
        status=status,
        reason=reason,
        message=message,
        observed_generation=subject.generation,
        last_transition_time=since,
    )


def only_figures(before: Status, after: Status) -> bool:
    """Tell whether no role, weight, phase nor condition moved, but only counts and the words about them."""
    return _essence(before) == _essence(after)


def _essence(status: Status) -> tuple[object, ...]:
    roles = [(role.revision, role.weight) for role in status.roles]
    rollout = status.rollout
    outcome = rollout and (rollout.revision, rollout.since, rollout.outcome, rollout.step, rollout.step_since)
    conditions = {condition.type: condition.status for condition in status.conditions}
    asked = (status.handled, status.pinned, rollout and (rollout.paused, rollout.forced, rollout.released, rollout.weight_set))
    return status.observed_generation, status.phase, roles, outcome, asked, status.draining, status.history, conditions


def _named(target: Target) -> str:
    return f"{target.revision} (version {target.version})" if target.version else target.revision


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _weights(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {weight}%" for name, weight in sorted(weights.items()))
