"""Callers outside the cluster, by a real Gateway: they reach the model, by the weights of its rollout, and status says so."""

import math
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import tritonclient.grpc
from tests.e2e import models
from tests.e2e.cluster import Cluster, Model, Namespace
from tests.e2e.gateway import CLOSED, OPEN, EnvoyGateway, Gateway
from tests.e2e.waiting import await_

HOST = "churn.example.com"
PATH = "/v2/models/churn/infer"
SIGMAS, ANSWERS, WEIGHT = 4.5, 600, 30


@pytest.fixture(scope="module")
def web(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Answer a Gateway in a namespace of its own."""
    EnvoyGateway(cluster, tmp_path_factory.mktemp("envoy-gateway")).install()
    namespace = cluster.make_namespace("web")
    gateway = Gateway(namespace, "web")
    gateway.apply()
    gateway.await_programmed()
    yield gateway
    cluster.client.delete(f"/api/v1/namespaces/{namespace.name}")


def point(churn: Model, **gateway: str) -> None:
    """Point the ModelDeployment at a Gateway."""
    churn.apply({**models.spec(1), "routing": {"hosts": [HOST], "gateway": gateway}})


def await_exposed(churn: Model, status: str, reason: str, says: str) -> None:
    """Wait until the condition Exposed says so."""

    def said() -> bool:
        found = churn.condition("Exposed")
        return (found.get("status"), found.get("reason")) == (status, reason) and says in found["message"]

    try:
        await_(said, f"Exposed is {status} for {reason}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {churn.condition('Exposed')}") from None


def test_callers_outside_the_cluster(web: Gateway, namespace: Namespace) -> None:
    churn = namespace.model("churn")
    at = {"name": web.name, "namespace": web.namespace.name}

    # A Gateway that is not there, and a listener that does not let it in, are told, and no matter of those inside.
    point(churn, name="absent", namespace=web.namespace.name)
    churn.await_ready()
    await_exposed(churn, "Unknown", "NoController", f"is there a Gateway {web.namespace.name}/absent")
    assert web.ask(HOST, PATH, models.BODY) == {(404, ""): 1}
    point(churn, **at, sectionName=CLOSED)
    await_exposed(churn, "False", "NotAllowedByListeners", f"Gateway {web.namespace.name}/{web.name}, Accepted: ")
    assert churn.is_ready()

    point(churn, **at, sectionName=OPEN)
    await_exposed(churn, "True", "Accepted", HOST)
    await_(lambda: web.ask(HOST, PATH, models.BODY) == {(200, churn.revision): 1}, "the Gateway has taken the route over")
    assert web.ask("other.example.com", PATH, models.BODY) == {(404, ""): 1}

    # gRPC, which needs HTTP/2 all the way.
    options = [("grpc.default_authority", HOST)]
    with closing(tritonclient.grpc.InferenceServerClient(":".join(map(str, web.address)), channel_args=options)) as client:
        given = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.array([models.INPUT], np.float32))
        answer = client.infer("churn", [given])
        assert answer is not None
        output = answer.as_numpy("y")
    assert output is not None
    assert output.tolist() == [models.answer(1)]

    # Weights are the routers' own: the Gateway knows nothing of them.
    stable = churn.revision
    rollout = {"strategy": "Canary", "steps": [{"weight": WEIGHT, "hold": "10m"}]}
    churn.apply({**models.spec(2), "routing": {"hosts": [HOST], "gateway": at}, "rollout": rollout})
    await_(lambda: churn.status.get("rollout", {}).get("stepSince"), "the weight is live")
    candidate = churn.status["candidate"]["revision"]
    answers = web.ask(HOST, PATH, models.BODY, ANSWERS)
    assert answers.keys() == {(200, stable), (200, candidate)}
    deviation = math.sqrt(WEIGHT / 100 * (1 - WEIGHT / 100) / ANSWERS)
    assert abs(answers[200, candidate] / ANSWERS - WEIGHT / 100) <= SIGMAS * deviation, answers

    # What is no longer asked for goes.
    churn.apply(models.spec(1))
    await_(lambda: not namespace.find("httproutes", "churn"), "the HTTPRoute is gone")
    await_(lambda: not churn.condition("Exposed"), "and its condition")
