"""How `kubectl slipway` draws a ModelDeployment: from status to text."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from slipway.kubectl import show

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROLLOUT = {"strategy": "Canary", "steps": [{"weight": 5, "hold": "2m"}, {"weight": 25, "hold": "5m"}]}
STABLE = {"revision": "churn-7f9c", "version": "2", "weight": 75, "ready": 3, "replicas": 3}
FIGURES = {"requestsPerSecond": 31.5, "p95": "12ms", "errorRate": "0%"}
CANDIDATE = {"revision": "churn-b41d", "version": "3", "weight": 25, "ready": 1, "replicas": 2}
CHECKS = [
    {"name": "errorRate", "candidate": "0.1%", "stable": "0%", "limit": "1%", "sample": 1204, "verdict": "Passed"},
    {"name": "p95 to stable's", "stable": "12ms", "sample": 7, "verdict": "InsufficientRequests"},
]
ASKED = [
    CHECKS[0],
    {
        "name": "errors",
        "kind": "Prometheus",
        "candidate": "0.02",
        "limit": "0.05",
        "sample": 3,
        "verdict": "Passed",
        "message": "0.02",
    },
    {"name": "rows", "kind": "Webhook", "sample": 1, "verdict": "Unanswered", "message": "gate cannot be reached"},
    {"name": "smoke", "kind": "Job", "sample": 0, "verdict": "Running"},
]
STEP = {"revision": "churn-b41d", "since": "2026-01-01T11:50:00Z", "step": 2, "steps": 3, "liveWeight": 25}
LIVE = {**STEP, "stepSince": "2026-01-01T11:58:48Z"}
FAILED = {**LIVE, "outcome": "Failed", "reason": "Aborted", "message": "aborted by ops-1"}
SERVED = {"revision": "churn-7f9c", "version": "2", "digest": "a" * 64, "outcome": "Served", "at": "2026-01-01T10:00:00Z"}
BEFORE = {"revision": "churn-1111", "version": "1", "digest": "b" * 64, "outcome": "Served", "at": "2025-12-30T11:00:00Z"}
ABORTED = {
    "revision": "churn-b41d",
    "version": "3",
    "outcome": "Failed",
    "at": "2026-01-01T11:00:00Z",
    "message": "aborted by ops-1",
}


def condition(kind: str, status: str, reason: str, message: str = "why") -> dict[str, Any]:
    words = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**words, "observedGeneration": 4, "lastTransitionTime": "2026-01-01T11:00:00Z"}


READY = [condition(kind, "True", "Good") for kind in ("Ready", "Available", "RoutesLive", "SpecValid", "ScalingActive")]
COMPLETE = condition("Progressing", "False", "Complete")


def churn(phase: str = "Ready", *, name: str = "churn", spec: Any = None, **status: Any) -> dict[str, Any]:
    """Answer a ModelDeployment with that status."""
    status = {"observedGeneration": 4, "phase": phase, "url": f"http://{name}.shop", **status}
    metadata = {"name": name, "namespace": "shop", "generation": 4, "creationTimestamp": "2025-12-30T09:00:00Z"}
    return {"metadata": metadata, "spec": {"rollout": ROLLOUT} if spec is None else spec, "status": status}


# name, object -> the tree
TREES = [
    (
        "it serves",
        churn(stable={**STABLE, "weight": 100, **FIGURES}, conditions=[*READY, COMPLETE], history=[SERVED]),
        """\
churn  Ready  http://churn.shop
├─ stable     churn-7f9c  version 2  100%  3/3 ready  31.5/s  p95 12ms  errors 0%
└─ last       churn-7f9c (version 2) became stable, 2h ago""",
    ),
    (
        "a step under way",
        churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout={**LIVE, "checks": CHECKS}),
        """\
