"""Ways in from outside the cluster: which objects they are, and what is told of them from what their controllers say."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.test_report import SERVING, UP, A, world

from slipway.api.routing import Routing
from slipway.api.spec import Spec
from slipway.api.status import Status
from slipway.core.exposure import Way, exposed
from slipway.core.observation import Symptom
from slipway.core.report import Subject, Verdict, report
from slipway.core.state import State
from slipway.core.transitions import Event, event
from slipway.kube.diff import covers, mark
from slipway.manifests import children, exposure, labels, model
from slipway.model import Identity

Object = dict[str, Any]
OWNER = Identity("churn", "shop", "u1")
HOSTS = ("churn.example.com", "*.churn.example.com")
TAKEN = Symptom("HostTaken", "it belongs to ModelDeployment other")


def routing(**ways: Any) -> Routing:
    return Routing.model_validate({"hosts": list(HOSTS), **ways})


def built(hosts: tuple[str, ...] = HOSTS, **ways: Any) -> dict[str, Object]:
    return {obj["kind"]: obj for obj in exposure.build("churn", "shop", "u1", routing(**ways), hosts)}


def test_a_route_leads_to_the_routers_by_what_each_caller_needs() -> None:
    spec = built(gateway={"name": "web", "namespace": "edge", "sectionName": "https"})["HTTPRoute"]["spec"]
    assert spec["hostnames"] == list(HOSTS)
    (parent,) = spec["parentRefs"]
    assert (parent["kind"], parent["namespace"], parent["name"], parent["sectionName"]) == ("Gateway", "edge", "web", "https")
    grpc, rest = spec["rules"]
    ports = {port["port"]: port for port in model.build_service("churn", "shop", "churn", "u1", h2c=True)["spec"]["ports"]}
    (to_grpc,), (to_rest,) = grpc["backendRefs"], rest["backendRefs"]
    assert ports[to_grpc["port"]]["appProtocol"] == "kubernetes.io/h2c"
    assert "appProtocol" not in ports[to_rest["port"]]
    assert {port["targetPort"] for port in ports.values()} == {"http"}
    assert all(match["headers"][0]["value"].startswith("application/grpc") for match in grpc["matches"])
    assert rest["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]


@pytest.mark.parametrize(("timeout", "wanted"), [("30s", "31s"), ("1.5s", "2s500ms"), ("1ms", "1s1ms"), ("1h", "3601s")])
def test_a_gateway_waits_longer_than_the_router(timeout: str, wanted: str) -> None:
    rules = built(gateway={"name": "web"}, timeout=timeout)["HTTPRoute"]["spec"]["rules"]
    assert [rule["timeouts"] for rule in rules] == [{"request": wanted}] * 2


def test_an_ingress_has_each_host() -> None:
    asked = {"className": "nginx", "tlsSecretName": "churn-tls", "annotations": {"cert-manager.io/issuer": "ca"}}
    ingress = built(ingress=asked)["Ingress"]
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/issuer": "ca"}
    assert mark(ingress)["metadata"]["annotations"].keys() == {"cert-manager.io/issuer", labels.APPLIED}
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": list(HOSTS), "secretName": "churn-tls"}]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == list(HOSTS)
    plain = built(ingress={})["Ingress"]
    assert plain["spec"].keys() == {"rules"}
    assert "annotations" not in plain["metadata"]


def test_what_is_made_is_what_is_asked_for() -> None:
    assert built().keys() == set()
    assert built(gateway={"name": "web"}, ingress={}).keys() == {"HTTPRoute", "Ingress"}
    for obj in built(gateway={"name": "web"}, ingress={}).values():
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], obj["metadata"]["labels"][labels.MODEL_LABEL]) == ("u1", True, "churn")


def test_without_a_host_there_is_no_way_in() -> None:
    """One without a host would take the requests to all of them."""
    assert built((), gateway={"name": "web"}, ingress={}) == {}


@pytest.mark.parametrize("part", ["parentRefs", "rules", "hostnames"])
def test_an_entry_more_is_a_drift(part: str) -> None:
    route = built(gateway={"name": "web"})["HTTPRoute"]
    more = {**route, "spec": {**route["spec"], part: [*route["spec"][part], route["spec"][part][0]]}}
    assert covers(route, route)
    assert not covers(more, route)


def test_another_backend_is_a_drift() -> None:
    route, stored = built(gateway={"name": "web"})["HTTPRoute"], built(gateway={"name": "web"})["HTTPRoute"]
    stored["spec"]["rules"][1]["backendRefs"].append({"name": "theirs", "port": 80})
    assert not covers(stored, route)


def stored_of(*objects: Object) -> children.Stored:
    return children.Stored.of(objects)


def test_children_that_are_not_asked_for_go_and_others_stay() -> None:
    both = list(built(gateway={"name": "web"}, ingress={}).values())
    foreign = {**both[0], "metadata": {**both[0]["metadata"], "ownerReferences": []}}
    assert children.unwanted_outside(OWNER, both, stored_of(*both)) == []
    assert children.unwanted_outside(OWNER, both[:1], stored_of(*both)) == both[1:]
    assert children.unwanted_outside(OWNER, [], stored_of(foreign)) == []


def test_a_spec_that_cannot_be_read_changes_nothing() -> None:
    route = built(gateway={"name": "web"})["HTTPRoute"]
    assert children.outside_kinds(None, stored_of(route)) == ["HTTPRoute"], "and the Service keeps its port for gRPC"
    spec = Spec.model_validate({"model": {"uri": "configmap://m/m", "format": "ONNX"}, "routing": {"hosts": ["a"]}})
    assert children.outside_kinds(spec, stored_of(route)) == []


def condition(kind: str, status: str = "True", reason: str = "", generation: int = 2) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason or kind,
        "message": f"{kind} is {status}",
        "observedGeneration": generation,
    }


def parent(*conditions: Object, name: str = "web", **more: str) -> Object:
    return {"parentRef": {"name": name, **more}, "controllerName": "example.com/gateway", "conditions": list(conditions)}


def route(*parents: Object, **gateway: str) -> Way:
    made = built(gateway={"name": "web", **gateway})["HTTPRoute"]
    return Way({**made, "metadata": {**made["metadata"], "generation": 2}, "status": {"parents": list(parents)}})


def ingress(*points: Object) -> Way:
    return Way({**built(ingress={})["Ingress"], "status": {"loadBalancer": {"ingress": list(points)}}})


GOOD = (condition("Accepted"), condition("ResolvedRefs"))
NOT_ALLOWED = condition("Accepted", "False", "NotAllowedByListeners")

# what is seen -> status, reason, a part of the message
SEEN: list[tuple[str, Way, tuple[bool | None, str, str]]] = [
    ("taken", route(parent(*GOOD)), (True, "Accepted", "Gateway shop/web sends it the requests to churn.example.com")),
    ("nobody looked", route(), (None, "NoController", "is there a Gateway shop/web")),
    ("no status at all", Way({**(route().stored or {}), "status": {}}), (None, "NoController", "is there a Gateway shop/web")),
    ("another Gateway", route(parent(*GOOD, name="old")), (None, "NoController", "shop/web")),
    ("another namespace", route(parent(*GOOD), namespace="edge"), (None, "NoController", "edge/web")),
    ("another listener", route(parent(*GOOD, sectionName="a"), sectionName="b"), (None, "NoController", "shop/web")),
    ("the namespace said", route(parent(*GOOD, namespace="shop")), (True, "Accepted", "shop/web")),
    ("not let in", route(parent(NOT_ALLOWED, GOOD[1])), (False, "NotAllowedByListeners", "shop/web, Accepted: Accepted is")),
    (
        "no backend",
        route(parent(GOOD[0], condition("ResolvedRefs", "False", "BackendNotFound"))),
        (False, "BackendNotFound", "shop/web, ResolvedRefs: "),
    ),
    ("not sure", route(parent(condition("Accepted", "Unknown", "Pending"), GOOD[1])), (None, "Pending", "shop/web, Accepted")),
    (
        "of an older generation",
        route(parent(condition("Accepted", generation=1), GOOD[1])),
        (None, "Pending", "example.com/gateway has not said yet whether HTTPRoute churn is Accepted"),
    ),
    ("half said", route(parent(GOOD[0])), (None, "Pending", "is ResolvedRefs")),
    ("not made yet", Way(None), (None, "WaitingForRouters", "the routers")),
    ("hindered", Way(route().stored, Symptom("NameClash", "theirs")), (False, "NameClash", "theirs")),
    ("no address", ingress(), (None, "NoAddress", "no ingress controller has taken Ingress churn yet")),
    ("an address", ingress({"ip": "192.0.2.1"}), (True, "AddressAssigned", "at 192.0.2.1")),
    ("a name", ingress({"hostname": "lb.example.com"}, {"ip": "192.0.2.1"}), (True, "AddressAssigned", "at lb.example.com, 192")),
]


@pytest.mark.parametrize(("way", "wanted"), [row[1:] for row in SEEN], ids=[row[0] for row in SEEN])
def test_what_is_told(way: Way, wanted: Verdict) -> None:
    verdict = exposed([way], None)
    assert verdict is not None
    assert verdict[:2] == wanted[:2]
    assert wanted[2] in verdict[2]


def test_the_worst_way_is_told() -> None:
    taken, waiting, refused = route(parent(*GOOD)), ingress(), route(parent(NOT_ALLOWED))
    addressed = ingress({"ip": "192.0.2.1"})

    def reason(*ways: Way) -> str:
        verdict = exposed(ways, None)
        return verdict[1] if verdict else ""

    assert reason(taken, waiting) == reason(waiting, taken) == "NoAddress"
    assert reason(waiting, refused) == reason(refused, waiting) == "NotAllowedByListeners"
    both = exposed([taken, addressed], None)
    assert both is not None
    assert both[0] is True
    assert "Gateway shop/web" in both[2]
    assert "Ingress churn" in both[2]


def test_a_host_that_somebody_else_has_is_told_whatever_else_is_well() -> None:
    assert exposed([route(parent(*GOOD))], TAKEN) == (False, "HostTaken", TAKEN.message)
    assert exposed([], TAKEN) is None, "RoutesLive tells it"


def test_the_condition_is_there_where_it_is_asked_for_and_ready_does_not_wait_for_it() -> None:
    subject = Subject("m", "ns", 3)
    seen = world(SERVING, a=UP)
    assert "Exposed" not in {each.type for each in report(Status(), subject, State(stable=A), seen).conditions}
    refused = replace(subject, exposed=(False, "NotAllowedByListeners", "why"))
    told = {each.type: each for each in report(Status(), refused, State(stable=A), seen).conditions}
    assert (told["Exposed"].status, told["Exposed"].reason) == ("False", "NotAllowedByListeners")
    assert told["Ready"].status == "True"


def test_a_way_in_that_is_shut_is_an_event_once() -> None:
    def told(verdict: Verdict) -> Status:
        return report(Status(), replace(Subject("m", "ns", 3), exposed=verdict), State(stable=A), world(SERVING, a=UP))

    waits, open_ = told((None, "NoController", "why")), told((True, "Accepted", "why"))
    shut, other = told((False, "NotAllowedByListeners", "why")), told((False, "HostTaken", "why"))
    for before in (waits, open_, other):
        assert event(before, shut) == Event("Warning", "NotAllowedByListeners", "why")
    assert event(shut, shut) is event(shut, waits) is event(waits, open_) is event(shut, open_) is None
