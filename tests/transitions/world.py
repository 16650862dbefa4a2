"""A simulated cluster around the real reconciler: an API server in memory, pods that are ready at once, routers that obey.

Time is simulated: where nothing is to be done it jumps, further each time, until nothing changes any more. Where a rollout
waits for somebody's word, somebody gives it.
"""

import copy
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from slipway.api.status import Status
from slipway.core import routing
from slipway.core.clock import stamp
from slipway.core.figures import Figures
from slipway.core.observation import RouterSeen
from slipway.core.plan import NOBODY_JUDGED, Judged, Judgement, Verdict
from slipway.core.scaling.memory import Cpu
from slipway.core.state import State
from slipway.core.symptoms import pod_ready
from slipway.kube.api import ApiError
from slipway.kube.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, MODEL_DEPLOYMENT, POD, Kind, kind_of
from slipway.kube.owner import StaleError
from slipway.kube.store import Store
from slipway.manifests import labels, router
from slipway.model import Model
from slipway.queue import Key
from slipway.reconciler import Reconciler
from slipway.routers import router_key, router_pods
from slipway.settings import Settings
from slipway.sizer import Sizer

Object = dict[str, Any]
NAMESPACE, NAME = "shop", "churn"
SETTINGS = Settings(
    server_image="server:1",
    router_image="router:1",
    operator_image="operator:1",
    prometheus_address="http://prometheus.monitoring.svc:9090",
)
_PASSED = Judgement(Verdict.PASS, "Passed", "all checks pass")
_LONGEST_JUMP_SECONDS = 40 * 24 * 3600.0
_READY = {"podIP": "10.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


class Server:
    """An API server that one manager applies to: what was applied last is what is stored."""

    def __init__(self, store: Store, now: Any) -> None:
        self.store, self._now = store, now
        self.objects: dict[tuple[Kind, str], Object] = {}
        self.version = 1

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self.objects.get((kind, name))

    async def list(
        self, kind: Kind, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[list[Object], str]]:
        found = self.objects.get((kind, fields.removeprefix("metadata.name=")))
        yield [copy.deepcopy(found)] if found is not None else [], str(self.version)

    async def apply(self, obj: Object, *, create: bool = False, status: bool = False) -> Object:
        key = kind_of(obj), obj["metadata"]["name"]
        held = self.objects.get(key)
        if held is not None and create:
            raise ApiError(409, "AlreadyExists", f"{key} is there")
        if key[0] is POD:  # the operator's note for the kubelet
            return self._note(obj)
        if status:
            if held is None or held["metadata"]["resourceVersion"] != obj["metadata"].get("resourceVersion"):
                raise ApiError(409, "Conflict", f"{key} has changed")
            return self.write(key, {**held, "status": obj["status"]})
        return self.write(key, obj)

    def _note(self, obj: Object) -> Object:
        held = self.store.get(POD, NAMESPACE, obj["metadata"]["name"])
        if held is None:
            raise ApiError(404, "NotFound", "the pod is gone")
        self.version += 1
        noted = {"annotations": obj["metadata"]["annotations"], "resourceVersion": str(self.version)}
        return {**held, "metadata": {**held["metadata"], **noted}}

    def write(self, key: tuple[Kind, str], obj: Object) -> Object:
        """Store an object, and answer it as stored; its generation counts the changes of its spec."""
        held, self.version = self.objects.get(key), self.version + 1
        metadata = {**obj["metadata"], "resourceVersion": str(self.version)}
        if held is None:
            metadata |= {"uid": f"uid-{key[0].kind}-{key[1]}-{self.version}", "generation": 1, "creationTimestamp": self._now()}
        else:
            kept = {name: held["metadata"][name] for name in ("uid", "generation", "creationTimestamp")}
            metadata |= {**kept, "generation": kept["generation"] + (held.get("spec") != obj.get("spec"))}
        stored = copy.deepcopy({**({"status": held["status"]} if held and "status" in held else {}), **obj, "metadata": metadata})
        if key[0] is not EVENT:
            self.objects[key] = stored
        return copy.deepcopy(stored)

    async def delete(self, obj: Object) -> None:
        self.version += 1
        self.objects.pop((kind_of(obj), obj["metadata"]["name"]), None)


class Passing:
    """Judges for whom every candidate passes."""

    def judge(self, model: Model, state: State, at: float) -> Judged:
        return Judged({each.revision: _PASSED for each in state.candidates}) if state.step else NOBODY_JUDGED

    def forget(self, key: Key) -> None:
        """There is nothing to forget."""


class Obeying:
    """Routers that do what they were told when they last looked, and a meter that sees it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: tuple[RouterSeen, ...] = ()

    def look(self) -> tuple[tuple[RouterSeen, ...], tuple[RouterSeen, ...]]:
        """Have the routers take over what is written. Answer what they did before and what they do now."""
        before, config = self._seen, self._store.get(CONFIG_MAP, NAMESPACE, router.NAME)
        version = routing.load(config["data"][router.STATE_KEY]).version if config is not None else 0
        healthy: dict[str, int] = {}
        for pod in filter(pod_ready, self._store.all(POD, NAMESPACE)):
            revision = pod["metadata"]["labels"].get(labels.REVISION_LABEL, "")
            healthy[revision] = healthy.get(revision, 0) + 1
        names = (pod["metadata"]["name"] for pod in router_pods(self._store, NAMESPACE))
        self._seen = tuple(RouterSeen(name, True, True, version, healthy) for name in sorted(names))
        return before, self._seen

    def routers(self, namespace: str) -> tuple[RouterSeen, ...]:
        return self._seen

    def fresh(self, namespace: str) -> bool:
        return True

    def expect(self, namespace: str) -> None:
        """They are looked at after every turn."""

    def figures(self, namespace: str, revision: str, seconds: float) -> Figures:
        return Figures(0.0, 0.0, len(self._seen), 0, 0, 0.0)

    def total(self, namespace: str, revision: str) -> None:
        return None


class Queue:
    """The work queue on simulated time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: dict[Key, float] = {}

    def add(self, key: Key, after: float = 0.0) -> None:
        self.due[key] = min(self.due.get(key, float("inf")), self.now + after)

    def take(self) -> Iterator[Key]:
        """Yield the keys that are due."""
        for key in [key for key, due in self.due.items() if due <= self.now]:
            del self.due[key]
            yield key


class World:
    """One ModelDeployment in a cluster of its own."""

    def __init__(self) -> None:
        self.queue, self.store = Queue(), Store()
        self.server = Server(self.store, lambda: stamp(self.now()))
        self.meter = Obeying(self.store)
        sizer = Sizer(self.store, self.meter, lambda key, now: Cpu(), self.queue.add)
        self.reconciler = Reconciler(
            self.server,
            self.store,
            self.meter,
            Passing(),
            sizer,
            lambda *_: None,
            self.queue,
            SETTINGS,
            lambda *_: None,
            self.now,
        )

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.queue.now)

    def put(self, spec: Any) -> None:
        """Apply a spec, as a user does."""
        held = self.server.objects.get((MODEL_DEPLOYMENT, NAME))
        head = {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind}
        self._user(
            {**head, "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec, "status": (held or {}).get("status", {})}
        )

    def _user(self, obj: Object) -> None:
        self.store.put(self.server.write((MODEL_DEPLOYMENT, NAME), obj))
        self.queue.add((NAMESPACE, NAME))
        self.queue.add(router_key(NAMESPACE))

    def turn(self) -> None:
        """Have the operator do what is due, then the kubelets and the routers."""
        for key in self.queue.take():
            try:
                _run(self.reconciler.reconcile(key))
            except StaleError:
                self.queue.add(key)
        self._run_pods()
        before, after = self.meter.look()
        if before != after:
            self.reconciler.routers.changed(NAMESPACE, before, after)

    def turns(self, count: int) -> None:
        """Let some turns pass, each up to when something is due."""
        for _ in range(count):
            self.turn()
            self.queue.now = max(self.queue.now, min(self.queue.due.values(), default=self.queue.now))

    def rest(self) -> None:
        """Let time pass until nothing changes any more, whatever it takes."""
        for _ in range(200):
            self._quieten()
            status = self.status
            if status.candidate is None or status.stable is None:
                return
            request = {"verb": "Promote", "full": True, "at": stamp(self.now()), "by": "test"}
            obj = self.server.objects[MODEL_DEPLOYMENT, NAME]
            before = self.server.version
            self._user({**obj, "status": {**obj["status"], "request": request}})
            self._quieten()
            if self.server.version <= before + 2 and self.status.candidate is not None:
                return  # asked and handled: nothing moves while the spec cannot be read
        raise AssertionError(f"does not come to rest: {self.status}")

    def _quieten(self) -> None:
        jump = 0.5
        while jump < _LONGEST_JUMP_SECONDS:
            before = self.server.version
            self.turn()
            if self.server.version != before:
                jump = 0.5
            if min(self.queue.due.values(), default=float("inf")) > self.queue.now:
                soonest = min(self.queue.due.values(), default=self.queue.now)
                self.queue.now = max(self.queue.now + jump, soonest if jump < 1 else 0.0)
                jump *= 3
                self.queue.add((NAMESPACE, NAME))

    def _run_pods(self) -> None:
        """Make the pods that Deployments ask for, and remove the others."""
        wanted: dict[str, Object] = {}
        for (kind, name), obj in self.server.objects.items():
            if kind is DEPLOYMENT:
                template = obj["spec"]["template"]
                generation = hash(repr(template)) & 0xFFFF
                wanted |= {f"{name}-{generation:x}-{index}": template for index in range(obj["spec"]["replicas"])}
        held = {pod["metadata"]["name"]: pod for pod in self.store.all(POD, NAMESPACE)}
        for name in held.keys() - wanted.keys():
            self.store.drop(held[name], ours=True)
        for name in wanted.keys() - held.keys():
            self.server.version += 1
            metadata = {**wanted[name]["metadata"], "name": name, "namespace": NAMESPACE, "uid": f"{name}-{self.server.version}"}
            metadata |= {"resourceVersion": str(self.server.version), "creationTimestamp": stamp(self.now())}
            self.store.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": _READY})
        if held.keys() ^ wanted.keys():
            self.queue.add((NAMESPACE, NAME))
            self.queue.add(router_key(NAMESPACE))

    @property
    def status(self) -> Status:
        return Status.model_validate(self.server.objects.get((MODEL_DEPLOYMENT, NAME), {}).get("status") or {})

    def children(self) -> list[Object]:
        """Answer all that the operator made, routers included."""
        return [obj for (kind, _), obj in self.server.objects.items() if kind is not MODEL_DEPLOYMENT]


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run what never waits: nothing here does."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("the reconciler waited for something")
