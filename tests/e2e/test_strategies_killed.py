"""Blue/green, shadow and A/B tests whose operator and routers die, whose spec changes, and which somebody calls off midway."""

import itertools
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import ROUTER, Model, Namespace
from tests.e2e.installation import LEASE, Operator
from tests.e2e.test_canary import (
    ANSWERS,
    ROUTERS,
    Seen,
    Watched,
    await_routers,
    ended,
    kill_9,
    labelled,
    load_on,
    misbehaving,
    serve,
)
from tests.e2e.test_strategies import NOW_AND_THEN, by, revision_asked, use
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_

Object = dict[str, Any]
HOLD = 10  # long enough for what is done amid a step, on a busy machine
STRATEGIES: dict[str, Object] = {
    "BlueGreen": {"blueGreen": {"mirror": 25, "hold": f"{HOLD}s", "scaleDownDelay": "0s"}},
    "Shadow": {"shadow": {"mirror": 25, "hold": f"{HOLD}s"}},
    "ABTest": {"abTest": {"cookie": {}, "hold": f"{HOLD}s", "duration": "1h"}, "minRequests": 500},
}


@contextmanager
def killed(operator: Operator) -> Generator[None]:
    """Kill the process of the operator that leads; at the end wait until it leads again, and give its pod up.

    What happens within is what nobody reconciles. A pod is killed once: kubelets put off what dies again, and its Lease is then
    waited for.
    """

    def transitions() -> int:
        return operator.namespace.get("leases", LEASE)["spec"]["leaseTransitions"]

    leader, before = operator.await_leader(), transitions()
    kill_9(leader)
    yield
    await_(lambda: transitions() > before, "the operator that was killed leads again")
    operator.namespace.delete("pods", leader)


def asked_of_candidate(operator: Operator, model: Model) -> float:
    """Answer the requests of a candidate, as the operator's metrics tell."""
    who = {"namespace": model.namespace.name, "name": model.name, "role": "candidate"}.items()
    return sum(value for (name, of), value in operator.metrics().items() if name == "slipway_requests_total" and who <= set(of))


def weight_of(seen: Seen, revision: str) -> int:
    """Answer the weight that a status tells of a revision."""
    roles = (seen.status.get(role) or {} for role in ("stable", "candidate"))
    return sum(role["weight"] for role in roles if role.get("revision") == revision)


def counts_of(seen: Seen) -> tuple[int, ...]:
    """Answer requests and errors of both arms of an A/B test, as status tells them; none without a test."""
    trial = seen.rollout.get("trial")
    counted = [*trial["arms"], trial["stable"]] if trial else []
    return tuple(each[count] for each in counted for count in ("requests", "errors"))


def routed(namespace: Namespace, what: str) -> bool:
    """Tell whether the routers' configuration names something."""
    return f'"{what}"' in namespace.get("configmaps", ROUTER)["data"]["routes.json"]


@pytest.mark.alone
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str.lower)
def test_whoever_dies(shared_namespace: Namespace, operator: Operator, request: pytest.FixtureRequest, strategy: str) -> None:
    """The operator dies as the candidate is made, amid its step beside a router, and at the switch: it is promoted once."""
    tested = strategy == "ABTest"
    churn = serve(shared_namespace, request, misbehaving(shared_namespace, "stable", NOW_AND_THEN) if tested else None)
    stable, wanted = churn.revision, by(models.spec(2), strategy, **STRATEGIES[strategy])
    with load_on(churn) as load:
        churn.apply(wanted)
        watched = Watched(churn)
        made = watched.await_(lambda seen: bool(seen.status.get("candidate")), "the candidate is made")
        candidate = made.status["candidate"]["revision"]
        with killed(operator):
            pass

        watched.await_live(1)
        if tested:
            load.reach(load.now().requests + ANSWERS)
            await_(lambda: asked_of_candidate(operator, churn) > ANSWERS / 3, "the meter has counted them")
        if strategy == "BlueGreen":
            use(churn, "Pause")  # so that the preview can be asked at leisure
        # A change that concerns no rollout: status is written with what an A/B test has counted, before the death and after it.
        told(watched, churn.apply({**wanted, "revisionHistoryLimit": 9}))
        router = min(shared_namespace.names("pods", ROUTERS))
        with killed(operator):
            assert watched.look().step == 1
            died = time.time()
            shared_namespace.delete("pods", router, gracePeriodSeconds=0)
            changed = churn.apply({**wanted, "revisionHistoryLimit": 8})
        told(watched, changed)
        if strategy == "BlueGreen":
            assert revision_asked(churn, f"{churn.name}-preview") == candidate
            use(churn, "Resume")

        switched = watched.await_(lambda seen: seen.step != 1, "the switch").at
        with killed(operator):
            pass
        watched.await_(lambda seen: seen.status["stable"]["revision"] == candidate, "it is promoted, whoever leads")
        churn.await_ready()
        await_routers(shared_namespace, gone=router)
        await_gone(shared_namespace, services=f"{churn.name}-preview")
        assert not routed(shared_namespace, f"{candidate}-mirror")
    history = [(entry["revision"], entry["outcome"]) for entry in churn.status["history"]]
    assert history == [(candidate, "Served"), (stable, "Served")]
    watched.assert_no_step_ended_early(HOLD)

    without = watched.told_before(lambda seen: weight_of(seen, candidate))
    assert load.report.first_seen[f"200 {candidate}"] >= without, "an answer of the candidate before its weight"
    erring = {f"500 {stable}"} if tested else set[str]()
    assert set(load.report.answers) == {f"200 {stable}", f"200 {candidate}", *erring}
    # A killed router cuts its connections, and its address is tried until kube-proxy has heard of its death.
    cut = [(at, what) for at, what in load.report.failed_at if not what[:3].isdigit()]
    assert all(died <= at <= switched for at, _ in cut), f"others than who had the killed router's connections: {cut}"

    counts = [counts_of(seen) for seen in watched.seen if counts_of(seen)]
    assert bool(counts) == tested
    for before, after in itertools.pairwise(counts):
        assert all(now >= then for then, now in zip(before, after, strict=True)), f"{before} were counted, then {after}"


