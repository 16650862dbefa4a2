"""Desired objects: revisions named by content, pods within restricted security, overlays that cannot weaken them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from slipway.api.spec import Spec
from slipway.core.plan import IMMEDIATE
from slipway.core.revision import target
from slipway.core.routing import Route, RouterState, Wanted
from slipway.core.state import State
from slipway.manifests import children, envoy, model, router
from slipway.manifests.pod import build_pod_template
from slipway.model import Identity
from slipway.settings import Settings
from slipway_server.cli import build_parser

SETTINGS = Settings(server_image="server:1", router_image="router:1")
MODEL = {"uri": "configmap://models/v1.onnx", "format": "ONNX", "version": "1"}


def spec(server: dict[str, Any] | None = None, **model_fields: Any) -> Spec:
    return Spec.model_validate({"model": {**MODEL, **model_fields}, "server": server or {}})


def template(server: dict[str, Any] | None = None, **model_fields: Any) -> dict[str, Any]:
    return build_pod_template("m", "m-x", spec(server, **model_fields), SETTINGS)


def test_a_revision_is_named_by_what_decides_its_pods() -> None:
    name = target("m", spec()).revision
    assert name == target("m", spec({"protocol": "V2", "port": 8080})).revision, "a default written out changes nothing"
    others = [spec(version="2"), spec(uri="configmap://models/v2.onnx"), spec({"port": 9000}), spec(sha256="0" * 64)]
    assert len({name, *(target("m", other).revision for other in others)}) == 5
    scaled = spec().model_copy(update={"revision_history_limit": 3})
    assert name == target("m", scaled).revision
    assert len(name) == len("m-") + 8


def restricted(pod: dict[str, Any]) -> None:
    """Check what `pod-security.kubernetes.io/enforce: restricted` asks for."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"]


@pytest.mark.parametrize(
    ("server", "format_"),
    [({}, "ONNX"), ({"image": "acme/x:1"}, "Python"), ({"image": "acme/x:1", "protocol": "HTTP"}, "Custom")],
)
def test_pods_are_restricted(server: dict[str, Any], format_: str) -> None:
    restricted(template(server, format=format_)["spec"])
    restricted(router.build_deployment("ns", SETTINGS)["spec"]["template"]["spec"])


def test_the_bundled_server_has_a_read_only_root() -> None:
    server = template()["spec"]["containers"][0]
    assert server["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("uri", "volume"),
    [
        ("configmap://models/v1.onnx", {"configMap": {"name": "models", "optional": True}}),
        ("pvc://claim/a/b.onnx", {"persistentVolumeClaim": {"claimName": "claim", "readOnly": True}}),
        ("https://example.com/m.onnx", None),
    ],
)
def test_sources_are_mounted(uri: str, volume: dict[str, Any] | None) -> None:
    pod = template(uri=uri)["spec"]
    sources = [found for found in pod["volumes"] if found["name"] == "source"]
    assert sources == ([{"name": "source", **volume}] if volume else [])
    assert any(mount["name"] == "source" for mount in pod["initContainers"][0]["volumeMounts"]) == bool(volume)


def test_a_file_is_taken_from_the_servers_own_image() -> None:
    pod = template({"image": "acme/x:1"}, uri="file:///models/m.onnx")["spec"]
    assert pod["initContainers"][0]["image"] == "acme/x:1"
    assert template({"image": "acme/x:1"})["spec"]["initContainers"][0]["image"] == "server:1"


