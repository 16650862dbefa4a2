"""Stands in for scheduler and kubelets: real pods of real Deployments, which become ready, crash or leave as the run says."""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
from tests.bench.client import Client
from tests.faults.pods import Pods, Truth
from tests.faults.routers import Router

from slipway.manifests import labels, router

Object = dict[str, Any]
NODE = "stand-in"
# DNS, as routers see it, forgets a pod within two of their ticks; a pod that leaves answers for longer than that.
_LEAVING_TICKS = 5


class Kubelet:
    """Runs every pod of the cluster. Addresses are of 127/8, so that the operator reaches its routers' statistics."""

    def __init__(self, client: Client, pods: Pods, seed: int) -> None:
        self._client, self._pods, self._random = client, pods, random.Random(seed)  # noqa: S311 - no secret
        self._addresses = self._free_addresses()
        self._running: dict[str, Truth] = {}
        self._routers: dict[str, Router] = {}
        self._annotations: dict[str, str] = {}
        self._leaving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.configs: dict[str, dict[str, str]] = {}
        self.broken: set[tuple[str, str]] = set()
        """Namespace and revision of models that fail to load."""

    def seen(self, event: str, obj: Object) -> None:
        """Take notice of a pod or a ConfigMap."""
        metadata = obj["metadata"]
        if obj["kind"] == "ConfigMap":
            if metadata["name"] == router.NAME:
                if event == "DELETED":
                    self.configs.pop(metadata["namespace"], None)
                else:
                    self.configs[metadata["namespace"]] = obj["data"]
            return
        uid = metadata["uid"]
        if event == "DELETED":
            self._gone(uid)
        elif metadata.get("deletionTimestamp"):
            if uid not in self._leaving:
                self._leaving.add(uid)
                self._start(self._leave(obj))
        elif uid not in self._running:
            self._running[uid] = self._truth(obj)
            self._start(self._run(obj, self._running[uid]))
        else:
            version = metadata.get("annotations", {}).get(labels.CONFIG_VERSION, "")
            if version != self._annotations.get(uid, "") and uid in self._routers:
                self._annotations[uid] = version
                self._routers[uid].changed()

    async def forget(self, namespace: str) -> None:
        """Let go of a namespace whose run is over."""
        self.configs.pop(namespace, None)
        for pod in self._pods.forget(namespace):
            if pod.uid in self._routers:
                await self._routers.pop(pod.uid).stop()

    async def close(self) -> None:
        """Stop everything."""
        for task in self._tasks:
            task.cancel()
        for each in self._routers.values():
            await each.stop()

    def _truth(self, obj: Object) -> Truth:
        metadata = obj["metadata"]
        revision = metadata.get("labels", {}).get(labels.REVISION_LABEL, "")
        pod = Truth(metadata["namespace"], metadata["name"], metadata["uid"], next(self._addresses), revision)
        self._pods.add(pod)
        return pod

    async def _run(self, obj: Object, pod: Truth) -> None:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name},
            "target": {"kind": "Node", "name": NODE},
        }
        await self._client.request("POST", f"{path}/binding", binding)
        await asyncio.sleep(self._random.uniform(0.02, 0.15))
        if obj["metadata"].get("labels", {}).get(labels.COMPONENT) == "router":
            found = Router(pod, self._pods, self.configs, self._random.getrandbits(32))
            await found.start()
            self._routers[pod.uid] = found
        if (pod.namespace, pod.revision) in self.broken:
            await self._status(pod, pod.uid, ready=False, crashed=True)
            return
        if pod.uid in self._leaving:
            return
        pod.ready = pod.serving = True
        self._pods.changed(pod)
        await self._status(pod, pod.uid, ready=True)
        if pod.uid in self._routers:
            self._routers[pod.uid].tell()

    async def _status(self, pod: Truth, uid: str, *, ready: bool, crashed: bool = False) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        state: Object = {"running": {"startedAt": now}}
        if crashed:
            message = "ModelInvalid: the file is no model"
            state = {"terminated": {"exitCode": 1, "reason": "Error", "message": message, "startedAt": now, "finishedAt": now}}
        conditions = [{"type": kind, "status": str(ready), "lastTransitionTime": now} for kind in ("Ready", "ContainersReady")]
        container = {
            "name": "server",
            "image": "x",
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": int(crashed),
        }
        status = {
            "phase": "Running",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "conditions": conditions,
            "containerStatuses": [{**container, "state": state}],
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
        await self._client.merge(path, {"metadata": {"uid": uid}, "status": status})

    async def _leave(self, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        pod = self._running.get(uid)
        if pod is not None:
            pod.ready = False
            await self.noticed(pod.namespace)
        path = f"/api/v1/namespaces/{obj['metadata']['namespace']}/pods/{obj['metadata']['name']}"
        await self._client.request("DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})

    async def noticed(self, namespace: str) -> None:
        """Wait until every router of the namespace knows, by DNS, which pods are ready now."""
        due = {uid: each.ticks + _LEAVING_TICKS for uid, each in self._routers.items() if each.pod.namespace == namespace}
        while any(uid in self._routers and self._routers[uid].ticks < ticks for uid, ticks in due.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _gone(self, uid: str) -> None:
        pod = self._running.pop(uid, None)
        self._leaving.discard(uid)
        if pod is None:
            return
        pod.ready = False
        self._start(self._bury(pod))

    async def _bury(self, pod: Truth) -> None:
        pod.serving = False
        self._pods.drop(pod)
        if pod.uid in self._routers:
            await self._routers.pop(pod.uid).stop()

    def _start(self, work: Any) -> None:
        async def quietly() -> None:
            with suppress(aiohttp.ClientResponseError):  # the pod went meanwhile
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _free_addresses(self) -> Iterator[str]:
        base, number = 16 + os.getpid() % 234, 0  # another harness on this machine, of the same seed, has others
        while True:
            number += 1
            yield f"127.{base}.{number // 250 % 250}.{number % 250 + 1}"


def node() -> Object:
    """Answer the node that all pods are bound to."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}


def node_status() -> Object:
    """Answer a status by which the node counts as well; it must be told again before 40 s have passed."""
    now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": "True", "reason": "StandIn", "message": "", "lastHeartbeatTime": now}
    return {"status": {"conditions": [{**condition, "lastTransitionTime": now}]}}
