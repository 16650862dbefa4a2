"""reconcile(key): observe -> decide -> apply -> status. The whole operator on one screen; the rest is how."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from slipway.api.status import Status
from slipway.core import live, report, rollout, transitions
from slipway.core.figures import LIVE_SECONDS
from slipway.core.observation import Symptom
from slipway.core.plan import Judged
from slipway.core.state import State, World, load
from slipway.core.verbs import plan_in_force
from slipway.judges import Judges
from slipway.kube import events
from slipway.kube.api import Api, ApiError
from slipway.kube.converge import HINDRANCE_RETRY_SECONDS, Converger
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.owner import Owner, StaleError
from slipway.kube.store import Store
from slipway.manifests import children
from slipway.meter.meter import Meter
from slipway.model import Model, read
from slipway.observe import observe
from slipway.outside import open_ways
from slipway.queue import Key, WorkQueue
from slipway.routers import Routers, router_key
from slipway.settings import Settings
from slipway.sizer import Sizer

log = logging.getLogger(__name__)
# Counts in status, and the words about them, are told this late at most.
FIGURES_DELAY = timedelta(seconds=1)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Brings one ModelDeployment, or one namespace's routers, to what is wanted.

    It may be called at any time for any key: an unchanged world costs no request. It remembers nothing that matters. `written`
    is told a status as it was and as it was written.
    """

    def __init__(
        self,
        api: Api,
        store: Store,
        meter: Meter,
        judges: Judges,
        sizer: Sizer,
        sample_symptom: Callable[[str, str], Symptom | None],
        queue: WorkQueue,
        settings: Settings,
        written: Callable[[Status, Status], None],
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._api, self._store, self._meter = api, store, meter
        self._queue, self._settings, self._now = queue, settings, now
        self._converger = Converger(api, store)
        self._written = written
        self._figures_due: dict[Key, datetime] = {}
        self._judges, self._sizer, self._sample_symptom = judges, sizer, sample_symptom
        self.routers = Routers(api, store, self._converger, meter, queue, settings, now)

    async def reconcile(self, key: Key) -> None:
        """Reconcile the ModelDeployment (namespace, name), or with an empty name the routers of the namespace."""
        namespace, name = key
        if not name:
            await self.routers.reconcile(namespace)
            return
        obj = self._store.get(MODEL_DEPLOYMENT, namespace, name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            self._figures_due.pop(key, None)
            self._judges.forget(key)
            self._queue.add(router_key(namespace))
            return  # its children carry an owner reference: the garbage collector deletes them
        if not self._meter.fresh(namespace):
            self._meter.expect(namespace)
            return  # its next scrape, at once, brings the key again: nothing is decided on routers not looked at
        model, owner = read(obj, self._settings), Owner(self._api, self._store, obj)
        self._sizer.obey(model, self._now())
        decided = {revision: each.replicas for revision, each in self._sizer.decisions(*key).items()}
        model = replace(model, scaling=self._sizer.told(model, self._now()), decided=decided)
        before = load(model.status)
        judged = self._judges.judge(model, before, self._now().timestamp())

        await self._converger.adopt(children.adopted(model.identity, self._store.children(namespace, name)), owner)
        world = self._observe(model, judged)
        state = rollout.decide(before, world)
        hindrance = await self._apply(model, owner, state, world) or self._sample_symptom(*key)
        outside = await open_ways(model, owner, self.routers, self._converger, self._store, hindrance)
        world = self._observe(model, judged)
        told = await self._write_status(model, owner, state, world, hindrance, outside.verdict)
        moved = (state.weights, state.active, state.step) != (before.weights, before.active, before.step)
        if (told and (moved or model.scaling is not None)) or world.routes.hold:  # what routers let in and hold follows from it
            self._queue.add(router_key(namespace), after=0.02)
        await self._delete_unwanted(model, state)

        self._wake(key, model, state, world, hindrance or outside.hindrance)

    def _observe(self, model: Model, judged: Judged) -> World:
        routes = self.routers.seen(model.namespace, model.name)
        figures = partial(self._meter.figures, model.namespace, seconds=LIVE_SECONDS)
        return observe(model, self._store, routes, figures, judged, self._now())

    async def _apply(self, model: Model, owner: Owner, state: State, world: World) -> Symptom | None:
        """Apply the children that differ. Answer what hinders the first that is hindered."""
        found: Symptom | None = None
        for child in children.build(model.identity, model.spec, state, world, self._stored(model), self._settings):
            hindrance = await self._converger.apply(child, owner)
            found = found or hindrance
        return found

    async def _delete_unwanted(self, model: Model, state: State) -> None:
        """Delete what the roles no longer need. Status no longer names it: it was written before."""
        await self._converger.delete(
            children.unwanted(model.identity, state, model.plan, model.replicas, model.history_limit, self._stored(model))
        )

    async def _write_status(
        self, model: Model, owner: Owner, state: State, world: World, hindrance: Symptom | None, exposed: report.Verdict | None
    ) -> bool:
        """Write status if it changed, and the event of its transition. Answer whether it did."""
        subject = report.Subject(
            model.name,
            model.namespace,
            model.generation,
            spec_error=model.spec_error,
            hindrance=hindrance,
            url=f"http://{model.name}.{model.namespace}",
            selector=children.selector(model.name),
            unsafe=model.unsafe,
            exposed=exposed,
        )
        status = report.report(model.status, subject, state, world)
        figures = {name: seen.figures for name, seen in world.revisions.items() if seen.figures is not None}
        status = live.with_figures(model.status, status, figures, world.now)
        wanted = status.model_dump(by_alias=True, mode="json", exclude_none=True)
        if wanted == model.raw_status or self._may_wait(model, status):
            return False
        metadata = {"name": model.name, "namespace": model.namespace, "resourceVersion": model.resource_version}
        body = {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind, "metadata": metadata}
        try:
            self._store.put(await self._api.apply({**body, "status": wanted}, status=True))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await owner.read()
            raise StaleError(f"{model.namespace}/{model.name} had changed") from None
        self._written(model.status, status)
        event = transitions.event(model.status, status)
        if event is not None:
            log.info("%s: %s", event.reason, event.message)
            await events.send(self._api, model.obj, event, self._settings.identity, self._now())
        return True

    def _may_wait(self, model: Model, status: Status) -> bool:
        """Tell whether this is not worth a write yet: pods that become ready one after the other are told of together."""
        key = model.namespace, model.name
        if not report.only_figures(model.status, status):
            self._figures_due.pop(key, None)
            return False
        due = self._figures_due.setdefault(key, self._now() + FIGURES_DELAY)
        left = (due - self._now()).total_seconds()
        if left <= 0:
            del self._figures_due[key]
            return False
        self._queue.add(key, after=left)
        return True

    def _wake(self, key: Key, model: Model, state: State, world: World, hindrance: Symptom | None) -> None:
        """See to it that the key comes again where no event would bring it."""
        delay = rollout.wake_after(state, world)
        if hindrance is not None:
            delay = min(delay or HINDRANCE_RETRY_SECONDS, HINDRANCE_RETRY_SECONDS)
        tried = {each.revision for each in state.candidates}
        if delay is not None:
            self._queue.add(key, after=delay)
        watched = {*world.routes.written, *tried}
        awaited = any(world.routes.healthy(revision) < world.seen(revision).ready for revision in watched)
        moving = not world.routes.does(state.weights, state.steering(plan_in_force(state, world.plan)))
        if awaited or moving or state.draining:
            self._meter.expect(model.namespace)

    def _stored(self, model: Model) -> children.Stored:
        return children.Stored.of(self._store.children(model.namespace, model.name))
