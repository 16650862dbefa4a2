"""The bundled server in the cluster, through the router: every format, every source that can be had here, every protocol."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e import models, trained
from tests.e2e.cluster import Cluster, Model, Namespace
from tests.e2e.stores import (
    ACCOUNT,
    AZURE,
    CLAIM,
    FILES,
    GCS,
    HUB,
    KEYS,
    NAME,
    OCI,
    S3,
    Stores,
    build_image,
    build_stores_image,
)
from tests.e2e.traffic import HERE, Asked, Caller
from tests.e2e.trained import Array, Trained
from tests.e2e.waiting import await_
from tests.integration.client import Refused
from tests.integration.stores import ACCESS
from tritonclient.utils import np_to_triton_dtype

REQUESTS = {"cpu": "20m", "memory": "128Mi"}
WRONG_KEY = "bm90LXRoZS1rZXktb2YtdGhlLXN0b3Jl"  # base64, as Azure wants it
Spec = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """What specs need to know of the place that they are for."""

    namespace: str
    own_image: str
    pipeline_digest: str


def _spec(uri: str, form: str, server: Spec | None = None, **model: Any) -> Spec:
    server = {"resources": {"requests": REQUESTS}} | (server or {})
    return {"model": {"uri": uri, "format": form, "version": "7", **model}, "server": server, "scaling": {"min": 1}}


# By name of the model: format and source of each, every one of both at least once.
SERVED: Mapping[str, Callable[[Place], Spec]] = {
    "onnx": lambda place: _spec(
        f"configmap://{models.CONFIG_MAP}/v1.onnx",
        "ONNX",
        {"workers": 2, "batching": {"maxDelay": "1ms"}},
        sha256=models.digest(1),
    ),
    "xgboost": lambda place: _spec(
        "s3://models/churn/3/model.ubj",
        "XGBoost",
        storage={"secretName": KEYS, "endpoint": f"http://{NAME}:{S3}", "region": "us-east-1"},
    ),
    "lightgbm": lambda place: _spec(f"http://{NAME}.{place.namespace}:{FILES}/churn.tar.gz", "LightGBM"),
    "pipeline": lambda place: _spec(
        f"oci://{NAME}:{OCI}/team/pipeline@{place.pipeline_digest}", "SKLearn", storage={"endpoint": f"http://{NAME}:{OCI}"}
    ),
    "pickled": lambda place: _spec(f"pvc://{CLAIM}/all/pickled.joblib", "SKLearn", trust="Unsafe"),
    "python": lambda place: _spec("file:///models/plain/", "Python", {"image": place.own_image}),
    "google": lambda place: _spec("gs://all/quick.onnx", "ONNX", storage={"endpoint": f"http://{NAME}:{GCS}"}),
    "azure": lambda place: _spec(
        "az://models/churn/3/model.txt",
        "LightGBM",
        storage={"secretName": ACCOUNT, "endpoint": f"http://{NAME}:{AZURE}/{ACCESS}"},
    ),
    "hugging": lambda place: _spec(
        "hf://team/churn/all/quick.onnx@main", "ONNX", storage={"secretName": HUB, "endpoint": f"http://{NAME}:{FILES}"}
    ),
}
# Its load takes until /tmp/go exists.
SLOW_TO_LOAD = """
import time
from pathlib import Path

class Model:
    inputs = outputs = [("x", "FP32", [-1])]

    def load(self, folder):
        while not Path("/tmp/go").exists():
            time.sleep(0.1)

    def predict(self, inputs):
        return inputs
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Answer the models of `SERVED`, by name."""
    return {
        "onnx": trained.onnx(),
        "xgboost": trained.xgboost_classifier(tmp_path_factory.mktemp("xgboost")),
        "lightgbm": trained.lightgbm_booster(),
        "pipeline": trained.pipeline(),
        "pickled": trained.pickled(),
        "python": trained.python(),
        "google": trained.onnx(),
        "azure": trained.lightgbm_booster(),
        "hugging": trained.onnx(),
    }


@pytest.fixture(scope="module")
def stores(
    cluster: Cluster, shared_namespace: Namespace, answers: dict[str, Trained], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stores]:
    """Answer the stores, which hold the models."""
    image = build_stores_image(tmp_path_factory.mktemp("stores-image"))
    cluster.load(image)
    files = {
        "churn.tar.gz": trained.packed(**{"model.txt": answers["lightgbm"].content, "README.md": b"how it was trained"}),
        "pickled.joblib": answers["pickled"].content,
        "crash.txt": trained.lightgbm_that_crashes(),
        "slow.onnx": answers["onnx"].content,
        "quick.onnx": answers["onnx"].content,
    }
    stores = Stores(shared_namespace, image, files)
    stores.start()
    yield stores
    stores.remove_volume()


@pytest.fixture(scope="module")
def place(cluster: Cluster, stores: Stores, answers: dict[str, Trained], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Answer what specs need to know, the stores filled."""
    folder = HERE / "images/own"
    own = build_image("own", folder, "--base", "server", "--requirements", folder / "requirements.txt")
    cluster.load(own)
    content = answers["xgboost"].content
    with stores.object_store() as store:
        store.put("churn/3/model.ubj", content)
        store.put("churn/4/model.ubj", trained.xgboost_that_crashes(content))
    with stores.blob_store() as store:
        store.put("churn/3/model.txt", answers["azure"].content)
    with stores.registry(tmp_path_factory.mktemp("registry")) as registry:
        file = registry.file("team/pipeline", "model.skops", answers["pipeline"].content)
        digest = registry.artifact("team/pipeline", "7", file)
    return Place(stores.namespace.name, own, digest)