def test_an_image_of_any_format_but_custom_is_built_from_ours() -> None:
    ours = template({"image": "acme/x:1"}, format="Python")["spec"]["containers"][0]
    assert (ours["image"], ours["args"][0], "env" in ours) == ("acme/x:1", "serve", False)
    theirs = template({"image": "acme/x:1"}, format="Custom")["spec"]["containers"][0]
    assert ("args" in theirs, theirs["env"][0]) == (False, {"name": "SLIPWAY_MODEL_NAME", "value": "m"})


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"volumes": [{"name": ["data"], "emptyDir": {}}]}, "name must be a text"),
        ({"volumes": [{"name": "data", "configMap": [{"name": "settings"}]}]}, "configMap must be an object"),
        ({"containers": [{"name": "server", "env": [{"value": "1"}]}]}, "name must be a text"),
        ({"containers": [{"name": "server", "volumeMounts": [{"name": "data", "mountPath": {}}]}]}, "mountPath must be a text"),
    ],
)
def test_what_the_schema_refuses_of_a_pod_is_a_wrong_spec_here_too(part: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        template({"podTemplate": {"spec": part}})


def arguments(container: dict[str, Any]) -> dict[str, str]:
    """Answer the flags of a container's command; one without a value has an empty one."""
    words = container["args"][1:]
    following = [*words[1:], "--"]
    pairs = zip(words, following, strict=True)
    return {word: "" if after.startswith("--") else after for word, after in pairs if word.startswith("--")}


def test_a_secret_is_seen_by_the_init_container_alone() -> None:
    storage = {"secretName": "s3", "endpoint": "https://minio.example.com", "region": "eu-west-1"}
    pod = template(uri="s3://bucket/m.onnx", storage=storage, maxSize="1023500m")["spec"]
    (volume,) = [found for found in pod["volumes"] if found["name"] == "credentials"]
    assert volume["secret"] == {"secretName": "s3", "optional": True, "defaultMode": 0o440}
    assert "credentials" in [mount["name"] for mount in pod["initContainers"][0]["volumeMounts"]]
    assert "credentials" not in [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]
    flags = arguments(pod["initContainers"][0])
    assert flags["--endpoint"] == "https://minio.example.com"
    assert (flags["--region"], flags["--path-style"], flags["--max-bytes"]) == ("eu-west-1", "", "1024")


@pytest.mark.parametrize(
    ("storage", "path_style"),
    [
        ({}, False),
        ({"pathStyle": True}, True),
        ({"endpoint": "https://host"}, True),
        ({"endpoint": "https://host", "pathStyle": False}, False),
    ],
)
def test_an_endpoint_of_ones_own_is_asked_by_path(storage: dict[str, Any], path_style: bool) -> None:
    pod = template(uri="s3://bucket/m.onnx", storage=storage)["spec"]
    assert ("--path-style" in pod["initContainers"][0]["args"]) is path_style


def test_what_the_cluster_allows_is_told_to_the_init_container() -> None:
    settings = replace(SETTINGS, model_schemes=("s3", "https"), model_networks=("10.0.0.0/8",))
    pod = build_pod_template("m", "m-x", spec(uri="s3://bucket/m.onnx"), settings)["spec"]
    flags = arguments(pod["initContainers"][0])
    assert (flags["--allow-schemes"], flags["--allow-networks"]) == ("s3,https", "10.0.0.0/8")


def test_the_servers_limits_come_from_the_resource_and_otherwise_from_the_server() -> None:
    assert not {"--max-body", "--workers", "--batch-max-size"} & arguments(template()["spec"]["containers"][0]).keys()
    limits = {"bodySize": "1Mi", "headerSize": 8192, "jsonDepth": 8, "tensorElements": 9, "concurrency": 7}
    limits["requestTimeout"] = "1m30s"
    server = {"workers": 2, "batching": {"maxDelay": "5ms"}, "limits": limits}
    flags = arguments(template(server)["spec"]["containers"][0])
    assert (flags["--workers"], flags["--batch-max-size"], flags["--batch-max-delay"]) == ("2", "64", "0.005")
    assert (flags["--max-body"], flags["--max-header"], flags["--max-depth"]) == ("1048576", "8192", "8")
    assert (flags["--max-elements"], flags["--max-concurrency"], flags["--request-timeout"]) == ("9", "7", "90")


def test_the_server_understands_its_arguments() -> None:
    storage = {"secretName": "s3", "endpoint": "https://minio.example.com", "region": "eu-west-1"}
    limits = {
        "bodySize": "1Mi",
        "headerSize": "8Ki",
        "jsonDepth": 8,
        "tensorElements": 9,
        "concurrency": 7,
        "requestTimeout": "2s",
    }
    server = {"workers": 2, "batching": {"maxSize": 8, "maxDelay": "5ms"}, "limits": limits}
    full = spec(server, uri="s3://b/m.onnx", sha256="0" * 64, storage=storage, maxSize="1Gi")
    allowing = replace(SETTINGS, model_schemes=("s3",), model_networks=("10.0.0.0/8", "fd00::/8"))
    for pod in (template()["spec"], build_pod_template("m", "m-x", full, allowing)["spec"]):
        for container in (*pod["initContainers"], *pod["containers"]):
            build_parser().parse_args(container["args"])


@pytest.mark.parametrize(("amount", "image"), [("1", "server:1-gpu"), ("0", "server:1"), (None, "server:1")])
def test_a_gpu_gets_the_gpu_build(amount: str | None, image: str) -> None:
    settings = replace(SETTINGS, server_gpu_image="server:1-gpu")
    server = {"resources": {"limits": {"nvidia.com/gpu": amount}}} if amount else {}
    pod = build_pod_template("m", "m-x", spec(server), settings)["spec"]
    assert (pod["containers"][0]["image"], pod["initContainers"][0]["image"]) == (image, "server:1")


def test_the_overlay_adds_and_cannot_take_away() -> None:
    overlay = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu"}],
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 99,
            "containers": [
                {"name": "server", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "extra", "mountPath": "/x"}]}
            ],
        },
    }
    plain, laid = template(), template({"podTemplate": overlay})
    assert laid["metadata"]["labels"] == {"team": "a", **plain["metadata"]["labels"]}
    assert laid["metadata"]["annotations"] == {"note": "b"}
    assert (laid["spec"]["nodeSelector"], laid["spec"]["terminationGracePeriodSeconds"]) == ({"disk": "ssd"}, 99 + 35)
    assert laid["spec"]["volumes"] == [*plain["spec"]["volumes"], {"name": "extra", "emptyDir": {}}]
    server = laid["spec"]["containers"][0]
    assert server["env"] == [{"name": "A", "value": "1"}]
    assert server["volumeMounts"][:-1] == plain["spec"]["containers"][0]["volumeMounts"]
    restricted(laid["spec"])


