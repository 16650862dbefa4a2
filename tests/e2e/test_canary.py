"""Canaries: a good version comes step by step, a bad one is withdrawn in seconds, whoever dies or changes the spec meanwhile."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import ROUTER, Model, Namespace
from tests.e2e.installation import Operator
from tests.e2e.traffic import Load, Report, assert_none_failed, assert_only_cut
from tests.e2e.waiting import await_, condition_of, is_ready, stays
from tests.e2e.watching import State, Watch

Object = dict[str, Any]
RATE = 400
CONNECTIONS = 8
ROUTERS = f"app.kubernetes.io/name={ROUTER}"
# A weight is what the answers say, within so many standard deviations of a count of so many answers.
SIGMAS, ANSWERS = 4.5, 600
ERRS, SLOW, HANGS = "raise RuntimeError", "time.sleep(0.5)", "time.sleep(60)"


def canary(spec: Object, *weights: int, hold: str = "3s", **more: Any) -> Object:
    """Answer the spec with steps of those weights, all checked."""
    checks = [{"errorRate": {"max": "1%"}}, {"latency": {"percentile": 95, "max": "300ms", "relativeToStable": 3}}]
    steps = [{"weight": weight, "hold": hold} for weight in weights]
    return {**spec, "rollout": {"strategy": "Canary", "steps": steps, "checks": checks, "minRequests": 50, **more}}


def labelled(version: str) -> Object:
    """Answer a spec that serves what version 2 does, under another label."""
    spec = models.spec(2)
    return {**spec, "model": {**spec["model"], "version": version}}


def misbehaving(namespace: Namespace, version: str, how: str) -> Object:
    """Answer a spec of a Python model that does what version 2 does, and badly: only when asked, not when it is warmed up."""
    source = f"""import time


class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]

    def predict(self, inputs):
        x = inputs["x"]
        if x.any():
            {how}
        return {{"y": 2 * x}}
"""
    name = f"bad-{version}"
    namespace.apply(
        "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"model.py": source}}
    )
    model = {"uri": f"configmap://{name}/model.py", "format": "Python", "version": version}
    return {**models.spec(2), "model": model}


def serve(namespace: Namespace, request: pytest.FixtureRequest, spec: Object | None = None) -> Model:
    """Serve version 1, or the spec, under a name of the journey's own."""
    stem = request.node.name.removeprefix("test_").replace("_", "-").replace("[", "-").rstrip("]")
    return namespace.serve(stem[:40].rstrip("-"), spec or models.spec(1))


def load_on(model: Model) -> Load:
    """Start a load on the model."""
    return model.namespace.load(model.name, CONNECTIONS, RATE)


class Seen(State):
    """One state of a ModelDeployment."""

    @property
    def rollout(self) -> Object:
        """Answer what its status tells of the latest rollout."""
        return self.status.get("rollout") or {}

    @property
    def step(self) -> int:
        """Answer the step under way, 0 without one."""
        return self.rollout.get("step", 0) if self.status.get("candidate") else 0

    @property
    def live_since(self) -> str:
        """Answer since when the step's weight is live in every router, empty where it is not yet."""
        return self.rollout.get("stepSince", "") if self.step else ""


class Watched(Watch[Seen]):
    """All that status said of a model while somebody watched."""

    def __init__(self, model: Model) -> None:
        super().__init__(Seen, model.namespace.client, model.namespace.path("modeldeployments"), model.name)
        self.model = model

    def look(self) -> Seen:
        """Answer the state as it is now."""
        return Seen(time.time(), self.model.object)

    def await_live(self, step: int) -> Seen:
        """Wait until the step's weight is live, and answer the state that says so."""
        return self.await_(lambda seen: seen.step == step and seen.live_since, f"step {step} is live")

    def told_before(self, condition: Callable[[Seen], object]) -> float:
        """Answer when the last status was written before the first one that meets the condition."""
        first = next(number for number, seen in enumerate(self.seen) if condition(seen))
        return self.seen[first - 1].told_at

    def assert_no_step_ended_early(self, hold: float) -> None:
        """Assert that of all steps seen each lasted its hold from when it was live."""
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            left = before.live_since and after.step != before.step and not ended(after.status, "Failed")
            if left:
                lasted = after.at - datetime.fromisoformat(before.live_since).timestamp()
                assert lasted >= hold, f"step {before.step} was over {lasted:.2f} s after it was live"


