"""metrics-server, a real one, by its own manifests: what pods use of CPU and memory, from the kubelets that measure it."""

from pathlib import Path
from typing import Any

import yaml
from tests.e2e.cluster import Cluster
from tests.e2e.stores import build_image
from tests.e2e.traffic import HERE
from tests.e2e.waiting import await_, condition_of
from tests.integration.commands import tool

from slipway_dev import go

_API = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
_MANIFESTS = ("rbac", "service", "deployment", "apiservice")
_LABELS = {"k8s-app": "metrics-server"}
# The kubelets' certificates may be their own.
_ARGUMENTS = {"--kubelet-insecure-tls": "true"}


class MetricsServer:
    """metrics-server in kube-system; while it is there, the API server serves metrics.k8s.io."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def install(self) -> None:
        """Apply the manifests of its module, and wait until the API server reaches it."""
        context = self.folder / "image"
        context.mkdir()
        (context / "metrics-server").hardlink_to(tool("metrics-server"))
        image = build_image("metrics-server", context, "--dockerfile", HERE / "images/metrics-server/Dockerfile")
        self.cluster.load(image)
        self.cluster.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(self._objects(image)))
        served = lambda: condition_of(self.cluster.client.get(_API), "Available").get("status") == "True"  # noqa: E731
        await_(served, "metrics.k8s.io is served", 300)

    def remove(self) -> None:
        """Take it away, and the API with it."""
        kinds, selector = "apiservice,service,deployment", "k8s-app=metrics-server"
        self.cluster.kubectl("delete", kinds, "--all-namespaces", "--selector", selector)

    def _objects(self, image: str) -> list[dict[str, Any]]:
        base = go.source("metrics-server", "sigs.k8s.io/metrics-server") / "manifests/base"
        objects = [each for name in _MANIFESTS for each in yaml.safe_load_all((base / f"{name}.yaml").read_text()) if each]
        for obj in objects:
            obj["metadata"]["labels"] = {**obj["metadata"].get("labels", {}), **_LABELS}
            if obj["kind"] == "Service":
                obj["spec"]["selector"] = _LABELS
            elif obj["kind"] == "Deployment":
                self._fit(obj["spec"], image)
        return objects

    @staticmethod
    def _fit(spec: dict[str, Any], image: str) -> None:
        spec["selector"] = {"matchLabels": _LABELS}
        spec["template"]["metadata"] = {"labels": _LABELS}
        (container,) = spec["template"]["spec"]["containers"]
        given = dict(word.split("=", 1) for word in container["args"] if "=" in word)
        flags = [word for word in container["args"] if "=" not in word]
        container["args"] = [*flags, *(f"{name}={value}" for name, value in {**given, **_ARGUMENTS}.items())]
        container["image"] = image
        container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
        container["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1, "timeoutSeconds": 10}
        container["livenessProbe"] |= {"timeoutSeconds": 10, "failureThreshold": 12}
