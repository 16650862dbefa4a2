"""The operator put together: standby, then leader, then stopped. The only place that knows all parts."""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

import aiohttp

from slipway import handlers, health, live, process
from slipway.api.status import Status
from slipway.checks.pollers import Pollers
from slipway.core.observation import RouterSeen
from slipway.core.polled import Outward
from slipway.judges import Judges
from slipway.kube.api import Api, ApiError
from slipway.kube.informer import Informer
from slipway.kube.kinds import MODEL_DEPLOYMENT, POD, SERVICE, WATCHED
from slipway.kube.lease import Lease
from slipway.kube.owner import StaleError
from slipway.kube.store import Store
from slipway.logs import current_key
from slipway.manifests import labels
from slipway.meter.meter import Meter
from slipway.metrics import Metrics
from slipway.probe.agreement import Comparers, comparer_pods
from slipway.probe.synthetic import Synthetic, config_maps
from slipway.probe.wishes import wishes
from slipway.queue import WorkQueue
from slipway.reconciler import Reconciler
from slipway.routers import addresses, router_key
from slipway.settings import Settings
from slipway.sizer import Sizer
from slipway.usage import Usage

log = logging.getLogger(__name__)
_STOP_SECONDS = 1.0
_STALE_SECONDS = 0.1
_FIGURES_SECONDS = 10.0


class End(Enum):
    """Why a leader stopped acting."""

    STOPPED = auto()
    LOST = auto()
    FAILED = auto()


