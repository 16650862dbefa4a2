"""Why pods are not well, in plain words, from the pods' own state and their Deployment's."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from slipway.core.clock import to_datetime
from slipway.core.observation import Symptom

Pod = Mapping[str, Any]
Container = Mapping[str, Any]

# What the server's image writes as its termination message: "Reason: a sentence that says what, where and the cure".
_TERMINATION = re.compile(r"^([A-Z][A-Za-z]{1,63}): (.+)", re.DOTALL)
_MESSAGE_MAX = 512
COLLECTED_SECONDS = 30.0
PATIENCE_SECONDS = 5.0  # what may pass by itself is told once it has lasted so long
_PULL_REASONS = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def short(text: str, most: int = _MESSAGE_MAX) -> str:
    """Answer foreign text as one line that steers no terminal, cut to so many characters: what fits a condition."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def unschedulable(pod: Pod) -> Symptom | None:
    """No node can take the pod."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Symptom(condition.get("reason", "Unschedulable"), short(condition.get("message", "no node fits the pod")))
    return None


def evicted(pod: Pod) -> Symptom | None:
    """The kubelet ended the pod (out of disk or memory on its node, a deadline)."""
    status = pod.get("status", {})
    if status.get("phase") != "Failed" or not status.get("reason"):
        return None
    return Symptom(status["reason"], short(status.get("message", "the kubelet ended the pod")))


def image_not_pulled(pod: Pod) -> Symptom | None:
    """An image cannot be had."""
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _PULL_REASONS:
            said = waiting.get("message") or "the image cannot be pulled"
            return Symptom(waiting["reason"], short(f"image {container.get('image')}: {said}"))
    return None


def not_configured(pod: Pod) -> Symptom | None:
    """A container cannot be made: a Secret or ConfigMap is missing, a command does not exist."""
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _CONFIG_REASONS:
            return Symptom(waiting["reason"], short(f"container {container['name']}: {waiting.get('message', '')}"))
    return None


def ended(pod: Pod) -> Symptom | None:
    """A container ended when it should not have: what it said last, or how it died. Only an init container may just end."""
    init = pod.get("status", {}).get("initContainerStatuses", ())
    for container in _containers(pod):
        state = container.get("state", {})
        dead = state.get("terminated") or (None if _runs_well(container) else container.get("lastState", {}).get("terminated"))
        if not dead or (dead.get("exitCode") == 0 and container in init):
            continue
        said = _TERMINATION.match((dead.get("message") or "").strip())
        if said:
            return Symptom(said[1], short(said[2]))
        if dead.get("reason") == "OOMKilled":
            return Symptom("OOMKilled", f"container {container['name']} needs more memory than its limit: raise server.resources")
        how = f"container {container['name']} ended with code {dead.get('exitCode')} ({dead.get('reason', 'Error')})"
        return Symptom("CrashLoopBackOff", short(f"{how}: {(dead.get('message') or 'no message').strip()[-300:]}"))
    return None


def not_ready(pod: Pod, now: datetime) -> Symptom | None:
    """The server was ready and is so no more. One that never was is still starting.

    Only what lasts PATIENCE_SECONDS is told: where a probe's answer crosses a sync, a kubelet takes back for a moment that a
    container is ready (kubernetes/kubernetes#103717).
    """
    condition = next((found for found in pod.get("status", {}).get("conditions", ()) if found["type"] == "Ready"), None)
    if condition is None or condition["status"] == "True":
        return None
    for container in pod.get("status", {}).get("containerStatuses", ()):
        running = container.get("state", {}).get("running")
        # RFC 3339 in UTC and whole seconds: later times are larger strings.
        since = condition.get("lastTransitionTime", "")
        if running and container.get("started") and since > running.get("startedAt", "") and _lasts(since, now):
            return Symptom("NotReady", f"container {container['name']} runs but its readiness probe fails")
    return None


# The first that applies is told: what keeps the later ones from happening comes first.
Check = Callable[[Pod], Symptom | None]
CHECKS: tuple[Check, ...] = (unschedulable, evicted, image_not_pulled, not_configured, ended)


def diagnose(pods: Iterable[Pod], deployment: Mapping[str, Any], now: datetime) -> Symptom | None:
    """Answer the first symptom of the revision's pods, else the Deployment's own.

    The Deployment's condition ReplicaFailure says why pods cannot even be created: a quota, an admission rule.
    """
    return first_symptom(pods, (*CHECKS, partial(not_ready, now=now))) or not_created(deployment)


def first_symptom(pods: Iterable[Pod], checks: Iterable[Check] = CHECKS) -> Symptom | None:
    """Answer the first symptom of the pods, those that leave anyway not asked."""
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return next((symptom for check in checks for pod in staying if (symptom := check(pod)) is not None), None)


def not_created(deployment: Mapping[str, Any]) -> Symptom | None:
    """Answer why pods cannot be created, where they cannot: a quota, an admission rule."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            said = condition.get("message", "pods cannot be created")
            if "exceeded quota" in said:
                return Symptom("QuotaExceeded", short(f"{said}; raise the quota, or lower scaling.max or server.resources"))
            return Symptom(condition.get("reason", "FailedCreate"), short(said))
    return None


def not_coming(pods: Iterable[Pod], deployment: Mapping[str, Any]) -> Symptom | None:
    """Answer why a pod that was ordered does not even start. One that starts and fails is another matter: more may help it."""
    for check in (unschedulable, image_not_pulled, not_configured):
        for pod in pods:
            if not pod_ready(pod) and (symptom := check(pod)) is not None:
                return symptom
    return not_created(deployment)


def stage(pods: Iterable[Pod], now: datetime) -> Symptom | None:
    """Answer what takes the first slow pod its time: FetchingModel, or LoadingModel with what was fetched.

    Only what lasts PATIENCE_SECONDS is told: most models are there sooner, and nobody need read of it.
    """
    for pod in pods:
        fetch = next((each for each in pod.get("status", {}).get("initContainerStatuses", ()) if each["name"] == "fetch"), None)
        if fetch is None or pod["metadata"].get("deletionTimestamp") or pod_ready(pod):
            continue
        state = fetch.get("state", {})
        running, ended = state.get("running"), state.get("terminated")
        if fetch.get("restartCount"):
            continue  # what failed before is told instead
        if running and _lasts(running.get("startedAt"), now):
            how = f"fetching its model since {running['startedAt']}: kubectl logs {pod['metadata']['name']} -c fetch"
            return Symptom("FetchingModel", how)
        if ended and ended.get("exitCode") == 0 and _lasts(ended.get("finishedAt"), now):
            said = _TERMINATION.match((ended.get("message") or "").strip())
            return Symptom("LoadingModel", short(f"loading its model (fetched {said[2]})" if said else "loading its model"))
    return None


def _lasts(since: str | None, now: datetime) -> bool:
    return since is not None and (now - to_datetime(since)).total_seconds() >= PATIENCE_SECONDS


def pod_ready(pod: Pod) -> bool:
    """Tell whether Services send requests to the pod."""
    return not pod["metadata"].get("deletionTimestamp") and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", ())
    )


def leaving(pods: Iterable[Pod], deployment: Mapping[str, Any], now: datetime) -> int:
    """Answer how many pods an earlier Deployment of that name left behind, for the garbage collector to delete.

    They are older than this one. After COLLECTED_SECONDS they stay: a Deployment adopts what a backup restored.
    """
    made = deployment["metadata"]["creationTimestamp"]
    if (now - to_datetime(made)).total_seconds() >= COLLECTED_SECONDS:
        return 0
    return sum(pod["metadata"]["creationTimestamp"] < made for pod in pods)  # RFC 3339 in UTC: earlier is smaller


def _containers(pod: Pod) -> list[Container]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _runs_well(container: Container) -> bool:
    """Tell whether a container runs, and not only tries again what failed before."""
    again = container.get("restartCount", 0) > 0 and not container.get("started")
    return bool(container.get("ready")) or ("running" in container.get("state", {}) and not again)
