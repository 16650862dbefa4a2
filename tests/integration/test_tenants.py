"""What a platform sets around a team's ModelDeployments (examples/platform) does what docs/security.md says."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.integration.client import Client, Object, Refused, model, models, spec_of, wait_for
from tests.integration.commands import ROOT

from slipway.manifests import labels
from slipway.manifests.check_job import COMPONENT as CHECK
from slipway.manifests.comparer import comparer_labels

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POD = "server: {podTemplate: {spec: {%s}}}"
CANARY = "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [%s]}"
# What a tenant may not ask for, and the words by which it is refused.
FORBIDDEN = [
    ("routing: {hosts: [churn.example.com]}", "routing.hosts must end in ."),
    ("routing: {hosts: [other.models.example.com]}", "routing.hosts must end in ."),
    ("routing: {hosts: [a.%(namespace)s.models.example.com], ingress: {annotations: {a: b}}}", "leave them out"),
    ("{model: {format: Custom}, server: {image: evil.example.com/a}}", "must come from registry.example.com"),
    ("{model: {uri: 's3://models/m.pkl', format: SKLearn, trust: Unsafe}}", "save the model with skops"),
    (POD % "serviceAccountName: mighty", "default account"),
    (POD % "volumes: [{name: a, secret: {secretName: theirs}}]", "no Secrets and no tokens"),
    (POD % "volumes: [{name: a, projected: {sources: [{serviceAccountToken: {path: t}}]}}]", "no Secrets and no tokens"),
    (POD % "containers: [{envFrom: [{secretRef: {name: theirs}}]}]", "not those of Secrets"),
    (POD % "containers: [{env: [{name: A, valueFrom: {secretKeyRef: {name: t, key: k}}}]}]", "not those of Secrets"),
    ("{model: {uri: 's3://models/m.onnx', format: ONNX, storage: {secretName: theirs}}}", "must begin with model-"),
    (CANARY % "{job: {template: {spec: {containers: [{image: a}]}}}}", "use webhook"),
    (CANARY % "{prometheus: {query: up, min: 1}}", "use webhook"),
]
ALLOWED = [
    "scaling: {min: 1}",
    "routing: {hosts: [churn.%(namespace)s.models.example.com], ingress: {}}",
    "{model: {uri: 's3://models/m.onnx', format: ONNX, storage: {secretName: model-store}}}",
    "{model: {format: Custom}, server: {image: registry.example.com/a, podTemplate: {spec: {volumes: [{name: a, emptyDir: {}}], "
    "containers: [{env: [{name: A, value: b}], volumeMounts: [{name: a, mountPath: /a}]}]}}}}",
    CANARY % "{webhook: {url: 'http://gate/'}}",
]


def documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((ROOT / "examples" / "platform" / name).read_text()))


@pytest.fixture(scope="module")
def tenant(cluster: Client) -> Iterator[str]:
    """Answer a namespace that the policy is about, once it is in force."""
    name = cluster.make_namespace(f"tenant-{secrets.token_hex(3)}")
    cluster.merge(f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"slipway.dev/tenant": ""}}})
    plurals = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
    plurals["ValidatingAdmissionPolicyBinding"] = "validatingadmissionpolicybindings"
    paths = {f"{ADMISSION}/{plurals[obj['kind']]}/{obj['metadata']['name']}": obj for obj in documents("policy.yaml")}
    for path, obj in paths.items():
        cluster.apply(path, obj)
    wait_for("the policy is in force", lambda: "skops" in (refusal(cluster, name, FORBIDDEN[4][0]) or ""), 60)
    yield name
    for path in paths:
        cluster.delete(path)


def refusal(cluster: Client, namespace: str, text: str) -> str | None:
    """Answer why a ModelDeployment of that spec is refused, None where it is not."""
    try:
        spec = spec_of(text % {"namespace": namespace})
        cluster.request("POST", f"{models(namespace)}?fieldValidation=Strict&dryRun=All", model("any", spec))
    except Refused as refused:
        return refused.message
    return None


@pytest.mark.parametrize(("text", "says"), FORBIDDEN)
def test_the_policy_refuses(cluster: Client, tenant: str, namespace: str, text: str, says: str) -> None:
    said = refusal(cluster, tenant, text)
    assert said is not None
    assert says in said
    assert refusal(cluster, namespace, text) is None, "a namespace that the policy is not about"


@pytest.mark.parametrize("text", ALLOWED)
def test_the_policy_lets_pass(cluster: Client, tenant: str, text: str) -> None:
    assert refusal(cluster, tenant, text) is None


def test_the_policy_can_be_evaluated(cluster: Client, tenant: str) -> None:
    """An expression that the API server finds wrong in type is told of in the policy's status."""
    (policy, _) = documents("policy.yaml")
    path = f"{ADMISSION}/validatingadmissionpolicies/{policy['metadata']['name']}"
    status = wait_for(
        "it is checked", lambda: cluster.get(path).get("status", {}).get("observedGeneration") and cluster.get(path)
    )
    assert status["status"].get("typeChecking", {}) == {}


def selects(selector: dict[str, Any], carried: dict[str, str]) -> bool:
    """Tell whether a label selector selects what carries these labels."""
    expressions = selector.get("matchExpressions", ())
    assert all(each["operator"] == "In" for each in expressions)
    said = selector.get("matchLabels", {}).items() <= carried.items()
    return said and all(carried.get(each["key"]) in each["values"] for each in expressions)


def test_the_network_policies_are_about_the_pods_that_they_name() -> None:
    pods = {
        "routers": labels.router_labels(),
        "models": labels.model_labels("m", "m-a"),
        "comparers": comparer_labels("m"),
        "checks": labels.model_labels("m") | {labels.COMPONENT: CHECK},
    }
    policies = {obj["metadata"]["name"]: obj["spec"] for obj in documents("tenant.yaml") if obj["kind"] == "NetworkPolicy"}
    assert policies.keys() == {"routers", "models", "comparers"}
    for name, spec in policies.items():
        assert [pod for pod, carried in pods.items() if selects(spec["podSelector"], carried)] == [name]
    callers = policies["models"]["ingress"][0]["from"][0]["podSelector"]
    assert [pod for pod, carried in pods.items() if selects(callers, carried)] == ["routers", "comparers", "checks"]
