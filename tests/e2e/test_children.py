"""What Slipway made is deleted or changed by somebody: it is put back, and the callers notice only what they must."""

import functools
from typing import Any

from tests.e2e import models
from tests.e2e.cluster import ROUTER, Namespace
from tests.e2e.traffic import assert_none_failed
from tests.e2e.waiting import await_, condition_of, is_ready
from tests.e2e.watching import State, Watch

Object = dict[str, Any]


def await_other(namespace: Namespace, plural: str, name: str, uid: str) -> Object:
    """Wait until an object of that name with another uid is there."""

    def found() -> Object:
        obj = namespace.find(plural, name)
        return obj if obj and obj["metadata"]["uid"] != uid else {}

    return await_(found, f"{plural}/{name} is back")


def delete_and_await(namespace: Namespace, plural: str, name: str) -> Object:
    """Delete a child as kubectl does, and wait until it is back."""
    uid = namespace.get(plural, name)["metadata"]["uid"]
    namespace.delete(plural, name)
    return await_other(namespace, plural, name, uid)


def test_deleted_children_come_back_and_callers_do_not_notice(namespace: Namespace) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    revision = churn.revision
    with namespace.load() as load:
        for plural, name in (
            ("controllerrevisions", revision),
            ("poddisruptionbudgets", "churn"),
            ("poddisruptionbudgets", ROUTER),
            ("serviceaccounts", ROUTER),
            ("configmaps", ROUTER),
            ("services", revision),
            ("deployments", ROUTER),
        ):
            delete_and_await(namespace, plural, name)
            churn.await_ready()
        load.reach(10_000)
    assert_none_failed(load)
    assert churn.revision == revision


def test_a_deleted_service_comes_back(namespace: Namespace) -> None:
    """At a new address: callers who hold connections keep them, others find it by name."""
    churn = namespace.serve()
    caller = namespace.caller()
    with namespace.load() as load:
        delete_and_await(namespace, "services", "churn")
        churn.await_ready()
        load.reach(10_000)
    assert_none_failed(load)
    url = f"http://churn.{namespace.name}/v2/models/churn/infer"
    await_(lambda: caller.ask(url, models.BODY)["status"] == 200, "it answers at its name")


def test_a_deleted_deployment_of_a_revision_comes_back(namespace: Namespace) -> None:
    """All its pods go at once, and callers are refused until others are ready; then, by the word of status, no more."""
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    old = {pod["metadata"]["name"] for pod in churn.pods()}
    with namespace.load(rate=300) as load:
        watch = Watch(State, namespace.client, namespace.path("modeldeployments"), churn.name)
        delete_and_await(namespace, "deployments", churn.revision)
        watch.await_(lambda seen: condition_of(seen.object, "Available")["status"] == "False", "status says that nothing serves")
        back_at = churn.await_ready()
        assert not old & {pod["metadata"]["name"] for pod in churn.pods() if is_ready(pod)}
        load.reach(load.now().requests + 1_000)
    assert all(when < back_at for when, _ in load.report.failed_at[-1:])
    assert set(load.report.failures) == {'503 {"error":"no healthy upstream"}'}


# Which child, which of its fields, and what somebody writes there.
DRIFT: tuple[tuple[str, str, tuple[str, ...], Any], ...] = (
    ("deployments", "REVISION", ("spec", "replicas"), 5),
    (
        "deployments",
        "REVISION",
        ("spec", "template", "spec", "containers"),
        [{"name": "server", "image": "slipway.local/absent:1"}],
    ),
    ("deployments", ROUTER, ("spec", "replicas"), 1),
    ("services", "churn", ("spec", "selector", "app"), "other"),
    ("services", "REVISION", ("metadata", "labels", "slipway.dev/revision"), "other"),
    ("configmaps", ROUTER, ("data", "routes.json"), "{}"),
    ("poddisruptionbudgets", ROUTER, ("spec", "maxUnavailable"), 2),
)


def field(obj: Any, path: tuple[str, ...]) -> Any:
    """Answer a field of an object, None where it is absent."""
    return functools.reduce(lambda part, key: part.get(key), path, obj)


def holding(path: tuple[str, ...], value: Any) -> Object:
    """Answer an object that holds only this field."""
    return functools.reduce(lambda inner, key: {key: inner}, reversed(path), value)


def test_changed_fields_are_put_back_and_foreign_labels_stay(namespace: Namespace) -> None:
    churn = namespace.serve()
    theirs = {"metadata": {"labels": {"team": "shop"}, "annotations": {"note": "theirs"}}}
    with namespace.load() as load:
        for plural, called, path, value in DRIFT:
            name = called.replace("REVISION", churn.revision)
            wanted = field(namespace.merge(plural, name, theirs), path)
            assert field(namespace.merge(plural, name, holding(path, value)), path) != wanted
            await_(
                lambda at=(plural, name), path=path, wanted=wanted: field(namespace.get(*at), path) == wanted,
                f"{path} of {plural}/{name} is as wanted",
            )
            metadata = namespace.get(plural, name)["metadata"]
            assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("shop", "theirs")
        churn.await_ready()
        load.reach(10_000)
    assert_none_failed(load)


def test_a_wiped_status_is_rebuilt_while_what_served_serves(namespace: Namespace) -> None:
    churn = namespace.serve(spec=models.spec(1, replicas=2))
    churn.apply(models.spec(2, replicas=2))
    churn.await_drained()
    before = churn.status
    pods = namespace.names("pods")
    with namespace.load() as load:
        patch = '{"status":null}'
        namespace.kubectl("patch", "md/churn", "--subresource=status", "--type=merge", "-p", patch)
        await_(lambda: churn.status.get("stable"), "status is there again")
        churn.await_ready()
        load.reach(10_000)
    assert_none_failed(load)
    after = churn.status
    figures = {"requestsPerSecond", "p95", "errorRate", "measuredAt"}
    assert {**after["stable"], **dict.fromkeys(figures)} == {**before["stable"], **dict.fromkeys(figures)}
    assert (after["phase"], after["url"], after["selector"]) == (before["phase"], before["url"], before["selector"])
    assert pods <= namespace.names("pods")
