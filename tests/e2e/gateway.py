"""Envoy Gateway, a real implementation of the Gateway API, by its own chart, and Gateways of it, called from outside."""

import http.client
import json
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster, Namespace
from tests.e2e.stores import build_image
from tests.e2e.traffic import HERE
from tests.e2e.waiting import await_, condition_of
from tests.integration.commands import must, tool

from slipway_dev import go

NAMESPACE = "envoy-gateway-system"
CLASS = "envoy"
OPEN, CLOSED = "open", "closed"
_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"


class EnvoyGateway:
    """Envoy Gateway in the cluster: its proxies are the Envoy of Slipway's routers."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def install(self) -> None:
        """Install the chart of its module, with the CRDs of the Gateway API, and a GatewayClass."""
        context = self.folder / "image"
        context.mkdir()
        (context / "envoy-gateway").hardlink_to(tool("envoy-gateway"))
        image = build_image("envoy-gateway", context, "--dockerfile", HERE / "images/gateway/Dockerfile")
        self.cluster.load(image)
        chart = self.folder / "chart"
        shutil.copytree(go.source("envoy-gateway", "github.com/envoyproxy/gateway") / "charts/gateway-helm", chart)
        values = {
            "global": {"images": {"envoyGateway": {"image": image, "pullPolicy": "IfNotPresent"}}},
            "topologyInjector": {"enabled": False},
            "deployment": {"envoyGateway": {"readinessProbe": {"periodSeconds": 1}}},
            "config": {"envoyGateway": {"provider": {"type": "Kubernetes", "kubernetes": {"shutdownManager": {"image": image}}}}},
        }
        must(
            tool("helm"), "--kubeconfig", self.cluster.kubeconfig, "upgrade", "--install", "eg", chart, "--wait", "--timeout",
            "5m", "--namespace", NAMESPACE, "--create-namespace", "--values", chart / "values.tmpl.yaml", "--values", "-",
            stdin=json.dumps(values),
        )  # fmt: skip
        container = {"image": self.cluster.images["router"], "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}}
        often = [{"name": name, "startupProbe": {"periodSeconds": 1}} for name in ("envoy", "shutdown-manager")]
        patch = {"type": "StrategicMerge", "value": {"spec": {"template": {"spec": {"containers": often}}}}}
        service = {"type": "NodePort", "externalTrafficPolicy": "Cluster"}  # any node leads to the proxy, not only its own
        kubernetes = {"envoyService": service, "envoyDeployment": {"container": container, "patch": patch}}
        at = f"/apis/gateway.envoyproxy.io/v1alpha1/namespaces/{NAMESPACE}/envoyproxies/{CLASS}"
        shutdown = {"drainTimeout": "1s", "minDrainDuration": "0s"}
        self._apply(at, "EnvoyProxy", {"provider": {"type": "Kubernetes", "kubernetes": kubernetes}, "shutdown": shutdown})
        parameters = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": CLASS, "namespace": NAMESPACE}
        spec = {"controllerName": _CONTROLLER, "parametersRef": parameters}
        self._apply(f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{CLASS}", "GatewayClass", spec)

    def _apply(self, path: str, kind: str, spec: dict[str, Any]) -> None:
        _, _, group, version, *_ = path.split("/")
        body = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": CLASS}, "spec": spec}
        self.cluster.client.apply(path, body)


class Gateway:
    """One Gateway, with a listener that lets routes of any namespace in, and one that lets in none."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.namespace, self.name = namespace, name

    def apply(self) -> None:
        """Apply it."""
        none = {"from": "Selector", "selector": {"matchLabels": {"nobody": "has"}}}
        listeners = [
            {"name": OPEN, "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}},
            {"name": CLOSED, "protocol": "HTTP", "port": 81, "allowedRoutes": {"namespaces": none}},
        ]
        kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": self.name}}
        self.namespace.apply("gateways", {**kind, "spec": {"gatewayClassName": CLASS, "listeners": listeners}})

    def await_programmed(self) -> None:
        """Wait until its proxy serves."""

        def programmed() -> bool:
            return condition_of(self.namespace.get("gateways", self.name), "Programmed").get("status") == "True"

        await_(programmed, f"Gateway {self.name} is programmed")
        await_(self._connects, f"Gateway {self.name} takes connections")

    def _connects(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def address(self) -> tuple[str, int]:
        """Answer a node's address and the port there: what a load balancer would send to."""
        owner = "gateway.envoyproxy.io/owning-gateway-"
        selector = f"{owner}name={self.name},{owner}namespace={self.namespace.name}"
        (service,) = Namespace(self.namespace.cluster, NAMESPACE).all("services", selector)
        (port,) = (port["nodePort"] for port in service["spec"]["ports"] if port["port"] == 80)
        node = self.namespace.client.get("/api/v1/nodes")["items"][0]
        (host,) = (each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
        return host, port

    def ask(self, host: str, path: str, body: str = "", times: int = 1) -> Counter[tuple[int, str]]:
        """Send requests for a host from outside the cluster; answer how many got which status, from which revision."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        found: Counter[tuple[int, str]] = Counter()
        for _ in range(times):
            headers = {"Host": host, "Content-Type": "application/json"}
            connection.request("POST" if body else "GET", path, body or None, headers)
            answer = connection.getresponse()
            answer.read()
            found[answer.status, answer.getheader("x-slipway-revision", "")] += 1
        connection.close()
        return found
