"""Canaries whose callers speak gRPC, whose figures are lost in the middle, and whose spec a GitOps tool applies all the while."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.utils
from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.test_canary import (
    CONNECTIONS,
    ERRS,
    ROUTERS,
    Seen,
    Watched,
    canary,
    ended,
    load_on,
    misbehaving,
    serve,
    steps_told,
    waits_for,
)
from tests.e2e.test_verbs import applied_each_second
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_, is_ready, stays

Object = dict[str, Any]
STATISTICS_PORT = 9901


def test_errors_of_grpc_are_errors(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """To HTTP every answer of a failed call is 200: its grpc-status says that it failed."""
    churn = serve(shared_namespace, request)
    stable = churn.revision
    with calls(churn) as told:
        await_(lambda: told["OK"] > 50, "calls are answered")
        assert set(told) == {"OK"}
        churn.apply(canary(misbehaving(shared_namespace, "grpc", ERRS), 20, hold="10m"))
        watched = Watched(churn)
        withdrawn = watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
        print(withdrawn.status["history"][0]["message"])
        await_(lambda: churn.condition("RoutesLive")["status"] == "True", "its weight 0 is live")
        failed, answered = sum(told.values()) - told["OK"], told["OK"]
        await_(lambda: told["OK"] > answered + 50, "stable answers every call")
    assert withdrawn.status["rollout"]["reason"] == "ErrorRateTooHigh"
    assert churn.revision == stable
    assert set(told) == {"OK", "StatusCode.INTERNAL"}
    assert told["StatusCode.INTERNAL"] <= failed + 1, "a call was under way as its weight 0 was live"


@contextmanager
def calls(model: Model) -> Generator[Counter[str]]:
    """Call a model by gRPC, one call after another, and count what the calls were told."""
    over, told = threading.Event(), Counter[str]()
    given = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.array([models.INPUT], dtype=np.float32))
    authority = [("grpc.default_authority", f"{model.name}.{model.namespace.name}:80")]

    def call(client: Any) -> str:
        try:
            client.infer(model.name, [given])
        except tritonclient.utils.InferenceServerException as error:
            return str(error.status())
        return "OK"

    def work(port: int) -> None:
        with closing(tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}", channel_args=authority)) as client:
            while not over.wait(0.01):
                told[call(client)] += 1

    with model.namespace.forward(f"services/{model.name}", 80) as port:
        caller = threading.Thread(target=work, args=(port,))
        caller.start()
        try:
            yield told
        finally:
            over.set()
            caller.join()


def test_figures_are_lost_and_found_again(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """A router goes on answering callers and tells nobody what it does: the step holds, however long its hold is over."""
    churn = serve(shared_namespace, request)
    hold = 10  # long enough for a busy machine to lose the figures meanwhile
    with load_on(churn) as load:
        churn.apply(canary(models.spec(2), 20, hold=f"{hold}s"))
        watched = Watched(churn)
        live = watched.await_live(1)
        router = min(shared_namespace.names("pods", ROUTERS))
        with statistics_unheard(shared_namespace, router):
            lost = time.time()
            stale = watched.await_(lambda seen: waits_for(seen.status, "MetricsStale"), "it says so")
            print(f"MetricsStale after {stale.at - lost:.1f} s")
            stays(lambda: waits_for(watched.look().status, "MetricsStale"), "it holds", hold)
            assert watched.look().live_since == live.live_since
            assert is_ready(shared_namespace.get("pods", router)), "it answers callers, and the kubelet's probe"
            asked = load.now().requests
            load.reach(asked + 200)
        watched.await_(serves_2, "it goes on")
    assert_none_failed(load, 2_000)
    watched.assert_no_step_ended_early(hold)


def serves_2(seen: Seen) -> bool:
    """Tell whether version 2 is promoted."""
    return seen.status["stable"]["version"] == "2"


@contextmanager
def statistics_unheard(namespace: Namespace, router: str) -> Generator[None]:
    """Drop, in the router pod's network, what comes to its statistics port from anywhere but its own node."""
    pod = namespace.get("pods", router)
    process = process_of(router)
    inside = ["nsenter", "--target", str(process), "--net", "--"]
    told = subprocess.run([*inside, "ip", "route", "show", "default"], capture_output=True, text=True, check=True).stdout
    gateway = told.split()[2]
    rules = [
        ["--source", f"{gateway},{pod['status']['hostIP']}", "--jump", "ACCEPT"],
        ["--jump", "DROP"],
    ]
    to_it = ["INPUT", "--protocol", "tcp", "--dport", str(STATISTICS_PORT)]
    for rule in rules:
        subprocess.run([*inside, "iptables", "--wait", "--append", *to_it, *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "iptables", "--wait", "--flush", "INPUT"], check=True)


def process_of(pod: str) -> int:
    """Answer a process of a pod's, which runs on this machine."""
    asked = f"HOSTNAME={pod}".encode()
    return next(
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and asked in _environment(folder).split(b"\0")
    )


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""  # it has ended


def test_a_spec_applied_all_the_while_changes_nothing(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """A second field manager applies what is there already each second of a rollout: no write, no revision, no step more."""
    churn = serve(shared_namespace, request)
    spec = canary(models.spec(2), 10, 50, hold="2s")
    churn.apply(spec)
    watched = Watched(churn)
    with applied_each_second(churn, spec):
        watched.await_(lambda seen: waits_for(seen.status, "InsufficientRequests"), "nobody asks: the first step waits")
        await_(lambda: "gitops" in managers(churn), "the second manager has part in the spec")
        quiet = versions(churn)
        stays(lambda: versions(churn) == quiet, "nobody writes anything", 4)
        with load_on(churn) as load:
            watched.await_(serves_2, "it is promoted")
            await_(lambda: not churn.status.get("draining"), "the old pods are gone")
            load.reach(load.now().requests + CONNECTIONS)
    assert_none_failed(load, 500)
    assert churn.object["metadata"]["generation"] == 2
    assert [entry["outcome"] for entry in churn.status["history"]] == ["Served", "Served"]
    assert steps_told(churn)[:2] == ["step 1 of 3: 10% of requests", "step 2 of 3: 50% of requests"]
    assert len(steps_told(churn)) <= 3
    kept = f"slipway.dev/model-deployment={churn.name}"
    assert len(shared_namespace.names("controllerrevisions", kept)) == 2


def managers(model: Model) -> set[str]:
    """Answer who has part in a ModelDeployment's fields."""
    return {entry["manager"] for entry in model.object["metadata"]["managedFields"]}


def versions(model: Model) -> dict[str, str]:
    """Answer the resourceVersions of a ModelDeployment and of all that Slipway made in its namespace."""
    found = {**model.namespace.children(), model.name: model.object}
    return {name: obj["metadata"]["resourceVersion"] for name, obj in found.items()}
