"""How many replicas each ModelDeployment has that has not always as many: looked at every few seconds, without any request."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from slipway.api.spec import Spec
from slipway.api.status import RevisionStatus, ScalingStatus, Status
from slipway.core.pods import Pods
from slipway.core.scaling.decide import Decision, decide
from slipway.core.scaling.memory import Cpu, Learned, Memory
from slipway.core.scaling.objective import Reason, Settings
from slipway.core.sizing import settings, told
from slipway.kube.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD
from slipway.kube.store import Store
from slipway.looks import Part, Totals
from slipway.manifests.labels import REVISION_LABEL
from slipway.meter.meter import Meter
from slipway.model import Model
from slipway.queue import Key

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
_AT_ONCE = 16


@dataclass
class _Sized:
    """One ModelDeployment: what it asks for, and its revisions that have a role, stable first."""

    version: str
    asked: Settings | None
    status: Status
    revisions: dict[str, "_Revision"] = field(default_factory=dict[str, "_Revision"])
    told: ScalingStatus | None = None


@dataclass
class _Revision:
    """One revision: its history, what had been counted of it at the last look, and what was decided then."""

    memory: Memory
    seen: Totals = field(default_factory=Totals)
    pods: Pods = field(default_factory=Pods)
    decision: Decision | None = None

    def part(self, meter: Meter, store: Store, key: Key, name: str, now: datetime) -> Part:
        """Answer what came since the last look, and take this one for it."""
        before, self.seen = self.seen, Totals.of(meter, key[0], name)
        pods = [pod for pod in store.children(*key, POD) if pod["metadata"]["labels"].get(REVISION_LABEL) == name]
        self.pods = Pods.of(pods, store.get(DEPLOYMENT, key[0], name) or {}, self.pods.starts, now)
        return Part.of(meter, key[0], name, before, self.seen, self.pods)


class Sizer:
    """Keeps the decisions. `changed` is told of whose has another number of replicas, or another reason, than before."""

    def __init__(self, store: Store, meter: Meter, cpu: Callable[[Key, datetime], Cpu], changed: Callable[[Key], None]) -> None:
        self._store, self._meter, self._cpu, self._changed = store, meter, cpu, changed
        self._sized: dict[Key, _Sized] = {}

    def decisions(self, namespace: str, name: str) -> dict[str, Decision]:
        """Answer what was decided last of each revision with a role, had it all requests; nothing without an objective."""
        sized = self._sized.get((namespace, name))
        revisions = sized.revisions if sized is not None else {}
        return {name: each.decision for name, each in revisions.items() if each.decision is not None}

    def told(self, model: Model, now: datetime) -> ScalingStatus | None:
        """Answer what status says of a ModelDeployment's size: as before, where nothing is news; None where it is fixed."""
        before, stable = model.status.scaling, model.status.stable
        if model.spec is not None and model.spec.scaling.fixed:
            return None
        decision = self._decision((model.namespace, model.name), stable)
        return before if decision is None else told(before, decision, now, _activation(model.status))

    def obey(self, model: Model, now: datetime) -> None:
        """Decide at once where somebody has just asked for a model without pods."""
        sized = self._read((model.namespace, model.name), model.obj)
        if sized.asked is not None and sized.status.stable is not None and _woken(sized.status):
            self._decide((model.namespace, model.name), sized, sized.asked, now)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for number, _ in enumerate(self._looks(datetime.now(UTC))):
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)  # a thousand of them take a fifth of a second

    def look(self, now: datetime) -> None:
        """Decide on all ModelDeployments with an objective."""
        for _ in self._looks(now):
            pass

    def _looks(self, now: datetime) -> Iterator[Key]:
        """Decide on one ModelDeployment after the other, and yield each."""
        found = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for obj in self._store.all(MODEL_DEPLOYMENT)}
        for gone in self._sized.keys() - found.keys():
            del self._sized[gone]
        for key, obj in found.items():
            sized = self._read(key, obj)
            if sized.asked is None or sized.status.stable is None:
                sized.revisions.clear()
                continue
            before = self._decided(key)
            self._decide(key, sized, sized.asked, now)
            if self._is_news(key, sized, now) or before != self._decided(key):
                self._changed(key)
            yield key

    def _decided(self, key: Key) -> dict[str, tuple[int, Reason]]:
        return {revision: (each.replicas, each.reason) for revision, each in self.decisions(*key).items()}

    def _decision(self, key: Key, stable: RevisionStatus | None) -> Decision | None:
        """Answer what was decided of stable; what is refused of a candidate's requests is told with it."""
        decisions = self.decisions(*key)
        if stable is None or stable.revision not in decisions:
            return None
        refused = sum(each.refused_per_second for each in decisions.values())
        return replace(decisions[stable.revision], refused_per_second=refused)

    def _is_news(self, key: Key, sized: _Sized, now: datetime) -> bool:
        """Tell whether status is to say something else than was to be said at the look before."""
        before, status = sized.told, sized.status
        decision = self._decision(key, status.stable)
        if decision is not None:
            sized.told = told(before or status.scaling, decision, now, _activation(status))
        return sized.told != before

    def _read(self, key: Key, obj: dict[str, Any]) -> _Sized:
        """Answer what is known of a ModelDeployment; it is read only where it has changed."""
        known, version = self._sized.get(key), obj["metadata"]["resourceVersion"]
        if known is not None and known.version == version:
            return known
        try:
            asked, status = settings(Spec.model_validate(obj["spec"]).scaling), Status.model_validate(obj.get("status") or {})
        except ValueError:  # pydantic's too: the reconciler tells it
            asked, status = (known.asked, known.status) if known is not None else (None, Status())
        if known is None:
            known = self._sized[key] = _Sized(version, asked, status)
        known.version, known.asked, known.status = version, asked, status
        return known

    def _decide(self, key: Key, sized: _Sized, asked: Settings, now: datetime) -> None:
        """Decide on each revision with a role, by its own history, as if it had all requests."""
        stable = sized.status.stable
        assert stable is not None  # noqa: S101 - the caller checked it
        before, names = sized.revisions, [role.revision for role in sized.status.roles]
        first = before.get(stable.revision) or _Revision(_remembered(sized.status))
        sized.revisions = {name: before.get(name) or _Revision(first.memory.for_candidate) for name in names}
        sized.revisions[stable.revision] = first
        parts = {name: each.part(self._meter, self._store, key, name, now) for name, each in sized.revisions.items()}
        least, cpu = _had(sized.status), self._cpu(key, now) if asked.objective.cpu is not None else None
        for name, revision in sized.revisions.items():
            others = [part for each, part in parts.items() if each != name]
            had = revision.decision.replicas if revision.decision is not None else least
            if revision is not first and revision.memory.learned.service is None:
                had = max(had, least)  # nothing is known of a candidate before its first requests: it is as stable is
            look = parts[name].look(others, had, woken=_woken(sized.status))
            revision.decision = decide(replace(look, cpu=cpu), asked, revision.memory, now)
            revision.memory = revision.decision.memory
            least = revision.decision.replicas


def _activation(status: Status) -> str:
    return status.activation.at if status.activation is not None else ""


def _woken(status: Status) -> bool:
    """Tell whether there is an activation that was not obeyed yet. Times of two machines are not compared."""
    return _activation(status) != (status.scaling.activation if status.scaling is not None else "")


def _remembered(status: Status) -> Memory:
    learned = status.scaling.learned if status.scaling is not None else None
    return Memory(Learned.restore(learned.model_dump(by_alias=True, exclude_none=True) if learned else {}))


def _had(status: Status) -> int:
    """Answer how many replicas a revision with all requests has, as status tells: in a rollout neither may have so many."""
    roles = [role.replicas for role in status.roles]
    decided = status.scaling.replicas if status.scaling is not None and status.candidate is not None else 0
    return max(*roles, decided)
