"""`kubectl slipway` against a real API server. The test writes status as the operator would."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.chart import Helm
from tests.integration.client import Client, model, models, spec_of, wait_for
from tests.integration.plugin import Plugin, kubeconfig, token
from tests.unit.test_kubectl_show import ABORTED, CANDIDATE, CHECKS, FAILED, LIVE, SERVED, STABLE, condition

from slipway.api.status import Verb

Object = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NONE: Object = {"candidate": None, "rollout": None}


class Churn:
    """A ModelDeployment whose operator is the test."""

    def __init__(self, cluster: Client, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.path = models(namespace, "churn")
        self.cluster.apply(self.path, model("churn", spec_of("scaling: {min: 3}")))

    @property
    def object(self) -> Object:
        return self.cluster.get(self.path)

    @property
    def request(self) -> Object:
        return self.object["status"].get("request", {})

    def set(self, phase: str, **status: Any) -> None:
        """Change status."""
        generation = self.object["metadata"]["generation"]
        self.cluster.merge(f"{self.path}/status", {"status": {"observedGeneration": generation, "phase": phase, **status}})

    @contextmanager
    def operated(self, obey: Callable[[Object], Object]) -> Iterator[None]:
        """Obey each request meanwhile: `obey` answers the status that it makes."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.02):
                asked, handled = self.request, self.object["status"].get("handled")
                if asked and asked["at"] != handled:
                    self.set(**{"phase": "Progressing", "handled": asked["at"], **obey(asked)})

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def churn(cluster: Client, namespace: str) -> Iterator[Churn]:
    """Answer a ModelDeployment amid a rollout."""
    churn = Churn(cluster, namespace)
    churn.set(
        "Progressing",
        url=f"http://churn.{namespace}",
        stable=STABLE,
        candidate=CANDIDATE,
        rollout={**LIVE, "checks": CHECKS},
        history=[SERVED],
        conditions=[condition("Ready", "False", "Holding")],
    )
    yield churn
    cluster.delete(churn.path)


@pytest.fixture
def plugin(cluster: Client, tmp_path: Path) -> Plugin:
    """Answer the administrator's plugin."""
    return Plugin(tmp_path, cluster.kubeconfig)


def test_it_shows_what_there_is(churn: Churn, plugin: Plugin) -> None:
    where = ("-n", churn.namespace)
    drawn = plugin.must("status", "churn", *where)
    assert "candidate  churn-b41d  version 3  25%  1/2 ready" in drawn
    assert "step 2 of 3" in drawn
    assert "Ready is False  Holding" in drawn
    assert plugin.must("list", *where).splitlines()[1].split()[:3] == ["churn", "2", "Progressing"]
    assert [churn.namespace, "churn"] in [line.split()[:2] for line in plugin.must("list", "-A").splitlines()]
    assert yaml.safe_load(plugin.must("status", "churn", *where, "-o", "yaml")) == churn.object
    assert "churn-7f9c" in plugin.must("history", "churn", *where)


def revision(churn: Churn, name: str) -> str:
    """Keep a revision, as the operator does, and answer its name."""
    owner = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "name": "churn"}
    metadata = {
        "name": name,
        "labels": {"slipway.dev/model-deployment": "churn"},
        "ownerReferences": [{**owner, "uid": churn.object["metadata"]["uid"]}],
    }
    body = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": {}, "revision": 1}
    churn.cluster.apply(f"/apis/apps/v1/namespaces/{churn.namespace}/controllerrevisions/{name}", body)
    return name


