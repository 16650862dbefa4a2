"""What it means that two ModelDeployments are in the same state: their children object by object, their routes, their status.

Not compared is what tells of the way there rather than of the state, or was measured:
- what the API server gives (uids, versions, times, cluster addresses), the history, the order of revisions, what a user asked;
- the ControllerRevisions of what served before: there may be as many as the spec lets there be;
- the figures of what callers got; the replicas of an objective, and what follows from their number: the budget of disruptions,
  and how many requests routers let in.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from slipway.api.status import ConditionType, Status
from slipway.manifests.labels import APPLIED, MODEL_LABEL, REVISION_LABEL

Object = dict[str, Any]
_GIVEN = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink")
_OF_SIZE = (ConditionType.SCALING_ACTIVE, ConditionType.SCALING_LIMITED)
_MEASURED = ("measured_at", "requests_per_second", "p95", "error_rate")
_WAY = {"history", "handled", "request", "observed_generation", "rollout"}


def state(spec: Any, status: Status, children: Iterable[Object], namespace: str) -> dict[str, Any]:
    """Answer the state in a form that is equal where the states are, in whatever namespace."""
    sized = "objective" in spec.get("scaling", {})
    roles = {role.revision for role in (status.stable, status.candidate) if role is not None}
    found: dict[str, Any] = {"status": _status(status, sized=sized)}
    retired = 0
    for obj in children:
        name = obj["metadata"]["name"]
        if sized and obj["kind"] == "PodDisruptionBudget" and MODEL_LABEL in obj["metadata"]["labels"]:
            continue
        if obj["kind"] == "ControllerRevision" and name not in roles:
            retired += 1
            continue
        found[f"{obj['kind']} {name}"] = _child(obj, sized=sized)
    assert retired <= spec.get("revisionHistoryLimit", 10), f"{retired} retired revisions are kept"
    return json.loads(re.sub(rf"\b{namespace}\b", "NAMESPACE", json.dumps(found)))


def _status(status: Status, *, sized: bool) -> Object:
    told = status.model_dump(mode="json", by_alias=False, exclude=_WAY)
    for role in filter(None, (told["stable"], told["candidate"])):
        for name in _MEASURED:
            role.pop(name)
        if sized:
            role["ready"] = role["replicas"] = "as measured"
    if sized:
        told["replicas"] = told["scaling"] = "as measured"
    told["conditions"] = {
        each["type"]: [each["status"], each["reason"], each["message"]]
        for each in told["conditions"]
        if not (sized and each["type"] in _OF_SIZE)
    }
    told["rolling_out"] = status.rollout is not None
    return told


def _child(obj: Object, *, sized: bool) -> Object:
    obj = json.loads(json.dumps({key: held for key, held in obj.items() if key not in ("status", "revision")}))
    metadata = obj["metadata"]
    for name in _GIVEN:
        metadata.pop(name, None)
    for reference in metadata.get("ownerReferences", ()):
        reference.pop("uid")
    for name in (APPLIED, "deployment.kubernetes.io/revision"):
        (metadata.get("annotations") or {}).pop(name, None)
    if obj["kind"] == "Service" and obj["spec"].get("clusterIP") != "None":
        obj["spec"] = {name: held for name, held in obj["spec"].items() if not name.startswith("clusterIP")}
    if obj["kind"] == "ConfigMap":
        obj["data"] = {name: _lasting(json.loads(text), sized=sized) for name, text in obj["data"].items()}
    if sized and obj["kind"] == "Deployment" and REVISION_LABEL in metadata["labels"]:
        obj["spec"]["replicas"] = "as measured"
    return obj


def _lasting(config: Any, *, sized: bool) -> Any:
    """Answer a router's file without the versions by which it is told from the one before; `sized`: without limits either."""
    if isinstance(config, dict):
        left = {"version_info", "version", "known", *(("limits", "layer") if sized else ())}
        return {key: _lasting(held, sized=sized) for key, held in config.items() if key not in left}
    return [_lasting(each, sized=sized) for each in config] if isinstance(config, list) else config


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """Answer where two states differ, a line a place."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [line for key in keys for line in differences(found.get(key), wanted.get(key), f"{place}/{key}")]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for index, (one, other) in pairs for line in differences(one, other, f"{place}/{index}")]
    return [] if found == wanted else [f"{place}: {found!r}, after a fresh apply {wanted!r}"]
