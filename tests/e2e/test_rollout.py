"""A version is rolled under load: nobody sees a failure, and nobody sees the old version once the new one is Ready."""

from tests.e2e import models
from tests.e2e.cluster import Namespace
from tests.e2e.traffic import assert_none_failed


def test_versions_change_under_load_without_a_failed_request(namespace: Namespace) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    first = churn.revision
    with namespace.load() as load:
        churn.apply(models.spec(2, replicas=2))
        second_ready_at = churn.await_ready()
        second = churn.revision
        churn.await_drained()
        forward = load.now()
        churn.apply(models.spec(1, replicas=2))
        first_ready_at = churn.await_ready()
        churn.await_drained()
        load.reach(10_000)

    assert_none_failed(load)
    assert second != first == churn.revision
    # Ready is true only once every router has moved: no request that begins later is answered by the old revision.
    assert forward.last_begun[f"200 {first}"] < second_ready_at
    assert load.report.last_begun[f"200 {second}"] < first_ready_at
    for turns in load.report.turns:
        assert turns == [f"200 {first}", f"200 {second}", f"200 {first}"]
    assert [entry["revision"] for entry in churn.status["history"]] == [first, second, first]
    assert {entry["outcome"] for entry in churn.status["history"]} == {"Served"}
    assert {f"deployments/{first}", f"services/{first}"} <= namespace.children().keys()
    assert not {f"deployments/{second}", f"services/{second}"} & namespace.children().keys()
    assert namespace.names("controllerrevisions") == {first, second}  # what served is kept, to go back to
