"""Right ModelDeployments: the real API server takes each, fills its defaults, and the operator reads the same from it."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.client import MODEL, Client, Refused, model, models, spec_of
from tests.integration.commands import ROOT, must, tool

from slipway.api.model import Format
from slipway.api.spec import Spec
from slipway.api.status import Status
from slipway.core.revision import target

DIGEST = "0123456789abcdef" * 4

RIGHT = [
    MODEL,
    "model: {uri: 'pvc://models/churn/3/model.onnx', format: ONNX, version: '3'}",
    "model: {uri: 'file:///models/model.onnx', format: ONNX, version: 2025-11-23_a.b}",
    "model: {uri: 'http://models.shop/churn/3.onnx', format: ONNX}",
    f"model: {{uri: 'https://models.example.com/m.onnx?part=1', format: ONNX, sha256: {DIGEST}}}",
    "{model: {format: Custom}, server: {image: 'ghcr.io/acme/custom:1', protocol: HTTP, port: 9000}}",
    "{model: {uri: 'pvc://models/llm/', format: Custom}, server: {image: acme/llm, protocol: OpenAI, readinessPath: /ping}}",
    "{model: {uri: 'pvc://models/m.pkl', format: SKLearn, trust: Unsafe}, server: {image: 'acme/sk@sha256:" + DIGEST + "'}}",
    "model: {uri: 'configmap://churn/m.ubj', format: XGBoost}",
    "model: {uri: 'https://models.example.com/m.txt', format: LightGBM, storage: {secretName: models}}",
    "model: {uri: 's3://models/churn/3/', format: SKLearn, maxSize: 2Gi, storage: {secretName: s3, region: eu-west-1, "
    "endpoint: 'https://minio.example.com:9000', pathStyle: true}}",
    "model: {uri: 'gs://models.example/churn/3/model.skops', format: SKLearn}",
    "model: {uri: 'az://models/churn.tar.gz', format: Python, storage: {endpoint: 'https://churn.blob.core.windows.net'}}",
    "model: {uri: 'hf://acme/churn@3f1c0a', format: ONNX, storage: {secretName: hub}}",
    "model: {uri: 'hf://acme/churn/onnx/model.onnx@refs/pr/1', format: ONNX}",
    "model: {uri: 'oci://registry.example.com:5000/models/churn:3', format: LightGBM}",
    f"model: {{uri: 'oci://registry.example.com/models/churn@sha256:{DIGEST}', format: ONNX}}",
    "{model: {uri: 'https://models.example.com/m.tgz', format: Python}, server: {image: acme/churn-server}}",
    "server: {workers: 2, batching: {maxSize: 16, maxDelay: 5ms}, limits: {bodySize: 1Mi, headerSize: 8Ki, jsonDepth: 8, "
    "tensorElements: 100000, concurrency: 64, requestTimeout: 2s}}",
    "server: {resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {cpu: 2, memory: 1Gi}}}",
    "server: {resources: {requests: {cpu: '0.5', memory: 536870912}, limits: {memory: 512Mi, nvidia.com/gpu: 1}}}",
    "server: {resources: {limits: {nvidia.com/gpu: '2', hugepages-2Mi: 64Mi, memory: 1e9, ephemeral-storage: 1Gi}}}",
    "server: {podTemplate: {metadata: {labels: {team: shop, example.com/cost: '7'}, annotations: {note: any text at all}}}}",
    "server: {podTemplate: {spec: {nodeSelector: {kubernetes.io/arch: arm64}, tolerations: [{operator: Exists}]}}}",
    "server: {podTemplate: {spec: {volumes: [{name: extra, emptyDir: {sizeLimit: 1Gi}}], containers: [{volumeMounts: "
    "[{name: extra, mountPath: /mnt/extra}], env: [{name: A, value: b}], envFrom: [{configMapRef: {name: c}}]}]}}}",
    "{model: {format: Custom}, server: {image: acme/a, podTemplate: {spec: {containers: [{name: server, args: [--fast, '8']}], "
    "runtimeClassName: nvidia, priorityClassName: high, terminationGracePeriodSeconds: 120, imagePullSecrets: [{name: pull}]}}}}",
    "server: {podTemplate: {spec: {affinity: {nodeAffinity: {}}, topologySpreadConstraints: [{maxSkew: 1}]}}}",
    "scaling: {min: 3}",
    "scaling: {min: 3}",
    "rollout: {strategy: Immediate, progressDeadline: 1h30m}",
    "rollout: {strategy: Canary, steps: [{weight: 0}, {weight: 5, hold: 2m}, {weight: 25, hold: 5m}, {weight: 100, hold: 1h}], "
    "checks: [{errorRate: {max: 0.5%}}, {latency: {max: 150ms, relativeToStable: 1.25}}, {latency: {percentile: 99, "
    "relativeToStable: 2}}], minRequests: 1000, stepDeadline: 3h}",
    "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{name: few, errorRate: {max: 1%, minRequests: 10}}, {prometheus: "
    "{query: 'sum(x{r=\"{{revision}}\"})', max: 0.5, min: -1, interval: 1m, minSamples: 3, failureLimit: 1}}, {prometheus: "
    "{address: 'https://p.example.com:9090/prom', query: up, min: 1}}, {name: gate, webhook: {url: 'http://gate:8080/x?y=z'}}]}",
    "rollout: {strategy: Canary, steps: [{weight: 5}], checks: [{job: {timeout: 1h, failureLimit: 2, template: {metadata: "
    "{labels: {team: shop}}, spec: {nodeSelector: {disk: ssd}, serviceAccountName: tester, automountServiceAccountToken: true, "
    "volumes: [{name: rows, configMap: {name: rows}}], containers: [{name: check, image: 'tests:1', command: [sh], args: [-c, "
    "'true'], env: [{name: A, value: b}], resources: {limits: {cpu: 1}}, volumeMounts: [{name: rows, mountPath: /rows}]}]}}}}]}",
    "routing: {hosts: [churn.example.com, '*.churn.example.com'], timeout: 1.5s}",
    "routing: {hosts: [churn.example.com], gateway: {name: web}}",
    "routing: {hosts: [churn.example.com], gateway: {name: web, namespace: edge, sectionName: https}, ingress: {}}",
    "routing: {hosts: [churn.example.com], ingress: {className: nginx, tlsSecretName: churn-tls, "
    "annotations: {cert-manager.io/cluster-issuer: ca}}}",
    "revisionHistoryLimit: 0",
    # scaling
    "{model: {uri: 'configmap://a/b', format: ONNX}, scaling: {min: 0, idleAfter: 10m}}",
    "{model: {uri: 'configmap://a/b', format: ONNX}, scaling: {min: 2, max: 20, objective: {latency: 100ms, percentile: 99, "
    "concurrency: 8, requestsPerSecond: 100}, increasePerMinute: 5, decreasePerMinute: 1, schedule: [{start: '0 8 * * 1-5', "
    "duration: 10h, min: 4, timeZone: Europe/Berlin}]}}",
    # every strategy
    "{model: {uri: 'configmap://a/b', format: ONNX}, rollout: {strategy: Canary, promotion: Manual, onFailure: Pause, "
    "stableCapacity: Proportional, testers: {header: {name: x-tester, value: ops-1}}, steps: [{weight: 0, mirror: 20, hold: 1m}, "
    "{weight: 0, replicas: 2, pause: {}}, {weight: 10, pause: {duration: 1h}}]}}",
    "{model: {uri: 'configmap://a/b', format: ONNX}, rollout: {strategy: BlueGreen, blueGreen: {hold: 5m, mirror: 10, "
    "scaleDownDelay: 10m}, checks: [{errorRate: {max: 1%}}], testers: {cookie: {name: try, value: 'on'}}}}",
    "{model: {uri: 'configmap://a/b', format: ONNX}, rollout: {strategy: ABTest, abTest: {cookie: {}, measure: Latency, "
    "percentile: 99, confidence: 99.5%, hold: 1h, duration: 24h}, checks: [{agreement: {min: 100%, labels: true}}]}}",
    "{model: {uri: 'configmap://a/b', format: ONNX}, rollout: {strategy: ABTest, abTest: {header: x-user-id, measure: Metric, "
    "metric: {query: 'avg(basket{revision=\"{{revision}}\"})', address: 'http://prometheus:9090', interval: 5m, "
    "higherIsBetter: false}}}}",
    "{model: {uri: 'configmap://a/b', format: ONNX}, rollout: {strategy: BlueGreen, blueGreen: {synthetic: {configMap: s}}}}",
    "{model: {uri: 'configmap://a/b', format: ONNX}, rollout: {strategy: Shadow, shadow: {mirror: 5, hold: 1h}}}",
    # what the design shows first, of what is built
    f"{{model: {{uri: 'https://models.example.com/churn/3/model.onnx', format: ONNX, version: '3', sha256: {DIGEST}}}, "
    "server: {image: 'ghcr.io/acme/custom:1', resources: {requests: {cpu: 500m, memory: 512Mi}}}, scaling: {min: 1}, "
    "rollout: {strategy: Immediate}, routing: {hosts: [churn.example.com], timeout: 30s}}",
]

DEFAULTED = {
    "model": {"uri": "configmap://digits/model.onnx", "format": "ONNX", "version": "", "trust": "Safe"},
    "server": {"protocol": "V2", "port": 8080},
    "scaling": {"min": 1},
    "rollout": {
        "strategy": "Immediate",
        "minRequests": 100,
        "onFailure": "Rollback",
        "promotion": "Automatic",
        "stableCapacity": "Full",
        "progressDeadline": "10m",
        "stepDeadline": "1h",
    },
    "routing": {"timeout": "30s"},
    "revisionHistoryLimit": 10,
}


def examples() -> list[Any]:
    """Answer every ModelDeployment below examples/."""
    return [
        pytest.param(document, id=f"{path.relative_to(ROOT)}:{number}")
        for path in sorted((ROOT / "examples").rglob("*.yaml"))
        for number, document in enumerate(yaml.safe_load_all(path.read_text()))
        if document and document.get("kind") == "ModelDeployment"
    ]


def assert_read_alike(written: dict[str, Any], stored: dict[str, Any]) -> None:
    """Assert that the server's defaults change neither what the operator reads nor the revision's name."""
    before, after = Spec.model_validate(written), Spec.model_validate(stored)
    assert before == after
    assert target("churn", before) == target("churn", after)
    assert after.model_dump(by_alias=True, mode="json", exclude_none=True).items() >= stored.items()


@pytest.mark.parametrize("text", RIGHT, ids=[text[:100] for text in RIGHT])
def test_accepted(cluster: Client, namespace: str, text: str) -> None:
    written = spec_of(text)
    cluster.warnings.clear()
    made = cluster.create(models(namespace), model("right", written))
    cluster.delete(models(namespace, "right"))
    assert cluster.warnings == []
    assert_read_alike(written, made["spec"])


@pytest.mark.parametrize("document", examples())
def test_an_example_is_accepted(cluster: Client, namespace: str, document: dict[str, Any]) -> None:
    body = model(document["metadata"]["name"], document["spec"])
    made = cluster.request("POST", f"{models(namespace)}?fieldValidation=Strict&dryRun=All", body)
    assert_read_alike(document["spec"], made["spec"])


def test_defaults_are_filled_by_the_server(cluster: Client, namespace: str) -> None:
    made = cluster.create(models(namespace), model("defaults", spec_of(RIGHT[0])))
    assert made["spec"] == DEFAULTED
    assert made["metadata"]["generation"] == 1


def test_the_longest_name_is_accepted(cluster: Client, namespace: str) -> None:
    cluster.create(models(namespace), model("m" * 52, spec_of(RIGHT[0])))


_NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_QUANTITIES = st.one_of(st.integers(0, 64), st.builds("{}{}".format, st.integers(0, 999), st.sampled_from(["m", "", "Ki", "Gi"])))
_DURATIONS = st.builds("{}{}".format, st.integers(1, 59), st.sampled_from(["s", "m", ".5s", "m30s"]))
_WEIGHTS = st.lists(st.integers(0, 100), min_size=1, max_size=8, unique=True).map(sorted)
_STEPS = st.builds(lambda weights, hold: [{"weight": weight, "hold": hold} for weight in weights], _WEIGHTS, _DURATIONS)
_URIS = st.one_of(
    st.builds("configmap://{}/{}".format, _NAMES, st.from_regex(r"[-._a-zA-Z0-9]{1,40}", fullmatch=True)),
    st.builds("pvc://{}/{}".format, _NAMES, st.from_regex(r"[a-z0-9][a-z0-9/]{0,40}", fullmatch=True)),
    st.builds("file:///{}".format, st.from_regex(r"[a-z0-9][a-zA-Z0-9/_-]{0,40}", fullmatch=True)),
    st.builds(
        "{}://{}/{}".format, st.sampled_from(["http", "https"]), _NAMES, st.from_regex(r"[a-z0-9%?=/]{0,40}", fullmatch=True)
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a right spec: any mixture of what is built."""
    image = draw(st.none() | st.builds("{}/{}:1".format, _NAMES, _NAMES))
    formats = [format_.value for format_ in Format if format_ != Format.CUSTOM]
    custom = image is not None and draw(st.booleans())
    label = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", fullmatch=True)
    labels = st.dictionaries(_NAMES, label, max_size=3)
    requests = draw(st.dictionaries(st.sampled_from(["cpu", "memory"]), _QUANTITIES, max_size=2))
    uris = _URIS.filter(lambda uri: not uri.startswith("file:")) if custom else _URIS
    model_ = {"uri": uris, "format": st.just("Custom") if custom else st.sampled_from(formats)}
    server: dict[str, Any] = {"port": st.integers(1024, 65535), "resources": st.just({"requests": requests})}
    server["podTemplate"] = st.fixed_dictionaries({"metadata": st.fixed_dictionaries({"labels": labels})})
    if custom:
        server["protocol"] = st.sampled_from(["V2", "OpenAI", "HTTP"])
        server["readinessPath"] = st.from_regex(r"/[a-z/]{0,20}", fullmatch=True)
    digest = st.from_regex(r"[a-f0-9]{64}", fullmatch=True)
    parts = {
        "server": st.fixed_dictionaries({} if image is None else {"image": st.just(image)}, optional=server),
        "scaling": st.fixed_dictionaries({}, optional={"min": st.integers(0, 1000)}),
        "rollout": st.fixed_dictionaries({}, optional={"strategy": st.just("Immediate"), "progressDeadline": _DURATIONS})
        | st.fixed_dictionaries({"strategy": st.just("Canary"), "steps": _STEPS}, optional={"stepDeadline": _DURATIONS}),
        "routing": st.fixed_dictionaries(
            {}, optional={"hosts": st.lists(_NAMES, max_size=4, unique=True), "timeout": _DURATIONS}
        ),
        "revisionHistoryLimit": st.integers(0, 100),
    }
    needed = {"model": st.fixed_dictionaries(model_, optional={"version": label, "sha256": digest})}
    if image is not None:
        needed["server"] = parts.pop("server")
    return draw(st.fixed_dictionaries(needed, optional=parts))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(spec=specs())
