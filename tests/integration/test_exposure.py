"""The operator and the ways in from outside, against a real API server: what it makes, keeps, gives up, and tells."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client as aio
from kubernetes.aio import config
from tests.integration import gateway_api
from tests.integration.client import Client, Object, model, models, wait_for
from tests.integration.commands import ROOT

from slipway.api.routing import Ingress
from slipway.kube.api import Api
from slipway.kube.converge import Converger
from slipway.kube.informer import Informer
from slipway.kube.kinds import INGRESS
from slipway.kube.store import Store
from slipway.manifests import exposure, labels

HOST = "churn.example.com"
SPEC = {"model": {"uri": "configmap://digits/model.onnx", "format": "ONNX"}}
# Longer than what is not there is looked for anew.
FOUND_SECONDS = 40.0


@dataclass(frozen=True)
class Shop:
    """A namespace that an operator serves."""

    cluster: Client
    namespace: str
    log: Path

    def apply(self, name: str, **routing: Any) -> None:
        """Apply a ModelDeployment."""
        self.cluster.apply(models(self.namespace, name), model(name, SPEC | {"routing": routing}))

    def route(self, name: str) -> str:
        """Answer the path of its HTTPRoute."""
        return gateway_api.http_route(self.namespace, name)

    def ingress(self, name: str) -> str:
        """Answer the path of its Ingress."""
        return f"/apis/networking.k8s.io/v1/namespaces/{self.namespace}/ingresses/{name}"

    def conditions(self, name: str) -> dict[str, Object]:
        """Answer its conditions."""
        status = self.cluster.get(models(self.namespace, name)).get("status", {})
        return {condition["type"]: condition for condition in status.get("conditions", ())}

    def await_exposed(self, name: str, status: str, reason: str, says: str = "", seconds: float = 20.0) -> None:
        """Wait until the condition says so."""

        def said() -> bool:
            found = self.conditions(name).get("Exposed", {})
            return (found.get("status"), found.get("reason")) == (status, reason) and says in found["message"]

        try:
            wait_for(f"Exposed of {name} is {status} for {reason}", said, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.conditions(name).get('Exposed')}\n{self.log.read_text()[-3000:]}") from None

    def await_found(self, path: str, seconds: float = 20.0) -> Object:
        """Wait until there is an object, and answer it."""
        wait_for(f"{path} is there", lambda: self.cluster.found(path), seconds)
        return self.cluster.get(path)


@pytest.fixture(scope="module")
def shop(cluster: Client, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Answer a namespace with an operator, of a cluster that has no Gateway API yet."""
    gateway_api.remove(cluster)
    log = tmp_path_factory.mktemp("operator") / "log"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(cluster.kubeconfig)}
    flags = ["--server-image=x", "--router-image=x", f"--namespace={namespace}", f"--watch-namespaces={namespace}"]
    with log.open("w") as out:
        command = [sys.executable, "-m", "slipway", *flags, "--http-port=0", "--log-format=text"]
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    yield Shop(cluster, namespace, log)
    process.terminate()
    assert process.wait(timeout=20) == 0, log.read_text()[-3000:]


def test_a_cluster_without_the_gateway_api_is_told_of_and_its_coming_is_noticed(shop: Shop) -> None:
    shop.apply("early", hosts=["early.example.com"], gateway={"name": "web"})
    shop.await_exposed("early", "False", "NotInstalled", "the cluster has no HTTPRoute (gateway.networking.k8s.io/v1)")
    assert shop.conditions("early")["Ready"]["reason"] == "WaitingForPods", "and what is inside goes on"
    gateway_api.install(shop.cluster)
    route = shop.await_found(shop.route("early"), FOUND_SECONDS)
    assert route["spec"]["hostnames"] == ["early.example.com"]
    shop.await_exposed("early", "Unknown", "NoController")
    gateway_api.say(shop.cluster, shop.route("early"), "Accepted", "True", "Accepted")
    shop.await_exposed("early", "True", "Accepted", seconds=FOUND_SECONDS)
    assert shop.log.read_text().count("httproutes are not watched") == 1
    assert "Traceback" not in shop.log.read_text()


