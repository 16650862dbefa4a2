"""How many replicas: what the policy is told of the pods and routers, what status says, and what a restart costs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from slipway.api.spec import Scaling
from slipway.api.status import ScalingStatus
from slipway.core.figures import Counts, Figures, Slice
from slipway.core.latency import Histogram, bucket_of
from slipway.core.scaling.decide import Decision
from slipway.core.scaling.memory import Cpu, Memory
from slipway.core.scaling.objective import Reason
from slipway.core.sizing import TOLD_SECONDS, settings, told
from slipway.kube.store import Store
from slipway.manifests import labels
from slipway.queue import Key
from slipway.sizer import LOOK_SECONDS, Sizer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCALING: dict[str, Any] = {"min": 1, "max": 20, "objective": {"latency": "200ms"}}
KEY = ("ns", "m")


class Traffic:
    """A meter: so many requests of 50 ms each at every look, in a rollout by weight (percent); the candidate may be slower."""

    def __init__(self, per_second: float = 0.0) -> None:
        self.per_second, self.at = per_second, 0.0
        self.requests = {"m-a": 0.0}
        self.missing, self.queued, self.latency_ms, self.weight, self.slower = 0, 0, 50, 0, 1

    def _share(self, revision: str) -> float:
        candidate = revision != "m-a"
        return (self.weight if candidate else 100 - self.weight) / 100 if revision in self.requests else 0.0

    def _latency_ms(self, revision: str) -> int:
        return self.latency_ms if revision == "m-a" else self.latency_ms * self.slower

    def pass_seconds(self, seconds: float) -> None:
        self.at += seconds
        for revision in self.requests:
            self.requests[revision] += self.per_second * self._share(revision) * seconds

    def total(self, namespace: str, revision: str) -> Slice | None:
        if revision not in self.requests:
            return None
        requests = int(self.requests[revision])
        took = {bucket_of(self._latency_ms(revision)): requests} if requests else {}
        return Slice(0, self.at, Counts(requests=requests), Histogram(took))

    def figures(self, namespace: str, revision: str, seconds: float) -> Figures:
        in_flight = round(self.per_second * self._share(revision) * self._latency_ms(revision) / 1000)
        in_flight = self.queued if self.queued and revision in self.requests else in_flight
        return Figures(seconds, 1.0, 2, self.missing, in_flight, 0.0, Counts(), Histogram())


def obj(version: int, replicas: int, asked: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    stable = {"revision": "m-a", "weight": 100, "ready": replicas, "replicas": replicas}
    return {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": "ns", "uid": "u", "resourceVersion": str(version), "generation": 1},
        "spec": {"model": {"uri": "configmap://a/b", "format": "ONNX"}, "scaling": SCALING if asked is None else asked},
        "status": {"stable": stable, **status},
    }


def pod(number: int, ready: bool = True) -> dict[str, Any]:
    made, since = "2026-01-01T00:00:00Z", "2026-01-01T00:00:07Z"
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"m-a-{number}",
            "namespace": "ns",
            "uid": f"p{number}",
            "resourceVersion": str(number + 1),
            "creationTimestamp": made,
            "labels": labels.model_labels("m", "m-a"),
        },
        "status": {"conditions": [condition]},
    }


class World:
    """A Sizer with its store and its meter, in simulated time."""

    def __init__(self, replicas: int = 1, **status: Any) -> None:
        self.store, self.traffic, self.changed = Store(), Traffic(), list[Key]()
        self.now, self.version = NOW, 1
        self.store.put(obj(1, replicas, **status))
        for number in range(replicas):
            self.store.put(pod(number))
        self.cpu = Cpu()
        self.sizer = Sizer(self.store, cast("Any", self.traffic), lambda key, now: self.cpu, self.changed.append)

    def pass_seconds(self, seconds: float) -> Decision | None:
        """Look so often, and answer the last decision; what is ordered is there at once."""
        for _ in range(int(seconds / LOOK_SECONDS)):
            self.now += timedelta(seconds=LOOK_SECONDS)
            self.traffic.pass_seconds(LOOK_SECONDS)
            self.sizer.look(self.now)
            decision = self.sizer.decisions(*KEY).get("m-a")
            have = len([each for each in self.store.children(*KEY) if each["kind"] == "Pod"])
            for number in range(have, decision.replicas if decision is not None else 0):
                self.store.put(pod(number))
        return self.sizer.decisions(*KEY).get("m-a")


def test_more_arrivals_more_replicas_and_the_routers_are_told_once() -> None:
    world = World()
    world.traffic.per_second = 4
    few = world.pass_seconds(60)
    assert few is not None
    world.traffic.per_second = 100
    many = world.pass_seconds(60)
    assert many is not None
    assert few.replicas <= 2
    assert many.replicas >= 5, "100 requests a second of 50 ms are five at a time"
    assert set(world.changed) == {KEY}
    assert len(world.changed) < 25, "the same decision is no news"


def test_without_figures_of_every_router_nothing_is_scaled_down() -> None:
    world = World(replicas=8)
    world.traffic.per_second = 100
    world.pass_seconds(60)
    world.traffic.missing, world.traffic.per_second = 1, 0
    kept = world.pass_seconds(1200)
    assert kept is not None
    assert kept.replicas >= 8
    assert kept.reason == Reason.STALE_FIGURES


def test_an_operator_that_starts_anew_begins_with_what_there_is() -> None:
    world = World(replicas=7)
    first = world.pass_seconds(2)
    assert first is not None
    assert first.replicas == 7


def test_without_an_objective_nothing_is_decided() -> None:
    world = World()
    world.pass_seconds(10)
    world.store.put(obj(2, 1, asked={"min": 3}))
    assert world.pass_seconds(2) is None


def rolling(version: int, replicas: int, weight: int, candidate: int = 1) -> dict[str, Any]:
    """Answer the ModelDeployment with a candidate of so many percent."""
    tried = {"revision": "m-b", "weight": weight, "ready": candidate, "replicas": candidate}
    return obj(version, replicas, candidate=tried)


def test_each_revision_of_a_rollout_has_a_history_of_its_own() -> None:
    world = World()
    world.traffic.per_second = 40
    before = world.pass_seconds(300)
    assert before is not None

    def step(version: int, weight: int, seconds: float = 120) -> dict[str, Decision]:
        world.store.put(rolling(version, before.replicas, weight))
        world.traffic.weight = weight
        world.traffic.requests.setdefault("m-b", 0.0)
        world.pass_seconds(seconds)
        return world.sizer.decisions(*KEY)

    world.traffic.slower = 3
    first = step(2, 0)
    assert first["m-b"].replicas == first["m-a"].replicas, "a candidate without requests is as stable is"
    tried = step(3, 50)
    assert tried["m-a"].replicas == before.replicas, "stable could take all back, and is no slower than it was"
    service = tried["m-b"].memory.learned.service
    assert service is not None
    assert service.mean_ms == pytest.approx(150, rel=0.1)
    assert tried["m-b"].replicas > 2 * before.replicas, "three times as slow needs three times as many"

    world.store.put(obj(4, 5, stable={"revision": "m-b", "weight": 100, "ready": 5, "replicas": 5}))
    world.traffic.weight = 100
    world.pass_seconds(2)
    promoted = world.sizer.decisions(*KEY)
    assert promoted.keys() == {"m-b"}
    assert promoted["m-b"].replicas == tried["m-b"].replicas, "its history goes on"


def test_a_bad_candidate_leaves_nothing_behind_in_stables_history() -> None:
    world, calm = World(), World()
    for each in (world, calm):
        each.traffic.per_second = 40
        each.pass_seconds(300)
    world.traffic.requests["m-b"], world.traffic.weight, world.traffic.slower = 0.0, 50, 40
    world.store.put(rolling(2, 3, 50))
    world.pass_seconds(120)
    world.store.put(obj(3, 3))
    world.traffic.weight = 0
    after, usual = world.pass_seconds(2), calm.pass_seconds(122)
    assert after is not None
    assert usual is not None
    assert after.memory.learned.service is not None
    assert usual.memory.learned.service is not None
    assert after.memory.learned.service.mean_ms == pytest.approx(usual.memory.learned.service.mean_ms, rel=0.1)
    assert after.memory.trial is None
    assert after.memory.learned.caution == usual.memory.learned.caution == 1.0


def decision(replicas: int, reason: Reason = Reason.ARRIVALS, **more: Any) -> Decision:
    return Decision(replicas, reason, f"{replicas} for 10/s", Memory(), replicas, **more)


def test_status_is_told_of_news_alone() -> None:
    first = told(None, decision(2), NOW)
    assert (first.replicas, first.reason, first.at) == (2, "Arrivals", "2026-01-01T00:00:00Z")
    later = NOW + timedelta(seconds=TOLD_SECONDS - 1)
    assert told(first, replace(decision(2), message="2 for 11/s"), later + timedelta(hours=1)) is first
    assert told(first, decision(2, Reason.HOLDING), later) is first, "reasons come and go"
    assert told(first, decision(2, Reason.HOLDING), later + timedelta(seconds=1)).reason == "Holding"
    assert told(first, decision(3), NOW).replicas == 3, "replicas are told at once"
    assert told(first, replace(decision(2, Reason.AT_MAXIMUM), wanted=4), NOW).wanted == 4, "so is what it may not have"


def test_what_was_learned_outlives_the_operator() -> None:
    world = World()
    world.traffic.per_second = 20
    before = world.pass_seconds(300)
    assert before is not None
    status = told(None, before, world.now)
    kept = ScalingStatus.model_validate(status.model_dump(by_alias=True, mode="json", exclude_none=True))
    assert kept.learned is not None
    assert kept.learned.service_ms
    again = World(scaling=kept.model_dump(by_alias=True, mode="json", exclude_none=True))
    again.traffic.per_second = 20
    after = again.pass_seconds(4)
    assert after is not None
    assert after.memory.learned.service is not None, "no traffic is needed to know how long requests take"


@pytest.mark.parametrize(
    ("asked", "has"),
    [
        ({"min": 2}, None),
        ({"min": 2, "max": 9, "objective": {"concurrency": 4}}, (2, 9, None)),
        ({"max": 9, "objective": {"latency": "1.5s", "percentile": 99}, "increasePerMinute": 3}, (1, 9, 1500.0)),
    ],
)
def test_settings(asked: dict[str, Any], has: tuple[int, int, float | None] | None) -> None:
    found = settings(Scaling.model_validate(asked))
    assert (found and (found.minimum, found.maximum, found.objective.latency_ms)) == has


def test_a_schedule_is_a_floor() -> None:
    window = {"start": "0 8 * * 1-5", "duration": "10h", "min": 4, "timeZone": "Europe/Berlin"}
    found = settings(Scaling.model_validate({"max": 9, "objective": {"concurrency": 4}, "schedule": [window]}))
    assert found is not None
    (floor,) = found.floors
    assert (floor.start, floor.hours, floor.replicas, floor.zone) == ("0 8 * * 1-5", 10, 4, "Europe/Berlin")


def test_a_queue_at_the_very_first_look_is_no_slow_model() -> None:
    """Sixteen callers at once find one pod: each waits for the others, 50 ms each."""
    world = World()
    world.traffic.per_second, world.traffic.queued, world.traffic.latency_ms = 20, 16, 800
    decision = world.pass_seconds(40)
    assert decision is not None
    assert decision.memory.learned.service is not None
    assert 30 <= decision.memory.learned.service.mean_ms <= 80
    assert decision.reason != Reason.MORE_REPLICAS_DO_NOT_HELP