def ended(status: Object, outcome: str) -> bool:
    """Tell whether the latest rollout ended so."""
    return bool(status.get("history")) and status["history"][0]["outcome"] == outcome


def answers_of(report: Report, revision: str) -> int:
    """Answer how many good answers the revision gave."""
    return report.answers.get(f"200 {revision}", 0)


def assert_weight(before: Report, after: Report, candidate: str, weight: int) -> None:
    """Assert that of the answers between two reports the candidate gave its share."""
    answers = sum(after.answers.values()) - sum(before.answers.values())
    its = sum(after.answers.get(answer, 0) - before.answers.get(answer, 0) for answer in after.answers if candidate in answer)
    share, deviation = weight / 100, math.sqrt(weight / 100 * (1 - weight / 100) / answers)
    assert abs(its / answers - share) <= SIGMAS * deviation, f"{its} of {answers} answers at weight {weight}"


def steps_told(model: Model) -> list[str]:
    """Answer what the events say of the steps that began, without names of revisions."""
    return [f"{e['message'].partition(':')[0]}: {e['message'].partition('gets ')[2]}" for e in model.events("StepStarted")]


def test_a_good_version_is_promoted_step_by_step(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    churn = serve(shared_namespace, request)
    hold = 10  # long enough for a busy machine to send the requests that are counted
    with load_on(churn) as load:
        churn.apply(canary(models.spec(2), 10, 50, hold=f"{hold}s"))
        watched = Watched(churn)
        for step, weight in ((1, 10), (2, 50)):
            live = watched.await_live(step)
            candidate = live.status["candidate"]
            assert (candidate["weight"], live.status["rollout"]["liveWeight"]) == (weight, weight)
            before = load.now()
            load.reach(before.requests + ANSWERS)
            after = load.now()
            assert watched.look().live_since == live.live_since, "still the same step"
            assert_weight(before, after, candidate["revision"], weight)
        checks = {check["name"]: check for check in watched.look().status["rollout"]["checks"]}
        watched.await_(lambda seen: ended(seen.status, "Served"), "it is promoted")
        churn.await_ready()
    assert_none_failed(load, 2_000)
    without = watched.told_before(lambda seen: seen.step)
    assert load.report.first_seen[f"200 {candidate['revision']}"] >= without, "an answer of the candidate before its weight"
    watched.assert_no_step_ended_early(hold)
    assert churn.status["stable"]["version"] == "2"
    assert steps_told(churn)[:2] == ["step 1 of 3: 10% of requests", "step 2 of 3: 50% of requests"]
    assert set(checks) == {"errorRate", "p95", "p95 to stable's"}
    assert (checks["errorRate"]["limit"], checks["errorRate"]["verdict"]) in {("1%", "Passed"), ("1%", "InsufficientRequests")}


@pytest.mark.parametrize(
    ("how", "reasons"),
    # What hangs is told by its latency, and by its timeouts where the routers were slow to tell of it.
    [(ERRS, {"ErrorRateTooHigh"}), (SLOW, {"LatencyTooHigh"}), (HANGS, {"LatencyTooHigh", "ErrorRateTooHigh"})],
    ids=["errs", "slow", "hangs"],
)
def test_bad(shared_namespace: Namespace, request: pytest.FixtureRequest, how: str, reasons: set[str]) -> None:
    """A bad version is withdrawn long before its hold is over, and stays so though its spec is applied every second."""
    churn = serve(shared_namespace, request)
    stable = churn.revision
    bad = canary(misbehaving(shared_namespace, request.node.callspec.id, how), 10, 50, hold="10m")
    bad["routing"] = {"timeout": "15s"}  # what hangs is told long before it has timed out
    with load_on(churn) as load, applied_every_second(churn, bad):
        watched = Watched(churn)
        withdrawn = watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
        candidate = withdrawn.status["history"][0]["revision"]
        print(f"{request.node.callspec.id}: {withdrawn.status['history'][0]['message']}")
        await_(lambda: condition_of(churn.object, "RoutesLive")["status"] == "True", "its weight 0 is live")
        watched.await_(lambda seen: seen.rollout.get("liveWeight") == 0, "status says so")
        its = sum(count for answer, count in load.now().answers.items() if candidate in answer)
        refused = load.now()
        load.reach(refused.requests + 3 * RATE)  # and three of the re-applied specs
        assert churn.status["history"][0] == withdrawn.status["history"][0], "the failed version is not tried again"
        assert not churn.status.get("candidate")
    after = sum(count for answer, count in load.report.answers.items() if candidate in answer)
    assert after <= its + CONNECTIONS, "more than what was under way as its weight 0 was live"
    assert withdrawn.status["rollout"]["reason"] in reasons
    assert "Failed" in {check["verdict"] for check in withdrawn.status["rollout"]["checks"]}
    assert churn.await_event("RolloutFailed", "limit")["type"] == "Warning"
    assert churn.revision == stable
    # A caller whose request hangs waits for its timeout, which the router answers for the candidate.
    own = sum(count for answer, count in load.report.answers.items() if answer in (f"500 {candidate}", f"504 {candidate}", "504"))
    assert load.report.failed == own, load.report.failures


@contextmanager
def applied_every_second(model: Model, spec: Object) -> Iterator[None]:
    """Apply the spec again and again, as a GitOps tool does."""
    over = threading.Event()
    failures: list[Exception] = []

    def apply() -> None:
        try:
            while not over.wait(1.0):
                model.apply(spec)
        except Exception as error:
            failures.append(error)

    model.apply(spec)
    tool = threading.Thread(target=apply)
    tool.start()
    try:
        yield
    finally:
        over.set()
        tool.join()
    assert not failures, failures


def test_specs_change_in_the_middle(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    churn = serve(shared_namespace, request)
    stable = churn.revision
    with load_on(churn) as load:
        churn.apply(canary(labelled("2a"), 10, 50, hold="10m"))
        watched = Watched(churn)
        first = watched.await_live(1)

        shared_namespace.kubectl("scale", f"md/{churn.name}", "--replicas=2")
        scaled = watched.await_(lambda seen: seen.status["stable"]["ready"] == 2, "stable has two pods")
        assert (scaled.step, scaled.live_since) == (1, first.live_since), "to scale is no reason to begin anew"

        churn.apply(canary(labelled("2b"), 10, 50, hold="10m"))
        superseded = watched.await_(lambda seen: ended(seen.status, "Superseded"), "the third version supersedes it")
        assert superseded.status["stable"]["revision"] == stable
        assert superseded.status["candidate"]["weight"] == 0
        watched.await_live(1)

        churn.apply(models.spec(1))
        cancelled = watched.await_(lambda seen: ended(seen.status, "Cancelled"), "the spec returned")
        assert "candidate" not in cancelled.status
        churn.await_ready()

        churn.apply(canary(labelled("2c"), 10, 50, hold="10m"))
        live = watched.await_live(1)
        churn.apply(canary(labelled("2c"), 5, 10, 80, hold="2s"))
        moved = watched.await_(lambda seen: seen.rollout.get("steps") == 4, "the new steps count")
        assert (moved.step, moved.live_since) == (2, live.live_since), "it goes on from its weight"
        churn.await_ready()
        load.reach(2_000)
    assert_none_failed(load, 2_000)
    assert churn.status["stable"]["version"] == "2c"
    outcomes = [entry["outcome"] for entry in churn.status["history"]]
    assert outcomes == ["Served", "Cancelled", "Superseded", "Served"]


@pytest.mark.alone
def test_operator_and_router_are_killed_at_each_step(
    shared_namespace: Namespace, operator: Operator, request: pytest.FixtureRequest
) -> None:
    churn = serve(shared_namespace, request)
    hold, deaths, restarts = 4, list[tuple[float, float]](), operator_restarts(operator)
    with load_on(churn) as load:
        churn.apply(canary(models.spec(2), 10, 50, hold=f"{hold}s"))
        watched = Watched(churn)
        for step in (1, 2):
            watched.await_live(step)
            leader, router = operator.await_leader(), min(shared_namespace.names("pods", ROUTERS))
            kill_9(leader)
            died = time.time()
            shared_namespace.delete("pods", router, gracePeriodSeconds=0)
            await_routers(shared_namespace, gone=router)
            deaths.append((died, time.time()))
        watched.await_(lambda seen: ended(seen.status, "Served"), "it is promoted, whoever leads")
        churn.await_ready()
    await_(lambda: operator_restarts(operator) >= restarts + 2, "kubelets have started again what was killed")
    watched.assert_no_step_ended_early(hold)
    assert [entry["outcome"] for entry in churn.status["history"]] == ["Served", "Served"]
    assert_only_cut(load.report, deaths, CONNECTIONS)


def kill_9(operator_pod: str) -> None:
    """Kill the process of an operator's pod, which runs on this machine: no pod can be deleted so that it is not asked to end."""
    asked = f"--identity={operator_pod}".encode()
    (found,) = [
        int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit() and asked in _command(folder).split(b"\0")
    ]
    os.kill(found, signal.SIGKILL)


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""  # it has ended


def operator_restarts(operator: Operator) -> int:
    """Answer how often the containers of the operator's pods were started again."""
    return sum(each["restartCount"] for pod in operator.pods() for each in pod["status"].get("containerStatuses", ()))


def await_routers(namespace: Namespace, gone: str) -> None:
    """Wait until that router pod is gone and two are ready."""

    def replaced() -> bool:
        pods = namespace.all("pods", ROUTERS)
        return gone not in {pod["metadata"]["name"] for pod in pods} and [is_ready(pod) for pod in pods] == [True] * 2

    await_(replaced, "another router is ready")


def test_the_candidates_pods_die(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    churn = serve(shared_namespace, request)
    with load_on(churn) as load:
        churn.apply(canary(models.spec(2), 50, hold="10m"))
        watched = Watched(churn)
        candidate = watched.await_live(1).status["candidate"]["revision"]
        load.reach(load.now().requests + 200)
        (pod,) = churn.pods(candidate)
        shared_namespace.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)
        withdrawn = watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
        await_(lambda: churn.condition("RoutesLive")["status"] == "True", "its weight 0 is live")
        failed = load.now().failed
        load.reach(load.now().requests + 500)
    assert withdrawn.status["rollout"]["reason"] == "NoReadyPod"
    assert answers_of(load.report, candidate) > 50
    # The candidate's share fails from its pod's death until its weight 0 is live: nobody else fails.
    own = sum(count for answer, count in load.report.answers.items() if answer in ("503", f"503 {candidate}"))
    assert load.report.failed - own <= CONNECTIONS, load.report.failures
    assert load.report.failed <= failed + CONNECTIONS, "more than what was under way as its weight 0 was live"


def test_nobody_asks(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """A step without enough requests waits and says so, and its candidate is withdrawn at its deadline: it never passes."""
    churn = serve(shared_namespace, request)
    churn.apply(canary(models.spec(2), 10, hold="1s", stepDeadline="4s"))
    watched = Watched(churn)
    watched.await_(lambda seen: waits_for(seen.status, "InsufficientRequests"), "it says what it waits for")
    withdrawn = watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
    watched.assert_no_step_ended_early(5)
    assert withdrawn.status["rollout"]["reason"] == "InsufficientRequests"
    assert withdrawn.status["stable"]["version"] == "1"


def waits_for(status: Object, reason: str) -> bool:
    """Tell whether a rollout is under way and waits for that."""
    condition = condition_of({"status": status}, "Progressing")
    return condition.get("status") == "True" and condition["reason"] == reason


def test_what_ails_both_is_not_blamed_on_the_candidate(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    churn = serve(shared_namespace, request, misbehaving(shared_namespace, "both", ERRS))
    stable = churn.revision
    candidate = misbehaving(shared_namespace, "both", ERRS)
    candidate["model"] = {**candidate["model"], "version": "other"}
    with load_on(churn) as load:
        churn.apply(canary(candidate, 50, hold="1s"))
        watched = Watched(churn)
        watched.await_(lambda seen: waits_for(seen.status, "CommonCause"), "it says that stable is as bad")
        stays(lambda: waits_for(watched.look().status, "CommonCause"), "it holds", 3)
        revision = watched.look().status["candidate"]["revision"]
    assert churn.revision == stable
    assert set(load.report.answers) == {f"500 {stable}", f"500 {revision}"}
