"""The chart on a real API server: installed, upgraded, uninstalled. There are no nodes, so no pod runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.integration.chart import CHART, NAMESPACE, RELEASE, Helm
from tests.integration.client import Client, model, models, wait_for

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modeldeployments.slipway.dev"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/slipway"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SPEC = {"model": {"uri": "configmap://digits/model.onnx", "format": "ONNX"}}


@pytest.fixture
def helm(chart_cluster: Client, tmp_path: Path) -> Iterator[Helm]:
    """Answer helm, and the cluster without a trace of the chart before and after."""
    helm = Helm(tmp_path, chart_cluster)
    _clear(helm, chart_cluster)
    # All that the chart makes must satisfy the strictest standard.
    chart_cluster.make_namespace(NAMESPACE)
    yield helm
    _clear(helm, chart_cluster)


def _clear(helm: Helm, cluster: Client) -> None:
    helm.must("uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found", "--wait")
    cluster.delete(CRD)
    wait_for("the CRD is gone", lambda: not cluster.found(CRD))


def _served(cluster: Client) -> bool:
    conditions = cluster.get(CRD).get("status", {}).get("conditions", ())
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def test_install(helm: Helm, chart_cluster: Client) -> None:
    printed = helm.install({})
    wait_for("the CRD is served", lambda: _served(chart_cluster))
    assert "kubectl apply -f -" in printed
    assert "serves all namespaces" in printed
    for path in (
        DEPLOYMENT,
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/slipway",
        f"/api/v1/namespaces/{NAMESPACE}/services/slipway-metrics",
        f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/slipway",
        f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/slipway",
        f"{RBAC}/clusterroles/slipway",
        f"{RBAC}/clusterrolebindings/slipway",
        f"{RBAC}/namespaces/{NAMESPACE}/roles/slipway-leader",
    ):
        assert chart_cluster.found(path), path


def test_the_pods_satisfy_restricted_pod_security(helm: Helm, chart_cluster: Client) -> None:
    helm.install({})
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component=operator"
    wait_for("both pods are admitted", lambda: len(chart_cluster.get(pods)["items"]) == 2)


def test_the_first_model_of_the_notes_is_right(helm: Helm, chart_cluster: Client) -> None:
    printed = helm.install({})
    wait_for("the CRD is served", lambda: _served(chart_cluster))
    body = yaml.safe_load(printed.split("<<YAML\n", 1)[1].split("YAML\n", 1)[0])
    chart_cluster.create(models("default"), body)
    chart_cluster.delete(models("default", body["metadata"]["name"]))


def test_upgrade_changes_the_operator_and_the_crd_and_keeps_models(helm: Helm, chart_cluster: Client, tmp_path: Path) -> None:
    helm.install({})
    wait_for("the CRD is served", lambda: _served(chart_cluster))
    before = chart_cluster.create(models("default"), model("kept", SPEC))

    newer = tmp_path / "slipway"
    shutil.copytree(CHART, newer)
    crd = yaml.safe_load((newer / "files" / "crd.yaml").read_text())
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "of a later version"
    (newer / "files" / "crd.yaml").write_text(yaml.safe_dump(crd))
    helm.install({"replicas": 3, "images": {"operator": {"tag": "9.9.9"}}}, chart=newer)

    (version,) = chart_cluster.get(CRD)["spec"]["versions"]
    assert version["schema"]["openAPIV3Schema"]["description"] == "of a later version"
    spec = chart_cluster.get(DEPLOYMENT)["spec"]
    assert spec["replicas"] == 3
    assert spec["template"]["spec"]["containers"][0]["image"] == "slipway/operator:9.9.9"
    after = chart_cluster.get(models("default", "kept"))
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])


def test_a_second_upgrade_changes_nothing(helm: Helm, chart_cluster: Client) -> None:
    helm.install({})
    wait_for("the CRD is served", lambda: _served(chart_cluster))
    paths = (CRD, DEPLOYMENT, f"{RBAC}/clusterroles/slipway")
    before = [chart_cluster.get(path)["metadata"].get("generation", 1) for path in paths]
    helm.install({})
    assert [chart_cluster.get(path)["metadata"].get("generation", 1) for path in paths] == before


def test_uninstall_keeps_the_crd_and_models_and_install_takes_them_up(helm: Helm, chart_cluster: Client) -> None:
    helm.install({})
    wait_for("the CRD is served", lambda: _served(chart_cluster))
    uid = chart_cluster.create(models("default"), model("kept", SPEC))["metadata"]["uid"]
    helm.must("uninstall", RELEASE, "-n", NAMESPACE)
    for path in (DEPLOYMENT, f"{RBAC}/clusterroles/slipway", f"{RBAC}/clusterroles/slipway-edit"):
        wait_for(f"{path} is gone", lambda path=path: not chart_cluster.found(path))
    assert "deletionTimestamp" not in chart_cluster.get(CRD)["metadata"]
    assert chart_cluster.get(models("default", "kept"))["metadata"]["uid"] == uid

    helm.install({})
    assert chart_cluster.get(models("default", "kept"))["metadata"]["uid"] == uid
    assert chart_cluster.found(DEPLOYMENT)


def test_uninstall_takes_the_crd_where_it_is_not_kept(helm: Helm, chart_cluster: Client) -> None:
    helm.install({})
    assert "deletes the CRD and with it ALL ModelDeployments" in helm.install({"crds": {"keep": False}})
    helm.must("uninstall", RELEASE, "-n", NAMESPACE)
    wait_for("the CRD is gone", lambda: not chart_cluster.found(CRD))


def test_a_crd_that_somebody_applied_is_taken_over_when_asked(helm: Helm, chart_cluster: Client) -> None:
    chart_cluster.apply(CRD, yaml.safe_load((CHART / "files" / "crd.yaml").read_text()))
    ended = helm.run("install", RELEASE, CHART, "-n", NAMESPACE)
    assert ended.returncode != 0
    assert "invalid ownership metadata" in ended.stderr
    helm.run("uninstall", RELEASE, "-n", NAMESPACE)
    helm.install({}, "--take-ownership", "--force-conflicts")
    assert chart_cluster.get(CRD)["metadata"]["annotations"]["meta.helm.sh/release-name"] == RELEASE


def test_namespaced_install_leaves_nothing_cluster_wide_to_the_operator(helm: Helm, chart_cluster: Client) -> None:
    for name in ("shop", "search"):
        chart_cluster.make_namespace(name)
    assert "serves the namespaces shop, search" in helm.install({"watchNamespaces": ["shop", "search"]})
    assert not chart_cluster.found(f"{RBAC}/clusterroles/slipway")
    assert not chart_cluster.found(f"{RBAC}/clusterrolebindings/slipway")
    for name in ("shop", "search"):
        assert chart_cluster.found(f"{RBAC}/namespaces/{name}/roles/slipway")
    (container,) = chart_cluster.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
    assert "--watch-namespaces=shop,search" in container["args"]

    helm.install({"watchNamespaces": ["shop"]})
    assert not chart_cluster.found(f"{RBAC}/namespaces/search/roles/slipway")
    helm.install({})
    assert chart_cluster.found(f"{RBAC}/clusterroles/slipway")
    assert not chart_cluster.found(f"{RBAC}/namespaces/shop/roles/slipway")
