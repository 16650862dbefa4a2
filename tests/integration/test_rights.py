"""The operator's rights: what it may do and may not, and that it needs no more, for it runs with them."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration import gateway_api
from tests.integration.chart import NAMESPACE, RELEASE, Helm
from tests.integration.client import Client, Object, Refused, model, models, wait_for
from tests.integration.commands import ROOT, run, tool

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:slipway"
SERVED, OTHER = (f"{stem}-{secrets.token_hex(3)}" for stem in ("served", "other"))
MODES: dict[str, dict[str, Any]] = {"cluster-wide": {}, "namespaced": {"watchNamespaces": [SERVED]}}
ANY = ""

# In a namespace that is served: verb, group, resource (with its subresource), name; and whether it is allowed.
TABLE = [
    ("list", "slipway.dev", "modeldeployments", ANY, True),
    ("watch", "slipway.dev", "modeldeployments", ANY, True),
    ("patch", "slipway.dev", "modeldeployments", ANY, False),
    ("update", "slipway.dev", "modeldeployments", ANY, False),
    ("create", "slipway.dev", "modeldeployments", ANY, False),
    ("delete", "slipway.dev", "modeldeployments", ANY, False),
    ("patch", "slipway.dev", "modeldeployments/status", ANY, True),
    ("update", "slipway.dev", "modeldeployments/status", ANY, False),
    ("update", "slipway.dev", "modeldeployments/finalizers", ANY, True),
    ("update", "slipway.dev", "modeldeployments/scale", ANY, False),
    *[(verb, "apps", "deployments", ANY, True) for verb in ("get", "list", "watch", "create", "patch", "delete")],
    ("update", "apps", "deployments", ANY, False),
    ("deletecollection", "apps", "deployments", ANY, False),
    ("patch", "apps", "deployments/scale", ANY, False),
    ("patch", "apps", "controllerrevisions", ANY, True),
    ("patch", "", "services", ANY, True),
    ("patch", "policy", "poddisruptionbudgets", ANY, True),
    ("list", "", "configmaps", ANY, True),
    ("patch", "", "configmaps", "slipway-router", True),
    ("create", "", "configmaps", "slipway-router", True),
    ("get", "", "configmaps", "other", False),
    ("patch", "", "configmaps", "other", False),
    ("delete", "", "configmaps", "other", False),
    ("create", "", "configmaps", "other", False),
    ("create", "", "serviceaccounts", "slipway-router", True),
    ("patch", "", "serviceaccounts", "default", False),
    ("create", "", "serviceaccounts/token", "slipway-router", False),
    ("patch", "", "pods", ANY, True),
    ("create", "", "pods", ANY, False),
    ("delete", "", "pods", ANY, False),
    ("create", "", "pods/exec", ANY, False),
    ("create", "", "pods/eviction", ANY, False),
    ("get", "", "pods/log", ANY, False),
    ("create", "", "events", ANY, True),
    ("list", "", "events", ANY, False),
    ("get", "", "secrets", ANY, False),
    ("list", "", "secrets", ANY, False),
    ("create", "", "secrets", ANY, False),
    ("create", "apps", "statefulsets", ANY, False),
    ("create", "apps", "daemonsets", ANY, False),
    *[(verb, "batch", "jobs", ANY, True) for verb in ("get", "list", "watch", "create", "patch", "delete")],
    ("create", "batch", "cronjobs", ANY, False),
    ("create", "rbac.authorization.k8s.io", "roles", ANY, False),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ANY, False),
    ("get", "coordination.k8s.io", "leases", "slipway-operator", False),
    *[(verb, "gateway.networking.k8s.io", "httproutes", ANY, True) for verb in ("get", "list", "watch", "patch", "delete")],
    ("patch", "gateway.networking.k8s.io", "httproutes/status", ANY, False),
    ("get", "gateway.networking.k8s.io", "gateways", ANY, False),
    *[(verb, "networking.k8s.io", "ingresses", ANY, True) for verb in ("get", "list", "watch", "patch", "delete")],
    ("patch", "networking.k8s.io", "ingresses/status", ANY, False),
    ("create", "networking.k8s.io", "networkpolicies", ANY, False),
]
# Anywhere: of the whole cluster, or of the operator's own namespace.
CLUSTER = [
    ("list", "", "namespaces"),
    ("get", "", "nodes"),
    ("list", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("list", "", "secrets"),
    ("create", "rbac.authorization.k8s.io", "clusterroles"),
    ("impersonate", "", "users"),
    ("*", "*", "*"),
]
OWN = [
    ("get", "coordination.k8s.io", "leases", "slipway-operator", True),
    ("create", "coordination.k8s.io", "leases", "slipway-operator", True),
    ("patch", "coordination.k8s.io", "leases", "slipway-operator", True),
    ("delete", "coordination.k8s.io", "leases", "slipway-operator", False),
    ("patch", "coordination.k8s.io", "leases", "other", False),
    ("list", "coordination.k8s.io", "leases", ANY, False),
]


@dataclass(frozen=True)
class Installed:
    """The chart, installed in one mode."""

    mode: str
    cluster: Client

    def may(self, verb: str, group: str, resource: str, name: str = ANY, namespace: str = "", user: str = ACCOUNT) -> bool:
        """Ask the API server, as the user itself."""
        kind, _, sub = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": kind, "subresource": sub, "name": name, "namespace": namespace}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
        headers = {"Impersonate-User": user, "Impersonate-Group": "system:authenticated"}
        answer = self.cluster.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, headers)
        return answer["status"]["allowed"]


@pytest.fixture(scope="module", params=MODES)
def installed(
    request: pytest.FixtureRequest, chart_cluster: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """Answer the chart, installed in each mode after the other."""
    helm = Helm(tmp_path_factory.mktemp("helm"), chart_cluster)
    for name in (NAMESPACE, SERVED, OTHER):
        chart_cluster.make_namespace(name)
    request.addfinalizer(lambda: helm.must("uninstall", RELEASE, "-n", NAMESPACE))
    helm.install(MODES[request.param])
    wait_for("ModelDeployments are served", lambda: chart_cluster.found(models(SERVED)))
    answer = Installed(request.param, chart_cluster)
    # The authorizer learns of roles by a watch.
    wait_for("the rights are granted", lambda: answer.may("list", "slipway.dev", "modeldeployments", namespace=SERVED))
    return answer


@pytest.mark.parametrize(("verb", "group", "resource", "name", "allowed"), TABLE)
def test_in_a_served_namespace(installed: Installed, verb: str, group: str, resource: str, name: str, allowed: bool) -> None:
    assert installed.may(verb, group, resource, name, SERVED) is allowed


@pytest.mark.parametrize(("verb", "group", "resource", "name", "allowed"), TABLE)
def test_elsewhere(installed: Installed, verb: str, group: str, resource: str, name: str, allowed: bool) -> None:
    """Another namespace is served just so, or in namespaced mode not at all."""
    assert installed.may(verb, group, resource, name, OTHER) is (allowed and installed.mode == "cluster-wide")


@pytest.mark.parametrize(("verb", "group", "resource"), CLUSTER)
def test_nothing_of_the_cluster(installed: Installed, verb: str, group: str, resource: str) -> None:
    assert not installed.may(verb, group, resource)


@pytest.mark.parametrize(("verb", "group", "resource", "name", "allowed"), OWN)
def test_its_lease(installed: Installed, verb: str, group: str, resource: str, name: str, allowed: bool) -> None:
    assert installed.may(verb, group, resource, name, NAMESPACE) is allowed
    assert not installed.may(verb, group, resource, name, SERVED)


def test_kubectl_says_the_same(installed: Installed) -> None:
    def can(*words: str) -> str:
        kubectl = (tool("kubectl"), "--kubeconfig", installed.cluster.kubeconfig, "auth", "can-i", f"--as={ACCOUNT}")
        return run(*kubectl, *words).stdout.strip()

    assert can("patch", "deployments.apps", "-n", SERVED) == "yes"
    assert can("patch", "modeldeployments.slipway.dev", "--subresource=status", "-n", SERVED) == "yes"
    assert can("get", "secrets", "-n", SERVED) == "no"
    assert can("list", "modeldeployments.slipway.dev", "-A") == ("yes" if installed.mode == "cluster-wide" else "no")


def granted(rules: list[Object]) -> set[tuple[str, str, str, str]]:
    """Answer rules as single rights: group, resource, name, verb."""
    return {
        (group or "core", resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ("all",)
        for verb in rule["verbs"]
    }


def documented(title: str) -> set[tuple[str, str, str, str]]:
    """Answer the table under a title of docs/rbac.md as single rights."""
    section = (ROOT / "docs" / "rbac.md").read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {(group, resource, name, verb) for group, resource, name, verbs, _ in rows[2:] for verb in verbs.split(", ")}


def test_the_docs_tell_the_chart(installed: Installed) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = f"{rbac}/clusterroles/slipway" if installed.mode == "cluster-wide" else f"{rbac}/namespaces/{SERVED}/roles/slipway"
    leader = f"{rbac}/namespaces/{NAMESPACE}/roles/slipway-leader"
    assert granted(installed.cluster.get(role)["rules"]) == documented("The operator, in the namespaces that it serves")
    assert granted(installed.cluster.get(leader)["rules"]) == documented("The operator, in its own namespace")
    assert granted(installed.cluster.get(f"{rbac}/clusterroles/slipway-rollouts")["rules"]) == documented("Who steers rollouts")


def test_users_get_rights_by_kubernetes_own_roles(installed: Installed) -> None:
    for role in ("admin", "edit", "view"):
        at = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SERVED}/rolebindings/{role}"
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"a-{role}"}
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": role}}
        installed.cluster.apply(at, body | {"roleRef": ref, "subjects": [subject]})

    def may(role: str, verb: str, resource: str, namespace: str = SERVED) -> bool:
        return installed.may(verb, "slipway.dev", resource, namespace=namespace, user=f"a-{role}")

    wait_for(
        "roles are aggregated",
        lambda: (
            may("view", "get", "modeldeployments")
            and all(may(role, "patch", "modeldeployments/status") for role in ("admin", "edit"))
        ),
    )
    for role in ("admin", "edit"):
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"):
            assert may(role, verb, "modeldeployments")
        assert may(role, "update", "modeldeployments/scale")
        assert may(role, "get", "modeldeployments/status")
        assert may(role, "patch", "modeldeployments/status"), "the verbs of kubectl slipway"
        assert not may(role, "update", "modeldeployments/status")
        assert not may(role, "create", "modeldeployments", OTHER)
    for verb in ("get", "list", "watch"):
        assert may("view", verb, "modeldeployments")
    for verb in ("create", "update", "patch", "delete"):
        assert not may("view", verb, "modeldeployments")
    assert may("view", "get", "modeldeployments/scale")
    assert not may("view", "update", "modeldeployments/scale")


def kubeconfig(cluster: Client, folder: Path) -> Path:
    """Write a kubeconfig of the operator's ServiceAccount."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/slipway/token", body)["status"]["token"]
    authority = folder / "ca.crt"
    authority.write_text(cluster.authority)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": cluster.server, "certificate-authority": str(authority)}}],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@contextmanager
