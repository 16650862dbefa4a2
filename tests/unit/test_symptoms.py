"""Causes in plain words, from pods as a kubelet writes them."""

from typing import Any

import pytest

from slipway.core.clock import to_datetime
from slipway.core.symptoms import diagnose, leaving, stage


def pod(*containers: dict[str, Any], init: bool = False, deleted: bool = False, **status: Any) -> dict[str, Any]:
    statuses = {"initContainerStatuses" if init else "containerStatuses": list(containers)} if containers else {}
    metadata = {"name": "p", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})}
    return {"metadata": metadata, "status": {**statuses, **status}}


def container(name: str = "server", *, last: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": "img:1", "state": state, "lastState": {"terminated": last} if last else {}}


BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: cpu"}
LATER, EARLIER = "2026-01-01T00:01:00Z", "2026-01-01T00:00:00Z"
NOW = to_datetime("2026-01-01T00:02:00Z")

TABLE: list[tuple[str, dict[str, Any], tuple[str, str] | None]] = [
    ("starting", pod(container(waiting={"reason": "ContainerCreating"})), None),
    ("running", pod({**container(running={"startedAt": EARLIER}), "ready": True}), None),
    ("no node", pod(conditions=[UNSCHEDULABLE]), ("Unschedulable", "0/2 nodes: cpu")),
    (
        "image",
        pod(container(waiting={"reason": "ImagePullBackOff", "message": "not found"})),
        ("ImagePullBackOff", "image img:1: not found"),
    ),
    (
        "config",
        pod(container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "x" not found'})),
        ("CreateContainerConfigError", 'container server: secret "x" not found'),
    ),
    (
        "fetch says why",
        pod(
            container("fetch", terminated={"exitCode": 1, "reason": "Error", "message": "DigestMismatch: it differs\n"}),
            init=True,
        ),
        ("DigestMismatch", "it differs"),
    ),
    (
        "fetch said why, and waits for its next try",
        pod(container("fetch", last={"exitCode": 1, "message": "ModelNotFound: no key"}, **BACK_OFF), init=True),
        ("ModelNotFound", "no key"),
    ),
    (
        "what it says steers no terminal, forges no line, and is as long as a condition's message may be",
        pod(container("fetch", terminated={"exitCode": 1, "message": "Evil: \x1b[2Jgone\r\nReady: \u202eyes\x00 " + "x" * 4000})),
        ("Evil", "[2Jgone Ready: yes " + "x" * 492 + "…"),
    ),
    (
        "a reason is a word, not a page",
        pod(container("server", terminated={"exitCode": 1, "message": "X" * 4000 + ": all of it"})),
        ("CrashLoopBackOff", "container server ended with code 1 (Error): " + "X" * 289 + ": all of it"),
    ),
    (
        "fetch said why, and tries again",
        pod(
            {**container("fetch", last={"exitCode": 1, "message": "ModelNotFound: no key"}, running={}), "restartCount": 1},
            init=True,
        ),
        ("ModelNotFound", "no key"),
    ),
    (
        "it died once, and has started since",
        pod({**container(last={"exitCode": 137, "reason": "OOMKilled"}, running={}), "restartCount": 1, "started": True}),
        None,
    ),
    (
        "out of memory",
        pod(container(last={"exitCode": 137, "reason": "OOMKilled"}, **BACK_OFF)),
        ("OOMKilled", "container server needs more memory than its limit: raise server.resources"),
    ),
    (
        "crash without a word",
        pod(container(last={"exitCode": 2, "reason": "Error"}, **BACK_OFF)),
        ("CrashLoopBackOff", "container server ended with code 2 (Error): no message"),
    ),
    (
        "crashed once, runs again",
        pod(container(last={"exitCode": 2, "reason": "Error"}, running={"startedAt": EARLIER})),
        None,
    ),
    ("fetch is done", pod(container("fetch", terminated={"exitCode": 0, "reason": "Completed"}), init=True), None),
    ("evicted", pod(phase="Failed", reason="Evicted", message="low on memory"), ("Evicted", "low on memory")),
    (
        "started, readiness not asked yet",
        pod(
            {**container(running={"startedAt": LATER}), "started": True, "ready": False},
            conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": EARLIER}],
        ),
        None,
    ),
    (
        "was ready, is no more",
        pod(
            {**container(running={"startedAt": EARLIER}), "started": True, "ready": False},
            conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": LATER}],
        ),
        ("NotReady", "container server runs but its readiness probe fails"),
    ),
    (
        "a kubelet took back for a moment that it is ready",
        pod(
            {**container(running={"startedAt": EARLIER}), "started": True, "ready": False},
            conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:01:56Z"}],
        ),
        None,
    ),
    ("a pod that leaves is not asked", pod(conditions=[UNSCHEDULABLE], deleted=True), None),
]


@pytest.mark.parametrize(("seen", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(seen: dict[str, Any], expected: tuple[str, str] | None) -> None:
    found = diagnose([seen], {}, NOW)
    assert (found and (found.reason, found.message)) == expected


def test_pods_that_cannot_be_made_are_the_deployments_symptom() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}
    found = diagnose([], {"status": {"conditions": [condition]}}, NOW)
    assert found is not None
    assert (found.reason, found.message) == (
        "QuotaExceeded",
        "exceeded quota: q; raise the quota, or lower scaling.max or server.resources",
    )


def test_messages_are_short_and_on_one_line() -> None:
    found = diagnose([pod(conditions=[{**UNSCHEDULABLE, "message": "a\nb " * 1000}])], {}, NOW)
    assert found is not None
    assert len(found.message) <= 512
    assert "\n" not in found.message


JUST = "2026-01-01T00:01:58Z"
FETCHED = {"exitCode": 0, "finishedAt": LATER, "message": "Fetched: 12 bytes in 0.1 s, sha256 ab"}
STAGES: list[tuple[str, dict[str, Any], tuple[str, str] | None]] = [
    ("not begun", pod(container("fetch", waiting={"reason": "PodInitializing"}), init=True), None),
    (
        "fetching",
        pod(container("fetch", running={"startedAt": EARLIER}), init=True),
        ("FetchingModel", f"fetching its model since {EARLIER}: kubectl logs p -c fetch"),
    ),
    ("fetching, just begun", pod(container("fetch", running={"startedAt": JUST}), init=True), None),
    (
        "fetched",
        pod(container("fetch", terminated=FETCHED), init=True),
        ("LoadingModel", "loading its model (fetched 12 bytes in 0.1 s, sha256 ab)"),
    ),
    ("just fetched", pod(container("fetch", terminated={**FETCHED, "finishedAt": JUST}), init=True), None),
    ("tries again", pod({**container("fetch", running={"startedAt": EARLIER}), "restartCount": 2}, init=True), None),
    ("failed", pod(container("fetch", terminated={"exitCode": 1, "finishedAt": LATER}), init=True), None),
    ("ready", pod(container("fetch", terminated=FETCHED), init=True, conditions=[{"type": "Ready", "status": "True"}]), None),
    ("leaving", pod(container("fetch", running={"startedAt": EARLIER}), init=True, deleted=True), None),
    ("without a model to fetch", pod(container(running={"startedAt": EARLIER})), None),
]


@pytest.mark.parametrize(("seen", "told"), [row[1:] for row in STAGES], ids=[row[0] for row in STAGES])
def test_what_takes_a_pod_its_time(seen: dict[str, Any], told: tuple[str, str] | None) -> None:
    found = stage([seen], NOW)
    assert (found and (found.reason, found.message)) == told


@pytest.mark.parametrize(
    ("made", "now", "expected"),
    [
        ("2026-01-01T00:01:58Z", "2026-01-01T00:02:00Z", 2),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z", 1),
        ("2026-01-01T00:01:58Z", "2026-01-01T00:02:28Z", 0),
    ],
    ids=["both are older", "one is, one of its own second is not", "what is still there was adopted"],
)
def test_pods_older_than_a_new_deployment_are_leaving(made: str, now: str, expected: int) -> None:
    pods = [{"metadata": {"name": at, "creationTimestamp": at}} for at in ("2025-12-31T23:00:00Z", EARLIER)]
    assert leaving(pods, {"metadata": {"creationTimestamp": made}}, to_datetime(now)) == expected
