"""Operator replicas as processes of their own, with a user of their own at the API server."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.bench.client import Client
from tests.bench.processes import Process
from tests.bench.table import say
from tests.ports import free_port

NAMESPACE = "slipway-system"
ACCOUNT = "slipway"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/slipway-operator"
IMAGES = ("--server-image", "bench/server", "--router-image", "bench/router")
_ROOT = Path(__file__).resolve().parents[2]


async def prepare(client: Client, folder: Path) -> Path:
    """Make the CRD, the operators' namespace and account, and answer a kubeconfig of that account."""
    for path in sorted((_ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        at = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
        await client.apply(at, crd)
        async for _, obj in client.watch(at.rpartition("/")[0], initial=True):
            if any(c["type"] == "Established" and c["status"] == "True" for c in obj.get("status", {}).get("conditions") or ()):
                break
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await client.apply(f"/api/v1/namespaces/{NAMESPACE}", body)
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}"
    await client.apply(account, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "slipway-bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    }
    await client.apply("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/slipway-bench", binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
    token = (await client.request("POST", f"{account}/token", asked))["status"]["token"]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "b", "cluster": {"server": client.server, "certificate-authority-data": client.authority}}],
        "users": [{"name": "b", "user": {"token": token}}],
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
        "current-context": "b",
    }
    target = folder / "operator.kubeconfig"
    target.touch(mode=0o600)
    target.write_text(json.dumps(config))
    return target


@dataclass(frozen=True)
class Replica:
    """One running operator."""

    name: str
    process: Process
    port: int

    async def progress(self) -> dict[str, Any]:
        """Answer how far it is (standin.Progress)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        line = await reader.readline()
        writer.close()
        return json.loads(line)

    async def idle(self, keys: int = 0, quiet_seconds: float = 1.0, patience_seconds: float = 300.0) -> float:
        """Wait until it has filled its store, has done that many keys, and rests. Answer when (epoch) it came to rest."""
        deadline = asyncio.get_running_loop().time() + patience_seconds
        while True:
            self.process.require()
            state = await self.progress()
            if state["synced"] and state["keys"] >= keys and state["now"] - state["busy_at"] >= quiet_seconds:
                return state["busy_at"]
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"operator {self.name} does not come to rest: {state}")
            await asyncio.sleep(0.25)


async def start(name: str, kubeconfig: Path, folder: Path, *more: str) -> Replica:
    """Start a replica with fake routers, and wait until it answers."""
    port = free_port()
    arguments = [*IMAGES, "--identity", name, "--http-port", str(free_port()), "--log-format", "text", *more]
    environment = {"KUBECONFIG": str(kubeconfig), "BENCH_PORT": str(port)}
    process = Process([sys.executable, "-m", "tests.bench.standin", *arguments], folder / f"{name}.log", environment)
    replica = Replica(name, process, port)
    while True:
        process.require()
        try:
            await replica.progress()
        except OSError:
            await asyncio.sleep(0.05)
        else:
            say(f"operator {name} runs (process {process.pid})")
            return replica