def test_what_the_gateways_controller_says_is_told(shop: Shop) -> None:
    shop.apply("churn", hosts=[HOST], gateway={"name": "web", "namespace": "edge", "sectionName": "https"}, timeout="1.5s")
    route = shop.await_found(shop.route("churn"))
    (owner,) = route["metadata"]["ownerReferences"]
    assert owner["uid"] == shop.cluster.get(models(shop.namespace, "churn"))["metadata"]["uid"]
    shop.await_exposed("churn", "Unknown", "NoController", "is there a Gateway edge/web")
    gateway_api.say(shop.cluster, shop.route("churn"), "Accepted", "False", "NotAllowedByListeners", "not from here")
    shop.await_exposed("churn", "False", "NotAllowedByListeners", "Gateway edge/web, Accepted: not from here")
    gateway_api.say(shop.cluster, shop.route("churn"), "ResolvedRefs", "False", "RefNotPermitted", "no grant")
    shop.await_exposed("churn", "False", "RefNotPermitted", "no grant")
    gateway_api.say(shop.cluster, shop.route("churn"), "Accepted", "True", "Accepted")
    shop.await_exposed("churn", "True", "Accepted", HOST)
    shop.apply("churn", hosts=[HOST, "more.example.com"], gateway={"name": "web", "namespace": "edge", "sectionName": "https"})
    shop.await_exposed("churn", "Unknown", "Pending", "example.com/gateway has not said yet")


def test_drift_is_undone_and_what_is_deleted_comes_back(shop: Shop) -> None:
    shop.apply("drift", hosts=["drift.example.com"], gateway={"name": "web"})
    path = shop.route("drift")
    wanted = shop.await_found(path)["spec"]
    other = {**wanted["rules"][1], "backendRefs": [*wanted["rules"][1]["backendRefs"], {"name": "theirs", "port": 80}]}
    for change in ({"hostnames": ["theirs.example.com"]}, {"rules": [wanted["rules"][0], other]}, {"parentRefs": []}):
        shop.cluster.merge(path, {"spec": change})
        wait_for(f"{list(change)} is as it was", lambda: shop.cluster.get(path)["spec"] == wanted)
    uid = shop.cluster.get(path)["metadata"]["uid"]
    shop.cluster.delete(path)
    assert shop.await_found(path)["metadata"]["uid"] != uid


def test_the_service_has_a_port_for_grpc_while_a_gateway_is_in_front(shop: Shop) -> None:
    service = f"/api/v1/namespaces/{shop.namespace}/services/ported"

    def ports() -> dict[int, str | None]:
        return {port["port"]: port.get("appProtocol") for port in shop.cluster.get(service)["spec"]["ports"]}

    shop.apply("ported", hosts=["ported.example.com"], gateway={"name": "web"})
    shop.await_found(shop.route("ported"))
    assert ports() == {80: None, 81: "kubernetes.io/h2c"}
    shop.apply("ported", hosts=["ported.example.com"])
    wait_for("the HTTPRoute is gone", lambda: not shop.cluster.found(shop.route("ported")))
    wait_for("the port is gone", lambda: ports() == {80: None})
    wait_for("the condition is gone", lambda: "Exposed" not in shop.conditions("ported"))


def test_a_foreign_route_is_left_alone(shop: Shop) -> None:
    kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "foreign"}}
    theirs = shop.cluster.apply(shop.route("foreign"), {**kind, "spec": {"hostnames": ["theirs.example.com"]}})
    gateway = {"name": "web"}
    shop.apply("foreign", hosts=["foreign.example.com"], gateway=gateway)
    shop.await_exposed("foreign", "False", "NameClash", "HTTPRoute foreign exists")
    assert shop.conditions("foreign")["Ready"]["reason"] == "WaitingForPods"
    assert shop.cluster.get(shop.route("foreign"))["spec"] == theirs["spec"]
    shop.cluster.delete(shop.route("foreign"))
    shop.await_exposed("foreign", "Unknown", "NoController", seconds=FOUND_SECONDS)


