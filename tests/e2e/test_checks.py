"""Checks from outside: a Prometheus, a webhook and a Job pass a candidate, withdraw one, and hold what they do not answer for."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.installation import NAMESPACE as OPERATORS
from tests.e2e.installation import Operator
from tests.e2e.stores import build_image
from tests.e2e.test_canary import ERRS, Seen, Watched, ended, labelled, load_on, misbehaving
from tests.e2e.traffic import HERE, Load
from tests.e2e.waiting import await_, condition_of, is_ready
from tests.integration.commands import tool

Object = dict[str, Any]
PROMETHEUS, GATE = ("prometheus", 9090), ("gate", 8080)
_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
_ERRORS = 'sum(slipway_request_errors_total{namespace="{{namespace}}",revision="{{revision}}"})'
_REQUESTS = 'sum(slipway_requests_total{namespace="{{namespace}}",revision="{{revision}}"}) > 0'
# It asks the candidate itself, and leaves word of what it saw.
_SMOKE = """
import json, os, sys, urllib.request
url = f"{os.environ['SLIPWAY_URL']}/v2/models/{os.environ['SLIPWAY_NAME']}/ready"
version = os.environ["SLIPWAY_VERSION"]
status = urllib.request.urlopen(url, timeout=10).status
open("/dev/termination-log", "w").write(f"version {version} is not liked")
sys.exit(0 if status == 200 and version != "disliked" else 3)
"""


def query(**more: Any) -> Object:
    """Answer the check of the share of errors since ever, as the operator's own metrics say."""
    asked = {"address": "http://prometheus:9090", "query": f"{_ERRORS} / ({_REQUESTS})", "max": 0.05}
    return {"name": "errors", "prometheus": {**asked, "interval": "1s", "minSamples": 2, "failureLimit": 2, **more}}


def gate(host: str = "gate", **more: Any) -> Object:
    """Answer the check by the webhook."""
    url = f"http://{host}:8080/rows"
    return {"name": "rows", "webhook": {"url": url, "interval": "1s", "minSamples": 2, "failureLimit": 2, **more}}


def smoke(image: str, script: str = _SMOKE) -> Object:
    """Answer the check by a Job that runs a script of Python."""
    container = {"image": image, "command": ["python3", "-c", script]}
    return {"name": "smoke", "job": {"template": {"spec": {"containers": [container]}}, "timeout": "1m"}}


def checked(spec: Object, *checks: Object, hold: str = "1s") -> Object:
    """Answer the spec with one step of a canary that these checks judge."""
    steps = [{"weight": 50, "hold": hold}]
    return {**spec, "rollout": {"strategy": "Canary", "steps": steps, "checks": list(checks)}}


