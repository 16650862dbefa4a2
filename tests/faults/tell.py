"""A history in lines, for whoever looks for the cause of a violation."""

import json
from collections.abc import Iterator

from tests.faults.history import Capacity, Event, History, Look, Lost, Marked, Object
from tests.faults.oracle import OWNED
from tests.faults.proxy import Done

from slipway.core import routing
from slipway.manifests import router


def lines(history: History) -> Iterator[str]:
    """Yield what happened, the operator's requests among it, in the order of time (seconds since the first)."""
    both = sorted((*history.entries, *history.requests), key=lambda each: each.at)
    for each in both:
        told = _told(each)
        if told:
            yield f"{each.at - both[0].at:8.3f} {told}"


def _told(each: object) -> str:
    if isinstance(each, Done):
        return f"{each.replica}: {each.call} #{each.number} {each.name} -> {each.status or 'no answer'}"
    if isinstance(each, Look):
        return f"router {each.router}: {each.weights}" if each.up else f"router {each.router} is gone"
    if isinstance(each, Capacity):
        return f"pods of {each.revision} that answer: {each.pods}"
    if isinstance(each, Lost):
        return f"router {each.router} had no answer of {each.revision}: {each.why}"
    if isinstance(each, Marked):
        return f"the scenario: {each.what}"
    if isinstance(each, Event):
        return _event(each)
    return ""


def _event(event: Event) -> str:
    said = f"seen: {event.type} {event.kind} {event.name}"
    if event.kind == "ModelDeployment":
        return f"{said} {_status(event.obj)}"
    if event.kind == "ConfigMap" and event.name == router.NAME:
        state = routing.load(event.obj["data"][router.STATE_KEY])
        return f"{said} version {state.version} {[(name, dict(route.wanted.weights)) for name, route in state.routes.items()]}"
    if event.kind == "Deployment":
        return f"{said} replicas {event.obj['spec']['replicas']}"
    return said if event.kind in OWNED or (event.kind == "Pod" and event.type != "MODIFIED") else ""


def _status(obj: Object) -> str:
    status = obj.get("status") or {}
    roles = {
        role: {key: found[key] for key in ("revision", "weight", "ready")}
        for role in ("stable", "candidate")
        if (found := status.get(role))
    }
    conditions = {each["type"]: f"{each['status']} {each['reason']}" for each in status.get("conditions", ())}
    rollout = {
        key: value for key, value in (status.get("rollout") or {}).items() if key in ("step", "stepSince", "outcome", "reason")
    }
    told = {"generation": f"{status.get('observedGeneration')}/{obj['metadata']['generation']}", **roles, "rollout": rollout}
    return json.dumps({**told, "draining": status.get("draining"), "Ready": conditions.get("Ready")})
