"""A real control plane, shared by runs side by side, each in a namespace of its own; everything in it is watched."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import yaml
from tests.bench.client import Client, Object
from tests.bench.processes import Process
from tests.faults import kubelet
from tests.faults.history import Entry, Event
from tests.faults.kubelet import Kubelet
from tests.faults.pods import Pods

from slipway_dev import controlplane, state, tools

MODELS = "/apis/slipway.dev/v1alpha1/modeldeployments"
_WATCHED = (
    MODELS,
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/configmaps",
    "/api/v1/serviceaccounts",
    "/api/v1/events",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/controllerrevisions",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/batch/v1/jobs",
)
# kube-controller-manager as released may send 20 requests a second: one run would wait for another. Of its controllers only those
# run whose work is seen here: the others (endpoints, disruption budgets' status) would take a fifth of all requests.
_CONTROLLERS = ("deployment", "replicaset", "job", "namespace", "garbage-collector", "serviceaccount")
_MANAGER = (
    "--kube-api-qps=400", "--kube-api-burst=800", "--concurrent-gc-syncs=8", "--concurrent-namespace-syncs=4",
    f"--controllers={','.join(f'{each}-controller' for each in _CONTROLLERS)}",
)  # fmt: skip
_NODE_SECONDS = 10.0

Sink = Callable[[Entry], None]


class Plane:
    """The API server with its controllers, the stand-in kubelet, and who is told of what happens in which namespace."""

    def __init__(self, cluster: state.Cluster, crds: Path, folder: Path, seed: int) -> None:
        self._cluster, self._crds, self._folder = cluster, crds, folder
        self.client = Client(cluster.kubeconfig)
        self._sinks: dict[str, Sink] = {}
        self._accounts: dict[str, asyncio.Event] = {}
        self.pods = Pods(self._tell)
        self.kubelet = Kubelet(self.client, self.pods, seed)

    async def __aenter__(self) -> "Plane":
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.client)
            await self.define({})
            binary = tools.ensure(["kube-controller-manager"])["kube-controller-manager"]
            self._cluster.processes["kube-controller-manager"].kill()
            arguments = [*controlplane.controller_manager_arguments(self._cluster), *_MANAGER]
            controllers = Process([binary, *arguments], self._folder / "kube-controller-manager.log")
            stack.callback(controllers.end)
            self._tasks = [asyncio.create_task(self._follow(path)) for path in _WATCHED]
            self._tasks.append(asyncio.create_task(self._keep_node()))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.kubelet.close()
        await self._stack.aclose()

    async def open(self, namespace: str, sink: Sink) -> None:
        """Make a namespace in which pods may be made, and tell the sink what happens in it."""
        for task in self._tasks:
            if task.done():
                task.result()  # raises what it died of
        self._sinks[namespace] = sink
        usable = self._accounts[namespace] = asyncio.Event()
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await self.client.request("POST", "/api/v1/namespaces", body)
        await usable.wait()

    async def close(self, namespace: str) -> None:
        """Forget a namespace, and have it deleted in the background."""
        del self._sinks[namespace], self._accounts[namespace]
        await self.kubelet.forget(namespace)
        await self.client.delete(f"/api/v1/namespaces/{namespace}")

    async def define(self, server: Object) -> None:
        """Apply the CRD as another release has it: with these schemas, or parts of them, of fields of spec.server."""
        for path in sorted(self._crds.glob("*.yaml")):
            crd = yaml.safe_load(path.read_text())
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            fields = schema["properties"]["server"]["properties"]
            fields |= {name: {**fields.get(name, {}), **other} for name, other in server.items()}
            at = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
            await self.client.apply(at, crd)
        while True:
            try:
                await self.client.get(MODELS)
                return
            except aiohttp.ClientResponseError:
                await asyncio.sleep(0.1)

    async def _keep_node(self) -> None:
        await self.client.apply(f"/api/v1/nodes/{kubelet.NODE}", kubelet.node())
        while True:
            await self.client.merge(f"/api/v1/nodes/{kubelet.NODE}/status", kubelet.node_status())
            await asyncio.sleep(_NODE_SECONDS)

    async def _follow(self, path: str) -> None:
        since, known = "", set[str]()
        while True:
            try:
                async for kind, obj in self.client.watch(path, initial=not since, since=since):
                    since, uid = obj["metadata"]["resourceVersion"], obj["metadata"]["uid"]
                    self._seen("MODIFIED" if kind == "ADDED" and uid in known else kind, obj)
                    known.add(uid)
            except RuntimeError:
                since = ""  # its version is too old: what there is comes anew
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)

    def _seen(self, kind: str, obj: Object) -> None:
        namespace = obj["metadata"]["namespace"]
        if namespace not in self._sinks:
            if obj["kind"] == "Pod" and obj["metadata"].get("deletionTimestamp") and kind != "DELETED":
                self.kubelet.seen(kind, obj)  # of a run that is over
            return
        if obj["kind"] == "ServiceAccount" and obj["metadata"]["name"] == "default":
            self._accounts[namespace].set()
        if obj["kind"] in ("Pod", "ConfigMap"):
            self.kubelet.seen(kind, obj)
        self._tell(namespace, Event(time.monotonic(), kind, obj))

    def _tell(self, namespace: str, entry: Entry) -> None:
        if namespace in self._sinks:
            self._sinks[namespace](entry)
