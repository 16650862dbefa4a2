"""To zero and back: callers notice nothing but that it takes longer, whoever asks and whoever dies meanwhile."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.installation import HELD_MAX, Operator
from tests.e2e.traffic import Asked, assert_none_failed
from tests.e2e.waiting import await_, stays

Object = dict[str, Any]
_ROWS, _CROWD = 400_000, 24


def spec(version: int) -> Object:
    return {**models.spec(version), "scaling": {"min": 0, "idleAfter": "5s"}, "routing": {"timeout": "10m"}}


def asleep(churn: Model) -> None:
    """Wait until nobody has asked for long enough."""
    await_(lambda: churn.status.get("phase") == "ScaledToZero", f"{churn.name} is at zero")


def large(url: str) -> Asked:
    """Answer a request of some MB, in binary."""
    tensor: Object = {"name": "x", "shape": [_ROWS, 4], "datatype": "FP32"}
    data = struct.pack("<4f", *models.INPUT) * _ROWS
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return Asked(url, head + data, headers)


def by_grpc(port: int, authority: str) -> list[float]:
    """Ask by gRPC through a port of this machine, and answer the numbers that came."""
    given = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.array([models.INPUT], np.float32))
    options = [("grpc.default_authority", authority)]
    with closing(tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}", channel_args=options)) as client:
        answer = client.infer("churn", [given])
        assert answer is not None
        found = answer.as_numpy("y")
        assert found is not None
        return found.ravel().tolist()


def crowds_wait(namespace: Namespace, operator: Operator, churn: Model, url: str) -> None:
    """Hold large and small requests of all kinds, lose an activator, hold no more than may wait, and release them."""
    with (
        ThreadPoolExecutor() as threads,
        namespace.forward("services/churn", 80) as port,
        namespace.load(connections=_CROWD, rate=_CROWD, begin=0) as crowd,
    ):
        caller = namespace.caller()
        big = threads.submit(caller.ask_all, large(url))
        grpc = threads.submit(by_grpc, port, f"churn.{namespace.name}:80")
        await_(lambda: operator.held() == _CROWD + 2, "all wait")
        killed = min(operator.activators())
        operator.namespace.delete("pods", killed, gracePeriodSeconds=0)
        await_(lambda: killed not in operator.activators() and operator.held() == _CROWD + 2, "all wait with the other one")
        await_(lambda: len(operator.activators()) == 2, "there are two again")
        with namespace.load(connections=3 * HELD_MAX, rate=3 * HELD_MAX, begin=0) as flood:
            await_(lambda: operator.held() == 2 * HELD_MAX, "no more may wait")
            refused = caller.ask(url, models.BODY)
            assert (refused["status"], refused["headers"]["retry-after"]) == (503, "5")
            assert "requests wait for a pod of" in refused["body"]
            operator.scale(2)
            await_(lambda: churn.status["phase"] == "Ready", "it is awake")
            await_(lambda: operator.held() == 0, "nobody waits any more")
        (answer,) = big.result()
        assert (answer["status"], len(answer["body"]) > 16 * _ROWS) == (200, True)
        assert grpc.result() == models.INPUT
    assert_none_failed(crowd, _CROWD)
    assert {failure[:3] for failure in flood.report.failures} <= {"503"}, flood.report.failures


@pytest.mark.alone
def test_to_zero_and_back(namespace: Namespace, operator: Operator) -> None:
    churn, caller = namespace.serve(spec=spec(1)), namespace.caller()
    url = f"http://churn.{namespace.name}/v2/models/churn/infer"
    assert caller.ask(url, models.BODY)["status"] == 200

    # At the moment in which it goes to sleep: its pod still answers, and routers still send requests to it.
    asleep(churn)
    with namespace.load(connections=32, rate=400) as burst:
        await_(lambda: churn.status["phase"] == "Ready", "it is awake")
        burst.reach(1000)
    assert_none_failed(burst, 1000)
    assert churn.await_event("ScaledToZero")["type"] == "Normal"
    assert churn.await_event("ScaledFromZero")["type"] == "Normal"

    # When routers know that there is none. An operator that starts anew leaves it so.
    asleep(churn)
    await_(lambda: not churn.pods(), "its pod is gone")
    assert (churn.status["replicas"], churn.condition()["status"]) == (0, "True")
    assert churn.condition("ScalingActive")["reason"] == "Idle"
    operator.restart()
    stays(lambda: churn.status["phase"] == "ScaledToZero" and not churn.pods(), "nobody is woken", 4)

    # Nobody is there to wake it: so requests wait for as long as it takes to look at them.
    operator.scale(0)
    try:
        crowds_wait(namespace, operator, churn, url)
    finally:
        operator.scale(2)

    # Another version wakes it: what cannot serve must not wait for a caller to be found out.
    asleep(churn)
    churn.apply(spec(2))
    await_(lambda: churn.status["stable"]["version"] == "2", "the new version serves")
    assert json.loads(caller.ask(url, models.BODY)["body"])["model_version"] == "2"
