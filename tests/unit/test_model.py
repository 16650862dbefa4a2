"""A stored ModelDeployment, read: what this cluster does not allow is an error of the spec, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from slipway.model import read
from slipway.settings import Settings


def stored(model: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "m", "namespace": "ns", "generation": 1}, "spec": {"model": model}}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"uri": "s3://bucket/m.onnx", "format": "ONNX"}, None),
        ({"uri": "https://host/m.onnx", "format": "ONNX"}, "SchemeNotAllowed"),
        ({"format": "Custom"}, None),
        ({"uri": "https://host/m.onnx"}, "SpecInvalid"),
    ],
)
def test_schemes_are_allowed_by_the_cluster(model: dict[str, Any], reason: str | None) -> None:
    found = read(stored(model), Settings("server:1", "router:1", model_schemes=("s3", "oci")))
    assert (found.spec_error and found.spec_error.reason) == reason
    assert (found.spec is None, found.target is None) == (reason is not None, reason is not None)
    assert found.history_limit == (100 if reason else 10), "what is kept is not decided by a spec that is refused"


def test_without_a_list_all_schemes_are() -> None:
    found = read(stored({"uri": "https://host/m.onnx", "format": "ONNX"}), Settings("server:1", "router:1"))
    assert found.spec_error is None


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ({"webhook": {"url": "http://gate/x"}}, None),
        ({"webhook": {"url": "http://gate.ns.svc.example.org/x"}}, None),
        ({"webhook": {"url": "https://hooks.example.com/x"}}, None),
        ({"webhook": {"url": "http://gate.other/x"}}, "AddressNotAllowed"),
        ({"webhook": {"url": "http://169.254.169.254/latest"}}, "AddressNotAllowed"),
        ({"prometheus": {"query": "up", "max": 1}}, "PrometheusNotConfigured"),
        ({"prometheus": {"query": "up", "max": 1, "address": "http://prometheus:9090"}}, None),
    ],
)
def test_checks_ask_whom_the_cluster_allows(check: dict[str, Any], reason: str | None) -> None:
    obj = stored({"uri": "s3://bucket/m.onnx", "format": "ONNX"})
    obj["spec"]["rollout"] = {"strategy": "Canary", "steps": [{"weight": 5}], "checks": [check]}
    settings = Settings("server:1", "router:1", check_hosts=("hooks.example.com",), cluster_domain="example.org")
    found = read(obj, settings)
    assert (found.spec_error and found.spec_error.reason) == reason
    if found.spec_error:
        assert "spec.rollout.checks[0]." in found.spec_error.message


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ({"start": "0 8 * * 1-5", "timeZone": "Europe/Berlin"}, ""),
        ({"start": "99 8 * * *"}, "'99' is no minute"),
        ({"start": "0 8 * * *", "timeZone": "Europe/Atlantis"}, "'Europe/Atlantis' is no time zone"),
    ],
)
def test_a_schedule_that_only_looks_like_one_is_refused(window: dict[str, Any], says: str) -> None:
    obj = stored({"uri": "s3://bucket/m.onnx", "format": "ONNX"})
    schedule = [{"duration": "1h", "min": 2, **window}]
    obj["spec"]["scaling"] = {"max": 9, "objective": {"concurrency": 4}, "schedule": schedule}
    found = read(obj, Settings("server:1", "router:1"))
    assert (found.spec is None) == bool(says)
    assert says in (found.spec_error.message if found.spec_error else "")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://prometheus:9090", None),
        ("http://169.254.169.254/latest", "AddressNotAllowed"),
        ("http://prometheus.other:9090", "AddressNotAllowed"),
        (None, "PrometheusNotConfigured"),
    ],
)
def test_so_does_an_ab_test(address: str | None, reason: str | None) -> None:
    obj = stored({"uri": "s3://bucket/m.onnx", "format": "ONNX"})
    metric = {"query": "sales{{revision}}"} | ({"address": address} if address else {})
    obj["spec"]["rollout"] = {"strategy": "ABTest", "abTest": {"header": "x-user", "measure": "Metric", "metric": metric}}
    found = read(obj, Settings("server:1", "router:1"))
    assert (found.spec_error and found.spec_error.reason) == reason
    if found.spec_error:
        assert "spec.rollout.abTest.metric.address" in found.spec_error.message


@pytest.mark.parametrize("size", ["lots", "1GB", "-1", -1, "1 Gi", ""])
def test_what_is_no_quantity_is_refused(size: str | int) -> None:
    found = read(stored({"uri": "s3://bucket/m", "format": "ONNX", "maxSize": size}), Settings("server:1", "router:1"))
    assert found.spec_error is not None
    assert found.spec_error.message.startswith(f"spec.model.maxSize: Value error, {str(size)!r} must be a quantity")


def test_each_revision_has_replicas_of_its_own_within_the_limits() -> None:
    obj = stored({"uri": "file:///m.onnx", "format": "ONNX"})
    obj["spec"]["scaling"] = {"min": 2, "max": 6, "objective": {"cpu": "70%"}}
    model = read(obj, Settings("server:1", "router:1"))
    assert replace(model, decided={"m-a": 1, "m-b": 9, "m-c": 4}).sizes == {"m-a": 2, "m-b": 6, "m-c": 4}
    obj["spec"]["scaling"] = {"min": 2}
    assert replace(read(obj, Settings("server:1", "router:1")), decided={"m-a": 1}).sizes == {}
