"""The Jobs by which a candidate is checked: one for each check at each step, from the user's template."""

from collections.abc import Iterator, Mapping
from typing import Any

from slipway.api import GROUP
from slipway.core.jobs import is_finished, job_name, rollout_of
from slipway.core.plan import Plan
from slipway.core.polled import Polled, Task, round_of
from slipway.core.state import State
from slipway.manifests import labels
from slipway.manifests.labels import Owner
from slipway.settings import Settings

Object = dict[str, Any]
COMPONENT = "check"
ROLLOUT_LABEL = f"{GROUP}/rollout"
ROUND_LABEL = f"{GROUP}/round"
_REQUESTS = {"cpu": "50m", "memory": "64Mi"}


def build_jobs(
    owner: Owner, state: State, plan: Plan, port: int, stored: Mapping[str, Object], settings: Settings
) -> Iterator[Object]:
    """Yield the Jobs of the step under way that are not `stored` (by name) yet. `port` is the candidate's.

    One that is there stays as it was made: a Job's template cannot be changed, and what it says is about this step.
    """
    names = job_names(state, plan)
    for check in plan.polled:
        if check.name in names and names[check.name] not in stored:
            yield _job(owner, state, check, names[check.name], port, settings)


def job_names(state: State, plan: Plan) -> dict[str, str]:
    """Answer the names of the Jobs of the step under way, by their checks': none before its weight is live."""
    rollout = state.rollout
    if rollout is None or state.stable is None or not state.step or rollout.step_since is None:
        return {}
    if not plan.step(state.step).judged:
        return {}
    return {check.name: job_name(rollout, check) for check in plan.polled if isinstance(check.ask, Task)}


def unwanted_jobs(state: State, stored: Mapping[str, Object]) -> list[Object]:
    """Answer the Jobs that should go: of other rollouts, and those that still run for another step or a withdrawn candidate.

    What has ended stays, with its log, for as long as status tells of its rollout.
    """
    rollout = state.rollout
    if rollout is None:
        return list(stored.values())
    round_now = round_of(rollout) if rollout.outcome is None else None

    def wanted(job: Object) -> bool:
        told = job["metadata"]["labels"]
        return told.get(ROLLOUT_LABEL) == rollout_of(rollout) and (is_finished(job) or told.get(ROUND_LABEL) == round_now)

    return [job for job in stored.values() if not wanted(job)]


def _job(owner: Owner, state: State, check: Polled, name: str, port: int, settings: Settings) -> Object:
    assert isinstance(check.ask, Task)  # noqa: S101 - only a Task has a Job
    assert state.rollout is not None  # noqa: S101 - a step is under way
    named = labels.model_labels(owner.name) | {labels.COMPONENT: COMPONENT}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": named | {ROLLOUT_LABEL: rollout_of(state.rollout), ROUND_LABEL: round_of(state.rollout)},
            "ownerReferences": [labels.owner(owner.name, owner.uid)],
        },
        "spec": {
            "backoffLimit": check.ask.pods - 1,
            "activeDeadlineSeconds": max(round(check.ask.seconds), 1),
            # A pod that had to leave its node says nothing of the candidate.
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": _pod(check.ask.template, named, _variables(owner, state, port, settings), settings),
        },
    }


def _pod(template: Mapping[str, Any], named: dict[str, str], variables: dict[str, str], settings: Settings) -> Object:
    """Answer the pod. It has not the revision's label: it must not become one of the candidate's endpoints."""
    metadata, asked = template.get("metadata", {}), dict(template["spec"])
    container = dict(asked["containers"][0])
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": labels.POD_SECURITY,
        **asked,
        "volumes": [{"name": "tmp", "emptyDir": {}}, *asked.get("volumes", ())],
        "containers": [
            {
                "imagePullPolicy": settings.image_pull_policy,
                "resources": {"requests": _REQUESTS},
                # An image of the user's own runs as its own user and may write to its root file system.
                "securityContext": labels.CONTAINER_SECURITY | {"readOnlyRootFilesystem": False},
                **container,
                "env": [{"name": key, "value": value} for key, value in variables.items()] + container.get("env", []),
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *container.get("volumeMounts", ())],  # noqa: S108 - an emptyDir
            }
        ],
    }
    secrets = [{"name": secret} for secret in settings.image_pull_secrets] + asked.get("imagePullSecrets", [])
    if secrets:
        pod["imagePullSecrets"] = secrets
    about: Object = {"labels": {**metadata.get("labels", {}), **named}}
    if metadata.get("annotations"):
        about["annotations"] = metadata["annotations"]
    return {"metadata": about, "spec": pod}


def _variables(owner: Owner, state: State, port: int, settings: Settings) -> dict[str, str]:
    assert state.candidate is not None  # noqa: S101 - a step is under way
    assert state.stable is not None  # noqa: S101 - it is compared with something
    return {
        "SLIPWAY_NAME": owner.name,
        "SLIPWAY_NAMESPACE": owner.namespace,
        "SLIPWAY_REVISION": state.candidate.revision,
        "SLIPWAY_VERSION": state.candidate.version,
        "SLIPWAY_STABLE": state.stable.revision,
        "SLIPWAY_URL": f"http://{state.candidate.revision}.{owner.namespace}.svc.{settings.cluster_domain}:{port}",
        "SLIPWAY_STEP": str(state.step),
        "SLIPWAY_WEIGHT": str(state.weight),
    }
