"""Specs of ModelDeployments drawn from the CRD's schema, and sequences of their changes.

The schema says what a field holds; what fields ask of each other is in CEL rules, which `tidy` keeps. The integration test
asks the real API server whether it takes every spec that is right here, and refuses every wrong one.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import yaml
from tests.transitions.schema import Known, values, wrong

Spec = dict[str, Any]
_CRD = Path(__file__).resolve().parents[2] / "crds" / "slipway.dev_modeldeployments.yaml"
SCHEMA = yaml.safe_load(_CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
SECTIONS = tuple(SCHEMA["properties"])
_CHECKS = SCHEMA["properties"]["rollout"]["properties"]["checks"]["items"]["properties"]

_URIS = (
    "configmap://digits/model.onnx",
    "pvc://claim/models/m",
    "file:///models/m",
    "https://models.example/1/model",
    "s3://bucket/models/m",
    "gs://bucket/m",
    "az://box/m",
    "hf://owner/repo/m@main",
    "oci://registry.example/models/m:1",
)
_PROMETHEUS = st.sampled_from(["http://prometheus", "http://prometheus:9090/tenant"])
_RESOURCES = (
    {},
    {"requests": {"cpu": "10m", "memory": "64Mi"}},
    {"requests": {"cpu": 1}, "limits": {"cpu": "1", "memory": "1Gi"}},
    {"limits": {"nvidia.com/gpu": 1}},
    {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"hugepages-2Mi": "4Mi", "memory": "64Mi"}},
)
_ENV = (
    {"name": "A", "value": "1"},
    {"name": "A", "value": "2"},
    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
)
_VOLUMES = ({"name": "data", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings", "optional": True}})
_MOUNTS = ({"name": "data", "mountPath": "/data"}, {"name": "settings", "mountPath": "/etc/settings", "readOnly": True})
_TOLERATIONS = ({"operator": "Exists"}, {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"})
_NEAR = {"labelSelector": {"matchLabels": {"team": "a"}}, "topologyKey": "kubernetes.io/hostname"}
_AFFINITY = ({}, {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": _NEAR}]}})
_SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}


def _pod(path: str, container: str) -> dict[str, st.SearchStrategy[Any]]:
    """Answer what Kubernetes, rather than the CRD, knows of a pod's fields."""
    return {
        f"{path}.tolerations[]": st.sampled_from(_TOLERATIONS),
        f"{path}.affinity": st.sampled_from(_AFFINITY),
        f"{path}.topologySpreadConstraints": st.sampled_from([[], [_SPREAD]]),
        f"{path}.volumes[]": st.sampled_from(_VOLUMES),
        f"{path}.imagePullSecrets[]": st.sampled_from([{"name": "pull"}, {"name": "other"}]),
        f"{path}.containers[].env[]": st.sampled_from(_ENV),
        f"{path}.containers[].envFrom[]": st.just({"configMapRef": {"name": "settings", "optional": True}}),
        f"{path}.containers[].volumeMounts[]": st.sampled_from(_MOUNTS),
        f"{path}.containers[].resources": st.sampled_from([{}, {"requests": {"cpu": "10m"}}]),
        f"{path}.containers[].name": st.just(container),
    }


_NO_TIME = {"start": "99 99 * * *", "duration": "1h", "min": 1}
_ELSEWHERE = {"webhook": {"url": "http://elsewhere.example/ask"}}
_TAKEN_BUT_WRONG: tuple[Spec, ...] = (
    {"scaling": {"min": 1, "max": 3, "objective": {"concurrency": 4}, "schedule": [_NO_TIME]}},
    {"rollout": {"strategy": "Shadow", "checks": [_ELSEWHERE]}},
)
_POD = "server.podTemplate.spec"
_CHECK = "rollout.checks[]"
# What the schema alone does not say.
KNOWN: Known = {
    "model.uri": st.sampled_from(_URIS),
    "server.protocol": st.just("V2"),  # it may not change in a sequence
    "server.resources": st.sampled_from(_RESOURCES),
    "server.port": st.sampled_from([1024, 8080, 65535]),
    "scaling.min": st.sampled_from([1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 5, 7, 40, 1000]),
    "scaling.schedule[].start": st.sampled_from(["0 8 * * 1-5", "*/5 * * * *", "0 0 1 JAN MON"]),
    "scaling.schedule[].timeZone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    "rollout.steps[].replicas": st.sampled_from([1, 2, 3]),
    "rollout.testers": st.sampled_from(
        [{"header": {"name": "x-tester", "value": "1"}}, {"cookie": {"name": "tester", "value": "yes"}}]
    ),
    _CHECK: st.nothing(),  # see below
    **_pod(_POD, "server"),
    "routing.hosts[]": st.sampled_from(["a.example", "b.example", "*.c.example", "deep.d.example"]),
}
_CHECK_KNOWN: Known = {
    "agreement.min": st.sampled_from(["90%", "99.9%", "100%"]),
    "prometheus.address": _PROMETHEUS,
    "webhook.url": st.sampled_from(["http://gate/ask", "http://gate:8080/?strict=1"]),
    **_pod("job.template.spec", "check"),
}
KNOWN = {
    **KNOWN,
    "rollout.abTest.metric": st.sampled_from(
        [{"query": "rate({{revision}})"}, {"query": "m{{revision}}", "higherIsBetter": False}]
    ),
    _CHECK: st.one_of(
        st.fixed_dictionaries({kind: values(_CHECKS[kind], _CHECK_KNOWN, kind)})
        for kind in ("errorRate", "latency", "agreement", "prometheus", "webhook", "job")
    ),
}


