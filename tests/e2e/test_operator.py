"""The operator comes and goes: models serve on without it, and it takes up what it left, writing nothing twice."""

import pytest
from tests.e2e import models
from tests.e2e.cluster import ROUTER, Namespace, Object
from tests.e2e.installation import LEASE, RELEASE, Operator
from tests.e2e.test_first_apply import versions
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_, is_ready, stays
from tests.e2e.watching import State, Watch

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("victims", ["leader", "all"])
def test_an_operator_killed_in_the_middle_of_a_version_change_loses_nothing(
    namespace: Namespace, operator: Operator, victims: str
) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    first = churn.revision
    leader = operator.await_leader()
    with namespace.load() as load:
        churn.apply(models.spec(2, replicas=2))
        await_(lambda: churn.status.get("candidate"), "the change is under way")
        for pod in [leader] if victims == "leader" else sorted(operator.names()):
            operator.namespace.delete("pods", pod, gracePeriodSeconds=0)
        assert operator.await_leader(other_than=leader) != leader
        churn.await_ready()
        churn.await_drained()
        load.reach(10_000)

    assert_none_failed(load)
    second = churn.revision
    assert second != first
    assert [turns for turns in load.report.turns if turns != [f"200 {first}", f"200 {second}"]] == []
    assert [(entry["revision"], entry["outcome"]) for entry in churn.status["history"]] == [(second, "Served"), (first, "Served")]
    assert {f"deployments/{second}", f"deployments/{ROUTER}"} == {n for n in namespace.children() if n.startswith("deployments/")}
    assert len([event for event in churn.events("Promoted") if second in event["message"]]) == 1


def test_models_serve_without_the_operator_and_nothing_is_rewritten_on_its_return(
    namespace: Namespace, operator: Operator
) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    with namespace.load() as load:
        operator.scale(0)
        pods = sorted(pod["metadata"]["name"] for pod in (*churn.pods(), *routers(namespace)))
        for pod in pods[::2]:
            namespace.delete("pods", pod)
        await_(lambda: not set(pods[::2]) & namespace.names("pods"), "the deleted pods are gone")
        await_(lambda: [is_ready(pod) for pod in (*churn.pods(), *routers(namespace))] == [True] * 4, "others are ready")
        load.reach(10_000)
        before = written(namespace)
        operator.scale(2)
        operator.await_leader()
        churn.await_ready()
        stays(lambda: written(namespace) == before, "nothing is written", 5)
    assert_none_failed(load)


def routers(namespace: Namespace) -> list[Object]:
    """Answer the router pods."""
    return namespace.all("pods", f"app.kubernetes.io/name={ROUTER}")


def written(namespace: Namespace) -> dict[str, str]:
    """Answer the resourceVersion of all that is the operator's to write, but for new router pods, which it must look at."""
    return {name: version for name, version in versions(namespace).items() if not name.startswith(("pods/", "events/"))}


def test_the_lease_is_given_back_by_a_leader_that_ends(operator: Operator) -> None:
    leader = operator.await_leader()
    lease = Watch(State, operator.namespace.client, operator.namespace.path("leases"), LEASE)
    operator.namespace.delete("pods", leader)
    lease.await_(lambda seen: not seen.object["spec"].get("holderIdentity"), "it is nobody's")
    operator.await_leader(other_than=leader)
    operator.cluster.kubectl("-n", operator.namespace.name, "rollout", "status", f"deployment/{RELEASE}")
