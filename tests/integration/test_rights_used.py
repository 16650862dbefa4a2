"""The operator and the activator need all rights that they are given and no other: they run with them through all that they do.

The API server's audit log tells which right each request rested on, and what was refused. What uses a new right is one more
scenario.
"""

import json
import secrets
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration import gateway_api
from tests.integration.audit import Asked, asked, unused
from tests.integration.chart import NAMESPACE
from tests.integration.client import Client, Object, Refused, model, models, wait_for
from tests.integration.nodes import Nodes
from tests.integration.rights import (
    ACCOUNT,
    ACTIVATOR,
    ACTIVATOR_ACCOUNT,
    MODES,
    OPERATOR,
    SERVED,
    Installed,
    granted,
    installed_in,
    running,
)  # fmt: skip
from tests.ports import free_port

from slipway.api.spec import Spec
from slipway.api.status import Status
from slipway.core import holding
from slipway.core.jobs import job_name
from slipway.core.plan import plan
from slipway.core.revision import target
from slipway.manifests import labels

# Asked for by the API server on the operator's behalf, so that no request shows it; without it children are refused.
UNSEEN = {("slipway.dev", "modeldeployments/finalizers", "all", "update")}
SPEC: dict[str, Any] = {
    "model": {"uri": "configmap://digits/model.onnx", "format": "ONNX"},
    "scaling": {"min": 2},
    "rollout": {"strategy": "Immediate"},
}
CHECK = {"image": "tests:1", "command": ["true"]}
CANARY = {
    "strategy": "Canary",
    "steps": [{"weight": 50}],
    "checks": [{"job": {"template": {"spec": {"containers": [CHECK]}}}}],
}
PREVIEW = {
    "strategy": "BlueGreen",
    "blueGreen": {"scaleDownDelay": "0s", "synthetic": {"configMap": "sample", "key": "rows"}},
}
# A hindrance is looked at again after 15 s.
SECONDS = 60.0


class Shop:
    """A served namespace with an operator, and stand-ins for its pods."""

    def __init__(self, cluster: Client, nodes: Nodes, mode: str) -> None:
        self.cluster, self.nodes = cluster, nodes
        self._audit = cluster.kubeconfig.with_name("audit.log")
        self._since = self._audit.stat().st_size
        self.churn, self.twice = f"churn-{mode}", f"twice-{mode}"

    def requests(self) -> list[Asked]:
        """Answer what the operator has asked for so far."""
        return list(asked(self._audit, ACCOUNT, self._since))

    def path(self, group: str, plural: str, name: str) -> str:
        return f"{group}/namespaces/{SERVED}/{plural}/{name}"

    def status(self, name: str) -> Object:
        return self.cluster.get(models(SERVED, name)).get("status", {})

    def until(self, what: str, holds: Callable[[], Any]) -> Any:
        return wait_for(what, holds, SECONDS)

    def until_serves(self, name: str, spec: Object) -> None:
        """Wait until what the spec asks for is stable, and nothing is left to do."""
        revision = target(name, Spec.model_validate(spec)).revision

        def serves() -> bool:
            status = self.status(name)
            return status.get("stable", {}).get("revision") == revision and not (
                status.get("candidate") or status.get("draining")
            )

        self.until(f"{name} serves {revision}", serves)

    def until_gone(self, *paths: str) -> None:
        self.until(f"{paths} are gone", lambda: not any(self.cluster.found(path) for path in paths))

    def apply(self, name: str, spec: Object) -> None:
        self.cluster.apply(models(SERVED, name), model(name, spec))

    def touch(self, name: str) -> None:
        """Have it looked at at once, whatever is waited for."""
        self.cluster.merge(models(SERVED, name), {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}})


FOREIGN: dict[str, tuple[str, str, str, Object]] = {
    "Service": ("/api/v1", "v1", "services", {"spec": {"ports": [{"port": 1}]}}),
    "ConfigMap": ("/api/v1", "v1", "configmaps", {"data": {"a": "b"}}),
    "ServiceAccount": ("/api/v1", "v1", "serviceaccounts", {}),
    "ControllerRevision": ("/apis/apps/v1", "apps/v1", "controllerrevisions", {"revision": 1, "data": {}}),
    "Deployment": (
        "/apis/apps/v1",
        "apps/v1",
        "deployments",
        {
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
            }
        },
    ),
    "PodDisruptionBudget": ("/apis/policy/v1", "policy/v1", "poddisruptionbudgets", {"spec": {"maxUnavailable": 1}}),
    "Job": (
        "/apis/batch/v1",
        "batch/v1",
        "jobs",
        {
            "spec": {
                "suspend": True,
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}},
            }
        },
    ),
    "Ingress": (
        "/apis/networking.k8s.io/v1",
        "networking.k8s.io/v1",
        "ingresses",
        {"spec": {"rules": [{"host": "a.example.com"}]}},
    ),
    "HTTPRoute": (gateway_api.GROUP, "gateway.networking.k8s.io/v1", "httproutes", {"spec": {"hostnames": ["a.example.com"]}}),
}


