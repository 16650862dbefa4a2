"""Rights: what the operator and users may do and may not."""

from collections.abc import Iterator

import pytest
from tests.integration.chart import NAMESPACE
from tests.integration.client import Client, Refused, wait_for
from tests.integration.commands import ROOT, run, tool
from tests.integration.rights import ACCOUNT, ANY, MODES, OTHER, RBAC, SERVED, Installed, granted, installed_in

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
    ("list", "metrics.k8s.io", "pods", ANY, True),
    ("watch", "metrics.k8s.io", "pods", ANY, False),
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


@pytest.fixture(scope="module", params=MODES)
def installed(
    request: pytest.FixtureRequest, chart_cluster: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """Answer the chart, installed in each mode after the other."""
    with installed_in(request.param, chart_cluster, tmp_path_factory.mktemp("helm")) as answer:
        yield answer


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


def documented(title: str) -> set[tuple[str, str, str, str]]:
    """Answer the table under a title of docs/rbac.md as single rights."""
    section = (ROOT / "docs" / "rbac.md").read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {(group, resource, name, verb) for group, resource, name, verbs, _ in rows[2:] for verb in verbs.split(", ")}


def test_the_docs_tell_the_chart(installed: Installed) -> None:
    assert granted(installed.cluster.get(installed.role)["rules"]) == documented("The operator, in the namespaces that it serves")
    activator = granted(installed.cluster.get(f"{installed.role}-activator")["rules"])
    assert activator == documented("The activator, in the same namespaces")
    assert granted(installed.cluster.get(installed.leader_role)["rules"]) == documented("The operator, in its own namespace")
    assert granted(installed.cluster.get(f"{RBAC}/clusterroles/slipway-rollouts")["rules"]) == documented("Who steers rollouts")


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
