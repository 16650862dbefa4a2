"""A real cluster of two nodes with Slipway installed from its chart, for figures of what callers feel."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.client import Client, Object
from tests.bench.clusters import build_image, cluster
from tests.bench.table import say
from tests.e2e import models

from slipway_dev import tools

_CHART = Path(__file__).resolve().parents[2] / "charts" / "slipway"
SYSTEM = "slipway-system"
INFER = "/v2/models/{name}/infer"
LOCAL_ONLY = (
    "The load comes from the host, to pod and Service addresses: the host reaches them with hack/cluster's provider `local` "
    "only. Routers, models, cluster and load share this machine's cores."
)


@dataclass(frozen=True)
class Installed:
    """The cluster."""

    client: Client
    kubeconfig: Path
    images: dict[str, str]
    nodes: list[str]

    def install(self, routers: int, more: dict[str, Any] | None = None) -> None:
        """Install the chart, or upgrade what is there, with that many routers a namespace, and more values."""
        values = {
            "images": {name: {"ref": reference} for name, reference in self.images.items()},
            "router": {"replicas": routers},
            "dnsStaleSeconds": 6,
            **(more or {}),
        }
        helm = [tools.ensure(["helm"])["helm"], "--kubeconfig", self.kubeconfig]
        where = ["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "5m", "--values", "-"]
        command = [*helm, "upgrade", "--install", "slipway", _CHART, *where]
        ended = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"helm: {ended.stderr}")

    async def make_namespace(self, name: str) -> str:
        """Make a namespace as the chart's users have, with the models in it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        await self.client.apply(f"/api/v1/namespaces/{name}", body)
        await self.client.apply(f"/api/v1/namespaces/{name}/configmaps/{models.CONFIG_MAP}", models.config_map())
        async for _, obj in self.client.watch(f"/api/v1/namespaces/{name}/serviceaccounts", initial=True):
            if obj["metadata"]["name"] == "default":
                break
        return name

    async def items(self, namespace: str, plural: str, selector: str = "") -> list[Object]:
        """Answer a namespace's objects of a core kind."""
        return await self.client.items(f"/api/v1/namespaces/{namespace}/{plural}", selector)

    async def serve(self, namespace: str, name: str, version: int = 1, replicas: int = 1) -> str:
        """Apply a ModelDeployment, wait until its present spec is served and nothing drains, and answer its revision."""
        await self.apply(namespace, name, version, replicas)
        async for _, obj in self.client.watch(model_path(namespace), initial=True):
            if obj["metadata"]["name"] == name and serves(obj) and not obj["status"].get("draining"):
                return obj["status"]["stable"]["revision"]
        raise RuntimeError("the watch of ModelDeployments ended")

    async def apply(self, namespace: str, name: str, version: int = 1, replicas: int = 1) -> None:
        """Apply a ModelDeployment."""
        head: dict[str, Any] = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}}
        await self.client.apply(model_path(namespace, name), {**head, "spec": models.spec(version, replicas)})

    async def routers(self, namespace: str) -> list[Object]:
        """Answer the router pods that stay."""
        found = await self.items(namespace, "pods", "app.kubernetes.io/component=router")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def model_path(namespace: str, name: str = "") -> str:
    """Answer the path of a namespace's ModelDeployments or of one."""
    return f"/apis/slipway.dev/v1alpha1/namespaces/{namespace}/modeldeployments" + (f"/{name}" if name else "")


def serves(obj: Object) -> bool:
    """Tell whether a ModelDeployment's present spec serves."""
    generation = obj["metadata"]["generation"]
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" and condition["observedGeneration"] == generation
        for condition in obj.get("status", {}).get("conditions", ())
    )


@asynccontextmanager
async def installed(name: str, routers: int = 2) -> AsyncIterator[Installed]:
    """Start a cluster with the images on its nodes, and Slipway in it."""
    images = {image: build_image(image) for image in ("operator", "server", "router")}
    with cluster(name, "--nodes", "2", "--load", *images.values()) as found:
        async with Client(found.kubeconfig) as client:
            slipway = Installed(client, found.kubeconfig, images, found.node_names())
            slipway.install(routers)
            say("Slipway is installed")
            yield slipway