def test_a_limit_below_the_default_request_is_requested() -> None:
    server = template({"resources": {"limits": {"memory": "128Mi"}}})["spec"]["containers"][0]
    assert server["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}}
    asked = template({"resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "1Gi"}}})["spec"]["containers"][0]
    assert asked["resources"]["requests"] == {"cpu": "100m", "memory": "64Mi"}


def test_the_deployment_is_built_from_the_kept_revision_alone() -> None:
    wanted = target("m", spec())
    kept = model.build_revision("m", "ns", "uid", wanted, 1, spec(), SETTINGS)
    upgraded = replace(SETTINGS, server_image="server:2")
    world = type("World", (), {"target": wanted, "replicas": 2, "full": lambda self, revision: 2, "plan": IMMEDIATE})()
    stored = children.Stored({wanted.revision: kept}, ())
    built = list(children.build(Identity("m", "ns", "uid"), spec(), State(stable=wanted), world, stored, upgraded))
    (deployment,) = [obj for obj in built if obj["kind"] == "Deployment"]
    assert deployment["spec"]["template"] == kept["data"]["template"], "an upgrade of the operator restarts no model"
    assert "ControllerRevision" not in [obj["kind"] for obj in built]
    assert [obj["kind"] for obj in built].count("PodDisruptionBudget") == 1


@pytest.mark.parametrize("gateway", [True, False])
def test_a_spec_that_cannot_be_read_leaves_the_service_as_it_was(gateway: bool) -> None:
    """Though no HTTPRoute is there: the cluster may not know the kind, or the hosts are another's."""
    before = model.build_service("m", "ns", "m", "uid", h2c=gateway)
    world = type("World", (), {"target": None, "replicas": 1, "plan": IMMEDIATE})()
    built = children.build(Identity("m", "ns", "uid"), None, State(), world, children.Stored({}, (before,)), SETTINGS)
    assert next(iter(built)) == before


def test_the_oldest_revisions_go_and_only_our_own() -> None:
    owner = Identity("m", "ns", "uid")
    wanted = target("m", spec())
    kept = {
        f"m-{n}": model.build_revision("m", "ns", "uid", replace(wanted, revision=f"m-{n}"), n, spec(), SETTINGS)
        for n in range(5)
    }
    kept["m-foreign"] = model.build_revision("m", "ns", "other", replace(wanted, revision="m-foreign"), 0, spec(), SETTINGS)
    state = State(stable=replace(wanted, revision="m-0"))
    going = children.unwanted(owner, state, IMMEDIATE, 1, 2, children.Stored(kept, ()))
    assert [obj["metadata"]["name"] for obj in going] == ["m-2", "m-1"]


def routes(**wanted: Wanted) -> RouterState:
    return RouterState(7, {name: Route(want, 7) for name, want in wanted.items()})


def test_routes_split_by_weight_and_name_the_revision() -> None:
    state = routes(m=Wanted({"m-a": 90, "m-b": 10, "m-c": 0}, {"m-a": 1, "m-b": 2, "m-c": 3}, ("x.example.com",), 2.5))
    (config,) = json.loads(envoy.build_routes(state, "ns", SETTINGS))["resources"]
    (host,) = config["virtual_hosts"]
    assert host["domains"] == ["m", "m.ns", "m.ns.svc", "m.ns.svc.cluster.local", "x.example.com"]
    (route,) = host["routes"]
    split = route["route"]["weighted_clusters"]["clusters"]
    assert [(each["name"], each["weight"]) for each in split] == [("m-a", 90), ("m-b", 10)]
    assert route["route"]["timeout"] == "2.5s"
    clusters = json.loads(envoy.build_clusters(state, "ns", SETTINGS))
    assert [cluster["name"] for cluster in clusters["resources"]] == ["m-a", "m-b", "m-c"]
    assert clusters["version_info"] == "7"


def test_without_a_ready_revision_the_router_says_so() -> None:
    (config,) = json.loads(envoy.build_routes(routes(m=Wanted({}, {})), "ns", SETTINGS))["resources"]
    answer = config["virtual_hosts"][0]["routes"][0]["direct_response"]
    assert answer["status"] == 503
    assert json.loads(answer["body"]["inline_string"]) == {"error": "m has no ready revision yet"}


def test_routers_count_what_the_meter_reads() -> None:
    bootstrap = json.loads(envoy.build_bootstrap(None))
    assert bootstrap["stats_flush_interval"] == "1s"
    models, _ = bootstrap["static_resources"]["listeners"]
    filters = models["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert [each["name"] for each in filters][-2:] == ["envoy.filters.http.grpc_stats", "envoy.filters.http.router"]
    assert filters[-2]["typed_config"]["stats_for_all_methods"] is False, "callers choose the names of methods"


def test_what_a_model_costs_is_known_and_the_limit_is_an_error_before_an_outage() -> None:
    def config(count: int) -> dict[str, Any]:
        many = {f"model-{n:04}": Wanted({f"model-{n:04}-xxxxxxxx": 100}, {f"model-{n:04}-xxxxxxxx": 8080}) for n in range(count)}
        return router.build_config("some-namespace", routes(**many), SETTINGS)

    assert router.config_error(config(200)) is None
    error = router.config_error(config(1000))
    assert error is not None
    assert (error.reason, "1000 ModelDeployments" in error.message) == ("RouterConfigFull", True)