class Foreign:
    """An object of somebody else in the operator's way."""

    def __init__(self, shop: Shop, kind: str, name: str) -> None:
        group, version, plural, body = FOREIGN[kind]
        self._shop, self.kind, self.name = shop, kind, name
        self.path = shop.path(group, plural, name)
        shop.cluster.apply(self.path, {"apiVersion": version, "kind": kind, "metadata": {"name": name}} | body)

    def is_told_of(self, model_name: str) -> None:
        """Wait until the ModelDeployment says that it is in the way, and remove it."""
        said = f"{self.kind} {self.name} exists"
        self._shop.until(said, lambda: said in json.dumps(self._shop.status(model_name)))
        self._shop.cluster.delete(self.path)
        self._shop.touch(model_name)


def routers_in_the_way(shop: Shop) -> None:
    """What the routers are made of is somebody else's: each is looked at, left alone, and made once it is gone."""
    foreign = [
        Foreign(shop, kind, "slipway-router") for kind in ("ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget")
    ]
    shop.apply(shop.churn, SPEC)
    for each in foreign:
        each.is_told_of(shop.churn)
    shop.until_serves(shop.churn, SPEC)


def children_in_the_way(shop: Shop) -> None:
    revision = target(shop.twice, Spec.model_validate(SPEC)).revision
    children = [Foreign(shop, kind, revision) for kind in ("ControllerRevision", "Service", "Deployment")]
    children += [Foreign(shop, kind, shop.twice) for kind in ("Service", "PodDisruptionBudget")]
    shop.apply(shop.twice, SPEC)
    shop.until("a clash is told", lambda: "NameClash" in json.dumps(shop.status(shop.twice)))
    shop.cluster.delete(models(SERVED, shop.twice))
    for each in children:
        shop.cluster.delete(each.path)


def ways_in(shop: Shop) -> None:
    """They are made, mended and removed, and foreign ones looked at."""
    hosts = [f"{shop.churn}.example.com"]
    foreign = [Foreign(shop, kind, shop.churn) for kind in ("Ingress", "HTTPRoute")]
    route, ingress = foreign[1].path, foreign[0].path
    shop.apply(shop.churn, SPEC | {"routing": {"hosts": hosts, "gateway": {"name": "web"}}})
    foreign[1].is_told_of(shop.churn)
    shop.until("the HTTPRoute is made", lambda: shop.cluster.found(route))
    shop.apply(shop.churn, SPEC | {"routing": {"hosts": hosts, "gateway": {"name": "web"}, "ingress": {}}})
    foreign[0].is_told_of(shop.churn)
    shop.until("the Ingress is made", lambda: shop.cluster.found(ingress))
    shop.cluster.merge(route, {"spec": {"hostnames": ["theirs.example.com"]}})
    shop.until("it is mended", lambda: shop.cluster.get(route)["spec"]["hostnames"] == hosts)
    shop.apply(shop.churn, SPEC)
    shop.until_gone(route, ingress)


def a_canary_with_a_job(shop: Shop) -> None:
    """Its Job's name is known before it is made: somebody else has it then. Later rollouts remove it; retired revisions go."""
    shop.nodes.held.set()
    spec = changed("2", CANARY)
    shop.apply(shop.churn, spec)
    status = shop.until(
        "a step begins", lambda: shop.status(shop.churn).get("rollout", {}).get("step") and shop.status(shop.churn)
    )
    (check,) = plan(Spec.model_validate(spec).rollout).polled
    job = Foreign(shop, "Job", job_name(cast("Any", Status.model_validate(status).rollout), check))
    shop.nodes.held.clear()
    job.is_told_of(shop.churn)
    shop.until_serves(shop.churn, spec)
    spec = changed("3", SPEC["rollout"]) | {"revisionHistoryLimit": 0}
    shop.apply(shop.churn, spec)
    shop.until_serves(shop.churn, spec)
    shop.until_gone(job.path)


def a_preview_with_a_sample(shop: Shop) -> None:
    sample = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sample"}, "data": {"rows": '{"path": "/"}'}}
    shop.cluster.apply(shop.path("/api/v1", "configmaps", "sample"), sample)
    spec = changed("4", PREVIEW)
    shop.apply(shop.churn, spec)
    shop.until_serves(shop.churn, spec)


