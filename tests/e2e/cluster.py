"""The cluster under test, as the journeys use it: objects, kubectl, a namespace of a journey's own."""

import functools
import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e import models
from tests.e2e.traffic import Caller, Load
from tests.e2e.waiting import await_, condition_of
from tests.integration.client import Client, Refused
from tests.integration.commands import ROOT, must, run, tool

Object = dict[str, Any]
_APIS = {
    "modeldeployments": "/apis/slipway.dev/v1alpha1",
    "deployments": "/apis/apps/v1",
    "controllerrevisions": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "jobs": "/apis/batch/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "leases": "/apis/coordination.k8s.io/v1",
    "ingresses": "/apis/networking.k8s.io/v1",
    "gateways": "/apis/gateway.networking.k8s.io/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}
# Every kind that Slipway makes.
CHILDREN = (
    "services",
    "deployments",
    "controllerrevisions",
    "poddisruptionbudgets",
    "configmaps",
    "serviceaccounts",
    "jobs",
)
OURS = "app.kubernetes.io/managed-by=slipway"
ROUTER = "slipway-router"


class Cluster:
    """A Kubernetes cluster that hack/cluster made."""

    def __init__(self, name: str, images: Mapping[str, str]) -> None:
        self.name, self.images = name, images
        self.kubeconfig = Path(must(ROOT / "hack" / "cluster", "kubeconfig", "--name", name).strip())
        self.client = Client(self.kubeconfig)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl, which must succeed, and answer what it printed."""
        return must(tool("kubectl"), "--kubeconfig", self.kubeconfig, *words, stdin=stdin)

    def try_kubectl(self, *words: str) -> str:
        """Run kubectl and answer what it printed, errors too."""
        ended = run(tool("kubectl"), "--kubeconfig", self.kubeconfig, *words)
        return ended.stdout + ended.stderr

    def load(self, *images: str) -> None:
        """Put more images on all nodes."""
        must(ROOT / "hack" / "cluster", "load", "--name", self.name, *images)

    @functools.cached_property
    def nodes(self) -> list[str]:
        """Answer the names of the nodes."""
        return [node["metadata"]["name"] for node in self.client.get("/api/v1/nodes")["items"]]

    def make_namespace(self, stem: str) -> "Namespace":
        """Make a namespace that enforces restricted pod security and holds the models."""
        name = self.client.make_namespace(f"e2e-{stem}-{secrets.token_hex(2)}")
        namespace = Namespace(self, name)
        await_(lambda: namespace.find("serviceaccounts", "default"), f"the default ServiceAccount of {name}")
        namespace.apply("configmaps", models.config_map())
        return namespace


class Namespace:
    """One namespace: its objects by plural and name."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.client, self.name = cluster, cluster.client, name

    def path(self, plural: str, name: str = "") -> str:
        """Answer the URL path of a collection or an object."""
        return f"{_APIS.get(plural, '/api/v1')}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def get(self, plural: str, name: str) -> Object:
        """Answer one object, which must exist."""
        return self.client.get(self.path(plural, name))

    def find(self, plural: str, name: str) -> Object | None:
        """Answer one object, None where there is none."""
        try:
            return self.get(plural, name)
        except Refused as refused:
            if refused.code != 404:
                raise
            return None

    def all(self, plural: str, selector: str = "") -> list[Object]:
        """Answer the objects of a kind."""
        return self.client.get(self.path(plural) + (f"?labelSelector={selector}" if selector else ""))["items"]

    def names(self, plural: str, selector: str = "") -> set[str]:
        """Answer the names of the objects of a kind."""
        return {obj["metadata"]["name"] for obj in self.all(plural, selector)}

    def apply(self, plural: str, body: Object) -> Object:
        """Apply one object server-side."""
        return self.client.apply(self.path(plural, body["metadata"]["name"]), body)

    def merge(self, plural: str, name: str, body: Object) -> Object:
        """Change some fields of one object."""
        return self.client.merge(self.path(plural, name), body)

    def delete(self, plural: str, name: str, **options: Any) -> None:
        """Delete one object."""
        self.client.request("DELETE", self.path(plural, name), options or None)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl in this namespace."""
        return self.cluster.kubectl("-n", self.name, *words, stdin=stdin)

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[int]:
        """Forward a port of this machine's to one of `pods/NAME`, or of a pod of `services/NAME`, and answer it."""
        words = [
            tool("kubectl"),
            "--kubeconfig",
            str(self.cluster.kubeconfig),
            "-n",
            self.name,
            "port-forward",
            target,
            f":{port}",
        ]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            try:
                found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", said)
                assert found, said
                yield int(found[1])
            finally:
                process.terminate()

    def children(self) -> dict[str, Object]:
        """Answer all that Slipway made here, by kind/name."""
        return {f"{plural}/{obj['metadata']['name']}": obj for plural in CHILDREN for obj in self.all(plural, OURS)}

    def events(self, model: str) -> list[Object]:
        """Answer Slipway's events about a ModelDeployment, the first one first."""
        found = [event for event in self.all("events") if event["involvedObject"]["kind"] == "ModelDeployment"]
        found = [event for event in found if event["involvedObject"]["name"] == model]
        return sorted(found, key=lambda event: event["metadata"]["creationTimestamp"])

    def model(self, name: str) -> "Model":
        """Answer the ModelDeployment of that name, which need not exist."""
        return Model(self, name)

    def serve(self, name: str = "churn", spec: Object | None = None) -> "Model":
        """Apply a ModelDeployment and wait until it is ready."""
        model = self.model(name)
        model.apply(spec or models.spec())
        model.await_ready()
        return model

    def load(self, model: str = "churn", connections: int = 8, rate: int = 1000, begin: int = 200) -> Load:
        """Start a load on a model, from a pod; it is under way after `begin` requests."""
        return Load(self, f"http://{model}.{self.name}/v2/models/{model}/infer", models.BODY, connections, rate, begin)

    def describe(self) -> str:
        """Answer what an engineer would look at first."""
        models = json.dumps([obj.get("status") for obj in self.all("modeldeployments")], indent=1)
        things = self.cluster.try_kubectl("-n", self.name, "get", "md,pods,deploy,svc,pdb,cm", "-o", "wide")
        events = self.cluster.try_kubectl("-n", self.name, "get", "events", "--sort-by=.lastTimestamp")
        routers = self.cluster.try_kubectl(
            "-n", self.name, "logs", "-l", f"app.kubernetes.io/name={ROUTER}", "--prefix", "--tail=30"
        )
        return "\n".join((things, models, "\n".join(events.splitlines()[-60:]), routers))

    def caller(self) -> Caller:
        """Answer a pod that sends single requests."""
        return Caller(self)


class Model:
    """One ModelDeployment."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.namespace, self.name = namespace, name

    def apply(self, spec: Object) -> Object:
        """Apply its spec."""
        kind = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment"}
        return self.namespace.apply("modeldeployments", {**kind, "metadata": {"name": self.name}, "spec": spec})

    def delete(self) -> None:
        """Delete it."""
        self.namespace.delete("modeldeployments", self.name)

    @property
    def object(self) -> Object:
        """Answer it as stored."""
        return self.namespace.get("modeldeployments", self.name)

    @property
    def status(self) -> Object:
        """Answer its status."""
        return self.object.get("status", {})

    @property
    def revision(self) -> str:
        """Answer the revision that serves."""
        return self.status["stable"]["revision"]

    def condition(self, kind: str = "Ready") -> Object:
        """Answer one condition."""
        return condition_of(self.object, kind)

    def events(self, reason: str = "") -> list[Object]:
        """Answer the events about it, of one reason or all."""
        return [event for event in self.namespace.events(self.name) if reason in ("", event["reason"])]

    def await_event(self, reason: str, says: str = "") -> Object:
        """Wait for an event, and answer it: it is sent just after status is written."""
        return await_(lambda: next((e for e in self.events(reason) if says in e["message"]), Object()), f"event {reason}")

    def is_ready(self) -> bool:
        """Tell whether its current spec serves."""
        obj = self.object
        generation, found = obj["metadata"]["generation"], condition_of(obj, "Ready")
        return found.get("status") == "True" and found["observedGeneration"] == generation

    def await_ready(self, timeout: float = 150.0) -> float:
        """Wait until the current spec serves, and answer when that was seen."""
        try:
            await_(self.is_ready, f"{self.name} is Ready", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.condition())}") from None
        return time.time()

    def await_drained(self, timeout: float = 150.0) -> None:
        """Wait until it is ready, nothing drains, and only pods of the serving revision are left."""
        self.await_ready(timeout)
        await_(lambda: not self.status.get("draining"), f"{self.name} has drained what left", timeout)
        await_(lambda: {revision_of(pod) for pod in self.pods()} == {self.revision}, f"old pods of {self.name} are gone", timeout)

    def await_reason(self, pattern: str, timeout: float = 150.0) -> Object:
        """Wait until Ready is false for a reason that matches, and answer the condition."""

        def found() -> Object:
            obj = self.object
            condition = condition_of(obj, "Ready")
            current = condition.get("observedGeneration") == obj["metadata"]["generation"]
            refused = current and condition["status"] == "False" and re.fullmatch(pattern, condition["reason"])
            return condition if refused else {}

        try:
            return await_(found, f"{self.name} is not Ready for {pattern}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.condition())}") from None

    def pods(self, revision: str = "") -> list[Object]:
        """Answer its pods, those that leave included; of one revision or of all."""
        more = f",slipway.dev/revision={revision}" if revision else ""
        return self.namespace.all("pods", f"slipway.dev/model-deployment={self.name}{more}")


def revision_of(obj: Object) -> str:
    """Answer the revision that a pod or child belongs to."""
    return obj["metadata"]["labels"]["slipway.dev/revision"]
