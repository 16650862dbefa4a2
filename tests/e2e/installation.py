"""The operator under test: installed by helm, its leader, its restarts."""

import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.cluster import Cluster, Namespace
from tests.e2e.waiting import await_, is_ready
from tests.integration.commands import ROOT, must, tool

NAMESPACE = "slipway-system"
RELEASE = "slipway"
LEASE = "slipway-operator"
# Of Services and pods, as both kinds of hack/cluster's clusters have them: models are fetched from stores in the cluster.
CLUSTER_NETWORKS = ["10.96.0.0/12", "10.244.0.0/16"]
# How many requests may wait for a revision in one activator: few, so that a test can be one too many.
HELD_MAX = 100
_PODS = "app.kubernetes.io/component=operator"


class Operator:
    """Slipway in the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespace = Namespace(cluster, NAMESPACE)

    def install(self) -> None:
        """Install the chart, or upgrade what is there."""
        values: dict[str, Any] = {
            "images": {name: {"ref": reference} for name, reference in self.cluster.images.items()},
            "dnsStaleSeconds": 6,
            "replicas": 2,
            "logFormat": "text",
            "activator": {"heldMax": HELD_MAX},
            "models": {"allowedNetworks": CLUSTER_NETWORKS},
        }
        must(
            tool("helm"), "--kubeconfig", self.cluster.kubeconfig, "upgrade", "--install", RELEASE,
            ROOT / "charts" / "slipway", "--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "5m",
            "--values", "-", stdin=json.dumps(values),
        )  # fmt: skip

    def pods(self) -> list[dict[str, Any]]:
        """Answer its pods."""
        return self.namespace.all("pods", _PODS)

    def names(self) -> set[str]:
        """Answer the names of its pods."""
        return {pod["metadata"]["name"] for pod in self.pods()}

    def scale(self, replicas: int) -> None:
        """Set the number of its pods, and wait until they are there, or gone."""
        self.cluster.kubectl("-n", NAMESPACE, "scale", f"deployment/{RELEASE}", f"--replicas={replicas}")
        await_(lambda: [is_ready(pod) for pod in self.pods()] == [True] * replicas, f"{replicas} operator pods are ready")

    @property
    def leader(self) -> str:
        """Answer the pod that holds the Lease; none while nobody does."""
        lease = self.namespace.find("leases", LEASE)
        return lease["spec"].get("holderIdentity", "") if lease else ""

    def await_leader(self, other_than: str = "") -> str:
        """Wait until a ready pod other than that one leads, and answer it."""

        def found() -> str:
            ready = {pod["metadata"]["name"] for pod in self.pods() if is_ready(pod)}
            return self.leader if self.leader in ready - {other_than} else ""

        return await_(found, "an operator leads")

    def restart(self) -> None:
        """Delete the leader, and wait until another leads and has looked at everything."""
        leader = self.await_leader()
        self.namespace.delete("pods", leader)
        self.await_leader(other_than=leader)

    def activators(self) -> set[str]:
        """Answer the names of the activator's pods that are ready."""
        pods = self.namespace.all("pods", "app.kubernetes.io/component=activator")
        return {pod["metadata"]["name"] for pod in pods if is_ready(pod)}

    def held(self) -> float:
        """Answer how many requests wait in all activators."""
        metric = ("slipway_activator_waiting", frozenset[tuple[str, str]]())
        return sum(self.metrics(f"{pod}:9901")[metric] for pod in self.activators())

    def metrics(self, pod: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Answer the leader's metrics, or those of another pod (NAME:PORT), by name and labels."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod or f'{self.await_leader()}:8080'}/proxy/metrics"
        families = text_string_to_metric_families(self.cluster.kubectl("get", "--raw", path))
        return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}

    def logs(self) -> str:
        """Answer the end of what its pods logged."""
        return self.cluster.try_kubectl("-n", NAMESPACE, "logs", "-l", _PODS, "--prefix", "--tail=60")