def test_any_right_spec_is_accepted(cluster: Client, namespace: str, spec: dict[str, Any]) -> None:
    made = cluster.request("POST", f"{models(namespace)}?fieldValidation=Strict&dryRun=All", model("any", spec))
    assert_read_alike(spec, made["spec"])


CHECK = {"name": "p95", "candidate": "12ms", "stable": "10ms", "limit": "150ms", "sample": 412, "verdict": "Passed"}
FULL_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Progressing",
    "url": "http://shown.shop",
    "selector": "slipway.dev/revision=shown-aaaaaaaa",
    "replicas": 2,
    "stable": {
        "revision": "shown-aaaaaaaa",
        "version": "2",
        "digest": DIGEST,
        "weight": 75,
        "ready": 2,
        "replicas": 2,
        "requestsPerSecond": 41.5,
        "p95": "12ms",
        "errorRate": "0.5%",
        "measuredAt": "2025-11-23T03:00:00Z",
    },
    "candidate": {"revision": "shown-bbbbbbbb", "version": "3", "weight": 25, "ready": 1, "replicas": 1},
    "arms": [{"revision": "shown-ffffffff", "version": "4", "weight": 10, "ready": 1, "replicas": 1}],
    "draining": [{"revision": "shown-cccccccc", "since": "2025-11-23T03:00:00Z", "until": "2025-11-23T04:00:00Z"}],
    "rollout": {
        "revision": "shown-bbbbbbbb",
        "since": "2025-11-23T03:00:00Z",
        "step": 2,
        "steps": 3,
        "stepSince": "2025-11-23T03:00:00Z",
        "paused": True,
        "resumed": "2025-11-23T03:00:00Z",
        "forced": 1,
        "forcedBy": "ops-1",
        "chosen": "shown-bbbbbbbb",
        "pausedReason": "ErrorRateTooHigh",
        "pausedMessage": "errorRate 7%, limit 1%",
        "judgedSince": "2025-11-23T03:00:00Z",
        "released": 1,
        "weightSet": 40,
        "liveWeight": 25,
        "mirror": 10,
        "preview": "http://shown-preview.ns",
        "trial": {
            "stable": {"requests": 10, "errors": 1, "latencies": "3:9"},
            "arms": [
                {
                    "revision": "shown-bbbbbbbb",
                    "version": "3",
                    "weight": 25,
                    "requests": 20,
                    "errors": 2,
                    "latencies": "3:18",
                    "statement": "no winner yet",
                    "pValue": 0.4,
                    "difference": -0.25,
                    "verdict": "Better",
                },
                {
                    "revision": "shown-eeeeeeee",
                    "version": "4",
                    "weight": 5,
                    "requests": 9,
                    "errors": 9,
                    "latencies": "",
                    "statement": "",
                    "pValue": 1.0,
                    "reason": "NoReadyPod",
                    "message": "its last ready pod is gone",
                },
            ],
        },
        "checks": [CHECK],
        "measuredAt": "2025-11-23T03:00:00Z",
        "outcome": "Failed",
        "reason": "CrashLoop",
        "message": "it crashes",
    },
    "pinned": {
        "revision": "shown-aaaaaaaa",
        "insteadOf": "shown-dddddddd",
        "by": "ops-1",
        "at": "2025-11-23T03:00:00Z",
        "won": True,
    },
    "handled": "2025-11-23T03:00:00.000001Z",
    "request": {
        "verb": "Rollback",
        "at": "2025-11-23T03:00:00.000001Z",
        "by": "ops-1",
        "full": False,
        "revision": "shown-aaaaaaaa",
    },
    "history": [{"revision": "shown-aaaaaaaa", "version": "2", "outcome": "Served", "at": "2025-11-23T03:00:00Z"}],
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Rolling",
            "message": "version 3 is being tried",
            "observedGeneration": 1,
            "lastTransitionTime": "2025-11-23T03:00:00Z",
        }
    ],
}


