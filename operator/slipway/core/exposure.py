"""Whether callers outside the cluster reach a ModelDeployment: what controllers say of its HTTPRoute and its Ingress."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slipway.core.observation import Symptom
from slipway.core.report import Verdict
from slipway.core.symptoms import short

Object = dict[str, Any]
# What a route's controller must say of it, in this order: it takes the route, and it found what the route names.
_CONDITIONS = ("Accepted", "ResolvedRefs")
_WORST_FIRST = (False, None, True)


@dataclass(frozen=True)
class Way:
    """One way in that is asked for: the HTTPRoute or Ingress as stored, None where there is none, and what hinders it."""

    stored: Object | None
    hindrance: Symptom | None = None


def exposed(ways: Sequence[Way], refused: Symptom | None) -> Verdict | None:
    """Answer whether all ways are open, and why not; None where none is asked for.

    `refused` says why a host that is asked for was not given. Where several ways are not open, the worst is told.
    """
    if not ways:
        return None
    if refused is not None:
        return False, refused.reason, refused.message
    verdicts = sorted((_open(way) for way in ways), key=lambda verdict: _WORST_FIRST.index(verdict[0]))
    held, reason, message = verdicts[0]
    return (True, reason, "; ".join(each[2] for each in verdicts)) if held else (held, reason, message)


def _open(way: Way) -> Verdict:
    if way.hindrance is not None:
        return False, way.hindrance.reason, way.hindrance.message
    if way.stored is None:
        return None, "WaitingForRouters", "the routers have not been told of its hosts yet"
    return _ingress(way.stored) if way.stored["kind"] == "Ingress" else _http_route(way.stored)


def _http_route(route: Object) -> Verdict:
    """Answer what the Gateway's controller says of the route as it is now: of an older generation does not count."""
    metadata = route["metadata"]
    wanted = _parent(route["spec"]["parentRefs"][0], metadata["namespace"])
    gateway = "/".join(wanted[:2])
    parents = (route.get("status") or {}).get("parents") or ()
    said = next((each for each in parents if _parent(each["parentRef"], metadata["namespace"]) == wanted), None)
    if said is None:
        return (
            None,
            "NoController",
            f"no controller has taken HTTPRoute {metadata['name']} yet: is there a Gateway {gateway}, and one for its class?",
        )
    current = {
        condition["type"]: condition
        for condition in said.get("conditions", ())
        if condition.get("observedGeneration", 0) >= metadata["generation"]
    }
    for kind in _CONDITIONS:
        if kind not in current:
            return None, "Pending", f"{said['controllerName']} has not said yet whether HTTPRoute {metadata['name']} is {kind}"
        condition = current[kind]
        if condition["status"] != "True":
            held = False if condition["status"] == "False" else None
            return held, condition["reason"], short(f"Gateway {gateway}, {kind}: {condition['message']}")
    return True, "Accepted", f"Gateway {gateway} sends it the requests to {', '.join(route['spec']['hostnames'])}"


def _parent(reference: Object, namespace: str) -> tuple[str, str, str]:
    return reference.get("namespace") or namespace, reference["name"], reference.get("sectionName") or ""


def _ingress(ingress: Object) -> Verdict:
    """Answer whether a controller has given the Ingress an address: it is all that the API has for it to say."""
    name = ingress["metadata"]["name"]
    points = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [point.get("hostname") or point.get("ip") for point in points]
    if not addresses:
        return None, "NoAddress", f"no ingress controller has taken Ingress {name} yet: does its class have one?"
    hosts = ", ".join(rule["host"] for rule in ingress["spec"]["rules"])
    return True, "AddressAssigned", f"Ingress {name} sends it the requests to {hosts}, at {', '.join(filter(None, addresses))}"