def told(watched: Watched, applied: Object) -> None:
    """Wait until status speaks of a spec that was applied; of an A/B test it tells what was counted long before."""
    generation = applied["metadata"]["generation"]
    counted = counts_of(watched.await_(lambda seen: seen.status["observedGeneration"] == generation, "status speaks of the spec"))
    assert not counted or min(counted[::2]) > ANSWERS / 4, f"requests and errors of both arms: {counted}"


@pytest.mark.parametrize("strategy", ["BlueGreen", "Shadow"], ids=str.lower)
def test_specs_change_amid_a_step(shared_namespace: Namespace, strategy: str) -> None:
    """A third version takes the place of one that is compared, then the spec returns: nothing of either is left, nobody fails."""
    churn = shared_namespace.serve("steady", models.spec(2))
    stable, preview, comparer = churn.revision, f"{churn.name}-preview", f"{churn.name}-compare"
    setting = {"blueGreen" if strategy == "BlueGreen" else "shadow": {"mirror": 25, "hold": "10m"}}
    agreement = {"agreement": {"min": "99%", "share": 20, "minRequests": 50}}
    with load_on(churn) as load:
        churn.apply(by(labelled(f"{strategy}-a"), strategy, **setting, checks=[agreement]))
        watched = Watched(churn)
        first = watched.await_live(1).status["candidate"]["revision"]
        await_(lambda: shared_namespace.get("deployments", comparer)["status"].get("readyReplicas"), "the comparer is ready")
        assert revision_asked(churn, preview) == first
        assert routed(shared_namespace, comparer)
        assert routed(shared_namespace, f"{first}-mirror")

        churn.apply(by(labelled(f"{strategy}-b"), strategy, **setting))
        superseded = watched.await_(lambda seen: ended(seen.status, "Superseded"), "the third version supersedes it")
        assert superseded.status["stable"]["revision"] == stable
        second = watched.await_live(1).status["candidate"]["revision"]
        assert second != first
        assert routed(shared_namespace, f"{second}-mirror")
        await_gone(shared_namespace, services=comparer, deployments=comparer)
        assert not routed(shared_namespace, comparer)
        assert not routed(shared_namespace, f"{first}-mirror")
        if strategy == "BlueGreen":
            assert revision_asked(churn, preview) == second
        else:
            await_gone(shared_namespace, services=preview)

        churn.apply(models.spec(2))
        cancelled = watched.await_(lambda seen: ended(seen.status, "Cancelled"), "the spec returned")
        assert "candidate" not in cancelled.status
        churn.await_ready()
        await_gone(shared_namespace, services=preview)
        await_(lambda: not routed(shared_namespace, f"{second}-mirror"), "no copies are made for it")
    assert_none_failed(load, 2_000)
    assert set(load.report.answers) == {f"200 {stable}"}
    history = [(entry["revision"], entry["outcome"]) for entry in churn.status["history"]]
    assert history[:2] == [(second, "Cancelled"), (first, "Superseded")]
    assert [revision for revision, outcome in history if outcome == "Served"] == [stable]


def await_gone(namespace: Namespace, **names: str) -> None:
    """Wait until the object of that name is gone, of each plural."""
    for plural, name in names.items():
        await_(lambda plural=plural, name=name: namespace.find(plural, name) is None, f"{plural}/{name} is gone")


@pytest.mark.alone
def test_a_blue_green_is_aborted(shared_namespace: Namespace, operator: Operator) -> None:
    """The word is given while nobody leads: it is obeyed once, and the same spec applied again tries nothing again."""
    churn = shared_namespace.serve("steady", models.spec(2))
    stable, preview = churn.revision, f"{churn.name}-preview"
    wanted = by(labelled("aborted"), "BlueGreen", blueGreen={"mirror": 25, "hold": "10m"})
    with load_on(churn) as load:
        churn.apply(wanted)
        watched = Watched(churn)
        candidate = watched.await_live(1).status["candidate"]["revision"]
        assert revision_asked(churn, preview) == candidate
        with killed(operator):
            use(churn, "Abort")
        watched.await_(lambda seen: ended(seen.status, "Failed"), "it is withdrawn")
        told(watched, churn.apply({**wanted, "revisionHistoryLimit": 9}))
        await_gone(shared_namespace, services=preview)
        await_(lambda: not routed(shared_namespace, f"{candidate}-mirror"), "no copies are made for it")
    assert_none_failed(load, 1_000)
    assert set(load.report.answers) == {f"200 {stable}"}
    status = churn.status
    assert "candidate" not in status
    told_of_it = [entry for entry in status["history"] if entry["revision"] == candidate]
    assert [(entry["outcome"], entry["message"]) for entry in told_of_it] == [("Failed", "aborted by ops-1")]