@pytest.fixture(scope="module")
def shown(cluster: Client, namespace: str) -> str:
    """Answer the path of a ModelDeployment with a full status."""
    at = models(namespace, "shown")
    cluster.create(models(namespace), model("shown", spec_of("scaling: {min: 2}")) | {"status": {"phase": "Ready"}})
    assert "status" not in cluster.get(at)
    body = {key: value for key, value in model("shown", {}).items() if key != "spec"}
    cluster.apply(f"{at}/status", body | {"status": FULL_STATUS}, "slipway")
    return at


def test_status_holds_all_that_the_operator_writes(cluster: Client, shown: str) -> None:
    status = cluster.get(shown)["status"]
    assert status == FULL_STATUS
    read = Status.model_validate(status)
    assert Status.model_validate(read.model_dump(by_alias=True, mode="json", exclude_none=True)) == read


def test_status_is_apart_from_the_spec(cluster: Client, shown: str) -> None:
    before = cluster.get(shown)
    cluster.merge(f"{shown}/status", {"spec": {"scaling": {"min": 9}}, "status": {"phase": "Degraded"}})
    cluster.merge(shown, {"status": {"phase": "Pending"}})
    after = cluster.get(shown)
    assert after["spec"] == before["spec"]
    assert after["status"] == {**before["status"], "phase": "Degraded"}
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    cluster.merge(f"{shown}/status", {"status": {"phase": "Progressing"}})


