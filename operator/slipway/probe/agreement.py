"""Reads what the comparers of rollouts count, from their pods, and keeps totals that only grow."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp

from slipway.core.agreement_check import Compared
from slipway.core.sequential import Tally
from slipway.kube.kinds import POD
from slipway.kube.store import Store
from slipway.manifests import labels
from slipway.manifests.comparer import COMPONENT, METRICS_PORT
from slipway.meter.pods import open_session, read_text
from slipway.probe.counts import Told, read

PACE_SECONDS = 1.0
_ANSWER_MAX = 256 * 1024
# How long what was counted is remembered without a pod that counts: one may have to be made anew.
_KEPT_SECONDS = 300.0


@dataclass(frozen=True)
class ComparerPod:
    """A comparer's pod as the API server knows it: of which ModelDeployment, and its IP."""

    namespace: str
    model: str
    name: str
    address: str


def comparer_pods(store: Store) -> list[ComparerPod]:
    """Answer the comparers' pods that can be asked."""
    pods: list[ComparerPod] = []
    for pod in store.all(POD):
        metadata, address = pod["metadata"], pod.get("status", {}).get("podIP")
        carried = metadata.get("labels", {})
        if address and carried.get(labels.COMPONENT) == COMPONENT and labels.MODEL_LABEL in carried:
            pods.append(ComparerPod(metadata["namespace"], carried[labels.MODEL_LABEL], metadata["name"], address))
    return pods


# Whose totals they are: namespace, ModelDeployment, stable and candidate revision.
_Subject = tuple[str, str, str, str]


@dataclass
class _Total:
    """What all comparers of a subject counted, as of `at` (seconds, monotonic)."""

    at: float
    agreed: int = 0
    disagreed: int = 0
    largest: float = 0.0
    not_compared: dict[str, int] = field(default_factory=dict[str, int])
    dropped: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, told: Told, before: Told | None, at: float) -> None:
        """Take what a comparer counted since it told `before`; all of it where that was another process."""
        if before is not None and before.started != told.started:
            before = None
        self.at = at
        self.agreed += told.agreed - (before.agreed if before else 0)
        self.disagreed += told.disagreed - (before.disagreed if before else 0)
        self.largest = max(self.largest, told.largest_difference)
        _grow(self.not_compared, told.not_compared, before.not_compared if before else {})
        _grow(self.dropped, told.dropped, before.dropped if before else {})


class Comparers:
    """What the comparers of all rollouts under way count. `pods` answers those that exist."""

    def __init__(self, pods: Callable[[], Iterable[ComparerPod]], now: Callable[[], float] = time.monotonic) -> None:
        self._pods, self._now = pods, now
        self._totals: dict[_Subject, _Total] = {}
        self._told: dict[tuple[str, str], Told] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._asked: set[tuple[str, str]] = set()

    def compared(self, namespace: str, model: str, stable: str, candidate: str) -> Compared:
        """Answer what was compared of a candidate with a stable revision since this process, or their comparer, began."""
        total = self._totals.get((namespace, model, stable, candidate))
        if total is None:
            return Compared()
        return Compared(
            Tally(total.agreed + total.disagreed, total.disagreed),
            self._now() - total.at,
            total.largest,
            dict(total.not_compared),
            dict(total.dropped),
        )

    async def run(self) -> None:
        """Ask until cancelled."""
        async with open_session() as session:
            try:
                while True:
                    await self._round(session)
                    await asyncio.sleep(PACE_SECONDS)
            finally:
                for task in self._under_way:
                    task.cancel()

    async def _round(self, session: aiohttp.ClientSession) -> None:
        """Ask each pod, unless it has yet to answer: one that does not keeps nobody else waiting."""
        pods = {(pod.namespace, pod.name): pod for pod in self._pods()}
        for gone in self._told.keys() - pods.keys():
            del self._told[gone]
        now = self._now()
        for subject in [subject for subject, total in self._totals.items() if now - total.at > _KEPT_SECONDS]:
            del self._totals[subject]
        for key in pods.keys() - self._asked:
            self._asked.add(key)
            task = asyncio.create_task(self._ask(session, pods[key]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _ask(self, session: aiohttp.ClientSession, pod: ComparerPod) -> None:
        key = pod.namespace, pod.name
        try:
            told = await _scrape(session, pod.address)
        finally:
            self._asked.discard(key)
        if told is not None:
            subject = pod.namespace, pod.model, told.stable, told.candidate
            total = self._totals.setdefault(subject, _Total(self._now()))
            total.add(told, self._told.get(key), self._now())
            self._told[key] = told


async def _scrape(session: aiohttp.ClientSession, address: str) -> Told | None:
    """Ask the comparer at the IP; None where it is silent, or says what no comparer says."""
    text = await read_text(session, address, METRICS_PORT, "/metrics", _ANSWER_MAX)
    try:
        return read(text) if text is not None else None
    except ValueError:
        return None


def _grow(total: dict[str, int], told: Mapping[str, int], before: Mapping[str, int]) -> None:
    for reason, count in told.items():
        total[reason] = total.get(reason, 0) + count - before.get(reason, 0)
