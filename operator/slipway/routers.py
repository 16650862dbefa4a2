"""The routers of a namespace: their configuration from all its ModelDeployments, their pods, and what they are seen doing."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from slipway.api.base import duration_seconds
from slipway.core import routing
from slipway.core.observation import RouterSeen, RoutesSeen, Symptom
from slipway.core.routing import Route, RouterState, Wanted
from slipway.core.shedding import limits
from slipway.core.state import State, load
from slipway.core.steering import UNSTEERED, Steering
from slipway.core.symptoms import diagnose, pod_ready
from slipway.core.verbs import plan_in_force
from slipway.kube.api import Api, ApiError
from slipway.kube.converge import HINDRANCE_RETRY_SECONDS, Converger
from slipway.kube.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE_ACCOUNT,
)
from slipway.kube.store import Store
from slipway.manifests import labels, router
from slipway.meter.meter import Meter, RouterPod
from slipway.model import Model, read
from slipway.queue import Key, WorkQueue
from slipway.settings import Settings

AWAKE_SECONDS = 5.0


def router_key(namespace: str) -> Key:
    """Answer the work queue's key of a namespace's routers."""
    return namespace, ""


def router_pods(store: Store, namespace: str | None = None) -> list[dict[str, Any]]:
    """Answer the router pods that exist, those that leave included: they may still answer callers."""
    return [pod for pod in store.all(POD, namespace) if pod["metadata"].get("labels", {}).get(labels.COMPONENT) == "router"]


def addresses(store: Store, namespace: str | None = None) -> list[RouterPod]:
    """Answer the router pods that can be scraped."""
    return [
        RouterPod(pod["metadata"]["namespace"], pod["metadata"]["name"], pod["status"]["podIP"], pod_ready(pod))
        for pod in router_pods(store, namespace)
        if pod.get("status", {}).get("podIP")
    ]


class Routers:
    """Reconciles the routers of a namespace."""

    def __init__(
        self,
        api: Api,
        store: Store,
        converger: Converger,
        meter: Meter,
        queue: WorkQueue,
        settings: Settings,
        now: Callable[[], datetime],
    ) -> None:
        self._api, self._store, self._converger, self._meter = api, store, converger, meter
        self._queue, self._settings, self._now = queue, settings, now
        self._errors: dict[str, Symptom] = {}
        self._refused: dict[str, dict[str, Symptom]] = {}
        self._parsed: dict[str, tuple[str, RouterState]] = {}
        # By namespace, the ModelDeployments whose routes are being written: what there was is about to be so no more.
        self._under_way: dict[str, frozenset[str]] = {}
        # ModelDeployments that shall always have a pod from now on, and since when they are seen to have one.
        self._awake: dict[Key, datetime] = {}

    def seen(self, namespace: str, name: str) -> RoutesSeen:
        """Answer what all routers of the namespace do for the ModelDeployment."""
        routers = self._meter.routers(namespace)
        error = self._errors.get(namespace) or self._refused.get(namespace, {}).get(name)
        seen = routing.seen(self._written(namespace), name, routers, error)
        if name in self._under_way.get(namespace, ()):
            seen = replace(seen, settled=False)
        deployment = self._store.get(DEPLOYMENT, namespace, router.NAME)
        if seen.ready or deployment is None:
            return seen
        return replace(seen, symptom=diagnose(router_pods(self._store, namespace), deployment, self._now()))

    def hosts(self, model: Model) -> tuple[tuple[str, ...], Symptom | None]:
        """Answer the host names asked for that the routers were told of, and why one was refused."""
        route = self._written(model.namespace).routes.get(model.name)
        refused = self._refused.get(model.namespace, {}).get(model.name)
        if route is None or model.spec is None:
            return (), refused
        own = routing.service_names(model.name, model.namespace, self._settings.cluster_domain)
        return tuple(host for host in model.spec.routing.hosts or () if host in (*route.wanted.hosts, *own)), refused

    def timeout_seconds(self, namespace: str, revision: str) -> float:
        """Answer how long the routers let a request to the revision take."""
        revision = routing.mirrored(revision)
        wanted = (route.wanted for route in self._written(namespace).routes.values())
        return next((each.timeout_seconds for each in wanted if revision in each.ports), math.inf)

    def changed(self, namespace: str, before: Iterable[RouterSeen], after: Iterable[RouterSeen]) -> None:
        """Enqueue the ModelDeployments for which the routers were seen doing something else than before."""
        state = self._written(namespace)
        affected = routing.affected(state, before, after)
        for obj in self._store.all(MODEL_DEPLOYMENT, namespace):
            name = obj["metadata"]["name"]
            if name in affected or name not in state.routes:
                self._queue.add((namespace, name))

    async def reconcile(self, namespace: str) -> None:
        """Bring the namespace's routers to what its ModelDeployments ask; without any, remove them."""
        models = [
            read(obj, self._settings)
            for obj in self._store.all(MODEL_DEPLOYMENT, namespace)
            if not obj["metadata"].get("deletionTimestamp")
        ]
        if not models:
            await self._remove(namespace)
            return
        error = await self._apply(namespace, models)
        if error != self._errors.get(namespace):
            self._errors.pop(namespace, None)
            if error is not None:
                self._errors[namespace] = error
            for model in models:
                self._queue.add((namespace, model.name))

    async def _apply(self, namespace: str, models: list[Model]) -> Symptom | None:
        written = self._written(namespace)
        hosts = self._hosts(namespace, models, written)
        wanted = {model.name: self._wanted(model, written, hosts[model.name]) for model in models}
        live = max((seen.route_version for seen in self._meter.routers(namespace)), default=0)
        state = routing.plan(
            written,
            {name: want for name, want in wanted.items() if want is not None},
            [name for name, want in wanted.items() if want is None],
            live,
            int(self._now().timestamp() * 1000),
        )
        config = router.build_config(namespace, state, self._settings)
        error = router.config_error(config)
        objects = [router.build_service_account(namespace)] + ([] if error else [config])
        objects += [router.build_deployment(namespace, self._settings)]
        budget = router.build_disruption_budget(namespace, self._settings)
        changed = frozenset(name for name, route in state.routes.items() if route != written.routes.get(name))
        hindrance: Symptom | None = None
        self._under_way[namespace] = changed
        try:
            for obj in [*objects, *([budget] if budget else [])]:
                hindrance = hindrance or await self._converger.apply(obj)  # no pod is made that would mount what is not ours
        finally:
            del self._under_way[namespace]
        if hindrance is not None:
            error = hindrance
            self._queue.add(router_key(namespace), after=HINDRANCE_RETRY_SECONDS)
        if error is None:
            await self._kick(namespace, state.version)
        for name in changed:
            self._queue.add((namespace, name))
        return error

    async def _kick(self, namespace: str, version: int) -> None:
        """Make the kubelets refresh the mounted configuration at once: a pod's change makes them sync it."""
        for pod in router_pods(self._store, namespace):
            metadata = pod["metadata"]
            if metadata.get("annotations", {}).get(labels.CONFIG_VERSION) == str(version):
                continue
            if metadata.get("deletionTimestamp") or not pod.get("status", {}).get("podIP"):
                continue
            patch = {
                "apiVersion": POD.api_version,
                "kind": POD.kind,
                "metadata": {
                    "name": metadata["name"],
                    "namespace": namespace,
                    "uid": metadata["uid"],
                    "annotations": {labels.CONFIG_VERSION: str(version)},
                },
            }
            try:
                self._store.put(await self._api.apply(patch))
            except ApiError as error:
                if error.status not in (404, 409, 422):  # gone meanwhile
                    raise
            self._meter.expect(namespace)

    async def _remove(self, namespace: str) -> None:
        """Remove the routers of a namespace that has no ModelDeployment any more."""
        kinds = (DEPLOYMENT, DISRUPTION_BUDGET, CONFIG_MAP, SERVICE_ACCOUNT)
        held = [self._store.get(kind, namespace, router.NAME) for kind in kinds]
        await self._converger.delete(obj for obj in held if obj is not None)
        self._errors.pop(namespace, None)
        self._refused.pop(namespace, None)
        self._parsed.pop(namespace, None)

    def _written(self, namespace: str) -> RouterState:
        config = self._store.get(CONFIG_MAP, namespace, router.NAME)
        if config is None:
            return RouterState()
        version, state = self._parsed.get(namespace, ("", RouterState()))
        if version != config["metadata"]["resourceVersion"]:
            state = routing.load(config.get("data", {}).get(router.STATE_KEY, ""))
            self._parsed[namespace] = config["metadata"]["resourceVersion"], state
        return state

    def _hosts(self, namespace: str, models: list[Model], written: RouterState) -> dict[str, tuple[str, ...]]:
        """Answer the hosts that each ModelDeployment gets, the oldest first; where its spec cannot be read, what it had."""
        asked: dict[str, tuple[str, ...]] = {}
        for model in sorted(models, key=lambda model: (model.obj["metadata"]["creationTimestamp"], model.name)):
            before = written.routes.get(model.name)
            had = before.wanted.hosts if before is not None else ()
            asked[model.name] = tuple(model.spec.routing.hosts or ()) if model.spec is not None else had
        got, refused = routing.share_hosts(asked, namespace, self._settings.cluster_domain)
        for name in refused.keys() ^ self._refused.get(namespace, {}).keys():
            self._queue.add((namespace, name))
        self._refused[namespace] = refused
        return got

    def _wanted(self, model: Model, written: RouterState, hosts: tuple[str, ...]) -> Wanted | None:
        """Answer what a ModelDeployment asks of the routers; None where it cannot say: its status is lost."""
        state = load(model.status)
        before = written.routes.get(model.name)
        if before is not None and not state.active:
            return None
        ports: dict[str, int] = {}
        for revision in state.active:
            kept = self._store.get(CONTROLLER_REVISION, model.namespace, revision)
            if kept is not None:
                ports[revision] = kept["data"]["port"]
            elif before is not None and revision in before.wanted.ports:
                ports[revision] = before.wanted.ports[revision]
        if model.spec is None:
            timeout = before.wanted.timeout_seconds if before else 30.0
        else:
            timeout = duration_seconds(model.spec.routing.timeout)
        steering, hold = self._steering(model, state, before), self._holds(model, before)
        return Wanted(state.weights, ports, hosts, timeout, steering, hold=hold, limits=self._limits(model, before))

    def _limits(self, model: Model, before: Route | None) -> Mapping[str, int]:
        """Answer how much routers let in; where the spec cannot be read, as before."""
        if model.spec is None:
            return before.wanted.limits if before is not None else {}
        return limits(model.spec.scaling, model.status, self._settings.router_replicas)

    def _holds(self, model: Model, before: Route | None) -> bool:
        """Tell whether requests may wait for a first pod: where there may be none, and until there has been one for a while.

        What was ready a moment ago may be on its way out.
        """
        held, key = before is not None and before.wanted.hold, (model.namespace, model.name)
        if model.spec is None:
            return held
        if model.spec.scaling.min > 0 and held and self._has_pod(model):
            since = self._awake.setdefault(key, self._now())
            if (self._now() - since).total_seconds() >= AWAKE_SECONDS:
                del self._awake[key]
                return False
            self._queue.add(router_key(model.namespace), after=AWAKE_SECONDS)
            return True
        self._awake.pop(key, None)
        return held or model.spec.scaling.min == 0

    def _has_pod(self, model: Model) -> bool:
        """Tell whether stable is asked to have pods, and has one. Status may tell of one that went while nobody led."""
        if model.status.stable is None:
            return True
        revision = model.status.stable.revision
        deployment = self._store.get(DEPLOYMENT, model.namespace, revision)
        pods = self._store.children(model.namespace, model.name, POD)
        ready = any(pod["metadata"]["labels"].get(labels.REVISION_LABEL) == revision and pod_ready(pod) for pod in pods)
        return deployment is not None and deployment["spec"]["replicas"] > 0 and ready

    @staticmethod
    def _steering(model: Model, state: State, before: Route | None) -> Steering:
        """Answer what is asked beside weights; where the spec cannot be read, what was, while it has the same candidate."""
        if model.spec is not None:
            return state.steering(plan_in_force(state, model.plan))
        was = before.wanted.steering if before is not None else UNSTEERED
        return was if was.revision in [each.revision for each in state.candidates] else UNSTEERED
