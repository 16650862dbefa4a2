"""The OpenAPI document: every example in it is sent to a real server, and what comes fits what it promises."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pandas
import pytest
import schemathesis
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.unit.server.support import Server, TensorProto, classifier, helper, model, serving

from slipway_server.protocol import openapi
from slipway_server.tensors import DATATYPES, Signature, TensorSpec

ANSWERS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        openapi.Live, openapi.Ready, openapi.ServerStatus, openapi.ModelList, openapi.ModelStatus, openapi.ServerMetadata,
        openapi.ModelMetadata, openapi.InferenceResponse, openapi.PredictResponse, openapi.Error,
    )
}  # fmt: skip


def two_inputs() -> bytes:
    return model(
        [helper.make_node("Identity", ["a b"], ["y"]), helper.make_node("Identity", ["text"], ["t"])],
        {"a b": (TensorProto.INT64, ["N", 2]), "text": (TensorProto.STRING, ["N"])},
        {"y": (TensorProto.INT64, ["N", 2]), "t": (TensorProto.STRING, ["N"])},
    )


@pytest.fixture(scope="module", params=[classifier, two_inputs])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("openapi"), request.param()) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    answer = server.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json


def pipeline(folder: Path) -> Path:
    """A file of a classifier of a column of text and one of numbers: it accepts the texts only that it was fitted on."""
    table = pandas.DataFrame({"city": ["Bonn", "Oslo"] * 4, "age": range(8)})
    columns = ColumnTransformer([("city", OneHotEncoder(), ["city"]), ("age", StandardScaler(), ["age"])])
    skops.io.dump(make_pipeline(columns, LogisticRegression()).fit(table, [0, 1] * 4), folder / "model.skops")
    return folder / "model.skops"


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, entry) for path, methods in document["paths"].items() for method, entry in methods.items()]


def without_values(answer: Any) -> Any:
    """The answer without what the model computed: an example may hold zeros there."""
    if isinstance(answer, dict) and "predictions" in answer:
        return len(answer["predictions"])
    if isinstance(answer, dict) and "outputs" in answer and "model_name" in answer:
        return [{**output, "data": len(output["data"])} for output in answer["outputs"]]
    return answer


def test_every_example_works_and_every_answer_fits(server: Server, document: dict[str, Any]) -> None:
    assert len(operations(document)) >= 13
    for path, method, operation in operations(document):
        sent = operation.get("requestBody", {"content": {"application/json": {}}})["content"]["application/json"].get("example")
        answer = server.ask(method.upper(), path, None if sent is None else json.dumps(sent).encode())
        assert answer.status == 200, (path, answer)
        content = operation["responses"]["200"]["content"].get("application/json")
        if content is None:
            continue
        assert without_values(answer.json) == without_values(content["example"]), path
        kind = content["schema"].get("$ref", "").rpartition("/")[2]
        msgspec.convert(answer.json, ANSWERS[kind] if kind else list[openapi.ModelState])


def test_examples_of_text_are_texts_that_the_model_knows(tmp_path: Path) -> None:
    content = pipeline(tmp_path).read_bytes()
    with serving(tmp_path, content, "--format", "SKLearn", name="model.skops") as server:
        (ask,) = server.get("/openapi.json").json["paths"]["/v2/models/m/infer"].values()
        sent = ask["requestBody"]["content"]["application/json"]["example"]
        assert sent["inputs"][0]["data"] == ["Bonn"]
        answer = server.infer(sent)
        assert (answer.status, answer.json) == (200, ask["responses"]["200"]["content"]["application/json"]["example"])


PATHS = ("/v2/models/m/infer", "/v1/models/m:predict", "/v2/repository/index")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@given(data=st.data())
@settings(max_examples=15, suppress_health_check=list(HealthCheck), database=None)
def test_requests_made_of_the_document(
    server: Server, document: dict[str, Any], path: str, mode: schemathesis.GenerationMode, data: st.DataObject
) -> None:
    """Requests that follow the document, and requests that break it: what comes is documented, and never the server's fault."""
    case = data.draw(schemathesis.openapi.from_dict(document)[path]["post"].as_strategy(generation_mode=mode))
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body, default=str).encode()
    answer = server.ask("POST", path, body, {"Content-Type": "application/json"})
    responses = document["paths"][path]["post"]["responses"]
    assert str(answer.status) in responses, answer
    assert answer.status < 500, answer
    kind = (responses[str(answer.status)]["content"]["application/json"]["schema"]).get("$ref", "").rpartition("/")[2]
    msgspec.convert(answer.json, ANSWERS[kind] if kind else list[openapi.ModelState])


def test_every_reference_is_there_and_every_error_is_documented(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in schemas
    (infer,) = [operation for path, _, operation in operations(document) if path == "/v2/models/m/infer"]
    assert {*map(int, infer["responses"])} >= {200, 400, 405, 408, 413, 415, 429, 431, 500, 503, 504}
    assert "Retry-After" in infer["responses"]["429"]["headers"]


def test_the_page_needs_nothing_else(server: Server, document: dict[str, Any]) -> None:
    answer = server.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.body.decode()
    assert len(page) < 60_000
    assert not re.search(r"<script|<link|src=|https?://|url\(|@import", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {"/openapi.json"}
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page


def test_names_are_escaped_and_large_inputs_have_no_example() -> None:
    spec = TensorSpec("<b>'x'</b>", DATATYPES["FP32"], (None, 3, 512, 512))
    made = openapi.document(Signature("m", "1", "p", (spec,), (spec,)), "0.1.0")
    content = json.loads(made)["paths"]["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert "example" not in content
    page = openapi.page(made).decode()
    assert "<b>'x'" not in page
    assert "-d @request.json" in page


def test_explain_is_there_where_the_model_explains() -> None:
    spec = TensorSpec("x", DATATYPES["BF16"], None)
    signature = Signature("m", "1", "p", (spec,), (spec,))
    for explains in (False, True):
        paths = json.loads(openapi.document(signature, "0.1.0", explains=explains))["paths"]
        for path in ("/v2/models/m/explain", "/v2/models/m/versions/1/explain", "/v1/models/m:explain"):
            assert (path in paths) is explains
