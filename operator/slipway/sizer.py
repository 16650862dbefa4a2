"""How many replicas each ModelDeployment with an objective shall have: looked at again every few seconds, without any request."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slipway.api.spec import Spec
from slipway.api.status import ScalingStatus, Status
from slipway.core.clock import to_datetime
from slipway.core.evidence import since
from slipway.core.figures import LIVE_SECONDS, Slice
from slipway.core.scaling.decide import Decision, decide
from slipway.core.scaling.memory import Learned, Look, Memory
from slipway.core.scaling.objective import Settings
from slipway.core.sizing import settings, told
from slipway.core.symptoms import pod_ready
from slipway.kube.kinds import MODEL_DEPLOYMENT, POD
from slipway.kube.store import Store
from slipway.manifests.labels import REVISION_LABEL
from slipway.meter.meter import Meter
from slipway.model import Model
from slipway.queue import Key

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
_AT_ONCE = 16


@dataclass
class _Sized:
    """One ModelDeployment: what it asks for, what was seen last, and what was decided of it."""

    version: str
    asked: Settings | None
    status: Status
    memory: Memory | None = None
    seen: Slice | None = None
    decision: Decision | None = None


class Sizer:
    """Keeps the decisions. `changed` is told of whose has another number of replicas, or another reason, than before."""

    def __init__(self, store: Store, meter: Meter, changed: Callable[[Key], None]) -> None:
        self._store, self._meter, self._changed = store, meter, changed
        self._sized: dict[Key, _Sized] = {}

    def decision(self, namespace: str, name: str) -> Decision | None:
        """Answer what was decided last; None without an objective, and before the first look."""
        sized = self._sized.get((namespace, name))
        return sized.decision if sized is not None else None

    def told(self, model: Model, now: datetime) -> ScalingStatus | None:
        """Answer what status says of a ModelDeployment's size: as before, where nothing is news; None without an objective."""
        before, decision = model.status.scaling, self.decision(model.namespace, model.name)
        if model.spec is not None and model.spec.scaling.objective is None:
            return None
        return before if decision is None else told(before, decision, now)

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
                sized.decision = sized.memory = sized.seen = None
                continue
            before, sized.decision = sized.decision, self._decide(key, sized, sized.asked, now)
            if before is None or (before.replicas, before.reason) != (sized.decision.replicas, sized.decision.reason):
                self._changed(key)
            yield key

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

    def _decide(self, key: Key, sized: _Sized, asked: Settings, now: datetime) -> Decision:
        status = sized.status
        assert status.stable is not None  # noqa: S101 - the caller checked it
        if sized.memory is None:
            learned = status.scaling.learned if status.scaling is not None else None
            sized.memory = Memory(Learned.restore(learned.model_dump(by_alias=True, exclude_none=True) if learned else {}))
        revisions = [role.revision for role in (status.stable, status.candidate) if role is not None and role.weight]
        figures = [self._meter.figures(key[0], revision, LIVE_SECONDS) for revision in revisions]
        counted = [total for revision in revisions if (total := self._meter.total(key[0], revision)) is not None]
        total: Slice | None = None
        for each in counted:
            total = each if total is None else total + each
        got = since(total, sized.seen) if total is not None and sized.seen is not None else None
        sized.seen = total
        ready, start_seconds = self._pods(key, revisions)
        look = Look(
            got,
            in_flight=sum(each.in_flight for each in figures),
            ready=ready,
            replicas=sized.decision.replicas if sized.decision is not None else status.stable.replicas,
            reliable=bool(figures) and all(each.reliable for each in figures),
            start_seconds=start_seconds,
            rolling=status.candidate is not None,
        )
        decision = decide(look, asked, sized.memory, now)
        sized.memory = decision.memory
        return decision

    def _pods(self, key: Key, revisions: list[str]) -> tuple[int, float | None]:
        """Answer how many pods are ready, and how long the slowest of them took from its making to that."""
        ready, took = 0, list[float]()
        for pod in self._store.children(*key, POD):
            if pod["metadata"]["labels"].get(REVISION_LABEL) not in revisions or not pod_ready(pod):
                continue
            ready += 1
            condition = next((each for each in pod["status"]["conditions"] if each["type"] == "Ready"), {})
            if condition.get("lastTransitionTime"):
                made = to_datetime(pod["metadata"]["creationTimestamp"])
                took.append((to_datetime(condition["lastTransitionTime"]) - made).total_seconds())
        return ready, max(took, default=None)