def right(known: Known = KNOWN) -> st.SearchStrategy[Spec]:
    """Answer the specs that the API server takes."""
    return values(SCHEMA, known).map(tidy)


def wrong_of(spec: Spec) -> st.SearchStrategy[Spec]:
    """Answer wrong specs: a right one with one place that the schema refuses, or with what the operator alone can judge."""
    return st.sampled_from(wrong(SCHEMA, spec)) | st.sampled_from([{**spec, **part} for part in _TAKEN_BUT_WRONG])


def is_taken(spec: Spec) -> bool:
    """Tell whether the API server takes a wrong spec: what is wrong with it is for the operator to say."""
    return isinstance(spec, dict) and any(spec.items() >= part.items() for part in _TAKEN_BUT_WRONG)


def tidy(spec: Spec) -> Spec:
    """Answer the spec with what its fields ask of each other."""
    spec = copy.deepcopy(spec)
    for section in (_tidy_model, _tidy_server, _tidy_scaling, _tidy_rollout, _tidy_arms, _tidy_routing):
        section(spec)
    return _without_empty(spec)


def _without_empty(value: Any) -> Any:
    """Answer the spec without empty parts: of one that is emptied server-side apply makes null, which the API server refuses."""
    if not isinstance(value, dict):
        return value
    kept = {name: held if name == "emptyDir" else _without_empty(held) for name, held in value.items()}
    return {name: held for name, held in kept.items() if held != {} or name == "emptyDir"}


def _drop(where: dict[str, Any], *names: str) -> None:
    for name in names:
        where.pop(name, None)


def _tidy_model(spec: Spec) -> None:
    model = spec["model"]
    custom = model["format"] == "Custom"
    if custom and model.get("uri", "file:").startswith("file:"):
        _drop(model, "uri", "sha256", "maxSize", "storage")
    if not custom:
        model.setdefault("uri", _URIS[0])
    if model["format"] != "SKLearn":
        _drop(model, "trust")
    uri = model.get("uri", "")
    if not uri.startswith(("http", "s3:", "gs:", "az:", "hf:", "oci:")):
        _drop(model, "storage")
    storage = model.get("storage", {})
    if uri.startswith("http"):
        _drop(storage, "endpoint")
    if not uri.startswith("s3:"):
        _drop(storage, "region", "pathStyle")


def _tidy_server(spec: Spec) -> None:
    custom, server = spec["model"]["format"] == "Custom", spec.setdefault("server", {})
    if custom:
        server.setdefault("image", "team/server:1")
        _drop(server, "workers", "batching", "limits")
    else:
        _drop(server, "readinessPath")
    _tidy_pod(server.get("podTemplate", {}).get("spec", {}), args=custom)


def _tidy_pod(pod: dict[str, Any], *, args: bool) -> None:
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod.get("containers", ()):
        mounts = [mount for mount in container.get("volumeMounts", ()) if mount["name"] in volumes]
        container["volumeMounts"] = mounts
        if not args:
            _drop(container, "args")


def _tidy_scaling(spec: Spec) -> None:
    scaling = spec.get("scaling", {})
    _drop(scaling, "idleAfter")  # it is for min 0, where the number of pods is a matter of who asks
    if "objective" not in scaling:
        _drop(scaling, "max", "increasePerMinute", "decreasePerMinute", "schedule")
        return
    if not scaling["objective"].keys() & {"latency", "concurrency", "requestsPerSecond"}:
        scaling["objective"]["concurrency"] = 4
    scaling["max"] = max(scaling.get("max", 5), scaling.get("min", 1))