def test_a_status_of_wrong_shape_is_refused(cluster: Client, shown: str) -> None:
    with pytest.raises(Refused) as refused:
        cluster.merge(f"{shown}/status", {"status": {"phase": "Happy"}})
    assert "status.phase" in refused.value.message


def test_the_scale_subresource(cluster: Client, namespace: str) -> None:
    at = models(namespace, "scaled")
    cluster.create(models(namespace), model("scaled", spec_of(RIGHT[0])))
    status = {"selector": "slipway.dev/revision=scaled-aaaaaaaa", "replicas": 1}
    cluster.merge(f"{at}/status", {"status": status})

    kubectl = (tool("kubectl"), "--kubeconfig", cluster.kubeconfig, "-n", namespace)
    assert "scaled" in must(*kubectl, "scale", "md/scaled", "--replicas=3")
    scale = cluster.get(f"{at}/scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == ("Scale", {"replicas": 3}, status)
    assert cluster.get(at)["spec"]["scaling"] == {"min": 3}

    scale["spec"]["replicas"] = 5
    cluster.request("PUT", f"{at}/scale", scale)
    assert cluster.get(at)["spec"]["scaling"] == {"min": 5}

    scale = cluster.get(f"{at}/scale")
    scale["spec"]["replicas"] = 0
    cluster.request("PUT", f"{at}/scale", scale)
    assert cluster.get(at)["spec"]["scaling"] == {"min": 0}


def test_kubectl_get_shows_the_columns(cluster: Client, shown: str) -> None:
    table = cluster.get(shown, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    columns = {column["name"]: column for column in table["columnDefinitions"]}
    row = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    assert isinstance(row.pop("Age"), str)
    assert row == {
        "Name": "shown",
        "Version": "2",
        "Ready": "False",
        "Phase": "Progressing",
        "Replicas": 2,
        "Candidate": "3",
        "Weight": 25,
        "P95": "12ms",
        "URL": "http://shown.shop",
        "Revision": "shown-aaaaaaaa",
        "Reason": "version 3 is being tried",
    }
    assert [name for name, column in columns.items() if column["priority"]] == ["URL", "Revision", "Reason"]


def test_short_name_and_categories(cluster: Client, shown: str, namespace: str) -> None:
    kubectl = (tool("kubectl"), "--kubeconfig", cluster.kubeconfig, "-n", namespace)
    for words in (("md",), ("slipway",), ("all",)):
        assert "modeldeployment.slipway.dev/shown" in must(*kubectl, "get", *words, "-o", "name").split()
    assert "configmap://NAME/KEY" in must(*kubectl, "explain", "md.spec.model.uri")


def test_the_crd_is_accepted_without_a_warning(cluster: Client) -> None:
    crd = yaml.safe_load((ROOT / "crds" / "slipway.dev_modeldeployments.yaml").read_text())
    at = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    cluster.warnings.clear()
    cluster.apply(at, crd)
    assert cluster.warnings == []
    conditions = {each["type"]: each["status"] for each in cluster.get(at)["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_the_chart_carries_the_same_crd() -> None:
    assert (ROOT / "charts/slipway/files/crd.yaml").read_text() == (ROOT / "crds/slipway.dev_modeldeployments.yaml").read_text()


def test_kubectl_apply_again_changes_nothing(cluster: Client, namespace: str) -> None:
    kubectl = (tool("kubectl"), "--kubeconfig", cluster.kubeconfig, "-n", namespace)
    text = json.dumps(model("again", spec_of(RIGHT[-1])))
    assert "created" in must(*kubectl, "apply", "-f", "-", stdin=text)
    assert "unchanged" in must(*kubectl, "apply", "-f", "-", stdin=text)
    assert cluster.get(models(namespace, "again"))["metadata"]["generation"] == 1
