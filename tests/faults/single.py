"""One run: a scenario under a plan of faults, all that was seen of it, and how it ended."""

import asyncio
import json
import math
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.client import Client, Object
from tests.faults import backup, invariants, oracle
from tests.faults.fault import ON_WATCH, Action, Call, Fault
from tests.faults.history import Entry, Event, History, Marked
from tests.faults.plane import Plane
from tests.faults.proxy import LEASE, Done, Plan
from tests.faults.replica import Replica, Zygote

from slipway.api.spec import Spec
from slipway.core import revision
from slipway.kube import lease
from slipway.kube.kinds import kind_of
from slipway.manifests import labels

if TYPE_CHECKING:
    from tests.faults.scenarios import Scenario

NAME = "m"
SECRET = "credentials"  # noqa: S105 - the name of one
# Nothing is measured by these: a run that has not come to its end by then never will.
PATIENCE_SECONDS = 120.0
_QUIET_SECONDS = 0.8
# How long a run without faults is looked at, whose end the others are to come to.
_REST_SECONDS = 4.0


@dataclass
class Outcome:
    """How a run ended: where to, how often what was made and removed, what was asked of the API server, and what was broken."""

    end: Object = field(default_factory=dict[str, Any])
    made: Counter[str] = field(default_factory=Counter[str])
    calls: Counter[Call] = field(default_factory=Counter[Call])
    events: Counter[Call] = field(default_factory=Counter[Call])
    fired: list[Fault] = field(default_factory=list[Fault])
    violations: list[str] = field(default_factory=list[str])
    seconds: float = 0.0


class StuckError(Exception):
    """What a scenario waits for never came."""