def _tidy_rollout(spec: Spec) -> None:
    rollout = spec.get("rollout", {})
    strategy = rollout.get("strategy", "Immediate")
    for name, of in (("blueGreen", "BlueGreen"), ("shadow", "Shadow"), ("abTest", "ABTest"), ("steps", "Canary")):
        if strategy != of:
            _drop(rollout, name)
    if strategy == "Immediate":
        _drop(rollout, "checks", "testers")
    if strategy != "Canary":
        _drop(rollout, "stableCapacity")
    else:
        rollout["steps"] = sorted(rollout.get("steps") or [{"weight": 50}], key=lambda step: step["weight"])
        for step in rollout["steps"]:
            if step["weight"]:
                _drop(step, "mirror")
    if strategy == "ABTest":
        _tidy_ab_test(rollout.setdefault("abTest", {}))
    if "checks" in rollout:
        rollout["checks"] = _tidy_checks(rollout["checks"])


def _tidy_ab_test(ab_test: dict[str, Any]) -> None:
    if "cookie" in ab_test:
        _drop(ab_test, "header")
    elif "header" not in ab_test:
        ab_test["header"] = "x-user"
    if "metric" in ab_test:
        ab_test["measure"] = "Metric"
    elif ab_test.get("measure") == "Metric":
        _drop(ab_test, "measure")


def _tidy_arms(spec: Spec) -> None:
    rollout = spec.get("rollout", {})
    test = rollout.get("abTest", {})
    if "arms" not in test:
        return
    test["weight"] = 20
    for number, arm in enumerate(test["arms"]):  # each is another one, of one server
        arm["weight"], model = 10, arm["model"]
        model |= {"format": spec["model"]["format"], "version": f"arm-{number}"}
        _tidy_model({"model": model})
    if "checks" in rollout:
        rollout["checks"] = [check for check in rollout["checks"] if not check.keys() & {"agreement", "job"}]


def _tidy_checks(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [check for check in checks if "agreement" not in check]
    kept += [check for check in checks if "agreement" in check][:1]
    for check in kept:
        if "latency" in check:
            check["latency"].setdefault("relativeToStable", 1.25)
            if check["latency"].get("max") == "0s":
                _drop(check["latency"], "max")
        if "prometheus" in check:
            bounds = check["prometheus"]
            bounds.setdefault("max", 1e6)
            bounds["min"] = min(bounds.get("min", 0), bounds["max"])
        if "job" in check:
            _tidy_pod(check["job"]["template"]["spec"], args=True)
    return kept


def _tidy_routing(spec: Spec) -> None:
    routing = spec.get("routing", {})
    if not routing.get("hosts"):
        _drop(routing, "gateway", "ingress")


@dataclass(frozen=True)
class Change:
    """One apply. `rests`: the one before has come to rest; else it comes after so many `turns` of the operator."""

    spec: Spec
    right: bool
    rests: bool
    turns: int


@st.composite
def sequences(draw: st.DrawFn, known: Known = KNOWN, most: int = 6) -> list[Change]:
    """Draw changes that end with a right one: parts of a few specs put together anew, some wrong."""
    pool = draw(st.lists(right(known), min_size=2, max_size=3))
    changes: list[Change] = []
    for _ in range(draw(st.sampled_from(range(1, most)))):
        changes.append(draw(_change(pool, changes, may_be_wrong=True)))
    return [*changes, draw(_change(pool, changes, may_be_wrong=False))]


@st.composite
def _change(draw: st.DrawFn, pool: list[Spec], before: list[Change], *, may_be_wrong: bool) -> Change:
    spec = draw(st.sampled_from([change.spec for change in before if change.right] or pool))
    parts = draw(st.lists(st.sampled_from(SECTIONS), min_size=1, max_size=3))
    other = draw(st.sampled_from(pool))
    mixed = tidy(
        {**{key: held for key, held in spec.items() if key not in parts}, **{key: other[key] for key in parts if key in other}}
    )
    rests, turns = draw(st.booleans()), draw(st.integers(0, 12))
    if may_be_wrong and draw(st.integers(0, 2)) == 0:
        return Change(draw(wrong_of(mixed)), False, rests, turns)
    return Change(mixed, True, rests, turns)
