"""Rollouts steered by hand: the real `kubectl slipway`, as a user who may do nothing else, under load, with GitOps beside it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_, stays
from tests.integration.client import Refused
from tests.integration.plugin import Plugin, kubeconfig, token

Object = dict[str, Any]
ACCOUNT = "on-call"
HOLD_SECONDS = 15


def spec(version: int) -> Object:
    """Answer a version with two steps."""
    steps = [{"weight": weight, "hold": f"{HOLD_SECONDS}s"} for weight in (10, 50)]
    rollout = {"strategy": "Canary", "steps": steps, "checks": [{"errorRate": {"max": "1%"}}], "minRequests": 50}
    return {**models.spec(version, replicas=2), "rollout": rollout}


def plugin_of_on_call(namespace: Namespace, folder: Path) -> Plugin:
    """Answer the plugin of a user who has the role for it, and nothing else."""
    secret = token(namespace.client, namespace.name, ACCOUNT)
    subject = f"--serviceaccount={namespace.name}:{ACCOUNT}"
    namespace.kubectl("create", "rolebinding", ACCOUNT, "--clusterrole=slipway-rollouts", subject)
    return Plugin(folder, kubeconfig(namespace.client, folder / "config", secret, namespace.name))


@contextmanager
def applied_each_second(model: Model, spec: Object) -> Iterator[None]:
    """Apply a spec again and again, as GitOps does."""
    over, refused = threading.Event(), list[Refused]()
    kind = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment"}
    body = {**kind, "metadata": {"name": model.name}, "spec": spec}
    path = model.namespace.path("modeldeployments", model.name)

    def work() -> None:
        while not over.wait(1):
            try:
                model.namespace.client.apply(path, body, manager="gitops")
            except Refused as error:
                refused.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not refused


def held_for(model: Model, step: int) -> float:
    """Answer how long a step has been live, in seconds; 0 before it is."""
    rollout = model.status.get("rollout", {})
    since = rollout.get("stepSince") if rollout.get("step") == step else None
    return time.time() - datetime.fromisoformat(since).timestamp() if since else 0.0


def test_a_rollout_by_hand(namespace: Namespace, tmp_path: Path) -> None:
    plugin = plugin_of_on_call(namespace, tmp_path)
    churn = namespace.serve(spec=spec(1))
    first, second = churn.revision, spec(2)
    with namespace.load(rate=100) as load:
        churn.apply(second)
        with applied_each_second(churn, second):
            waiting = plugin.start("wait", "churn", "--timeout=15m")
            await_(lambda: held_for(churn, 1) > 0, "step 1 is live")
            assert "stays at 10%" in plugin.must("pause", "churn")
            await_(lambda: held_for(churn, 1) > HOLD_SECONDS + 2, "its hold is over")
            assert churn.status["phase"] == "Paused"
            print(plugin.must("status", "churn"))
            assert "is paused already" in plugin.run("pause", "churn").stderr
            assert "goes on" in plugin.must("resume", "churn")
            await_(lambda: held_for(churn, 2) > 0, "step 2 is live")
            print(plugin.must("promote", "churn"))
            assert waiting.wait(timeout=150) == 0, "the pipeline that waited is told that it is promoted"
            assert waiting.stdout is not None
            print(waiting.stdout.read())
            promoted = churn.status["history"][0]
            user = f"system:serviceaccount:{namespace.name}:{ACCOUNT}"
            assert (promoted["outcome"], promoted["message"]) == ("Served", f"promoted from step 2 by {user}")

            await_(lambda: not churn.status.get("draining"), "the pods of the first revision are gone")
            print(plugin.must("rollback", "churn"))
            await_(lambda: churn.revision == first and not churn.status.get("draining"), "the first revision serves again")
            assert churn.condition()["reason"] == "RolledBack"
            stays(lambda: churn.revision == first and "candidate" not in churn.status, "the spec applied again is refused", 5)
            assert plugin.run("wait", "churn").returncode == 1

            assert "is tried again" in plugin.must("retry", "churn")
            await_(lambda: held_for(churn, 1) > 0, "it is tried again")
            print(plugin.must("abort", "churn"))
            stays(lambda: churn.revision == first and "candidate" not in churn.status, "the spec applied again is refused", 3)
        load.reach(load.now().requests + 200)
    assert_none_failed(load, 2_000)
    print(plugin.must("status", "churn"))

    (tmp_path / "admin").mkdir()
    admin = Plugin(tmp_path / "admin", namespace.client.kubeconfig)
    print(admin.must("history", "churn", "-n", namespace.name), admin.must("list", "-n", namespace.name, "-o", "wide"))
    told = json.loads(admin.must("history", "churn", "-n", namespace.name, "-o", "json"))["history"]
    assert [(entry["outcome"], entry.get("message"), entry["kept"]) for entry in told] == [
        ("Failed", f"aborted by {user}", True),
        ("Served", f"rolled back by {user}", True),
        ("Served", f"promoted from step 2 by {user}", True),
        ("Served", None, True),
    ]
    verbs = ["Pause", "Resume", "Promote", "Rollback", "Retry", "Abort"]
    asked = [event for event in churn.events() if event["reason"].endswith("Requested")]
    assert {event["reason"] for event in asked} == {f"{verb}Requested" for verb in verbs}
    assert all(f"asked by {user} at " in event["message"] for event in asked)