def an_objective_of_cpu(shop: Shop) -> None:
    shop.apply(shop.churn, changed("4", PREVIEW) | {"scaling": {"min": 2, "max": 4, "objective": {"cpu": "70%"}}})
    shop.until("metrics are asked for", lambda: any(each.group == "metrics.k8s.io" for each in shop.requests()))


def the_end(shop: Shop) -> None:
    shop.cluster.delete(models(SERVED, shop.churn))
    routers = [shop.path(*FOREIGN[kind][::2][:2], "slipway-router") for kind in ("Deployment", "ConfigMap", "ServiceAccount")]
    shop.until_gone(*routers)


SCENARIOS = (
    routers_in_the_way,
    children_in_the_way,
    ways_in,
    a_canary_with_a_job,
    a_preview_with_a_sample,
    an_objective_of_cpu,
    the_end,
)


def changed(version: str, rollout: Object) -> Object:
    """Answer the spec of another version."""
    return {"model": {**SPEC["model"], "version": version}, "scaling": SPEC["scaling"], "rollout": rollout}


@pytest.fixture(scope="module", params=MODES)
def installed(
    request: pytest.FixtureRequest, chart_cluster: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """Answer the chart, installed in each mode after the other."""
    with installed_in(request.param, chart_cluster, tmp_path_factory.mktemp("helm")) as answer:
        gateway_api.install(chart_cluster)
        yield answer


def go_through(shop: Shop, log: Path) -> None:
    for scenario in SCENARIOS:
        try:
            scenario(shop)
        except (AssertionError, Refused) as error:
            found = shop.cluster.get(models(SERVED))["items"]
            raise AssertionError(f"{scenario.__name__}: {error}\n{json.dumps(found)}\n{log.read_text()[-3000:]}") from error


def test_every_right_is_used_and_none_is_missing(installed: Installed, tmp_path: Path) -> None:
    cluster = installed.cluster
    cluster.delete(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/slipway-operator")  # of an earlier operator
    with Nodes(cluster, SERVED) as nodes:
        shop = Shop(cluster, nodes, installed.mode)
        with running(installed, tmp_path, OPERATOR, "--http-port=0", "--log-level=debug") as log:
            go_through(shop, log)
    requests = shop.requests()
    assert refused(requests) == []
    rights = granted([*cluster.get(installed.role)["rules"], *cluster.get(installed.leader_role)["rules"]])
    assert unused(rights, requests) == UNSEEN
    assert {request.namespace for request in requests if request.verb not in ("list", "watch")} <= {SERVED, NAMESPACE, ""}


def test_every_right_of_the_activator_is_used_and_none_is_missing(installed: Installed, tmp_path: Path) -> None:
    """A request waits for a model that has no pod: the model is woken, and its first pod is told of."""
    cluster, name, revision = installed.cluster, f"asleep-{installed.mode}", f"asleep-{installed.mode}-a"
    audit = cluster.kubeconfig.with_name("audit.log")
    since, port = audit.stat().st_size, free_port()
    held = holding.write(SERVED, name, revision, 8080, SECONDS).replace("%REQ(content-length)%", "1")
    cluster.apply(models(SERVED, name), model(name, SPEC))
    secure = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    container = CHECK | {"name": "a", "securityContext": secure | {"seccompProfile": {"type": "RuntimeDefault"}}}
    metadata = {"name": name, "labels": labels.model_labels(name, revision)}
    pod = {"metadata": metadata, "spec": {"containers": [container]}}
    with (
        running(installed, tmp_path, ACTIVATOR, f"--port={port}", f"--metrics-port={free_port()}") as log,
        Nodes(cluster, SERVED) as nodes,
        ThreadPoolExecutor(1) as asking,
    ):

        def ask() -> Any:
            asked_of = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={holding.HELD: held})
            with urllib.request.urlopen(asked_of, timeout=SECONDS) as answer:
                return answer.headers[holding.ENDPOINT]

        wait_for("it listens", lambda: listens(port), SECONDS)
        told = asking.submit(ask)
        wait_for("it is woken", lambda: "activation" in cluster.get(models(SERVED, name)).get("status", {}), SECONDS)
        cluster.create(f"/api/v1/namespaces/{SERVED}/pods", pod)
        assert told.result() == f"{nodes.address}:8080", log.read_text()[-3000:]
    cluster.delete(models(SERVED, name))
    requests = list(asked(audit, ACTIVATOR_ACCOUNT, since))
    assert refused(requests) == []
    assert unused(granted(cluster.get(installed.role_of(ACTIVATOR))["rules"]), requests) == set()


def listens(port: int) -> bool:
    """Tell whether somebody takes connections at a port of this machine."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def refused(requests: list[Asked]) -> list[Asked]:
    """Answer what was refused."""
    return [request for request in requests if request.code in (401, 403)]