churn  Progressing  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ candidate  churn-b41d  version 3  25%  1/2 ready
   ├─ step 2 of 3, live for 1m12s, 3m48s of its hold left
   ├─ errorRate        0.1%  stable 0%    limit 1%  1204 requests  Passed
   └─ p95 to stable's  -     stable 12ms  limit -   7 requests     InsufficientRequests""",
    ),
    (
        "checks that ask somebody else",
        churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout={**LIVE, "checks": ASKED}),
        """\
churn  Progressing  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ candidate  churn-b41d  version 3  25%  1/2 ready
   ├─ step 2 of 3, live for 1m12s, 3m48s of its hold left
   ├─ errorRate  0.1%  stable 0%   limit 1%    1204 requests  Passed
   ├─ errors     0.02  Prometheus  limit 0.05  3 answers      Passed
   ├─ rows       -     Webhook                 1 answer       Unanswered: gate cannot be reached
   └─ smoke      -     Job                     0 answers      Running""",
    ),
    (
        "its weight is under way",
        churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout={**STEP, "liveWeight": 5}),
        """\
churn  Progressing  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ candidate  churn-b41d  version 3  25% (live 5%)  1/2 ready
   └─ step 2 of 3, its weight is on its way to the routers""",
    ),
    (
        "the candidate's pods are bad",
        churn(
            "Degraded",
            stable={**STABLE, "weight": 100},
            candidate={**CANDIDATE, "weight": 0},
            rollout={**STEP, "step": 0, "liveWeight": 0, "reason": "OOMKilled", "message": "more memory"},
            conditions=[condition("Ready", "False", "OOMKilled"), condition("Progressing", "True", "OOMKilled")],
        ),
        """\
churn  Degraded  http://churn.shop
├─ stable     churn-7f9c  version 2  100%  3/3 ready
├─ candidate  churn-b41d  version 3  0%  1/2 ready
│  ├─ before its first step
│  └─ OOMKilled: more memory
└─ Ready is False  OOMKilled: why""",
    ),
    (
        "paused past its hold",
        churn(
            "Paused", stable=STABLE, candidate=CANDIDATE, rollout={**LIVE, "stepSince": "2026-01-01T09:00:00Z", "paused": True}
        ),
        """\
churn  Paused  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ candidate  churn-b41d  version 3  25%  1/2 ready
   └─ paused: step 2 of 3, live for 3h""",
    ),
    (
        "promoted",
        churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout={**LIVE, "forced": 2, "forcedBy": "ops-1"}),
        """\
churn  Progressing  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ candidate  churn-b41d  version 3  25%  1/2 ready
   └─ step 2 of 3, live for 1m12s, 3m48s of its hold left, promoted by ops-1""",
    ),
    (
        "withdrawn",
        churn(
            "Degraded",
            stable=STABLE,
            rollout=FAILED,
            draining=[{"revision": "churn-b41d"}],
            conditions=[condition("Ready", "False", "Aborted"), condition("Progressing", "False", "Aborted")],
            history=[ABORTED],
        ),
        """\
churn  Degraded  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
├─ refused    churn-b41d  Aborted: aborted by ops-1
├─ leaves     churn-b41d
├─ Ready is False  Aborted: why
└─ last       churn-b41d (version 3) was withdrawn, 1h ago: aborted by ops-1""",
    ),
    (
        "rolled back",
        churn(
            "Degraded",
            stable=STABLE,
            pinned={"revision": "churn-7f9c", "insteadOf": "churn-b41d", "by": "ops-1", "at": "2026-01-01T11:59:00Z"},
        ),
        """\
churn  Degraded  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ pinned     churn-7f9c instead of churn-b41d by ops-1, 1m ago""",
    ),
    (
        "asked for",
        churn(stable=STABLE, request={"verb": "Pause", "at": "2026-01-01T11:59:57.000001Z", "by": "ops-1"}, handled="before"),
        """\
churn  Ready  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ asked      Pause by ops-1, 3s ago, not obeyed yet""",
    ),
    (
        "a model that runs code",
        churn(stable=STABLE, conditions=[*READY, condition("UnsafeModel", "True", "TrustUnsafe")]),
        """\
churn  Ready  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ UnsafeModel is True  TrustUnsafe: why""",
    ),
    (
        "not reached from outside",
        churn(stable=STABLE, conditions=[*READY, condition("Exposed", "False", "NotAllowedByListeners")]),
        """\
churn  Ready  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ Exposed is False  NotAllowedByListeners: why""",
    ),
    (
        "nobody looked at it yet",
        {"metadata": {"name": "churn", "namespace": "shop", "generation": 1}, "spec": {}},
        """\
churn  Pending
└─ spec       changed; Slipway has not taken notice of it yet""",
    ),
    (
        "a spec of another version",
        churn("Progressing", spec={"rollout": {"strategy": "Tomorrow"}}, stable=STABLE, candidate=CANDIDATE, rollout=LIVE),
        """\
churn  Progressing  http://churn.shop
├─ stable     churn-7f9c  version 2  75%  3/3 ready
└─ candidate  churn-b41d  version 3  25%  1/2 ready
   └─ step 2 of 3, live for 1m12s""",
    ),
]


@pytest.mark.parametrize(("obj", "drawn"), [row[1:] for row in TREES], ids=[row[0] for row in TREES])
def test_tree(obj: dict[str, Any], drawn: str) -> None:
    assert show.tree(obj, NOW) == drawn


