"""The first apply: a model is served, says so truthfully, and is then left in peace."""

import json

import pytest
from tests.e2e import models
from tests.e2e.cluster import Namespace
from tests.e2e.installation import Operator
from tests.e2e.waiting import stays


def versions(namespace: Namespace) -> dict[str, str]:
    """Answer the resourceVersion of everything of Slipway's in the namespace, its events and pods included."""
    objects = namespace.children() | {
        f"{plural}/{obj['metadata']['name']}": obj
        for plural in ("modeldeployments", "pods", "events")
        for obj in namespace.all(plural)
    }
    return {name: obj["metadata"]["resourceVersion"] for name, obj in objects.items()}


def test_a_model_is_served_at_its_name_and_status_says_so(namespace: Namespace) -> None:
    churn = namespace.serve()
    caller = namespace.caller()
    for host in ("churn", f"churn.{namespace.name}", f"churn.{namespace.name}.svc.cluster.local"):
        answer = caller.ask(f"http://{host}/v2/models/churn/infer", models.BODY)
        said = json.loads(answer["body"])
        assert answer["status"] == 200
        assert answer["headers"]["x-slipway-revision"] == churn.revision
        assert said["model_version"] == "1"
        assert said["outputs"][0]["data"] == models.answer(1)

    status = churn.status
    assert status["phase"] == "Ready"
    assert status["observedGeneration"] == churn.object["metadata"]["generation"] == 1
    assert status["url"] == f"http://churn.{namespace.name}"
    assert {condition["type"]: condition["status"] for condition in status["conditions"]} == {
        "Ready": "True",
        "Available": "True",
        "Progressing": "False",
        "RoutesLive": "True",
        "SpecValid": "True",
        "ScalingActive": "True",
    }
    assert churn.await_event("Promoted")["type"] == "Normal"
    on_the_way = {"FetchingModel", "LoadingModel"}  # told where a busy machine takes its time
    assert [told for event in churn.events() if (told := event["reason"]) not in on_the_way] == ["Promoted"]
    assert [entry["outcome"] for entry in status["history"]] == ["Served"]

    heads, row = (line.split() for line in namespace.kubectl("get", "md").splitlines())
    assert heads[:5] == ["NAME", "VERSION", "READY", "PHASE", "REPLICAS"]
    assert row[:5] == ["churn", "1", "True", "Ready", "1"]
    assert churn.revision in namespace.kubectl("get", "md", "-o", "wide")


@pytest.mark.alone
def test_what_is_as_wanted_is_not_written(namespace: Namespace, operator: Operator) -> None:
    namespace.serve(spec=models.spec(1, replicas=2))
    before = versions(namespace)
    operator.restart()
    stays(lambda: versions(namespace) == before, "nothing is written", 15)
