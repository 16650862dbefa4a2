"""The event of a transition: what changed from one status to the next, told once."""

from dataclasses import dataclass

from slipway.api.status import Condition, ConditionType, Phase, Request, Status
from slipway.core.report import STAGES


@dataclass(frozen=True)
class Event:
    """One Kubernetes event about a ModelDeployment."""

    type: str
    reason: str
    message: str


def event(before: Status, after: Status) -> Event | None:
    """Answer the event of a transition: at most one, and none where only figures moved. Who asked for something is told first."""
    ended = _ended(before, after)
    request = after.request
    if request is not None and after.handled == request.at != before.handled:
        return Event("Normal", f"{request.verb}Requested", _obeyed(before, after, request, ended))
    if ended is not None:
        return ended
    if _paused_itself(before, after):
        assert after.rollout is not None  # noqa: S101 - it paused
        return Event("Warning", "RolloutPaused", f"{after.rollout.revision}: {after.rollout.paused_message}")
    if _step_started(before, after):
        return Event("Normal", "StepStarted", _step(after))
    if before.scaling is not None and after.scaling is not None and before.scaling.replicas != after.scaling.replicas:
        scaled = f"from {before.scaling.replicas} to {after.scaling.replicas} replicas"
        reason = "ScaledToZero" if not after.scaling.replicas else "Scaled" if before.scaling.replicas else "ScaledFromZero"
        return Event("Normal", reason, f"{scaled}: {after.scaling.reason}: {after.scaling.message}")
    was, is_ = _condition_of(before, ConditionType.PROGRESSING), _condition_of(after, ConditionType.PROGRESSING)
    if is_ is not None and is_.reason in STAGES and (was is None or was.reason != is_.reason):
        return Event("Normal", is_.reason, is_.message)
    for kind in (ConditionType.READY, ConditionType.EXPOSED) if after.phase == Phase.DEGRADED else (ConditionType.EXPOSED,):
        was, is_ = _condition_of(before, kind), _condition_of(after, kind)
        if is_ is not None and is_.status == "False" and (was is None or was.status == "True" or was.reason != is_.reason):
            return Event("Warning", is_.reason, is_.message)
    return None


def _ended(before: Status, after: Status) -> Event | None:
    """Answer the event of a rollout's end."""
    ended = [entry for entry in after.history if entry not in before.history]
    if not ended:
        return None
    latest = ended[0]
    label = f"{latest.revision} (version {latest.version})" if latest.version else latest.revision
    if latest.outcome == "Served":
        return Event("Normal", "Promoted", f"{label} serves all requests" + (f": {latest.message}" if latest.message else ""))
    if latest.outcome == "Failed" and after.candidate is not None and _goes_on(before, after):
        return Event("Warning", "ArmWithdrawn", f"{label} was withdrawn, and the test goes on: {latest.message}")
    if latest.outcome == "Failed":
        return Event("Warning", "RolloutFailed", f"{label} was withdrawn: {latest.message}")
    return Event("Normal", latest.outcome, f"{label} was withdrawn: {latest.message or 'the spec asks for another revision'}")


def _goes_on(before: Status, after: Status) -> bool:
    """Tell whether the rollout under way is the same."""
    was, is_ = before.rollout, after.rollout
    return was is not None and is_ is not None and (was.revision, was.since) == (is_.revision, is_.since)


def _obeyed(before: Status, after: Status, request: Request, ended: Event | None) -> str:
    """Say who asked, when, and what came of it at once."""
    asked = f"asked by {request.by or 'somebody'} at {request.at}"
    if ended is not None:
        return f"{asked}: {ended.message}"
    return f"{asked}; passed over, for there was nothing to do" if _decided(before) == _decided(after) else asked


def _decided(status: Status) -> tuple[object, ...]:
    """Answer all that a verb may change."""
    rollout = status.rollout
    shown = rollout and (rollout.revision, rollout.since, rollout.outcome, rollout.paused, rollout.forced)
    if rollout is not None:
        shown = (shown, rollout.released, rollout.weight_set)
    return shown, status.pinned, status.history


def _step_started(before: Status, after: Status) -> bool:
    """Tell whether the weight of another step is live now: the first revision of all has none."""
    if after.rollout is None or after.rollout.step_since is None or after.candidate is None or after.stable is None:
        return False
    was = before.rollout
    return was is None or (was.revision, was.step_since) != (after.rollout.revision, after.rollout.step_since)


def _paused_itself(before: Status, after: Status) -> bool:
    """Tell whether a failed check has just paused the rollout."""
    was = before.rollout.paused_reason if before.rollout is not None else None
    return after.rollout is not None and after.rollout.paused_reason is not None and was is None


def _step(status: Status) -> str:
    assert status.rollout is not None  # noqa: S101 - the caller checked it
    mirrored = f", and copies of {status.rollout.mirror}%" if status.rollout.mirror else ""
    who = ", ".join(f"{each.revision} gets {each.weight}% of requests" for each in status.candidates)
    return f"step {status.rollout.step} of {status.rollout.steps}: {who}{mirrored}"


def _condition_of(status: Status, kind: ConditionType) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type == kind), None)
