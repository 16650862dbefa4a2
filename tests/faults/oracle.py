"""The end of a run, without what differs from run to run: under faults it must be that of the run without."""

import json
from collections import Counter
from typing import Any

from tests.faults.history import History, Object

from slipway.manifests import labels, router

_FIGURES = {"requestsPerSecond", "p95", "errorRate", "measuredAt"}
OWNED = ("Deployment", "Service", "ControllerRevision", "ConfigMap", "ServiceAccount", "PodDisruptionBudget", "Job")


def owned(obj: Object) -> bool:
    """Tell whether an object carries Slipway's label."""
    return obj["metadata"].get("labels", {}).get(labels.MANAGED_BY) == labels.MANAGER


def last_objects(history: History) -> dict[str, Object]:
    """Answer the objects that there are at the end, by kind/name."""
    found: dict[str, Object] = {}
    for event in history.events():
        if event.type == "DELETED":
            found.pop(f"{event.kind}/{event.name}", None)
        else:
            found[f"{event.kind}/{event.name}"] = event.obj
    return found


def end_state(history: History) -> dict[str, Any]:
    """Answer what there is at the end, comparable between runs."""
    found = last_objects(history)
    state: dict[str, Any] = {}
    for name, obj in sorted(found.items()):
        if obj["kind"] == "ModelDeployment":
            state[name] = _status(obj.get("status") or {})
        elif obj["kind"] in OWNED and owned(obj):
            state[name] = _config(obj) if obj["kind"] == "ConfigMap" else _plain(obj)
    state["router pods told"] = _told(found)
    return state


def made(history: History) -> Counter[str]:
    """Answer how many objects of each kind and name were made and removed, Kubernetes events by their reason."""
    counts = Counter[str]()
    for event in history.events():
        word = {"ADDED": "made", "DELETED": "removed"}.get(event.type)
        if word and event.kind in OWNED and owned(event.obj):
            counts[f"{word} {event.kind}/{event.name}"] += 1
        elif word == "made" and event.kind == "Event" and event.obj.get("reportingComponent") == "slipway":
            counts[f"event {event.obj['reason']}"] += 1
    return counts


def compare(wanted: tuple[dict[str, Any], Counter[str]], found: tuple[dict[str, Any], Counter[str]]) -> list[str]:
    """Answer in what a run ended otherwise than the run without faults.

    A Kubernetes event follows the write that it tells of: a death between them loses it. It tells of what was seen, and a slower
    operator sees more; but none comes twice.
    """
    said: list[str] = []
    for name in sorted(wanted[0].keys() | found[0].keys()):
        want, have = wanted[0].get(name), found[0].get(name)
        if want != have:
            said.append(f"end_state: {name} is {difference(want, have)}")
    for name in sorted(wanted[1].keys() | found[1].keys()):
        want, have = wanted[1][name], found[1][name]
        event = name.startswith("event ")
        if have > (max(want, 1) if event else want) or (have < want and not event):
            said.append(f"counts: {name} {have} times, {want} without faults")
    return said


def difference(want: Any, have: Any, path: str = "") -> str:
    """Answer what is other than wanted, and what was wanted."""
    if isinstance(want, dict) and isinstance(have, dict):
        return "; ".join(
            difference(want.get(key), have.get(key), f"{path}.{key}")
            for key in sorted(want.keys() | have.keys())
            if want.get(key) != have.get(key)
        )
    return f"{path or 'it'}: {json.dumps(have)[:300]}, not {json.dumps(want)[:300]}"


def _status(status: Object) -> Object:
    roles = {role: _role(status.get(role)) for role in ("stable", "candidate")}
    conditions = {each["type"]: f"{each['status']} {each['reason']}" for each in status.get("conditions", ())}
    rollout = status.get("rollout") or {}
    kept = {key: rollout.get(key) for key in ("revision", "step", "paused", "outcome", "reason")}
    history = [f"{each['revision']} {each['outcome']}" for each in status.get("history", ())]
    rest = {key: status.get(key) for key in ("observedGeneration", "phase", "draining", "selector", "replicas")}
    pinned = (status.get("pinned") or {}).get("revision")
    return {**rest, **roles, "conditions": conditions, "rollout": kept, "history": history, "pinned": pinned}


def only_figures(before: Object, after: Object) -> bool:
    """Tell whether two statuses differ in what callers got, and in nothing else: that is measured anew while anybody asks."""
    return before != after and _unmeasured(before) == _unmeasured(after)


def _unmeasured(status: Object) -> Object:
    roles = {name: status[name] for name in ("stable", "candidate") if name in status}
    return {**status, **{name: {key: role[key] for key in role.keys() - _FIGURES} for name, role in roles.items()}}


def _told(found: dict[str, Object]) -> bool:
    """Tell whether every router pod was told to look at the configuration that there is."""
    config = found.get(f"ConfigMap/{router.NAME}")
    version = "" if config is None else json.loads(config["data"][router.STATE_KEY])["version"]
    pods = [obj for obj in found.values() if obj["kind"] == "Pod" and obj["metadata"]["labels"].get(labels.COMPONENT) == "router"]
    return all(pod["metadata"].get("annotations", {}).get(labels.CONFIG_VERSION) == str(version) for pod in pods)


def _role(role: Object | None) -> Object | None:
    return role and {key: role.get(key) for key in ("revision", "version", "weight", "ready", "replicas")}


def _config(obj: Object) -> Object:
    if obj["metadata"]["name"] != router.NAME:
        return obj["data"]
    state = json.loads(obj["data"][router.STATE_KEY])
    routes = {name: route["wanted"] for name, route in state["routes"].items()}
    return {"routes": routes, "bootstrap": obj["data"]["bootstrap.json"]}


def _plain(obj: Object) -> Object:
    kept = {key: value for key, value in obj.items() if key in ("spec", "data", "revision")}
    kept["spec"] = {key: value for key, value in obj.get("spec", {}).items() if key not in ("clusterIP", "clusterIPs")}
    return {**kept, "labels": obj["metadata"].get("labels")}