class Run:
    """What a scenario acts by. The operator runs from `start` on, whatever happens to it."""

    def __init__(
        self,
        plane: Plane,
        zygote: Zygote,
        namespace: str,
        faults: Sequence[Fault],
        folder: Path,
        patience_seconds: float,
    ) -> None:
        self._plane, self._client, self.namespace, self.folder = plane, plane.client, namespace, folder
        misled = frozenset(fault.call.kind for fault in faults if fault.action in ON_WATCH)
        self.history = History(namespace, misled=misled)
        self.plan = Plan(list(faults), done=self.history.requests)
        self._patience_seconds = patience_seconds
        self._changed = asyncio.Event()
        self.model: Object | None = None
        self.replicas = [Replica("a", namespace, zygote, self._client, self.plan, folder, self.steal)]
        # What a watch never told is repaired by the sweep.
        self._sweep = "2" if misled else "300"
        self._zygote = zygote

    @property
    def client(self) -> Client:
        """Answer the administrator's client."""
        return self._client

    def take(self, entry: Entry) -> None:
        """Take what was seen."""
        self.history.entries.append(entry)
        if isinstance(entry, Event) and entry.kind == "ModelDeployment":
            self.model = None if entry.type == "DELETED" else entry.obj
        self._changed.set()

    def mark(self, what: str) -> None:
        """Note that the scenario does something."""
        self.history.entries.append(Marked(time.monotonic(), what))

    async def start(self, *more: str) -> None:
        """Start the operator."""
        await self.replicas[0].start("--sweep-seconds", self._sweep, *more)

    async def second(self, *more: str) -> None:
        """Start another replica beside the first, which waits for the Lease."""
        other = Replica("b", self.namespace, self._zygote, self._client, self.plan, self.folder, self.steal)
        self.replicas.append(other)
        await other.start("--sweep-seconds", self._sweep, *more)

    async def steal(self) -> None:
        """Give the Lease to the replica that has it not, while the holder believes that it holds it."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{lease.NAME}"
        holder = (await self._client.get(path))["spec"].get("holderIdentity", "")
        other = next((each.name for each in self.replicas if each.name != holder), "")
        await self._client.merge(path, {"spec": {"holderIdentity": other}})

    def revision(self, spec: Object) -> str:
        """Answer the name of the revision that a spec asks for."""
        return revision.target(NAME, Spec.model_validate(spec)).revision

    def breaks(self, spec: Object) -> None:
        """Have the model of a spec fail to load."""
        self._plane.kubelet.broken.add((self.namespace, self.revision(spec)))
        self.history.broken |= {self.revision(spec)}

    def errs(self, spec: Object) -> None:
        """Have the model of a spec answer with errors."""
        self._plane.pods.erring.add((self.namespace, self.revision(spec)))

    @property
    def path(self) -> str:
        """Answer the path of the ModelDeployment."""
        return f"/apis/slipway.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments/{NAME}"

    @property
    def status(self) -> Object:
        """Answer its status as seen last."""
        return (self.model or {}).get("status") or {}

    async def apply(self, spec: Object) -> int:
        """Apply the ModelDeployment as a user does. Answer its generation."""
        body = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": NAME}, "spec": spec}
        with suppress(ValueError):  # a wrong spec asks for no revision
            self.history.asked |= {self.revision(spec)}
        return (await self._client.apply(self.path, body))["metadata"]["generation"]

    async def define(self, server: Object) -> None:
        """Have the CRD of another release (see `Plane.define`), and wait until defaults of it are told."""
        await self._plane.define(server)

        async def goes() -> bool:
            found = (await self._client.get(self.path))["spec"]["server"]
            return server.keys() <= found.keys() and ("added" in server) == ("added" in found)

        while not await goes():  # noqa: ASYNC110 - no watch tells of defaults
            await asyncio.sleep(0.05)

    async def lose(self, *, owners: bool) -> list[Object]:
        """Delete the ModelDeployment and all that Slipway made, while no operator runs. Answer a backup of them."""
        await self.replicas[0].stop()
        kept = backup.take(oracle.last_objects(self.history).values(), owners=owners)
        self.mark("deleted")
        for obj in kept:
            await self._client.delete(kind_of(obj).path(self.namespace, obj["metadata"]["name"]))
        await self.gone()
        return kept

    async def restore(self, kept: Sequence[Object]) -> None:
        """Make what a backup kept."""
        for obj in kept:
            # Applied, not posted: `data` of a ControllerRevision is immutable and kept byte by byte, and only Go's bytes stay so.
            await self._client.apply(kind_of(obj).path(self.namespace, obj["metadata"]["name"]), obj)

    async def pods_ready(self, kept: Sequence[Object]) -> None:
        """Wait until every Deployment that was restored has its pods, and every router knows."""
        deployments = [f"Deployment/{obj['metadata']['name']}" for obj in kept if obj["kind"] == "Deployment"]

        def ready() -> bool:
            found = oracle.last_objects(self.history)
            made = [found[name] for name in deployments if name in found]
            told = [obj["spec"]["replicas"] == obj.get("status", {}).get("readyReplicas", 0) for obj in made]
            return len(told) == len(deployments) and all(told)

        await self.until_(ready, "the pods of every Deployment are ready")
        await self._plane.kubelet.noticed(self.namespace)

    async def routers_run(self, image: str) -> None:
        """Wait until every router pod is of an image."""

        def all_run() -> bool:
            pods = [obj for obj in oracle.last_objects(self.history).values() if obj["kind"] == "Pod"]
            routers = [obj for obj in pods if obj["metadata"]["labels"].get(labels.COMPONENT) == "router"]
            return bool(routers) and all(obj["spec"]["containers"][0]["image"] == image for obj in routers)

        await self.until_(all_run, f"every router is of {image}")

    async def make_foreign(self) -> None:
        """Make a Secret that models are fetched with, and a Service that is nobody's."""
        self.history.secret = secrets.token_hex(16)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "stringData": {"token": self.history.secret},
        }
        await self._client.request("POST", f"/api/v1/namespaces/{self.namespace}/secrets", secret)
        made = {"kind": "Service", "metadata": {"name": "theirs"}, "spec": {"clusterIP": "None", "selector": {"app": "theirs"}}}
        body = {"apiVersion": "v1", **made}
        await self._client.request("POST", f"/api/v1/namespaces/{self.namespace}/services", body)
        self.history.foreign["Service/theirs"] = made

    async def label_deployment(self, name: str) -> None:
        """Set a label of somebody else's on a Deployment that is Slipway's."""
        label = {"metadata": {"labels": {"theirs": "kept"}}}
        await self._client.merge(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}", label)
        self.history.foreign[f"Deployment/{name}"] = label

    @asynccontextmanager
    async def pods_kept(self, revision: str) -> AsyncIterator[None]:
        """Have the garbage collector leave the pods of a revision, until this ends."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/replicasets"
        kept = await self._client.items(path, f"{labels.REVISION_LABEL}={revision}")
        for obj in kept:
            await self._client.merge(f"{path}/{obj['metadata']['name']}", {"metadata": {"finalizers": ["theirs.example/kept"]}})
        try:
            yield
        finally:
            for obj in kept:
                await self._client.merge(f"{path}/{obj['metadata']['name']}", {"metadata": {"finalizers": None}})

    def asked(self, *, again: bool) -> None:
        """Have callers ask no more, or again."""
        (self._plane.pods.unasked.discard if again else self._plane.pods.unasked.add)(self.namespace)

    async def wake(self) -> None:
        """Tell that somebody asks, as the activator does."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        await self._client.merge(f"{self.path}/status", {"status": {"activation": {"at": at}}})

    async def ask(self, verb: str) -> None:
        """Use a verb, as `kubectl slipway` does."""
        at = datetime.now(UTC).isoformat()
        await self._client.merge(f"{self.path}/status", {"status": {"request": {"verb": verb, "at": at, "by": "somebody"}}})

    async def until(self, holds: Callable[[Object], bool], what: str) -> None:
        """Wait until its status is as wanted. Raises StuckError."""
        await self.until_(lambda: self.model is not None and holds(self.status), what)

    async def until_(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds of what was seen. Raises StuckError."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise StuckError(f"never came: {what}; status {json.dumps(self._told())}") from None

    def _told(self) -> Object:
        conditions = {each["type"]: f"{each['status']} {each['reason']}" for each in self.status.get("conditions", ())}
        kept = ("observedGeneration", "phase", "stable", "candidate", "draining", "rollout")
        return {**{key: self.status.get(key) for key in kept}, "conditions": conditions}

    async def ready(self, generation: int) -> None:
        """Wait until a generation serves, wholly, and nothing of before drains."""
        await self.until(lambda status: _ready(status, generation), f"generation {generation} serves")

    async def settled(self, generation: int) -> None:
        """Wait until a generation was tried and withdrawn."""
        await self.until(
            lambda status: (
                status.get("observedGeneration", 0) >= generation and "candidate" not in status and not status.get("draining")
            ),
            f"generation {generation} is withdrawn",
        )

    async def gone(self) -> None:
        """Wait until the ModelDeployment and all that Slipway made are gone."""

        def none_left() -> bool:
            found = oracle.last_objects(self.history).values()
            return self.model is None and not any(obj["kind"] in (*oracle.OWNED, "Pod") and oracle.owned(obj) for obj in found)

        await self.until_(none_left, "everything is gone")

    async def revision_gone(self, revision: str) -> None:
        """Wait until a revision's Deployment and Service are gone."""
        names = {f"Deployment/{revision}", f"Service/{revision}"}
        await self.until_(lambda: not names & oracle.last_objects(self.history).keys(), f"{revision} is gone")

    def count(self, event: str, path: str) -> int:
        """Answer how often an object of that path was ADDED, say."""
        plural, _, name = path.rpartition("/")
        plural = plural.rpartition("/")[2]
        kinds = [each for each in self.history.events() if each.name == name and each.type == event]
        return sum(f"{each.kind.lower()}s" == plural for each in kinds)

    async def converged(self, end: Object) -> None:
        """Wait until the world is as at the end of the run without faults. Raises StuckError."""
        try:
            await self.until_(lambda: oracle.end_state(self.history) == end, "the end of the run without faults")
        except StuckError:
            said = oracle.compare((end, Counter()), (oracle.end_state(self.history), Counter()))
            raise StuckError(f"the end is not that of the run without faults: {'; '.join(said)}") from None

    async def quiet(self, seconds: float) -> None:
        """Wait until the operator runs and writes nothing more for so long."""
        loop = asyncio.get_running_loop()
        seen, since = -1, loop.time()
        deadline = loop.time() + self._patience_seconds
        while loop.time() - since < seconds or not any(each.pid for each in self.replicas):
            await asyncio.sleep(0.05)
            if self.plan.writes != seen or any(each.proxy.owes for each in self.replicas):
                seen, since = self.plan.writes, loop.time()
            if loop.time() > deadline:
                raise StuckError(f"the operator goes on writing: {[str(each.call) for each in self.history.requests[-20:]]}")


def _ready(status: Object, generation: int) -> bool:
    held = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    return held and status.get("observedGeneration") == generation and not status.get("draining")


async def run(
    plane: Plane,
    zygote: Zygote,
    scenario: "Scenario",
    faults: Sequence[Fault] = (),
    reference: Outcome | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> tuple[Outcome, History]:
    """Run a scenario under faults until its end is that of the reference; without one until nothing is written for a while."""
    namespace = f"faults-{secrets.token_hex(4)}"
    began, outcome = time.monotonic(), Outcome()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-faults-")))
        it = Run(plane, zygote, namespace, faults, folder, patience_seconds)
        await plane.open(namespace, it.take)
        stack.push_async_callback(plane.close, namespace)
        await it.start()
        try:
            if any(fault.action == Action.STEAL for fault in faults):
                await it.second()
            await scenario.drive(it)
            if reference is not None:
                await it.converged(reference.end)
            await it.quiet(_QUIET_SECONDS if reference is not None else _REST_SECONDS)
            while reference is not None and oracle.end_state(it.history) != reference.end:  # it went on after all
                await it.converged(reference.end)
                await it.quiet(_QUIET_SECONDS)
        except StuckError as stuck:
            outcome.violations.append(f"liveness: {stuck}")
        outcome.calls, outcome.events = Counter(it.plan.count), Counter(it.plan.events)
        if not outcome.violations and it.history.marked("namespace deleted") == math.inf:  # its Lease went with it
            await _again(it, outcome)
        for each in it.replicas:
            await each.stop()
        it.history.logs = "".join(each.log.read_text() for each in it.replicas if each.log.exists())
        outcome.end, outcome.made = oracle.end_state(it.history), oracle.made(it.history)
    outcome.fired = it.plan.fired
    outcome.violations += invariants.check(it.history)
    outcome.seconds = time.monotonic() - began
    return outcome, it.history


async def _again(it: Run, outcome: Outcome) -> None:
    """Start the operator anew in a world at rest: it writes nothing."""
    before, writes, status = len(it.history.requests), it.plan.writes, it.status
    lists = Call.of("GET", "/apis/slipway.dev/v1alpha1/modeldeployments", {})
    seen = it.plan.count[lists]
    for each in it.replicas:
        each.end()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while it.plan.count[lists] < seen + 2 and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await it.quiet(_QUIET_SECONDS)
    written = [done for done in it.history.requests[before:] if _is_write(done)]
    if it.plan.writes > writes and not (_are_of_status(written) and oracle.only_figures(status, it.status)):
        said = f"{[f'{done.call} {done.name}' for done in written]}; {oracle.difference(status, it.status)}"
        outcome.violations.append(f"second_reconcile_writes_nothing: a new operator in a world at rest wrote {said}")


def _are_of_status(written: list[Done]) -> bool:
    return all(done.call.kind == "modeldeployments/status" for done in written)


def _is_write(done: Done) -> bool:
    return done.call.verb in ("APPLY", "DELETE") and done.call.kind != LEASE
