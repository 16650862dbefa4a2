"""The Jobs of checks: what each is called, and what it and its pods say."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from slipway.api.status import RolloutStatus
from slipway.core.polled import NO_ANSWERS, Answer, Answers, Outcome, Polled, Task, phrase, round_of
from slipway.core.symptoms import first_symptom

_NAME_MAX = 63
Object = Mapping[str, Any]


def rollout_of(rollout: RolloutStatus) -> str:
    """Answer what tells the rollout from all others."""
    return hashlib.sha256(json.dumps([rollout.revision, rollout.since]).encode()).hexdigest()[:8]


def job_name(rollout: RolloutStatus, check: Polled) -> str:
    """Answer the name of a check's Job at the step under way: another template is another Job."""
    assert isinstance(check.ask, Task)  # noqa: S101 - only a Task has one
    told = json.dumps([round_of(rollout), check.ask.template, check.ask.seconds, check.ask.pods], sort_keys=True)
    end = f"-check-{check.number}-{rollout.step}-{hashlib.sha256(told.encode()).hexdigest()[:5]}"
    return rollout.revision[: _NAME_MAX - len(end)].rstrip("-") + end


def job_answers(job: Object | None, pods: Iterable[Object] = ()) -> Answers:
    """Answer what a Job and its pods say: nothing while it runs well, or where its time ended it."""
    held = _conditions(job or {})
    if "Complete" in held:
        return NO_ANSWERS.add(Answer(Outcome.GOOD))
    if "Failed" not in held:
        trouble = first_symptom(pod for pod in pods if pod.get("status", {}).get("phase") == "Pending")
        return NO_ANSWERS.add(Answer(Outcome.NONE, phrase(trouble.message))) if trouble else NO_ANSWERS
    failed = held["Failed"]
    if failed.get("reason") == "DeadlineExceeded":
        return NO_ANSWERS.add(Answer(Outcome.NONE, "its Job did not end within its timeout"))
    return NO_ANSWERS.add(Answer(Outcome.BAD, phrase(_last_words(pods) or failed.get("message") or "its Job failed")))


def _last_words(pods: Iterable[Object]) -> str:
    """Answer how a container ended, and what it left as its termination message."""
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", ()):
            ended = container.get("state", {}).get("terminated") or {}
            if ended.get("exitCode"):
                said = f": {ended['message']}" if ended.get("message") else ""
                return f"its container ended with code {ended['exitCode']}{said}"
    return ""


def is_finished(job: Object) -> bool:
    """Tell whether a Job runs no more."""
    return bool({"Complete", "Failed"} & _conditions(job).keys())


def _conditions(job: Object) -> dict[str, Object]:
    """Answer the Job's conditions that hold, by type."""
    conditions: Iterable[Object] = (job.get("status") or {}).get("conditions") or ()
    return {condition["type"]: condition for condition in conditions if condition["status"] == "True"}
