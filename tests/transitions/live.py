"""Sequences of changes on a real control plane: its API server judges every spec, the operator is the real one.

Pods and routers are those of tests/faults, without any fault: routers that read what Slipway writes, and ask their pods.
"""

import asyncio
import contextlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis.strategies as st
from tests.bench.client import Object
from tests.faults.history import Event, Lost
from tests.faults.plane import Plane
from tests.faults.replica import Zygote
from tests.faults.single import NAME, Run
from tests.transitions.same import differences, state
from tests.transitions.schema import Known
from tests.transitions.specs import KNOWN, Change, Spec, is_taken

from slipway.api.status import Status
from slipway.core import routing
from slipway.manifests import labels, router

_SHORT = st.sampled_from(["0s", "300ms", "1s"])
_NEEDS = ("serviceAccountName", "priorityClassName", "runtimeClassName")
# Pods are real objects here, and time passes: few, and short. What a pod names must be there for it to be admitted.
LIVE: Known = {
    **KNOWN,
    "scaling.min": st.sampled_from([1, 1, 2, 3]),
    "scaling.max": st.sampled_from([3, 5]),
    "scaling.schedule[].min": st.sampled_from([1, 3]),
    "rollout.steps[].hold": _SHORT,
    "rollout.steps[].pause": st.just({"duration": "300ms"}),
    "rollout.blueGreen.hold": _SHORT,
    "rollout.blueGreen.scaleDownDelay": _SHORT,
    "rollout.shadow.hold": _SHORT,
    "rollout.abTest.hold": _SHORT,
    "rollout.progressDeadline": st.just("10m"),
    "rollout.stepDeadline": st.just("1h"),
    **{f"server.podTemplate.spec.{name}": st.nothing() for name in _NEEDS},
}
# So often, and after so long each time, somebody who waits for a rollout says that it shall go on.
_WORDS, _PATIENCE_SECONDS = 40, 1.5
_QUIET_SECONDS = 0.6
# What has not come by then never will.
_LOST_SECONDS = 180.0


class Transitions(Run):
    """One ModelDeployment in a namespace of its own, with an operator of its own."""

    async def put(self, spec: Spec) -> int:
        """Apply a spec, and answer its generation; 0 where the API server refused it."""
        try:
            return await self.apply(spec)
        except aiohttp.ClientResponseError as error:
            if error.status not in (400, 422, 500):
                raise
            return 0

    async def rest(self, generation: int) -> None:
        """Wait until a generation serves and nothing moves; whoever waits for a word is given it."""
        for _ in range(_WORDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self.ready(generation)
                    break
            if self.status.get("candidate") and self.status.get("stable"):
                await self._promote()
        await self.ready(generation)
        await self.until_(self._is_alone, "all but the revision that serves is gone")
        await self.quiet(_QUIET_SECONDS)

    async def _promote(self) -> None:
        chosen = self.status["candidate"]["revision"]  # of several one must be named
        request = {"verb": "Promote", "full": True, "revision": chosen, "at": datetime.now(UTC).isoformat(), "by": "somebody"}
        await self._client.merge(f"{self.path}/status", {"status": {"request": request}})

    def _is_alone(self) -> bool:
        """Tell whether the revision that serves is the only one that the routers know, and that has pods."""
        config = next((obj for obj in self.children() if obj["kind"] == "ConfigMap"), None)
        route = routing.load(config["data"][router.STATE_KEY]).routes.get(NAME) if config is not None else None
        held = [obj for obj in self.children() if obj["kind"] in ("Deployment", "Service")]
        found = {obj["metadata"]["labels"].get(labels.REVISION_LABEL) for obj in held} - {None}
        return route is not None and {*route.wanted.ports} == found == {self.status["stable"]["revision"]}

    async def seen_wrong(self, generation: int) -> None:
        """Wait until the operator has said that a spec is wrong."""

        def said(status: Object) -> bool:
            kept = {each["type"]: (each["status"], each["observedGeneration"]) for each in status.get("conditions", ())}
            return kept.get("SpecValid") == ("False", generation)

        await self.until(said, "the spec is told to be wrong")
        await self.quiet(_QUIET_SECONDS)

    def children(self) -> list[Object]:
        """Answer all that Slipway made, as seen last."""
        found: dict[tuple[str, str], Object] = {}
        for entry in self.history.entries:
            if isinstance(entry, Event) and entry.kind not in ("ModelDeployment", "Pod", "Event"):
                key = entry.kind, entry.obj["metadata"]["name"]
                if entry.type == "DELETED":
                    found.pop(key, None)
                elif entry.obj["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "slipway":
                    found[key] = entry.obj
        return list(found.values())

    def state(self, spec: Spec) -> dict[str, Any]:
        """Answer the state in a form that is equal where the states are, in whatever namespace."""
        return state(spec, Status.model_validate(self.status), self.children(), self.namespace)

    def lost(self) -> list[Lost]:
        """Answer the requests that failed."""
        return [entry for entry in self.history.entries if isinstance(entry, Lost)]


async def check(plane: Plane, zygote: Zygote, changes: list[Change], tag: str) -> None:
    """Apply the changes one after the other, then the last spec afresh elsewhere: both must end in the same state."""
    last = changes[-1].spec
    with tempfile.TemporaryDirectory(prefix="slipway-transitions-") as folder:
        found = await _walk(plane, zygote, changes, f"t-{tag}", Path(folder))
        wanted = await _walk(plane, zygote, [Change(last, True, True, 0)], f"t-{tag}-fresh", Path(folder))
    assert not (different := differences(found, wanted)), "\n".join(different)


async def _walk(plane: Plane, zygote: Zygote, changes: list[Change], namespace: str, folder: Path) -> dict[str, Any]:
    (folder / namespace).mkdir()
    it = Transitions(plane, zygote, namespace, [], folder / namespace, _LOST_SECONDS)
    await plane.open(namespace, it.take)
    await it.start("--prometheus-address", "http://prometheus.monitoring.svc:9090")
    try:
        served: tuple[Spec, int] | None = None
        for change in changes:
            served = await _step(it, change, served)
        assert served is not None
        await it.rest(served[1])
        assert not it.lost(), f"requests failed: {it.lost()[:3]}"
        return it.state(served[0])
    finally:
        for each in it.replicas:
            await each.stop()
        await plane.close(namespace)


async def _step(it: Transitions, change: Change, served: tuple[Spec, int] | None) -> tuple[Spec, int] | None:
    """Make one change. Answer the right spec that is asked for now, with its generation."""
    if not change.right and change.rests and served is not None:
        await it.rest(served[1])
    before = it.state(served[0]) if served is not None else {}
    generation = await it.put(change.spec)
    assert bool(generation) == (change.right or is_taken(change.spec)), f"taken: {bool(generation)}, right: {change.right}"
    if change.right:
        if change.rests:
            await it.rest(generation)
        return change.spec, generation
    if not generation:
        return served
    await it.seen_wrong(generation)
    if served is None:
        return None
    if change.rests:
        touched = differences({**it.state(served[0]), "status": before["status"]}, before)
        assert not touched, "a wrong spec changed something:\n" + "\n".join(touched)
    return served[0], await it.put(served[0])
