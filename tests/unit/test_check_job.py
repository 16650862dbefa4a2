"""The Jobs of checks: made once a step, within restricted security, and gone with their rollout."""

from dataclasses import replace
from typing import Any

from tests.unit.test_manifests import restricted

from slipway.api.rollout import Rollout
from slipway.api.status import RolloutStatus
from slipway.core.plan import Plan, plan
from slipway.core.revision import Target
from slipway.core.state import Candidate, State
from slipway.manifests import labels
from slipway.manifests.check_job import build_jobs, job_names, unwanted_jobs
from slipway.model import Identity
from slipway.settings import Settings

SETTINGS = Settings(server_image="server:1", router_image="router:1", image_pull_secrets=("pull",))
OWNER = Identity("churn", "shop", "u1")
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "ml"}, "annotations": {"note": "x"}},
    "spec": {
        "nodeSelector": {"disk": "ssd"},
        "imagePullSecrets": [{"name": "more"}],
        "volumes": [{"name": "rows", "configMap": {"name": "rows"}}],
        "containers": [
            {
                "image": "tests:1",
                "args": ["--all"],
                "env": [{"name": "ROWS", "value": "9"}],
                "volumeMounts": [{"name": "rows", "mountPath": "/rows"}],
            }
        ],
    },
}
ROLLOUT = RolloutStatus(revision="churn-b", since="2026-01-01T00:00:00Z", step=1, steps=3, step_since="2026-01-01T00:00:09Z")
STATE = State(stable=Target("churn-a", "1", None), candidates=(Candidate(Target("churn-b", "2", None), 10),), rollout=ROLLOUT)


def planned(**job: Any) -> Plan:
    steps = [{"weight": 10}, {"weight": 50}]
    checks = [{"errorRate": {"max": "1%"}}, {"name": "smoke", "job": {"template": TEMPLATE, "timeout": "90s", **job}}]
    return plan(Rollout.model_validate({"strategy": "Canary", "steps": steps, "checks": checks}))


def at(state: State = STATE, **rollout: Any) -> State:
    return replace(state, rollout=ROLLOUT.model_copy(update=rollout))


def built(state: State = STATE, asked: Plan | None = None, **stored: Any) -> list[dict[str, Any]]:
    return list(build_jobs(OWNER, state, asked or planned(), 8080, stored, SETTINGS))


def test_a_job_is_what_the_user_asks_for_within_restricted_security() -> None:
    (job,) = built()
    assert (job["apiVersion"], job["kind"], job["metadata"]["namespace"]) == ("batch/v1", "Job", "shop")
    assert job["metadata"]["name"].startswith("churn-b-check-2-1-")
    assert job["metadata"]["ownerReferences"] == [labels.owner("churn", "u1")]
    assert job["metadata"]["labels"][labels.MODEL_LABEL] == "churn", "its events bring the ModelDeployment up"
    assert job["metadata"]["labels"][labels.MANAGED_BY] == labels.MANAGER, "the informer sees it"
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 90)
    pod = job["spec"]["template"]
    restricted(pod["spec"])
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}, {"name": "more"}]
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["tmp", "rows"]
    (container,) = pod["spec"]["containers"]
    assert (container["name"], container["image"], container["args"]) == ("check", "tests:1", ["--all"])
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/rows"]  # noqa: S108 - in a pod
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "SLIPWAY_NAME": "churn",
        "SLIPWAY_NAMESPACE": "shop",
        "SLIPWAY_REVISION": "churn-b",
        "SLIPWAY_VERSION": "2",
        "SLIPWAY_STABLE": "churn-a",
        "SLIPWAY_URL": "http://churn-b.shop.svc.cluster.local:8080",
        "SLIPWAY_STEP": "1",
        "SLIPWAY_WEIGHT": "10",
        "ROWS": "9",
    }


def test_its_pod_becomes_no_endpoint_of_the_candidate_whatever_the_template_says() -> None:
    (job,) = built()
    told = job["spec"]["template"]["metadata"]
    assert labels.REVISION_LABEL not in told["labels"]
    assert told["labels"][labels.COMPONENT] != "model", "no disruption budget counts it"
    assert (told["labels"]["team"], told["annotations"]) == ("ml", {"note": "x"})


def test_a_failure_limit_is_how_many_pods_may_fail() -> None:
    (job,) = built(asked=planned(failureLimit=3))
    assert job["spec"]["backoffLimit"] == 2


def test_a_token_is_mounted_only_where_asked() -> None:
    asked = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "serviceAccountName": "tester", "automountServiceAccountToken": True}}
    (job,) = built(asked=planned(template=asked))
    assert job["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "tester"


def test_it_is_made_once_a_step_and_only_while_one_is_live() -> None:
    (job,) = built()
    assert built(**{job["metadata"]["name"]: job}) == [], "a restart of the operator makes no other"
    assert built(at(step_since=None)) == []
    assert built(at(step=3)) == [], "the last step is not judged"
    assert built(replace(STATE, stable=None)) == []
    (other,) = built(at(step=2))
    (retried,) = built(at(since="2026-01-01T00:05:00Z"))
    names = {each["metadata"]["name"] for each in (job, other, retried)}
    assert len(names) == 3
    assert set(job_names(STATE, planned()).values()) == {job["metadata"]["name"]}


def test_it_goes_with_its_rollout_and_what_runs_for_nothing_goes_at_once() -> None:
    (running,), (done,) = built(), built()
    done = {**done, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}

    def stays(state: State, job: dict[str, Any]) -> bool:
        return not unwanted_jobs(state, {"x": job})

    failed = at(outcome="Failed")
    failed = replace(failed, candidates=())
    assert stays(STATE, running)
    assert stays(STATE, done)
    assert stays(at(step_since=None), running)
    assert stays(at(step=2, step_since=None), done), "its log may be read as long as the rollout is told of"
    assert not stays(at(step=2, step_since=None), running)
    assert stays(failed, done)
    assert not stays(failed, running)
    assert not stays(replace(STATE, rollout=None), done)
    assert not stays(at(since="2026-01-01T00:05:00Z"), done)