class App:
    """One operator process."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api, self._settings = api, settings
        self._store = Store()
        self._queue = WorkQueue()
        self._meter = Meter(
            lambda namespace: addresses(self._store, namespace),
            self._routers_seen,
            lambda namespace: live.rolling(self._store, namespace),
            lambda namespace, revision: self._reconciler.routers.timeout_seconds(namespace, revision),
        )
        self._metrics = Metrics(self._store, self._queue, self._meter, api)
        outward = Outward(settings.prometheus_address, settings.check_hosts, settings.cluster_domain)
        self._pollers = Pollers(outward, lambda namespace, name: api.get(SERVICE, namespace, name))
        self._usage = Usage(api, self._store)
        self._sizer = Sizer(self._store, self._meter, self._usage.of, self._queue.add)
        self._comparers = Comparers(lambda: comparer_pods(self._store))
        self._synthetic = Synthetic(
            lambda: wishes(self._store), lambda namespace: addresses(self._store, namespace), config_maps(api), self._queue.add
        )
        self._reconciler = Reconciler(
            api,
            self._store,
            self._meter,
            Judges(self._meter, self._pollers, self._comparers, self._store),
            self._sizer,
            self._synthetic.symptom,
            self._queue,
            settings,
            self._written,
        )
        self._stop = asyncio.Event()
        self._standby = True
        self._synced = False
        spaces: tuple[str | None, ...] = settings.watch_namespaces or (None,)
        self._informers = [
            Informer(api, self._store, kind, space, labels.SELECTOR, self._notify) for kind in WATCHED for space in spaces
        ]
        self._models = [Informer(api, self._store, MODEL_DEPLOYMENT, space, "", self._notify) for space in spaces]

    async def run(self) -> int:
        """Run until SIGTERM (answers 0), until the Lease is lost or a part fails (answers 1: to be started afresh)."""
        process.end_on_signals(self._stop)
        server = await health.serve(
            self._settings.http_port, self._metrics.registry, lambda: True, lambda: self._standby or self._synced
        )
        lease = Lease(self._api, self._settings.namespace, self._settings.identity)
        try:
            if not await self._unless_stopped(lease.acquire()):
                return 0
            self._standby = False
            end = await self._lead(lease)
            if end is not End.LOST:
                await lease.release()
            return 0 if end is End.STOPPED else 1
        finally:
            await server.cleanup()
            await self._api.close()

    async def _lead(self, lease: Lease) -> End:
        """Act as the leader until told to stop, the Lease is lost, or a part of the operator fails."""
        holding = asyncio.create_task(lease.hold())
        stopping = asyncio.create_task(self._stop.wait())
        parts: list[Coroutine[Any, Any, None]] = [
            self._work(),
            self._meter.run(),
            self._pollers.run(),
            self._comparers.run(),
            self._sizer.run(),
            self._usage.run(),
            self._synthetic.run(),
            *(part.run() for part in self._informers),
        ]
        tasks = {asyncio.create_task(part) for part in parts}
        done, running = await asyncio.wait({holding, stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_STOP_SECONDS)
        if holding in done:
            return End.LOST
        for task in tasks & done:  # none of them ends by itself
            log.critical("a part of the operator ended", exc_info=task.exception())
            return End.FAILED
        return End.STOPPED

    async def _work(self) -> None:
        """Fill the store, then reconcile for ever, sweeping now and then."""
        for informer in self._informers:
            await informer.synced.wait()
        for informer in self._models:
            await self._patiently(informer)
        self._enqueue_router_namespaces()
        self._synced = True
        log.info("store filled, %d ModelDeployments", len(self._store.all(MODEL_DEPLOYMENT)))
        async with asyncio.TaskGroup() as group:
            # kopf takes the signals for itself as it starts: they are taken back.
            spaces, identity = self._settings.watch_namespaces, self._settings.identity
            kopf = handlers.run(self._heard, spaces, identity, lambda: process.end_on_signals(self._stop))
            group.create_task(kopf)
            group.create_task(self._sweep_for_ever())
            group.create_task(self._show_figures_for_ever())
            for _ in range(self._settings.workers):
                group.create_task(self._worker())

    async def _patiently(self, informer: Informer) -> None:
        while True:
            try:
                await informer.sweep()
                return
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("cannot list ModelDeployments (is the CRD installed?): %s", error or type(error).__name__)
                await asyncio.sleep(2.0)

    async def _worker(self) -> None:
        while True:
            key = await self._queue.take()
            current_key.set("/".join(part for part in key if part))
            started = time.perf_counter()
            failed = True
            try:
                await self._reconciler.reconcile(key)
                failed = False
            except StaleError as stale:
                failed = False
                for again in (key, router_key(key[0])):  # the event of what changed may say nothing new
                    self._queue.add(again, after=_STALE_SECONDS)
                log.debug("%s", stale)
            except ApiError as error:
                if error.reason == "Forbidden" and "being terminated" in error.message:
                    failed = False  # the namespace goes, and everything in it
                else:
                    self._count(f"api_{error.status}", error)
            except (aiohttp.ClientError, TimeoutError) as error:
                self._count("network", error)
            except Exception:
                self._metrics.errors.labels("bug").inc()
                log.exception("reconcile failed")
            finally:
                self._metrics.reconcile_seconds.observe(time.perf_counter() - started)
                self._queue.done(key, failed=failed)

    def _count(self, kind: str, error: Exception) -> None:
        self._metrics.errors.labels(kind).inc()
        log.warning("reconcile failed, trying again: %s", error or type(error).__name__)

    async def _sweep_for_ever(self) -> None:
        """Repair what a watch missed: events are hints, never facts."""
        while True:
            await asyncio.sleep(self._settings.sweep_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            try:
                for informer in (*self._models, *self._informers):
                    if not informer.absent:
                        await informer.sweep()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("sweep failed: %s", error or type(error).__name__)
                continue
            for obj in self._store.all(MODEL_DEPLOYMENT):
                self._queue.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))
            self._enqueue_router_namespaces()

    async def _show_figures_for_ever(self) -> None:
        """Bring up the ModelDeployments whose live figures are worth a write: no event tells of them."""
        while True:
            await asyncio.sleep(_FIGURES_SECONDS)
            for key in live.unwritten(self._store, self._meter, datetime.now(UTC)):
                self._queue.add(key)

    def _heard(self, event: str | None, obj: dict[str, Any]) -> None:
        """Take kopf's word of a ModelDeployment."""
        if self._store.drop(obj) if event == "DELETED" else self._store.put(obj):
            self._notify(obj)

    def _notify(self, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        found = metadata.get("labels") or {}
        namespace = metadata["namespace"]
        if obj["kind"] == MODEL_DEPLOYMENT.kind:
            self._queue.add((namespace, metadata["name"]))
            self._queue.add(router_key(namespace), after=0.02)
        elif found.get(labels.COMPONENT) == "router":
            self._queue.add(router_key(namespace))
            if obj["kind"] == POD.kind:
                self._routers_changed(namespace)
        elif labels.MODEL_LABEL in found:
            self._queue.add((namespace, found[labels.MODEL_LABEL]))

    def _routers_changed(self, namespace: str) -> None:
        for obj in self._store.all(MODEL_DEPLOYMENT, namespace):
            self._queue.add((namespace, obj["metadata"]["name"]))

    def _routers_seen(self, namespace: str, before: Iterable[RouterSeen], after: Iterable[RouterSeen]) -> None:
        self._reconciler.routers.changed(namespace, before, after)

    def _written(self, before: Status, after: Status) -> None:
        self._metrics.rollouts.written(before, after)
        self._synthetic.look()

    def _enqueue_router_namespaces(self) -> None:
        for namespace in self._store.namespaces():
            self._queue.add(router_key(namespace))

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, None]) -> bool:
        task, stop = asyncio.create_task(waiting), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        won = task.done()
        for each in (task, stop):
            each.cancel()
        return won
