"""Blue/green, shadow, testers, promotion by hand, a weight set by hand, a failure that pauses: on real traffic."""

import json
from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import Model, Namespace
from tests.e2e.test_canary import (
    ANSWERS,
    ERRS,
    ROUTERS,
    Seen,
    Watched,
    answers_of,
    assert_weight,
    canary,
    ended,
    labelled,
    load_on,
    misbehaving,
    serve,
)
from tests.e2e.traffic import Asked, assert_none_failed
from tests.e2e.waiting import await_, condition_of, stays

Object = dict[str, Any]
# One request of twenty fails.
NOW_AND_THEN = "import random; assert random.random() > 0.05"
TESTER = {"name": "x-tester", "value": "ops-1"}


def by(spec: Object, strategy: str, **more: Any) -> Object:
    """Answer the spec with a strategy whose candidate must not err."""
    rollout = {"strategy": strategy, "checks": [{"errorRate": {"max": "1%"}}], "minRequests": 50, **more}
    return {**spec, "rollout": rollout}


def use(model: Model, verb: str, **more: Any) -> None:
    """Ask for a verb as `kubectl slipway` does, and wait until it is obeyed."""
    at = f"2026-01-01T00:00:00.{len(model.events()):06}Z"
    path = model.namespace.path("modeldeployments", f"{model.name}/status")
    model.namespace.client.merge(path, {"status": {"request": {"verb": verb, "at": at, "by": "ops-1", **more}}})
    await_(lambda: model.status.get("handled") == at, f"{verb} is obeyed")


def asked(model: Model, host: str = "", **headers: str) -> Object:
    """Send one request from a pod, and answer its status and headers."""
    url = f"http://{host or model.name}.{model.namespace.name}/v2/models/{model.name}/infer"
    (answer,) = model.namespace.caller().ask_all(Asked(url, models.BODY.encode(), headers))
    return answer


def revision_asked(model: Model, host: str = "", **headers: str) -> str:
    """Answer which revision a request gets its answer from."""
    answer = asked(model, host, **headers)
    assert answer["status"] == 200, answer
    return answer["headers"]["x-slipway-revision"]