def test_there_is_no_way_in_to_a_foreign_service(shop: Shop) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}}
    shop.cluster.apply(f"/api/v1/namespaces/{shop.namespace}/services/taken", service)
    shop.apply("taken", hosts=["taken.example.com"], gateway={"name": "web"}, ingress={})
    shop.await_exposed("taken", "False", "NameClash", "Service taken exists")
    assert not shop.cluster.found(shop.route("taken"))
    assert not shop.cluster.found(shop.ingress("taken"))


def test_a_host_that_another_model_has_is_not_led_in(shop: Shop) -> None:
    shop.apply("older", hosts=["shared.example.com"], gateway={"name": "web"})
    shop.await_found(shop.route("older"))
    shop.apply("younger", hosts=["shared.example.com", "younger.example.com"], gateway={"name": "web"})
    shop.await_exposed("younger", "False", "HostTaken", "shared.example.com already belongs to ModelDeployment older")
    assert shop.await_found(shop.route("younger"))["spec"]["hostnames"] == ["younger.example.com"]
    shop.apply("older", hosts=["older.example.com"], gateway={"name": "web"})
    wait_for(
        "who is next has the host",
        lambda: "shared.example.com" in shop.cluster.get(shop.route("younger"))["spec"]["hostnames"],
    )
    shop.await_exposed("younger", "Unknown", "NoController")


def test_an_ingress(shop: Shop) -> None:
    asked = {"className": "nginx", "tlsSecretName": "tls", "annotations": {"example.com/size": "8m"}}
    shop.apply("inward", hosts=["inward.example.com"], ingress=asked)
    made = shop.await_found(shop.ingress("inward"))
    assert made["metadata"]["annotations"]["example.com/size"] == "8m"
    assert made["spec"]["tls"] == [{"hosts": ["inward.example.com"], "secretName": "tls"}]
    shop.await_exposed("inward", "Unknown", "NoAddress", "no ingress controller has taken Ingress inward yet")
    shop.cluster.merge(f"{shop.ingress('inward')}/status", {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    shop.await_exposed("inward", "True", "AddressAssigned", "192.0.2.1")
    shop.apply("inward", hosts=["inward.example.com"], ingress={"className": "other"})
    wait_for("settings that are not asked for go", lambda: "tls" not in shop.cluster.get(shop.ingress("inward"))["spec"])
    assert "example.com/size" not in json.dumps(shop.cluster.get(shop.ingress("inward"))["metadata"]["annotations"])
    shop.apply("inward", hosts=["inward.example.com"])
    wait_for("the Ingress is gone", lambda: not shop.cluster.found(shop.ingress("inward")))


def test_a_definition_that_goes_takes_the_way_in_with_it(shop: Shop) -> None:
    shop.apply("late", hosts=["late.example.com"], gateway={"name": "web"})
    shop.await_found(shop.route("late"))
    gateway_api.say(shop.cluster, shop.route("late"), "Accepted", "True", "Accepted")
    shop.await_exposed("late", "True", "Accepted")
    gateway_api.remove(shop.cluster)
    shop.await_exposed("late", "False", "NotInstalled")


async def test_a_kind_that_must_not_be_seen_stops_nothing(cluster: Client, namespace: str) -> None:
    configuration = aio.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    api = Api(aio.ApiClient(configuration, header_name="Impersonate-User", header_value="nobody"))
    store, held = Store(), exposure.build_ingress("held", namespace, "u1", Ingress(), [HOST])
    store.put({**held, "metadata": {**held["metadata"], "uid": "u2", "resourceVersion": "1"}})
    informer = Informer(api, store, INGRESS, namespace, labels.SELECTOR, lambda obj: None)
    running = asyncio.create_task(informer.run())
    async with asyncio.timeout(20):
        await informer.synced.wait()
    running.cancel()
    assert informer.absent
    assert store.all(INGRESS), "what may not be seen may be there"
    refused = await Converger(api, Store()).apply(exposure.build_ingress("new", namespace, "u1", Ingress(), [HOST]))
    await api.close()
    assert refused is not None
    assert refused.reason == "ChildRefused"
    assert "ingresses.networking.k8s.io" in refused.message
    assert "forbidden" in refused.message