@pytest.fixture(scope="module")
def slow(shared_namespace: Namespace, place: Place) -> Model:
    """Answer a model whose file takes its time."""
    model = shared_namespace.model("slow")
    model.apply(_spec(f"http://{NAME}:{FILES}/slow/slow.onnx", "ONNX"))
    return model


@pytest.fixture(scope="module")
def slow_to_load(shared_namespace: Namespace) -> Model:
    """Answer a model whose load takes its time."""
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "slow-to-load"}}
    shared_namespace.apply("configmaps", {**held, "data": {"model.py": SLOW_TO_LOAD}})
    model = shared_namespace.model("slow-to-load")
    model.apply(_spec("configmap://slow-to-load/model.py", "Python"))
    return model


@pytest.fixture(scope="module")
def served(shared_namespace: Namespace, place: Place, slow: Model, slow_to_load: Model) -> dict[str, Model]:
    """Answer the models of `SERVED`, ready, by name. Slow ones begin beside them: what they show takes seconds to show."""
    found = {name: shared_namespace.model(name) for name in SERVED}
    for name, model in found.items():
        model.apply(SERVED[name](place))
    for model in found.values():
        model.await_ready()
    return found


@pytest.fixture(scope="module")
def caller(shared_namespace: Namespace) -> Caller:
    """Answer a pod that asks."""
    return shared_namespace.caller()


def _host(model: Model) -> str:
    return f"{model.name}.{model.namespace.name}"


def _v2(model: Model) -> str:
    return f"http://{_host(model)}/v2/models/{model.name}/infer"


def _json_body(inputs: Mapping[str, Array]) -> bytes:
    tensors = [
        {"name": name, "shape": array.shape, "datatype": np_to_triton_dtype(array.dtype), "data": array.tolist()}
        for name, array in inputs.items()
    ]
    return json.dumps({"inputs": tensors}).encode()


def _instances(inputs: Mapping[str, Array]) -> list[Any]:
    """Answer the inputs row by row, as V1 wants them."""
    if len(inputs) == 1:
        return next(iter(inputs.values())).tolist()
    return [dict(zip(inputs, row, strict=True)) for row in zip(*(array.tolist() for array in inputs.values()), strict=True)]


def _assert_same(found: Any, expected: Array) -> None:
    found = np.asarray(found)
    if expected.dtype == object:
        assert [each.decode() if isinstance(each, bytes) else each for each in found.tolist()] == expected.tolist()
    else:
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", SERVED)
def test_a_model_of_each_format_and_source_answers_by_rest(
    name: str, served: dict[str, Model], answers: dict[str, Trained], caller: Caller
) -> None:
    """By JSON, by the bytes that Triton's client sends, and by V1."""
    model, right = served[name], answers[name]
    client = tritonclient.http.InferenceServerClient
    inputs = _client_inputs(tritonclient.http, right.inputs)
    packed, json_length = client.generate_request_body(inputs)
    instances = json.dumps({"instances": _instances(right.inputs)}).encode()
    by_json, binary, by_v1 = caller.ask_all(
        Asked(_v2(model), _json_body(right.inputs)),
        Asked(_v2(model), packed, {"Inference-Header-Content-Length": str(json_length)}),
        Asked(f"http://{_host(model)}/v1/models/{name}:predict", instances),
    )
    assert [each["status"] for each in (by_json, binary, by_v1)] == [200] * 3, (by_json, binary, by_v1)
    said = json.loads(by_json["body"])
    assert (said["model_name"], said["model_version"]) == (name, "7")
    assert by_json["headers"]["x-slipway-revision"] == model.revision
    assert [output["name"] for output in said["outputs"]] == list(right.outputs)
    result = client.parse_response_body(binary["body"], header_length=int(binary["headers"]["inference-header-content-length"]))
    for output in said["outputs"]:
        expected = right.outputs[output["name"]]
        _assert_same(np.array(output["data"]).reshape(output["shape"]), expected)
        _assert_same(result.as_numpy(output["name"]), expected)
    predictions = json.loads(by_v1["body"])["predictions"]
    for output, expected in right.outputs.items():
        _assert_same(predictions if len(right.outputs) == 1 else [row[output] for row in predictions], expected)