def operator(installed: Installed, folder: Path) -> Iterator[Path]:
    """Run the operator as its ServiceAccount, with the arguments that the chart gives it. Answers its log."""
    at = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/slipway"
    (container,) = installed.cluster.get(at)["spec"]["template"]["spec"]["containers"]
    own = {"$(POD_NAMESPACE)": NAMESPACE, "$(POD_NAME)": f"slipway-{installed.mode}"}
    args = [re.sub(r"\$\(\w+\)", lambda found: own[found[0]], word) for word in container["args"]]
    log = folder / "operator.log"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig(installed.cluster, folder))}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "slipway", *args, "--http-port=0", "--log-level=debug"], env=env, stdout=out, stderr=out
        )
    try:
        yield log
    finally:
        process.terminate()
        ended = process.wait(timeout=20)
    assert ended == 0, log.read_text()[-3000:]


def test_the_operator_needs_no_more(installed: Installed, tmp_path: Path) -> None:
    cluster = installed.cluster
    churn, taken = f"churn-{installed.mode}", f"taken-{installed.mode}"
    routers = [
        f"/apis/apps/v1/namespaces/{SERVED}/deployments/slipway-router",
        f"/apis/policy/v1/namespaces/{SERVED}/poddisruptionbudgets/slipway-router",
        f"/api/v1/namespaces/{SERVED}/configmaps/slipway-router",
        f"/api/v1/namespaces/{SERVED}/serviceaccounts/slipway-router",
    ]
    spec = {"model": {"uri": "configmap://digits/model.onnx", "format": "ONNX"}, "scaling": {"min": 2}}
    outside = {"hosts": [f"{churn}.example.com"], "gateway": {"name": "web"}, "ingress": {}}
    route = gateway_api.http_route(SERVED, churn)
    ingress = f"/apis/networking.k8s.io/v1/namespaces/{SERVED}/ingresses/{churn}"
    gateway_api.install(cluster)
    with operator(installed, tmp_path) as log:

        def refused_nothing(*paths: str) -> bool:
            said = log.read_text()
            assert "orbidden" not in said, said[-3000:]
            assert "Not enough permissions" not in said, said[-3000:]  # as kopf says it
            return all(cluster.found(path) for path in paths)

        cluster.create(models(SERVED), model(churn, spec))
        wait_for("the children are made", lambda: refused_nothing(*routers, f"/api/v1/namespaces/{SERVED}/services/{churn}"))
        wait_for("status is written", lambda: cluster.get(models(SERVED, churn)).get("status", {}).get("candidate"))

        # A router that has an address is told of each change by an annotation.
        pods = f"/api/v1/namespaces/{SERVED}/pods"
        found = wait_for("a router pod", lambda: cluster.get(f"{pods}?labelSelector=app.kubernetes.io/component=router")["items"])
        pod = f"{pods}/{found[0]['metadata']['name']}"
        cluster.merge(f"{pod}/status", {"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}})
        key = "slipway.dev/config-version"
        wait_for(
            "the pod is annotated", lambda: refused_nothing() and cluster.get(pod)["metadata"].get("annotations", {}).get(key)
        )

        # Ways in from outside are made, mended and removed, and foreign ones looked at.
        foreign = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": churn}}
        cluster.apply(ingress, foreign | {"spec": {"rules": [{"host": "theirs.example.com"}]}})
        cluster.merge(models(SERVED, churn), {"spec": {"routing": outside}})
        wait_for("the HTTPRoute is made", lambda: refused_nothing(route))
        wait_for(
            "the clash is told",
            lambda: refused_nothing() and "Ingress" in json.dumps(cluster.get(models(SERVED, churn))["status"]),
        )
        cluster.delete(ingress)
        cluster.merge(route, {"spec": {"hostnames": ["theirs.example.com"]}})
        wait_for("it is mended", lambda: refused_nothing() and cluster.get(route)["spec"]["hostnames"] == outside["hosts"])
        wait_for("the Ingress is made", lambda: refused_nothing(ingress), 40)
        cluster.merge(models(SERVED, churn), {"spec": {"routing": {"gateway": None, "ingress": None}}})
        wait_for("both are gone", lambda: refused_nothing() and not cluster.found(route) and not cluster.found(ingress))

        # A change makes another revision and withdraws the first, and a foreign object is looked at.
        revisions = f"/apis/apps/v1/namespaces/{SERVED}/deployments?labelSelector=slipway.dev/model-deployment={churn}"
        first = cluster.get(revisions)["items"][0]["metadata"]["name"]
        cluster.merge(models(SERVED, churn), {"spec": {"model": {"version": "2"}}})
        wait_for(
            "the first revision is withdrawn",
            lambda: refused_nothing() and first not in [item["metadata"]["name"] for item in cluster.get(revisions)["items"]],
        )
        foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": taken}, "spec": {"ports": [{"port": 1}]}}
        cluster.create(f"/api/v1/namespaces/{SERVED}/services", foreign)
        cluster.create(models(SERVED), model(taken, spec))
        wait_for(
            "the clash is reported",
            lambda: refused_nothing() and "NameClash" in json.dumps(cluster.get(models(SERVED, taken)).get("status", {})),
        )
        events = f"/api/v1/namespaces/{SERVED}/events?fieldSelector=involvedObject.kind=ModelDeployment"
        assert cluster.get(events)["items"]

        for name in (churn, taken):
            cluster.delete(models(SERVED, name))
        cluster.delete(f"/api/v1/namespaces/{SERVED}/services/{taken}")
        wait_for("the routers are gone", lambda: refused_nothing() and not any(cluster.found(path) for path in routers))


def test_a_patch_never_makes_a_pod(installed: Installed) -> None:
    """Applied to a pod that went meanwhile, the annotation is a conflict or a refusal, whatever its rights."""
    uid = "00000000-0000-0000-0000-000000000000"
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gone", "namespace": SERVED, "uid": uid}}
    headers = {
        "Impersonate-User": ACCOUNT,
        "Impersonate-Group": "system:authenticated",
        "Content-Type": "application/apply-patch+yaml",
    }
    with pytest.raises(Refused) as refused:
        installed.cluster.request("PATCH", f"/api/v1/namespaces/{SERVED}/pods/gone?fieldManager=x&force=true", body, headers)
    assert refused.value.code == 409
