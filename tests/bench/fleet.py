"""The fake world of the control benchmark: nodes by kwok on a real control plane, and the models to be made."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.client import Client, Object
from tests.bench.processes import Process
from tests.bench.table import say

from slipway.api.spec import Spec
from slipway.core import revision
from slipway.manifests import model, pod
from slipway.settings import Settings
from slipway_dev import controlplane, state, tools

_NODES = 10
_SETTINGS = Settings(server_image="bench/server", router_image="bench/router")
OF_MODELS = "app.kubernetes.io/component=model"
_NOBODY = "00000000-0000-0000-0000-000000000000"


def spec(version: int = 1, replicas: int = 1) -> Object:
    """Answer a ModelDeployment's spec as a user would write it."""
    return {
        "model": {"uri": f"http://models.example/{version}/model.onnx", "format": "ONNX", "version": str(version)},
        "scaling": {"min": replicas},
    }


def namespaces(count: int) -> list[str]:
    """Answer the namespaces' names."""
    return [f"bench-{number:02}" for number in range(count)]


def models(count: int, spaces: list[str]) -> Iterator[tuple[str, Object]]:
    """Yield the ModelDeployments, spread over the namespaces."""
    for number in range(count):
        body = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment"}
        yield models_path(spaces[number % len(spaces)]), {**body, "metadata": {"name": f"m{number:04}"}, "spec": spec()}


def models_path(namespace: str = "", name: str = "") -> str:
    """Answer the path of all ModelDeployments, of a namespace's or of one."""
    path = "/apis/slipway.dev/v1alpha1" + (f"/namespaces/{namespace}" if namespace else "") + "/modeldeployments"
    return f"{path}/{name}" if name else path


def bare(count: int, spaces: list[str]) -> Iterator[tuple[str, Object]]:
    """Yield what Slipway makes of the same models, without anyone who makes it: Deployment and two Services each."""
    for number in range(count):
        namespace, name = spaces[number % len(spaces)], f"m{number:04}"
        parsed = Spec.model_validate(spec())
        target = revision.target(name, parsed).revision
        template = pod.build_pod_template(name, target, parsed, _SETTINGS)
        made = (
            ("/api/v1", "services", model.build_service(name, namespace, name, _NOBODY)),
            ("/api/v1", "services", model.build_endpoints_service(name, namespace, _NOBODY, target, parsed.server.port)),
            ("/apis/apps/v1", "deployments", model.build_deployment(name, namespace, _NOBODY, target, template, 1)),
        )
        for group, plural, obj in made:
            # An owner that does not exist would have them garbage-collected at once.
            metadata = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
            yield f"{group}/namespaces/{namespace}/{plural}", {**obj, "metadata": metadata}


@asynccontextmanager
async def nodes(plane: state.Cluster, client: Client, folder: Path, controller_qps: int) -> AsyncIterator[None]:
    """Give a control plane without nodes fake ones, a scheduler, and a controller manager of that client rate."""
    binaries = tools.ensure(["kwok", "kube-scheduler", "kube-controller-manager"])
    plane.processes["kube-controller-manager"].kill()
    rates = [f"--kube-api-qps={controller_qps}", f"--kube-api-burst={2 * controller_qps}"]
    kwok: list[Any] = [binaries["kwok"], "--kubeconfig", client.kubeconfig, "--config", Path(__file__).parent / "stages.yaml"]
    kwok += ["--manage-all-nodes", "--cidr", "10.0.0.0/16", "--node-lease-duration-seconds", "40"]
    started = [
        Process(kwok, folder / "kwok.log"),
        Process([binaries["kube-scheduler"], *controlplane.scheduler_arguments(plane)], folder / "kube-scheduler.log"),
        Process(
            [binaries["kube-controller-manager"], *controlplane.controller_manager_arguments(plane), *rates],
            folder / "kube-controller-manager.log",
        ),
    ]
    try:
        for number in range(_NODES):
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"fake-{number}"}}
            await client.apply(f"/api/v1/nodes/fake-{number}", body)
        while not all(map(_ready, await client.items("/api/v1/nodes"))):
            for process in started:
                process.require()
            await asyncio.sleep(0.2)
        say(f"{_NODES} fake nodes are ready")
        yield
    finally:
        for process in started:
            process.end()


async def make_namespaces(client: Client, names: list[str]) -> None:
    """Make namespaces, and wait until their default ServiceAccount is there: no pod is admitted before."""
    for name in names:
        await client.apply(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    while True:
        accounts = await client.items("/api/v1/serviceaccounts")
        if {obj["metadata"]["namespace"] for obj in accounts if obj["metadata"]["name"] == "default"} >= set(names):
            return
        await asyncio.sleep(0.2)


def at_rest(obj: Object) -> bool:
    """Tell whether a ModelDeployment serves what it asks for now, and nothing of before drains."""
    status = obj.get("status", {})
    return _ready(obj) and status["observedGeneration"] == obj["metadata"]["generation"] and not status.get("draining")


def _ready(obj: Object) -> bool:
    conditions = obj.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


async def all_ready(client: Client, path: str, count: int, ready: Any = _ready, selector: str = "") -> float:
    """Watch until that many objects are ready. Answer when (on the event loop's clock)."""
    loop, done, shown = asyncio.get_running_loop(), set[str](), 0.0
    async for event, obj in client.watch(path, selector, initial=True):
        uid = obj["metadata"]["uid"]
        if event != "DELETED" and ready(obj):
            done.add(uid)
        else:
            done.discard(uid)
        if len(done) >= count:
            return loop.time()
        if loop.time() - shown > 10:
            shown = loop.time()
            say(f"  {len(done)} of {count} {path.rpartition('/')[2]} are ready")
    raise RuntimeError(f"the watch of {path} ended")
