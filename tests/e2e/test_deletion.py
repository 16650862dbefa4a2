"""What is deleted goes, all of it, and takes nothing else with it."""

import pytest
from tests.e2e import models
from tests.e2e.cluster import ROUTER, Namespace
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_, stays


@pytest.fixture(scope="module", autouse=True)
def doomed(shared_namespace: Namespace) -> Namespace:
    """Answer a namespace that was deleted with a model in it. Kubernetes takes most of a minute: the journeys go on meanwhile."""
    shared_namespace.serve()
    shared_namespace.client.delete(f"/api/v1/namespaces/{shared_namespace.name}")
    return shared_namespace


def test_a_deleted_model_takes_its_children_and_leaves_its_neighbour_serving(namespace: Namespace) -> None:
    stays_here = namespace.serve("stays")
    goes = namespace.serve("goes", models.spec(1, replicas=2))
    with namespace.load("stays") as load:
        goes.delete()
        theirs = "slipway.dev/model-deployment=goes"
        await_(lambda: not any("goes" in name for name in namespace.children()), "the children of goes are gone")
        await_(lambda: not namespace.names("pods", theirs), "its pods are gone")
        load.reach(10_000)

    assert_none_failed(load)
    assert stays_here.is_ready()
    assert f"deployments/{ROUTER}" in namespace.children()
    assert "goes" not in namespace.get("configmaps", ROUTER)["data"]["routes.json"]

    stays_here.delete()
    await_(lambda: not namespace.children(), "nothing of Slipway's is left, the router's objects included")
    await_(lambda: not namespace.names("pods", "app.kubernetes.io/managed-by=slipway"), "nor any of its pods")
    stays(lambda: not namespace.children(), "nothing comes back", 3)


def test_a_model_deleted_and_made_again_at_once_serves(namespace: Namespace) -> None:
    churn = namespace.serve()
    first = churn.object["metadata"]["uid"]
    churn.delete()
    churn.apply(models.spec(2))
    churn.await_ready()
    second = churn.object["metadata"]["uid"]
    assert first != second
    await_(
        lambda: all(
            [ref["uid"] for ref in obj["metadata"].get("ownerReferences", ())] == [second]
            for name, obj in namespace.children().items()
            if "churn" in name
        ),
        "all children are the new one's",
    )
    answer = namespace.caller().ask(f"http://churn.{namespace.name}/v2/models/churn/infer", models.BODY)
    assert (answer["status"], answer["headers"]["x-slipway-revision"]) == (200, churn.revision)


def test_a_namespace_with_models_can_be_deleted(doomed: Namespace) -> None:
    path = f"/api/v1/namespaces/{doomed.name}"
    await_(lambda: not doomed.client.found(path), "the namespace is gone", 300)
