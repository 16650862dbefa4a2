"""Pods as scaling sees them: how long they take to start, and what keeps them from it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.scaling_world import World

from slipway.core.clock import stamp
from slipway.core.observation import Symptom
from slipway.core.pods import SLOW_START, Pods
from slipway.core.scaling.objective import Reason

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WAITING = {"image": "a", "name": "server", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
QUOTA = 'pods "m-a-1" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2'


def ago(seconds: float) -> str:
    return stamp(NOW - timedelta(seconds=seconds))


def pod(name: str, made: float, taken: float | None, ready: float | None, **status: Any) -> dict[str, Any]:
    """Answer a pod that was made, taken by a node and ready so many seconds ago."""
    no_node = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}
    node = {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(taken)} if taken is not None else no_node
    serves = {"type": "Ready", "status": "False"} if ready is None else {"type": "Ready", "status": "True"}
    conditions = [node, serves | {"lastTransitionTime": ago(ready or 0)}]
    metadata = {"name": name, "uid": name, "creationTimestamp": ago(made)}
    return {"metadata": metadata, "status": {"conditions": conditions, **status}}


def failing(message: str) -> dict[str, Any]:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    return {"status": {"conditions": [condition]}}


SERVES = pod("serves", 300, 299, 289)
# name, pods, Deployment -> ready, how long a start takes, what hinders
TABLE: list[tuple[str, list[dict[str, Any]], dict[str, Any], tuple[int, float | None, str | None]]] = [
    ("one that serves", [SERVES], {}, (1, 10, None)),
    ("one that starts", [SERVES, pod("b", 9, 8, None)], {}, (1, 10, None)),
    ("one that takes long", [SERVES, pod("b", 26, 25, None)], {}, (1, 25, None)),
    ("one that takes far longer than others", [SERVES, pod("b", 92, 91, None)], {}, (1, 91, SLOW_START)),
    ("the first ones: nobody knows how long they take", [pod("b", 900, 899, None)], {}, (0, None, None)),
    ("no node", [SERVES, pod("b", 900, None, None)], {}, (1, 10, "Unschedulable")),
    ("it waited for a node, then started", [pod("b", 900, 42, 30)], {}, (1, 12, None)),
    ("no image", [SERVES, pod("b", 9, 8, None, containerStatuses=[WAITING])], {}, (1, 10, "ErrImagePull")),
    ("a quota", [SERVES], failing(QUOTA), (1, 10, "QuotaExceeded")),
    ("an admission rule", [SERVES], failing("denied by a rule"), (1, 10, "FailedCreate")),
]


@pytest.mark.parametrize(("pods", "deployment", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_seen_of_pods(
    pods: list[dict[str, Any]], deployment: dict[str, Any], expected: tuple[int, float | None, str | None]
) -> None:
    found = Pods.of(pods, deployment, {}, NOW)
    assert (found.ready, found.start_seconds, found.hindrance and found.hindrance.reason) == expected


def test_a_pod_that_is_ready_again_has_not_started_again() -> None:
    before = Pods.of([SERVES], {}, {}, NOW)
    assert Pods.of([pod("serves", 300, 299, 2)], {}, before.starts, NOW).start_seconds == 10


def test_no_more_are_ordered_while_those_that_were_do_not_come() -> None:
    stuck, free = World(), World()
    for world in (stuck, free):
        world.run(60, 50)
    had = stuck.replicas
    decision = stuck.run(60, 250, hindrance=Symptom("Unschedulable", "no node"))
    assert (decision.replicas, decision.reason) == (had, Reason.HINDERED)
    assert decision.limited
    assert "Unschedulable" in decision.message
    assert free.run(60, 250, hindrance=Symptom(SLOW_START, "slow")).replicas > had, "slow ones do come"
    assert stuck.run(4, 250).replicas > had, "at once when they come again"
    assert stuck.run(400, 20, hindrance=Symptom("Unschedulable", "no node")).replicas < had, "fewer can always be"
