"""An object of somebody else's that has a name which Slipway needs: it is left alone, told, and waited for."""

from typing import Any

import pytest
from tests.e2e import models
from tests.e2e.cluster import ROUTER, Namespace
from tests.e2e.waiting import stays

_IDLE = {"containers": [{"name": "idle", "image": "slipway.local/absent:1"}]}
FOREIGN: dict[str, dict[str, Any]] = {
    "services/churn": {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}], "selector": {"app": "other"}}},
    f"configmaps/{ROUTER}": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"theirs": "yes"}},
    f"deployments/{ROUTER}": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "other"}},
            "template": {"metadata": {"labels": {"app": "other"}}, "spec": _IDLE},
        },
    },
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_foreign_object_is_left_alone_and_told_and_its_removal_heals(namespace: Namespace, foreign: str) -> None:
    plural, name = foreign.split("/")
    theirs = namespace.apply(plural, FOREIGN[foreign] | {"metadata": {"name": name, "namespace": namespace.name}})
    churn = namespace.model("churn")
    churn.apply(models.spec())

    condition = churn.await_reason("NameClash")
    assert name in condition["message"]
    assert churn.status["phase"] == "Degraded"
    assert churn.await_event("NameClash", name)["type"] == "Warning"

    def untouched() -> bool:
        now = namespace.get(plural, name)
        writers = {entry["manager"] for entry in now["metadata"]["managedFields"]}
        same = [now.get(part) == theirs.get(part) for part in ("spec", "data")]
        return all(same) and writers <= {"test", "kube-controller-manager"}

    stays(untouched, f"{foreign} is as it was", 3)

    namespace.delete(plural, name)
    churn.await_ready()
    assert namespace.get(plural, name)["metadata"]["uid"] != theirs["metadata"]["uid"]