def _client_inputs(client: Any, inputs: Mapping[str, Array]) -> list[Any]:
    found: list[Any] = []
    for name, array in inputs.items():
        found.append(client.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        found[-1].set_data_from_numpy(array)
    return found


def test_all_of_them_answer_by_grpc(served: dict[str, Model], answers: dict[str, Trained], shared_namespace: Namespace) -> None:
    """By Triton's client, on the same port of the same router; the name that is called says which model."""
    with shared_namespace.forward("services/onnx", 80) as port:
        for name, model in served.items():
            authority = [("grpc.default_authority", f"{_host(model)}:80")]  # as a client in a pod says it
            with closing(tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}", channel_args=authority)) as client:
                assert client.is_model_ready(name)
                answer = client.infer(name, _client_inputs(tritonclient.grpc, answers[name].inputs), request_id="a")
                assert answer.get_response().model_version == "7"
                assert answer.get_response().id == "a"
                for output, expected in answers[name].outputs.items():
                    _assert_same(answer.as_numpy(output), expected)


def test_a_python_model_explains(served: dict[str, Model], answers: dict[str, Trained], caller: Caller) -> None:
    model, body = served["python"], _json_body(answers["python"].inputs)
    (answer,) = caller.ask_all(Asked(_v2(model).replace("/infer", "/explain"), body))
    (output,) = json.loads(answer["body"])["outputs"]
    assert (output["name"], output["data"]) == ("accents", [True, False])


def test_a_model_that_may_run_code_is_asked_for_and_says_so(served: dict[str, Model], place: Place) -> None:
    model = served["pickled"]
    assert model.condition("UnsafeModel")["status"] == "True"
    assert served["pipeline"].condition("UnsafeModel") == {}
    trusting = SERVED["pickled"](place)
    with pytest.raises(Refused, match="pickle and joblib run code of their author"):
        model.apply({**trusting, "model": {**trusting["model"], "trust": "Safe"}})


def test_workers_are_one_server(served: dict[str, Model], caller: Caller) -> None:
    """One that is ready when all are, and whose figures are those of all."""
    model = served["onnx"]
    (pod,) = model.pods()
    page = f"{model.namespace.path('pods', pod['metadata']['name'])}:8080/proxy/metrics"

    def figures() -> dict[str, Any]:
        text = model.namespace.cluster.kubectl("get", "--raw", page)
        samples = (each for family in text_string_to_metric_families(text) for each in family.samples)
        return {f"{each.name} {each.labels.get('protocol')} {each.labels.get('code')}": each for each in samples}

    before = figures()
    assert before["slipway_server_workers None None"].value == 2
    info = before["slipway_server_model_info None None"].labels
    assert (info["version"], info["sha256"]) == ("7", models.digest(1))
    answers = caller.ask_all(*[Asked(_v2(model), models.BODY.encode())] * 20)
    assert [answer["status"] for answer in answers] == [200] * 20
    counted = "slipway_server_requests_total rest 2xx"
    assert figures()[counted].value - before[counted].value == 20


def test_limits_of_the_resource_reach_the_server(served: dict[str, Model], shared_namespace: Namespace, caller: Caller) -> None:
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held"}}
    shared_namespace.apply("configmaps", {**held, "data": {"model.py": (HERE / "held.py").read_text()}})
    limits = {"bodySize": "1Ki", "concurrency": 1, "tensorElements": 8, "requestTimeout": "50s"}
    model = shared_namespace.serve("limited", _spec("configmap://held/model.py", "Python", {"limits": limits}))

    def asked(*values: float) -> Asked:
        return Asked(_v2(model), _json_body({"x": np.array(values, np.float32)}))

    right, many, large = caller.ask_all(asked(1), asked(*range(9)), Asked(_v2(model), asked(1).body + b" " * 1024))
    assert [each["status"] for each in (right, many, large)] == [200, 413, 413]
    assert "the limit is 8" in many["body"].decode()
    assert "1024" in large["body"].decode()
    # One caller holds the only place; another one is told to come again.
    (pod,) = model.pods()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(caller.ask_all, asked(-1))
        refused = await_(lambda: _if_status(caller.ask_all(asked(1))[0], 429), "another caller is refused")
        assert refused["headers"]["retry-after"] == "1"
        shared_namespace.kubectl("exec", pod["metadata"]["name"], "-c", "server", "--", "touch", "/tmp/go")  # noqa: S108
        assert waiting.result()[0]["status"] == 200
    assert caller.ask_all(asked(1))[0]["status"] == 200


def _if_status(answer: dict[str, Any], status: int) -> dict[str, Any]:
    return answer if answer["status"] == status else {}


def test_a_fetch_that_takes_its_time_is_told(served: dict[str, Model], slow: Model, stores: Stores) -> None:
    def fetching() -> bool:
        return slow.condition("Progressing").get("reason") == "FetchingModel"

    await_(fetching, "the condition tells that the model is being fetched")
    assert "kubectl logs" in slow.condition("Progressing")["message"]
    assert slow.await_event("FetchingModel")["type"] == "Normal"
    stores.release()
    slow.await_ready()


def test_a_load_that_takes_its_time_is_told(
    served: dict[str, Model], slow_to_load: Model, shared_namespace: Namespace, caller: Caller
) -> None:
    model = slow_to_load

    def loading() -> bool:
        return model.condition("Progressing").get("reason") == "LoadingModel"

    await_(loading, "the condition tells that the model is being loaded")
    assert re.search("loading its model .*sha256 [0-9a-f]{64}", model.condition("Progressing")["message"])
    assert model.await_event("LoadingModel")["type"] == "Normal"
    (pod,) = model.pods()
    shared_namespace.kubectl("exec", pod["metadata"]["name"], "-c", "server", "--", "touch", "/tmp/go")  # noqa: S108
    model.await_ready()
    (answer,) = caller.ask_all(Asked(_v2(model), _json_body({"x": np.array([1.5], np.float32)})))
    assert json.loads(answer["body"])["outputs"][0]["data"] == [1.5]


@pytest.mark.parametrize(
    ("name", "uri", "reason"),
    [
        ("lightgbm", f"pvc://{CLAIM}/all/crash.txt", "ModelLoadCrashed"),
        ("xgboost", "s3://models/churn/4/model.ubj", "ModelLoadCrashed"),
    ],
)
def test_a_model_that_crashes_its_library_is_refused_and_stable_serves(
    name: str, uri: str, reason: str, served: dict[str, Model], answers: dict[str, Trained], place: Place, caller: Caller
) -> None:
    model, stable = served[name], served[name].revision
    spec = SERVED[name](place)
    try:
        model.apply({**spec, "model": {**spec["model"], "uri": uri}})
        assert "SIGSEGV" in model.await_reason(reason)["message"]
        assert model.condition("Available")["status"] == "True"
        (answer,) = caller.ask_all(Asked(_v2(model), _json_body(answers[name].inputs)))
        assert (answer["status"], answer["headers"]["x-slipway-revision"]) == (200, stable)
    finally:
        model.apply(spec)
        model.await_ready()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("xgboost", {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": WRONG_KEY}),
        ("azure", {"AZURE_STORAGE_ACCOUNT_NAME": ACCESS, "AZURE_STORAGE_ACCOUNT_KEY": WRONG_KEY}),
    ],
)
def test_credentials_show_nowhere_but_where_they_are(
    name: str, keys: dict[str, str], shared_namespace: Namespace, stores: Stores, place: Place
) -> None:
    stores.put_secret(f"wrong-{name}", keys)
    spec = SERVED[name](place)
    spec["model"]["storage"]["secretName"] = f"wrong-{name}"
    model = shared_namespace.model(f"locked-{name}")
    model.apply(spec)
    assert "the store refused the credentials: check them" in model.await_reason("ModelUnreadable")["message"]
    (pod,) = model.pods()
    log = shared_namespace.cluster.try_kubectl("-n", shared_namespace.name, "logs", pod["metadata"]["name"], "-c", "fetch")
    assert "ModelUnreadable" in log
    events = json.dumps(shared_namespace.all("events"))
    for told in (json.dumps(model.object), json.dumps(pod), log, events):
        assert WRONG_KEY not in told
    model.delete()


def test_addresses_that_the_cluster_does_not_allow_are_refused(shared_namespace: Namespace, served: dict[str, Model]) -> None:
    model = shared_namespace.model("inside")
    model.apply(_spec("http://169.254.169.254/latest/meta-data/model.onnx", "ONNX"))
    assert re.search("169.254.169.254.* private or reserved", model.await_reason("AddressRefused")["message"])
    model.delete()
