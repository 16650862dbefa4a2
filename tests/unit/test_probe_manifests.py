"""The comparer's Deployment and Service: restricted, owned, found by routers, and started with flags that it understands."""

from dataclasses import replace
from typing import Any

from tests.unit.test_manifests import restricted

from slipway import settings
from slipway.core.agreement import Rule
from slipway.manifests import comparer, labels, model
from slipway.probe import command

SETTINGS = settings.Settings(server_image="server:1", router_image="router:1", operator_image="operator:1")
ASKED = comparer.Comparing("m-a", 8081, "m-b", "m-preview.ns", Rule(0.01), timeout_seconds=1.5)


def build(asked: comparer.Comparing = ASKED, chosen: settings.Settings = SETTINGS) -> dict[str, Any]:
    return comparer.build_deployment("m", "ns", "uid-1", asked, chosen)


def test_it_is_a_child_like_others_and_no_pod_of_a_model() -> None:
    for obj in (build(), comparer.build_service("m", "ns", "uid-1")):
        metadata = obj["metadata"]
        assert (metadata["name"], metadata["namespace"]) == ("m-compare", "ns")
        assert metadata["ownerReferences"] == [labels.owner("m", "uid-1")]
        assert metadata["labels"][labels.MANAGED_BY] == "slipway"
        assert metadata["labels"][labels.MODEL_LABEL] == "m"
    pods = build()["spec"]["template"]["metadata"]["labels"]
    assert labels.REVISION_LABEL not in pods
    budget = model.build_disruption_budget("m", "ns", "uid-1", 2)
    assert budget is not None
    assert not budget["spec"]["selector"]["matchLabels"].items() <= pods.items()
    for selector in (build()["spec"]["selector"]["matchLabels"], comparer.build_service("m", "ns", "u")["spec"]["selector"]):
        assert selector.items() <= pods.items()
        assert not selector.items() <= labels.model_labels("m", "m-a").items()


def test_its_pod_is_restricted_and_bounded() -> None:
    pod = build()["spec"]["template"]["spec"]
    restricted(pod)
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"] == "256Mi"
    assert (container["image"], build()["spec"]["replicas"]) == ("operator:1", 1)
    assert "imagePullSecrets" not in pod
    secret = build(chosen=replace(SETTINGS, image_pull_secrets=("pull",)))["spec"]["template"]["spec"]
    assert secret["imagePullSecrets"] == [{"name": "pull"}]


def test_its_ports_are_those_that_others_ask() -> None:
    (container,) = build()["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": comparer.PORT, "metrics": comparer.METRICS_PORT}
    (port,) = comparer.build_service("m", "ns", "uid-1")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (comparer.PORT, "http")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "metrics"


def test_the_comparer_understands_its_arguments() -> None:
    (container,) = build()["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "compare"
    flags = command.parse(container["args"][1:])
    assert flags.stable == "http://m-a.ns.svc.cluster.local.:8081"
    assert flags.candidate == "http://m.ns.svc.cluster.local.:80"
    assert (flags.stable_revision, flags.candidate_revision, flags.candidate_host) == ("m-a", "m-b", "m-preview.ns")
    assert (flags.tolerance, flags.labels, flags.timeout_seconds) == (0.01, False, 1.5)
    (container,) = build(replace(ASKED, rule=Rule(labels=True)))["spec"]["template"]["spec"]["containers"]
    assert command.parse(container["args"][1:]).labels


def test_another_pair_is_another_pod() -> None:
    assert build() != build(replace(ASKED, candidate="m-c"))


def test_the_operator_is_told_its_own_image() -> None:
    told = ["--server-image=s", "--router-image=r"]
    assert settings.parse([*told, "--operator-image=operator:2"]).operator_image == "operator:2"
    assert settings.parse(told).operator_image == ""