def test_colours_only_where_they_are_wanted() -> None:
    obj = churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout={**LIVE, "checks": CHECKS})
    assert "\x1b" not in show.tree(obj, NOW)
    assert "\x1b[36mProgressing\x1b[0m" in show.tree(obj, NOW, show.Paint(on=True))
    assert "\x1b[32mPassed\x1b[0m" in show.tree(obj, NOW, show.Paint(on=True))


def test_what_would_steer_a_terminal_is_left_out() -> None:
    history = [{**ABORTED, "message": "aborted by \x1b[2Jmallory\n└─ stable"}]
    obj = churn(stable=STABLE, history=history)
    assert "aborted by  [2Jmallory └─ stable" in show.tree(obj, NOW)
    assert "\x1b" not in show.history(obj, None, NOW)


# name, object -> the line
LINES = [
    ("it serves", churn(stable=STABLE, conditions=READY), "Ready: churn-7f9c (version 2) serves"),
    (
        "a step",
        churn(
            "Progressing", stable=STABLE, candidate=CANDIDATE, rollout=LIVE, conditions=[condition("Ready", "False", "Holding")]
        ),
        "Progressing: churn-b41d (version 3) has 25%, step 2 of 3, 1/2 ready (Holding)",
    ),
    (
        "on its way",
        churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout={**STEP, "liveWeight": 5}),
        "Progressing: churn-b41d (version 3) has 25%, live 5%, step 2 of 3, 1/2 ready",
    ),
    (
        "the first",
        churn("Pending", conditions=[condition("Ready", "False", "NothingServes")]),
        "Pending: nothing serves (NothingServes)",
    ),
    (
        "a spec not seen",
        churn(stable=STABLE, observedGeneration=3),
        "Ready: churn-7f9c (version 2) serves (the spec has changed)",
    ),
]


@pytest.mark.parametrize(("obj", "line"), [row[1:] for row in LINES], ids=[row[0] for row in LINES])
def test_line(obj: dict[str, Any], line: str) -> None:
    assert show.line(obj) == line


def test_table() -> None:
    objects = [
        churn(
            "Progressing",
            stable={**STABLE, **FIGURES},
            candidate=CANDIDATE,
            rollout=LIVE,
            conditions=[condition("Ready", "False", "Holding")],
        ),
        churn(name="fraud", stable={**STABLE, "version": ""}),
    ]
    assert show.table(objects, NOW).splitlines() == [
        "NAME   VERSION  PHASE        READY  CANDIDATE  WEIGHT  STEP  P95   ERRORS  AGE",
        "churn  2        Progressing  3/3    3          25%     2/3   12ms  0%      2d3h",
        "fraud  -        Ready        3/3    -          -       -     -     -       2d3h",
    ]
    wide = show.table(objects, NOW, namespaces=True, wide=True).splitlines()
    assert wide[0].split()[0] == "NAMESPACE"
    assert wide[1].split()[-3:] == ["churn-7f9c", "http://churn.shop", "Holding"]


def test_history() -> None:
    obj = churn(stable=STABLE, history=[ABORTED, SERVED, BEFORE])
    shown = show.history(obj, {"churn-7f9c", "churn-1111"}, NOW).splitlines()
    assert [re.split(r" {2,}", line) for line in shown] == [
        ["", "REVISION", "VERSION", "DIGEST", "ENDED AS", "AT", "UNTIL", "KEPT", "WHY"],
        ["", "churn-b41d", "3", "-", "withdrawn", "2026-01-01T11:00:00Z (1h ago)", "no", "aborted by ops-1"],
        ["*", "churn-7f9c", "2", "a" * 12, "serves", "2026-01-01T10:00:00Z (2h ago)", "yes"],
        ["", "churn-1111", "1", "b" * 12, "served", "2025-12-30T11:00:00Z (2d1h ago)", "2026-01-01T10:00:00Z", "yes"],
    ]
    assert {line.index("churn") for line in shown[1:]} == {shown[0].index("REVISION")}
    unknown = show.history(obj, None, NOW).splitlines()
    assert "KEPT" not in unknown[0]
    assert "controllerrevisions" in unknown[-1]
    assert show.history(churn(), set(), NOW) == "no rollout has ended yet"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-3, "0s"), (59.6, "1m"), (72, "1m12s"), (3600, "1h"), (3660, "1h1m"), (3605, "1h"), (90061, "1d1h")],
)
def test_time_spans(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text
