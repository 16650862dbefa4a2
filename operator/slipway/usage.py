"""What pods use of the CPU, by the metrics API: asked only in namespaces where an objective is on it."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from slipway.api.base import duration_seconds
from slipway.core.clock import to_datetime
from slipway.core.quantity import parse
from slipway.core.scaling.memory import Cpu
from slipway.core.symptoms import pod_ready
from slipway.kube.api import Api, ApiError
from slipway.kube.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD, POD_METRICS
from slipway.kube.store import Store
from slipway.manifests import labels
from slipway.queue import Key

log = logging.getLogger(__name__)
# metrics-server measures every 15 s by default. What is older than STALE_SECONDS says nothing of now.
EVERY_SECONDS = 15.0
STALE_SECONDS = 60.0


@dataclass(frozen=True)
class _Used:
    """Cores that each container of a pod used on average from `since` to `until`."""

    cores: Mapping[str, float]
    since: datetime
    until: datetime


@dataclass
class _Space:
    """One namespace: what its pods used, and why that is not known where the last question had no answer."""

    pods: Mapping[str, _Used] = field(default_factory=dict[str, _Used])
    trouble: str = "the metrics API was not asked yet"


class Usage:
    """Keeps what the metrics API answered last."""

    def __init__(self, api: Api, store: Store) -> None:
        self._api, self._store = api, store
        self._spaces: dict[str, _Space] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            wanted = {obj["metadata"]["namespace"] for obj in self._store.all(MODEL_DEPLOYMENT) if _on_cpu(obj)}
            self._spaces = {namespace: self._spaces.get(namespace, _Space()) for namespace in wanted}
            for namespace, space in self._spaces.items():
                space.trouble = await self._ask(namespace, space)
            await asyncio.sleep(EVERY_SECONDS if wanted else 1.0)

    async def _ask(self, namespace: str, space: _Space) -> str:
        """Ask for the pods of one namespace; answer what is the trouble, where there is one."""
        try:
            pages = self._api.list(POD_METRICS, namespace, f"{labels.SELECTOR},{labels.COMPONENT}=model")
            space.pods = {pod["metadata"]["name"]: _used(pod) async for page, _ in pages for pod in page}
        except ApiError as error:
            return _refusal(error)
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"the metrics API does not answer: {error or type(error).__name__}"
        except (KeyError, TypeError, ValueError) as error:
            return f"the metrics API gives no figures that can be read: {error}"
        return ""

    def of(self, key: Key, now: datetime) -> Cpu:
        """Answer what the ready pods of a ModelDeployment use, of whatever revision."""
        namespace, _ = key
        space = self._spaces.get(namespace, _Space())
        requests = {each["metadata"]["name"]: _requested(each) for each in self._store.children(*key, DEPLOYMENT)}
        used, unknown = 0.0, 0
        for pod in self._store.children(*key, POD):
            requested = requests.get(pod["metadata"]["labels"].get(labels.REVISION_LABEL, ""), {})
            if not pod_ready(pod) or not requested:
                continue
            whole = sum(requested.values())
            if not whole:
                return Cpu(missing="pods request no cpu: set server.resources.requests.cpu")
            figures = space.pods.get(pod["metadata"]["name"])
            if figures is None or not _is_of_now(figures, pod, now):
                unknown += 1
            else:
                used += sum(figures.cores.get(name, 0.0) for name in requested) / whole
        return Cpu(used, unknown, space.trouble)


def _on_cpu(obj: dict[str, Any]) -> bool:
    return "cpu" in (obj["spec"].get("scaling", {}).get("objective") or {})


def _requested(deployment: dict[str, Any]) -> dict[str, float]:
    """Answer the cores that each container of a revision asks for; what others put into its pods is not of it."""
    containers: Iterable[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: float(parse(str(each.get("resources", {}).get("requests", {}).get("cpu", "0")))) for each in containers}


def _used(pod: dict[str, Any]) -> _Used:
    until = to_datetime(pod["timestamp"])
    cores = {each["name"]: float(parse(each["usage"]["cpu"])) for each in pod["containers"]}
    return _Used(cores, until - timedelta(seconds=duration_seconds(pod["window"])), until)


def _is_of_now(figures: _Used, pod: dict[str, Any], now: datetime) -> bool:
    """Tell whether they are new, and of a time in which the pod was ready: loading a model takes more than serving it."""
    condition = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    ready_at = to_datetime(condition["lastTransitionTime"])
    return figures.since >= ready_at and (now - figures.until).total_seconds() <= STALE_SECONDS


def _refusal(error: ApiError) -> str:
    if error.status == 404:
        return "the API server serves no metrics.k8s.io: install metrics-server"
    if error.status == 403:
        return f"Slipway may not list pods.metrics.k8s.io: {error.message}"
    if error.status == 503:
        return "nobody answers for metrics.k8s.io: does metrics-server run?"
    return f"the metrics API refuses: {error}"