def test_blue_green(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """The new version is there whole, behind its preview; then every caller has it at once, and the old one is a way back."""
    churn = serve(shared_namespace, request, models.spec(1, replicas=2))
    stable = churn.revision
    switch = by(models.spec(2, replicas=2), "BlueGreen", blueGreen={"hold": "3s", "scaleDownDelay": "10m"}, minRequests=5)
    with load_on(churn) as load:
        churn.apply(switch)
        watched = Watched(churn)
        live = watched.await_live(1)
        candidate = live.status["candidate"]["revision"]
        assert live.status["candidate"]["ready"] == 2, "it is whole before anybody sees it"
        preview = f"{churn.name}-preview"
        assert live.status["rollout"]["preview"] == f"http://{preview}.{churn.namespace.name}"
        assert {revision_asked(churn, preview) for _ in range(3)} == {candidate}
        assert revision_asked(churn) == stable
        stays(lambda: watched.look().step == 1, "five requests to the preview are asked for", 4)
        for _ in range(3):
            asked(churn, preview)
        watched.await_(lambda seen: seen.status["stable"]["revision"] == candidate, "it is promoted")
        await_(lambda: churn.namespace.find("services", preview) is None, "the preview is gone")
        await_(lambda: churn.status["draining"] and churn.status["draining"][0].get("since"), "the old one is kept")
        assert len(churn.pods(stable)) == 2, "the old one is kept whole for a way back"
        use(churn, "Rollback")
        back = watched.await_(lambda seen: (seen.status.get("stable") or {}).get("revision") == stable, "it serves again")
        assert back.status["history"][0]["outcome"] == "Served"
    assert_none_failed(load, 1_000)
    assert set(load.report.answers) == {f"200 {stable}", f"200 {candidate}"}


def test_shadow(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """Copies alone tell a bad version from a good one: no caller ever gets an answer of either before it is promoted."""
    churn = serve(shared_namespace, request)
    stable, shadow = churn.revision, {"mirror": 25, "hold": "4s"}
    with load_on(churn) as load:
        churn.apply(by(misbehaving(churn.namespace, "shadow", ERRS), "Shadow", shadow=shadow))
        watched = Watched(churn)
        withdrawn = watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
        bad = withdrawn.status["rollout"]["revision"]
        assert withdrawn.status["rollout"]["reason"] == "ErrorRateTooHigh"
        churn.apply(by(models.spec(2), "Shadow", shadow=shadow))
        good = watched.await_(lambda seen: seen.step == 1 and bool(seen.live_since), "copies go to the good one")
        candidate = good.status["candidate"]["revision"]
        assert good.status["rollout"]["mirror"] == 25
        watched.await_(lambda seen: seen.status["stable"]["revision"] == candidate, "it is promoted")
    assert_none_failed(load, 2_000)
    assert set(load.report.answers) == {f"200 {stable}", f"200 {candidate}"}
    assert bad not in str(load.report.answers)
    copied = watched.told_before(lambda seen: seen.step == 2)
    assert load.report.first_seen[f"200 {candidate}"] >= copied, "an answer to a copy came to a caller"
    (check,) = [check for seen in watched.seen for check in seen.rollout.get("checks", [])][-1:]
    assert check["name"] == "errorRate"


def test_testers_first_then_by_hand(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """A first step is the testers' alone; a weight is set by hand; the last word is somebody's."""
    churn = serve(shared_namespace, request)
    stable = churn.revision
    steps = [{"weight": 0, "pause": {}}, {"weight": 20, "hold": "1s"}]
    with load_on(churn) as load:
        churn.apply(by(models.spec(2), "Canary", steps=steps, testers={"header": TESTER}, promotion="Manual"))
        watched = Watched(churn)
        candidate = watched.await_live(1).status["candidate"]["revision"]
        watched.await_(lambda seen: seen.status["phase"] == "Paused", "it waits for a word")
        assert revision_asked(churn, **{TESTER["name"]: TESTER["value"]}) == candidate
        assert revision_asked(churn, **{TESTER["name"]: "somebody"}) == stable
        assert f"200 {candidate}" not in load.now().answers
        use(churn, "SetWeight", weight=40)
        watched.await_(lambda seen: seen.rollout.get("liveWeight") == 40, "the weight set by hand is live")
        before = load.now()
        load.reach(before.requests + ANSWERS)
        assert_weight(before, load.now(), candidate, 40)
        use(churn, "Resume")
        watched.await_(lambda seen: seen.step == 2 and not seen.rollout["paused"], "the steps go on")
        watched.await_(lambda seen: seen.status["phase"] == "Paused", "it passed, and waits for a word")
        stays(lambda: watched.look().status["stable"]["revision"] == stable, "nobody promotes it but a person", 3)
        use(churn, "Promote")
        watched.await_(lambda seen: seen.status["stable"]["revision"] == candidate, "it is promoted")
        assert "ops-1" in churn.status["history"][0]["message"]
    assert_none_failed(load, 2_000)
    assert answers_of(load.report, candidate) > 0


def test_a_failure_pauses(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """With onFailure Pause a bad version keeps its share until somebody decides, and says so."""
    churn = serve(shared_namespace, request)
    bad = canary(misbehaving(churn.namespace, "pausing", ERRS), 10, hold="10m", onFailure="Pause")
    with load_on(churn):
        churn.apply(bad)
        watched = Watched(churn)
        paused = watched.await_(lambda seen: seen.rollout.get("pausedReason"), "it paused")
        assert paused.status["rollout"]["pausedReason"] == "ErrorRateTooHigh"
        assert paused.status["candidate"]["weight"] == 10
        assert condition_of(churn.object, "Progressing")["reason"] == "Paused"
        assert churn.await_event("RolloutPaused", "errorRate")["type"] == "Warning"
        use(churn, "Resume")
        watched.await_(lambda seen: not seen.rollout.get("pausedReason"), "it goes on")
        again = watched.await_(lambda seen: seen.rollout.get("pausedReason"), "it failed again")
        assert again.rollout["judgedSince"]
        use(churn, "Abort")
        watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
    assert churn.status["history"][0]["message"] == "aborted by ops-1"


def test_ab_of_three_by_cookie(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """Callers stay with the arm of their first request, though a router dies and a bad arm goes alone; the best is promoted."""
    now_and_then = "import random; assert x[0, 0] != 1 or random.random() > 0.05"
    churn = serve(shared_namespace, request, misbehaving(shared_namespace, "ab", now_and_then))
    stable, fails = churn.revision, misbehaving(shared_namespace, "bad", "assert x[0, 0] != 1")["model"]
    arms = [{"weight": 20, "model": fails}, {"weight": 25, "model": models.spec(2)["model"]}]
    test = {"weight": 25, "arms": arms, "cookie": {"name": "arm"}, "confidence": "99.9%", "duration": "1h"}
    asked_for = by(misbehaving(shared_namespace, "alike", now_and_then), "ABTest", abTest=test, promotion="Manual")
    churn.apply({**asked_for, "rollout": {**asked_for["rollout"], "checks": [{"errorRate": {"max": "20%"}}]}})
    watched = Watched(churn)
    status = watched.await_live(1).status
    alike, bad, good = tried = [each["revision"] for each in (status["candidate"], *status["arms"])]
    assert [each["ready"] for each in (status["candidate"], *status["arms"])] == [1, 1, 1]

    callers = callers_of(churn)
    assert callers.keys() == {stable, *tried}, "sixty callers, and none of them has this arm"
    assert all(cookie.startswith(f"arm-{alike}=") for cookie in callers.values())
    victim, *_ = churn.namespace.all("pods", ROUTERS)
    churn.namespace.delete("pods", victim["metadata"]["name"], gracePeriodSeconds=0)
    assert_they_stay(churn, callers)
    with load_on(churn) as load:
        gone = watched.await_(lambda seen: bool(withdrawn(seen)), "one goes alone")
        assert withdrawn(gone) == [bad]
        assert [each["revision"] for each in (gone.status["candidate"], *gone.status["arms"])] == [alike, good]
        await_(lambda: churn.condition("RoutesLive")["status"] == "True", "its callers have stable")
        assert_they_stay(churn, {each: callers[each] for each in (stable, alike, good)})
        assert_they_stay(churn, {stable: callers[bad]})
        before = load.now()
        load.reach(before.requests + ANSWERS)
        for revision, weight in ((alike, 25), (good, 25), (stable, 50), (bad, 0)):
            assert_weight(before, load.now(), revision, weight)
        won = watched.await_(lambda seen: seen.status["phase"] == "Paused", "a person has the last word")
        told = {arm["revision"]: arm for arm in won.status["rollout"]["trial"]["arms"]}
        assert [told[each].get("verdict") for each in (alike, good)] == [None, "Better"]
        assert "fewer errors than stable" in told[good]["statement"]
        use(churn, "Promote")
        watched.await_(lambda seen: seen.status["stable"]["revision"] == good, "the best is promoted")
    churn.await_ready()
    assert (condition_of(churn.object, "Progressing")["reason"], churn.status["pinned"]["won"]) == ("WonABTest", True)
    assert not any(answer.startswith("503") for answer in load.report.answers), load.report.failures
    history = [(entry["revision"], entry["outcome"]) for entry in churn.status["history"]]
    assert history == [(good, "Served"), (alike, "Superseded"), (bad, "Failed"), (stable, "Served")]


def withdrawn(seen: Seen) -> list[str]:
    """Answer the arms of an A/B test that were withdrawn while others went on."""
    trial = seen.rollout.get("trial") or {"arms": []}
    return [arm["revision"] for arm in trial["arms"] if arm.get("reason")]


def callers_of(model: Model) -> dict[str, str]:
    """Answer the cookie of one caller of each revision, of sixty who ask for the first time. No model fails what they ask."""
    callers = dict[str, str]()
    for answer in model.namespace.caller().ask_all(*[harmless(model)] * 60):
        assert answer["status"] == 200, answer
        callers[answer["headers"]["x-slipway-revision"]] = answer["headers"]["set-cookie"].partition(";")[0]
    return callers


def assert_they_stay(model: Model, callers: Object) -> None:
    """Assert that each caller has answers of the same revision again, and is given no other cookie."""
    for revision, cookie in callers.items():
        answers = model.namespace.caller().ask_all(*[harmless(model, cookie=cookie)] * 4)
        assert {answer["headers"]["x-slipway-revision"] for answer in answers} == {revision}
        assert not any("set-cookie" in answer["headers"] for answer in answers)


def harmless(model: Model, **headers: str) -> Asked:
    """Answer a request that begins with another number than those of the load."""
    url = f"http://{model.name}.{model.namespace.name}/v2/models/{model.name}/infer"
    return Asked(url, models.BODY.replace("[1,2,3,4]", "[2,2,3,4]").encode(), headers)


def test_answers_are_compared(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """A version that answers otherwise is withdrawn by copies of live requests; one that answers alike is promoted."""
    churn = serve(shared_namespace, request, models.spec(2))
    stable = churn.revision
    check = {"agreement": {"min": "99%", "share": 20, "minRequests": 50}}
    shadow = {"strategy": "Shadow", "shadow": {"mirror": 1, "hold": "2s"}, "checks": [check], "minRequests": 50}
    with load_on(churn) as load:
        churn.apply({**models.spec(1), "rollout": shadow})
        watched = Watched(churn)
        withdrawn = watched.await_(lambda seen: ended(seen.status, "Failed"), "other answers withdraw it")
        assert withdrawn.status["rollout"]["reason"] == "AgreementTooLow"
        assert withdrawn.status["rollout"]["checks"][-1]["name"] == "agreement"
        churn.apply({**labelled("3"), "rollout": shadow})
        watched.await_(lambda seen: seen.status["stable"]["revision"] != stable, "the same answers promote it")
        await_(lambda: not churn.namespace.find("deployments", f"{churn.name}-compare"), "the comparer goes with the rollout")
    assert_none_failed(load, 2_000)


def test_blue_green_by_a_sample(shared_namespace: Namespace, request: pytest.FixtureRequest) -> None:
    """The candidate is checked by requests of the user's own, though no caller is there."""
    churn = serve(shared_namespace, request)
    sample = {"requests.jsonl": json.dumps({"body": json.loads(models.BODY)})}
    kind = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sample"}}
    churn.namespace.apply("configmaps", {**kind, "data": {"requests.jsonl": "no JSON"}})
    blue_green = {"synthetic": {"configMap": "sample", "requestsPerSecond": 50}}
    churn.apply(by(models.spec(2), "BlueGreen", blueGreen=blue_green))
    churn.await_reason("SampleInvalid")
    churn.namespace.apply("configmaps", {**kind, "data": sample})
    churn.await_ready()
    assert churn.status["stable"]["version"] == "2"