def test_each_verb_writes_its_request_and_says_what_came_of_it(churn: Churn, plugin: Plugin) -> None:
    """The whole life of a rollout, with what an operator makes of each verb."""
    rollout = {**LIVE, "checks": []}
    older = revision(churn, "churn-0000")
    withdrawn = {"candidate": None, "rollout": FAILED, "history": [ABORTED, SERVED]}
    pinned = {"revision": older, "insteadOf": "churn-b41d", "by": "kubernetes-admin", "at": "2026-01-01T00:00:00Z"}
    tried = {"pinned": None, "candidate": CANDIDATE, "rollout": {**rollout, "outcome": None}}
    life: list[tuple[str, Object, Object, str]] = [
        ("pause churn", {"verb": "Pause"}, {"rollout": {**rollout, "paused": True}}, "stays at 25%"),
        ("resume churn", {"verb": "Resume"}, {"rollout": {**rollout, "paused": False}}, "goes on"),
        (
            "set-weight churn 40",
            {"verb": "SetWeight", "weight": 40},
            {"rollout": {**rollout, "paused": True, "weightSet": 40}},
            "gets 40% as soon as it has pods enough",
        ),
        ("resume churn", {"verb": "Resume"}, {"rollout": {**rollout, "paused": False, "weightSet": None}}, "goes on"),
        (
            "promote churn",
            {"verb": "Promote", "full": False},
            {"rollout": {**rollout, "step": 3, "forced": 2}},
            "goes on to step 3",
        ),
        ("promote churn --full", {"verb": "Promote", "full": True}, {"rollout": {**rollout, "forced": 3}}, "skips all steps"),
        ("abort churn", {"verb": "Abort"}, withdrawn, "is withdrawn"),
        ("retry churn", {"verb": "Retry"}, tried, "is tried again"),
        ("abort churn", {"verb": "Abort"}, withdrawn, "is withdrawn"),
        (f"rollback churn {older}", {"verb": "Rollback", "revision": older}, {**NONE, "pinned": pinned}, f"{older} serves"),
        ("retry churn", {"verb": "Retry"}, tried, "is tried again"),
    ]
    for words, asked, becomes, said in life:
        with churn.operated(lambda _, becomes=becomes: becomes):
            assert said in plugin.must(*words.split(), "-n", churn.namespace)
        request = churn.request
        assert asked.items() <= request.items()
        assert request["by"] == "kubernetes-admin"
        for field in ("revision", "weight"):
            assert (field in request) == (field in asked), "what an earlier request had is gone"
    assert {verb.value for verb in Verb} == {asked["verb"] for _, asked, _, _ in life}


def test_what_makes_no_sense_is_not_sent(churn: Churn, plugin: Plugin) -> None:
    revision(churn, "churn-0000")
    for words, why in (
        (("resume", "churn"), "churn: the rollout of churn-b41d (version 3) is not paused"),
        (("rollback", "churn", "churn-9999"), "churn: churn-9999 is not kept; kept are churn-0000"),
        (("retry", "churn"), "churn: there is nothing to retry"),
    ):
        ended = plugin.run(*words, "-n", churn.namespace)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(why)
    assert not churn.request


def test_without_an_operator_the_request_waits_for_it(churn: Churn, plugin: Plugin) -> None:
    ended = plugin.run("pause", "churn", "-n", churn.namespace, "--timeout=1s")
    assert ended.returncode == 2
    assert "is the operator running?" in ended.stderr
    assert churn.request["verb"] == "Pause"
    assert "asked      Pause by kubernetes-admin" in plugin.must("status", "churn", "-n", churn.namespace)
    assert "this replaces kubernetes-admin's Pause" in plugin.run("abort", "churn", "-n", churn.namespace, "--wait=false").stderr


@pytest.mark.parametrize(
    ("becomes", "code", "said"),
    [
        (
            {"phase": "Ready", **NONE, "stable": {**STABLE, "revision": "churn-b41d", "version": "3"}},
            0,
            "churn-b41d (version 3) serves",
        ),
        ({"phase": "Degraded", "candidate": None, "rollout": FAILED}, 1, "churn-b41d was withdrawn: aborted by ops-1"),
    ],
)
def test_waiting_ends_with_the_rollout(churn: Churn, plugin: Plugin, becomes: Object, code: int, said: str) -> None:
    waiting = plugin.start("wait", "churn", "-n", churn.namespace, "--timeout=1m")
    assert waiting.stdout is not None
    assert "step 2 of 3" in waiting.stdout.readline()
    churn.set("Progressing", rollout={**LIVE, "step": 3})
    assert "step 3 of 3" in waiting.stdout.readline()
    churn.set(**becomes)
    told = waiting.stdout.read()
    assert waiting.wait(timeout=20) == code
    assert said in told