@pytest.fixture(scope="module")
def servers(shared_namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> "Servers":
    folder = tmp_path_factory.mktemp("prometheus-image")
    (folder / "prometheus").hardlink_to(tool("prometheus"))
    image = build_image("prometheus", folder, "--dockerfile", HERE / "images/prometheus/Dockerfile")
    shared_namespace.cluster.load(image)
    servers = Servers(shared_namespace, image)
    servers.start()
    return servers


@pytest.fixture
def served(servers: "Servers", request: pytest.FixtureRequest) -> Iterator[tuple[Model, Load]]:
    """Answer a model that serves version 1 under a load."""
    stem = re.sub(r"[^a-z]+", "-", request.node.name.removeprefix("test_a_candidate_").removeprefix("test_").lower())
    model = servers.namespace.serve(stem[:40].rstrip("-"), models.spec(1))
    with load_on(model) as load:
        yield model, load


class Servers:
    """A Prometheus that scrapes the operators, and the webhook, each a pod behind a Service."""

    def __init__(self, namespace: Namespace, image: str) -> None:
        self.namespace, self.image = namespace, image
        self.server = namespace.cluster.images["server"]

    def start(self) -> None:
        """Start both and wait until they are ready."""
        found = {"names": [f"slipway-metrics.{OPERATORS}.svc.cluster.local"], "type": "A", "port": 8080, "refresh_interval": "1s"}
        scrape = {"job_name": "slipway", "scrape_interval": "1s", "dns_sd_configs": [found]}
        files = {"gate.py": (HERE / "gate.py").read_text(), "prometheus.yml": json.dumps({"scrape_configs": [scrape]})}
        self.namespace.apply(
            "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "servers"}, "data": files}
        )
        self.start_prometheus()
        self._start(*GATE, self.server, ["python3", "/files/gate.py", str(GATE[1])])
        for name, _ in (PROMETHEUS, GATE):
            await_(lambda name=name: is_ready(self.namespace.get("pods", name)), f"{name} is ready")

    def start_prometheus(self) -> None:
        """Start the Prometheus."""
        command = ["prometheus", "--config.file=/files/prometheus.yml", "--storage.tsdb.path=/tmp/data"]
        self._start(*PROMETHEUS, self.image, command)

    def stop_prometheus(self) -> None:
        """End the Prometheus at once."""
        self.namespace.delete("pods", PROMETHEUS[0], gracePeriodSeconds=0)

    def asked(self) -> list[Object]:
        """Answer what the webhook was asked."""
        return self.namespace.client.get(self.namespace.path("pods", f"{GATE[0]}:{GATE[1]}/proxy/"))

    def _start(self, name: str, port: int, image: str, command: list[str]) -> None:
        kind = {"apiVersion": "v1", "metadata": {"name": name, "labels": {"role": name}}}
        service = {"selector": {"role": name}, "ports": [{"port": port}]}
        self.namespace.apply("services", {**kind, "kind": "Service", "spec": service})
        container = {
            "name": name,
            "image": image,
            "command": command,
            "securityContext": _SECURITY,
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
            "volumeMounts": [{"name": "files", "mountPath": "/files"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in a pod
        }
        pod = {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "files", "configMap": {"name": "servers"}}, {"name": "tmp", "emptyDir": {}}],
        }
        self.namespace.apply("pods", {**kind, "kind": "Pod", "spec": pod})


def check_of(status: Object, name: str) -> Object:
    """Answer one check as status shows it; an empty one where it does not."""
    return next((check for check in (status.get("rollout") or {}).get("checks", ()) if check["name"] == name), {})


def jobs_of(model: Model) -> list[Object]:
    """Answer the Jobs that check the model's candidates."""
    return model.namespace.all("jobs", f"slipway.dev/model-deployment={model.name}")


@pytest.mark.alone
def test_a_candidate_passes_by_all_three(served: tuple[Model, Load], servers: Servers, operator: Operator) -> None:
    """The operator is replaced while the Job runs: no other Job is made, and what the others said is asked anew."""
    model, load = served
    stable, watched = model.revision, Watched(model)
    slow = "import time; time.sleep(6)\n" + _SMOKE
    model.apply(checked(labelled("liked"), query(), gate(), smoke(servers.server, slow)))
    (job,) = await_(lambda: jobs_of(model), "its Job is made")
    operator.restart()
    done = watched.await_(lambda seen: seen.status["stable"]["revision"] != stable, "it is promoted")
    kinds = {check["kind"] for seen in watched.seen for check in seen.rollout.get("checks", ())}
    assert kinds == {"Prometheus", "Webhook", "Job"}
    passed = [seen for seen in watched.seen if check_of(seen.status, "smoke").get("verdict") == "Running"]
    assert passed, "a step waits for its Job"
    assert {each["metadata"]["uid"] for each in jobs_of(model)} <= {job["metadata"]["uid"]}
    told = [asked for asked in servers.asked() if asked["version"] == "liked"]
    assert len(told) >= 2
    revision = done.status["history"][0]["revision"]
    assert told[-1] == {
        "name": model.name,
        "namespace": model.namespace.name,
        "revision": revision,
        "version": "liked",
        "stable": stable,
        "step": 1,
        "weight": 50,
    }
    await_(lambda: not jobs_of(model), "its Job is gone with the rollout")
    assert not load.now().failed


def _bad(servers: Servers, kind: str) -> tuple[Object, Object]:
    """Answer the spec that a check of the kind withdraws, and the check."""
    if kind == "Prometheus":
        return misbehaving(servers.namespace, "errs", ERRS), query()
    return (labelled("refused"), gate()) if kind == "Webhook" else (labelled("disliked"), smoke(servers.server))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Prometheus", "limit 0.05 (2 bad of"),
        ("Webhook", "41 of 100 rows agree"),
        ("Job", "code 3: version disliked is not liked"),
    ],
)
def test_a_candidate_is_withdrawn(served: tuple[Model, Load], servers: Servers, kind: str, says: str) -> None:
    model, _ = served
    stable, watched = model.revision, Watched(model)
    spec, check = _bad(servers, kind)
    model.apply(checked(spec, check, hold="2m"))
    failed = watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn").status
    assert failed["rollout"]["reason"] == f"{kind}CheckFailed"
    assert says in failed["history"][0]["message"]
    assert check_of(failed, check["name"])["verdict"] == "Failed"
    assert model.revision == stable
    assert condition_of(model.object, "Available")["status"] == "True"
    if kind == "Job":
        (job,) = jobs_of(model)
        assert condition_of(job, "Failed")["status"] == "True", "its log may be read while status tells of it"


def test_a_prometheus_that_is_away_holds_the_step(served: tuple[Model, Load], servers: Servers, operator: Operator) -> None:
    """It is noticed though it is asked once in an hour, passes nothing, blames nobody, and the step goes on after."""
    model, _ = served
    watched, stable = Watched(model), model.revision
    rare = query(interval="1h", minSamples=1)
    model.apply(checked(labelled("held"), rare))
    live = watched.await_live(1)
    assert check_of(live.status, "errors").get("verdict", "InsufficientAnswers") in ("InsufficientAnswers", "Unanswered")

    servers.stop_prometheus()

    def unanswered(seen: Seen) -> bool:
        return check_of(seen.status, "errors").get("verdict") == "Unanswered"

    gone = watched.await_(unanswered, "that it is away is told").status
    who = {"namespace": model.namespace.name, "name": model.name, "check": "errors", "verdict": "Unanswered"}
    assert operator.metrics()["slipway_rollout_check", frozenset(who.items())] == 1
    assert condition_of(model.object, "Progressing")["reason"] == "CheckUnanswered"
    assert "cannot be reached" in check_of(gone, "errors")["message"] or "did not answer" in check_of(gone, "errors")["message"]
    assert (model.status["rollout"]["step"], model.revision) == (1, stable)

    servers.start_prometheus()
    watched.await_(lambda seen: seen.status["stable"]["revision"] != stable, "it is promoted now")


def test_nobody_is_reached_by_a_detour(served: tuple[Model, Load], servers: Servers) -> None:
    """A Service that only stands for another name leads nowhere, nor does the address of another namespace."""
    model, _ = served
    spec = {"type": "ExternalName", "externalName": f"slipway-metrics.{OPERATORS}.svc.cluster.local"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "detour"}, "spec": spec}
    servers.namespace.apply("services", service)
    watched = Watched(model)
    model.apply(checked(labelled("curious"), gate("detour")))
    watched.await_(lambda seen: "no address of its own" in check_of(seen.status, "rows").get("message", ""), "it is not asked")
    model.apply(checked(labelled("curious"), gate(f"slipway-metrics.{OPERATORS}")))
    assert "is no Service of namespace" in model.await_reason("AddressNotAllowed")["message"]
