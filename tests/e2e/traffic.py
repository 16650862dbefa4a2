"""Callers of a model, in pods of the cluster: a load that counts every failure, and one that asks once."""

import base64
import functools
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tests.e2e.waiting import await_, is_ready

if TYPE_CHECKING:
    from tests.e2e.cluster import Namespace

HERE = Path(__file__).parent
SCRIPTS = "scripts"
# What the loads of the journey under way counted, for the summary at the end of the run.
REPORTS: list[tuple[str, "Report"]] = []
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Report:
    """What a load counted."""

    requests: int
    failed: int
    failures: dict[str, int]
    answers: dict[str, int]
    first_seen: dict[str, float]
    last_begun: dict[str, float]
    failed_at: list[list[Any]]
    turns: list[list[str]]
    seconds: float
    per_second: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


def pod(namespace: "Namespace", name: str, command: list[str]) -> dict[str, Any]:
    """Answer a pod of the server's image that runs a script; it runs on the first node, so that others may be drained."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {
        "name": "caller",
        "image": namespace.cluster.images["server"],
        "command": ["python3", *command],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": security,
        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"role": "caller"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": namespace.cluster.nodes[0]},
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "scripts", "configMap": {"name": SCRIPTS}}],
        },
    }


def start(namespace: "Namespace", name: str, command: list[str]) -> None:
    """Start a pod that runs one of the scripts, and wait until it is ready."""
    files = {script: (HERE / script).read_text() for script in ("load.py", "ask.py", "answers.py")}
    namespace.apply("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SCRIPTS}, "data": files})
    namespace.apply("pods", pod(namespace, name, command))
    await_(lambda: is_ready(namespace.get("pods", name)), f"pod {name} is ready")


class Load:
    """A load under way, from its first `begin` requests on. Used as a context, it ends with it; `report` is what it counted."""

    def __init__(self, namespace: "Namespace", url: str, body: str, connections: int, rate: int, begin: int = 200) -> None:
        self.namespace, self.url, self._begin = namespace, url, begin
        self.name = f"load-{next(_NUMBERS)}"
        self.command = ["/scripts/load.py", "--url", url, "--body", body]
        self.command += ["--connections", str(connections), "--rate", str(rate)]

    def __enter__(self) -> Self:
        start(self.namespace, self.name, self.command)
        self.reach(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.report = self._ask("stop")
        REPORTS.append((self.namespace.name, self.report))

    def now(self) -> Report:
        """Answer what it has counted so far."""
        return self._ask("report")

    def reach(self, requests: int, timeout: float = 180.0) -> None:
        """Wait until it has sent so many requests."""
        await_(lambda: self.now().requests >= requests, f"{requests} requests sent to {self.url}", timeout)

    def _ask(self, verb: str) -> Report:
        answer = self.namespace.client.get(self.namespace.path("pods", f"{self.name}:9000/proxy/{verb}"))
        return Report(**answer)


def assert_none_failed(loads: Load | Iterable[Load], at_least: int = 10_000) -> None:
    """Assert that every request got a good answer, and that there were enough of them."""
    for load in [loads] if isinstance(loads, Load) else loads:
        report = load.report
        assert report.failed == 0, f"{report.failed} of {report.requests} failed: {report.failures}, when: {report.failed_at}"
        assert report.requests >= at_least


def assert_only_cut(report: Report, deaths: Iterable[tuple[float, float]], connections: int) -> None:
    """Assert that callers lost what killed routers were answering, and nothing else.

    Each of `deaths` is when a router's pod was deleted and when another was in its place. It cuts each connection once at most;
    until kube-proxy has heard of it, new ones may be refused by it. The kubelet may kill it some seconds after its pod is gone.
    """
    deaths, late_seconds = list(deaths), 30
    refused = "ConnectionRefusedError"
    for at, what in report.failed_at:
        within = any(died <= at <= replaced + late_seconds for died, replaced in deaths)
        assert within, f"{what} at {at}, and routers died {deaths}"
    cut = sum(count for what, count in report.failures.items() if not what.startswith(refused))
    assert cut <= connections * len(deaths), f"more than what killed routers were answering: {report.failures}"


@dataclass(frozen=True)
class Asked:
    """One request of a caller."""

    url: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    method: str = ""

    def as_json(self) -> dict[str, Any]:
        """Answer it as ask.py reads it."""
        method = self.method or ("POST" if self.body else "GET")
        return {"url": self.url, "method": method, "headers": self.headers, "body": base64.b64encode(self.body).decode()}


class Caller:
    """A pod that sends single requests."""

    def __init__(self, namespace: "Namespace") -> None:
        self.namespace = namespace

    @functools.cached_property
    def _pod(self) -> str:
        start(self.namespace, "caller", ["-m", "http.server", "9000", "--directory", "/scripts"])
        return "caller"

    def ask(self, url: str, body: str | None = None, method: str | None = None) -> dict[str, Any]:
        """Send one request, and answer its status, headers and body."""
        (answer,) = self.ask_all(Asked(url, (body or "").encode(), method=method or ""))
        return {**answer, "body": answer["body"].decode(errors="replace")}

    def ask_all(self, *requests: Asked) -> list[dict[str, Any]]:
        """Send requests one after another, and answer status, headers and body (bytes) of each."""
        command = ["exec", "-i", self._pod, "--", "python3", "/scripts/ask.py"]
        said = self.namespace.kubectl(*command, stdin=json.dumps([request.as_json() for request in requests]))
        return [{**answer, "body": base64.b64decode(answer["body"])} for answer in json.loads(said)]