def test_watching_ends_with_ctrl_c_or_the_model(churn: Churn, plugin: Plugin) -> None:
    watching = plugin.start("watch", "churn", "-n", churn.namespace)
    other = plugin.start("watch", "churn", "-n", churn.namespace)
    assert watching.stdout is not None
    assert other.stdout is not None
    for process in (watching, other):
        assert process.stdout is not None
        assert "step 2 of 3" in process.stdout.readline()
    churn.set("Paused", rollout={**LIVE, "paused": True})
    assert "Paused:" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(timeout=10) == 0
    churn.cluster.delete(churn.path)
    assert "ModelDeployment churn was deleted" in other.stdout.read()
    assert other.wait(timeout=10) == 3


def test_what_is_not_there(churn: Churn, cluster: Client, plugin: Plugin, tmp_path: Path) -> None:
    missing = plugin.run("status", "chrun", "-n", churn.namespace)
    assert missing.returncode == 3
    assert missing.stderr == f"no ModelDeployment chrun in namespace {churn.namespace}; there are: churn\n"
    (tmp_path / "gone").mkdir()
    gone = Plugin(tmp_path / "gone", kubeconfig(cluster, tmp_path / "gone" / "config", "x", server="https://127.0.0.1:1"))
    unreachable = gone.run("list")
    assert unreachable.returncode == 3
    assert unreachable.stderr == "the cluster at https://127.0.0.1:1 cannot be reached: [Errno 111] Connection refused\n"
    nothing = plugin.run("list", "--kubeconfig", str(tmp_path / "none"))
    assert nothing.returncode == 3
    assert nothing.stderr.startswith("no cluster is configured:")


@pytest.fixture(scope="module")
def roles(cluster: Client, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Make the chart's ClusterRoles of users, and answer their names."""
    objects = Helm(tmp_path_factory.mktemp("helm")).template({})
    found = [obj for obj in objects if obj["kind"] == "ClusterRole" and obj["metadata"]["name"] != "slipway"]
    for role in found:
        cluster.apply(f"{RBAC}/clusterroles/{role['metadata']['name']}", role)
    return [role["metadata"]["name"] for role in found]


def user_of(churn: Churn, folder: Path, role: str) -> Plugin:
    """Answer the plugin of a ServiceAccount that has one of those roles, and nothing else."""
    account = f"only-{role}"
    secret = token(churn.cluster, churn.namespace, account)
    metadata = {"name": account, "namespace": churn.namespace}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": churn.namespace}],
    }
    churn.cluster.apply(f"{RBAC}/namespaces/{churn.namespace}/rolebindings/{account}", binding)
    plugin = Plugin(folder, kubeconfig(churn.cluster, folder / "config", secret, churn.namespace))
    wait_for("the right is granted", lambda: plugin.run("status", "churn").returncode == 0)
    return plugin


def test_who_steers_rollouts_may_not_change_specs(churn: Churn, roles: list[str], tmp_path: Path) -> None:
    assert "slipway-rollouts" in roles
    plugin = user_of(churn, tmp_path, "slipway-rollouts")
    withdrawn = {"candidate": None, "rollout": FAILED, "history": [ABORTED, SERVED]}
    with churn.operated(lambda _: withdrawn):
        assert "is withdrawn" in plugin.must("abort", "churn")
    assert churn.request["by"] == f"system:serviceaccount:{churn.namespace}:only-slipway-rollouts"
    spec = churn.object["spec"]
    patch = ("patch", "md", "churn", "--type=merge", "-p", '{"spec": {"scaling": {"min": 9}}}')
    assert "cannot patch resource" in plugin.kubectl(*patch).stderr
    assert churn.object["spec"] == spec
    assert churn.cluster.merge(f"{churn.path}/status", {"spec": {"scaling": {"min": 9}}})["spec"] == spec, "nor by way of status"
    assert "KEPT" not in plugin.must("history", "churn")


def test_who_only_looks_may_not_steer(churn: Churn, roles: list[str], tmp_path: Path) -> None:
    plugin = user_of(churn, tmp_path, "slipway-view")
    ended = plugin.run("abort", "churn")
    assert ended.returncode == 3
    assert ended.stderr.startswith(f"you may not patch modeldeployments.slipway.dev/status in namespace {churn.namespace}: ")
    assert "The ClusterRole slipway-rollouts of Slipway's chart gives this right" in ended.stderr
    everywhere = plugin.run("list", "-A")
    assert everywhere.returncode == 3
    assert "in the whole cluster" in everywhere.stderr
    assert not churn.request
