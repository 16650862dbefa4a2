"""The OpenAPI document of the server's routes for the loaded model, and the page that shows it.

Request schemas are made of the types that decode requests. The examples are requests that work.
"""

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import msgspec

from slipway_server.protocol import CodecLimits, v1, v2
from slipway_server.tensors import Array, Signature, TensorSpec, to_json

_MAX_EXAMPLE_ELEMENTS = 262_144  # larger inputs get no example: the document would be megabytes
_MAX_SHOWN = 2000  # characters of an example on the page


class Error(msgspec.Struct):
    """Every answer that is not a success."""

    error: str


class Live(msgspec.Struct):
    """The process answers."""

    live: bool


class Ready(msgspec.Struct):
    """The model is loaded, warmed up and able to answer."""

    ready: bool


class ModelStatus(msgspec.Struct):
    """Readiness in the V1 protocol."""

    name: str
    ready: bool


class ServerStatus(msgspec.Struct):
    """Liveness in the V1 protocol."""

    status: Literal["alive"]


class ModelList(msgspec.Struct):
    """The models of this server in the V1 protocol."""

    models: list[str]


class ServerMetadata(msgspec.Struct):
    """The server and what it adds to the base protocol."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """A tensor of the model; -1 for a dimension that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """The model and its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelState(msgspec.Struct):
    """A model of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class OutputTensor(msgspec.Struct):
    """A tensor of an answer; `data` is flat, in row-major order, null for what is not a finite number."""

    name: str
    datatype: str
    shape: list[int]
    data: list[bool | int | float | str | None]
    parameters: dict[str, str | int] | None = None


class InferenceResponse(msgspec.Struct):
    """The answer to an inference request."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class PredictResponse(msgspec.Struct):
    """The answer to a V1 request: an element for each instance."""

    predictions: Any


class ExplainResponse(msgspec.Struct):
    """The explanations of a V1 request."""

    explanations: Any


# What can come instead of the answer: what it means and what to do.
ERRORS: Mapping[int, str] = {
    400: "The request is wrong: the message names the input, what was expected and what came.",
    404: "No such model, version or path.",
    405: "No such method here: see the header Allow.",
    408: "The request did not arrive in time.",
    413: "The body, or what it inflates to, is larger than the limit: send fewer rows at once.",
    415: "The content encoding is not served.",
    429: "Too many requests at once: try again after the seconds in Retry-After.",
    431: "The headers are larger than the limit.",
    500: "The model failed.",
    503: "The model is loading or the server is stopping: try again after the seconds in Retry-After.",
    504: "The model took longer than the limit.",
}
_READ_ERRORS = (400, 405, 408, 431)
_INFER_ERRORS = (400, 405, 408, 413, 415, 429, 431, 500, 503, 504)


def document(
    signature: Signature,
    server_version: str,
    limits: CodecLimits = CodecLimits(),  # noqa: B008 (frozen)
    explains: bool = False,
    answers: Sequence[Array] | None = None,
) -> bytes:
    """The OpenAPI 3.1 document, JSON.

    `answers` are the model's outputs (`default_outputs`) for inputs of ones, for the examples; without them the examples
    of answers hold zeros.
    """
    ranks = [len(spec.dims) if spec.dims is not None else 2 for spec in signature.inputs]
    shown = CodecLimits(min(limits.depth, max(1, *ranks)))
    infer_type, _ = v2.request_type(signature, shown)
    predict_type = v1.request_type(signature, shown)
    kinds: dict[str, Any] = {"infer": infer_type, "predict": predict_type, "index": v2.IndexRequest}
    answer_kinds = (
        Error,
        Live,
        Ready,
        ServerStatus,
        ModelList,
        ModelStatus,
        ServerMetadata,
        ModelMetadata,
        InferenceResponse,
        PredictResponse,
    )
    all_kinds = [*kinds.values(), *answer_kinds, ExplainResponse, list[ModelState]]
    found, components = msgspec.json.schema_components(all_kinds, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(map(str, all_kinds), found, strict=True))
    requests = {name: schemas[str(kind)] for name, kind in kinds.items()}

    def read(summary: str, kind: Any, example: Any, *errors: int) -> dict[str, Any]:
        return _operation(summary, schemas[str(kind)], example, (*errors, *_READ_ERRORS))

    def ask(summary: str, request: str, sent: Any, kind: Any, example: Any) -> dict[str, Any]:
        operation = _operation(summary, schemas[str(kind)], example, _INFER_ERRORS)
        operation["requestBody"] = {"required": True, "content": _content(requests[request], sent)}
        return operation

    infer, answer, predict, predicted = _examples(signature, answers)
    explanation = {"explanations": predicted["predictions"]} if predicted else None
    metadata = json.loads(v2.V2Codec(signature).metadata)
    state = {"name": signature.name, "version": signature.version, "state": "READY", "reason": ""}
    model = f"/v2/models/{signature.name}"
    paths: dict[str, Any] = {
        "/": {"get": read("Whether the process answers (V1)", ServerStatus, {"status": "alive"})},
        "/v2": {"get": read("The server", ServerMetadata, json.loads(v2.server_metadata(server_version)))},
        "/v2/health/live": {"get": read("Whether the process answers", Live, {"live": True})},
        "/v2/health/ready": {"get": read("Whether the model can answer", Ready, {"ready": True}, 503)},
        "/v2/repository/index": {
            "get": read("The models of this server", list[ModelState], [state]),
            "post": ask("The models of this server, all or ready ones", "index", {"ready": True}, list[ModelState], [state]),
        },
    }
    for base in (model, f"{model}/versions/{signature.version}"):
        paths[base] = {"get": read("The model and its tensors", ModelMetadata, metadata, 503)}
        paths[f"{base}/ready"] = {"get": read("Whether the model can answer", Ready, {"ready": True}, 503)}
        paths[f"{base}/infer"] = {"post": ask("Run the model", "infer", infer, InferenceResponse, answer)}
        if explains:
            paths[f"{base}/explain"] = {"post": ask("Explain the model's answer", "infer", infer, InferenceResponse, None)}
    paths["/v1/models"] = {"get": read("The models of this server (V1)", ModelList, {"models": [signature.name]})}
    v1_model = f"/v1/models/{signature.name}"
    paths[v1_model] = {
        "get": read("Whether the model can answer (V1)", ModelStatus, {"name": signature.name, "ready": True}, 503)
    }
    paths[f"{v1_model}:predict"] = {"post": ask("Run the model (V1)", "predict", predict, PredictResponse, predicted)}
    if explains:
        explain = ask("Explain the model's answer (V1)", "predict", predict, ExplainResponse, explanation)
        paths[f"{v1_model}:explain"] = {"post": explain}
    paths["/metrics"] = {"get": _operation("Prometheus metrics", None, None, _READ_ERRORS)}
    info = {
        "title": f"Model {signature.name}",
        "version": signature.version,
        "description": "The Open Inference Protocol V2 and KServe's V1. Tensors may also be sent and asked for as bytes "
        "(the binary tensor extension), bodies with gzip or deflate; the same port serves gRPC.",
    }
    whole = {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": components}}
    return msgspec.json.encode(whole)


def _content(schema: Any, example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema} if example is None else {"schema": schema, "example": example}}


def _operation(summary: str, schema: Any, example: Any, errors: Sequence[int]) -> dict[str, Any]:
    content = _content(schema, example) if schema is not None else {"text/plain": {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {"200": {"description": "Success", "content": content}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status in sorted(errors):
        responses[str(status)] = {"description": ERRORS[status], "content": error}
        if status in (429, 503):
            responses[str(status)]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    if schema is not None and "Ready" in str(schema) and 503 in errors:  # not ready is an answer of the same form
        responses["503"]["content"] = {"application/json": {"schema": schema}}
    return {"summary": summary, "responses": responses}


def _examples(signature: Signature, answers: Sequence[Array] | None) -> tuple[Any, Any, Any, Any]:
    """A V2 request and its answer, a V1 request and its answer; all None for inputs too large to show."""
    sizes = [prod(abs(size) for size in spec.shape) for spec in signature.inputs]
    if sum(sizes) > _MAX_EXAMPLE_ELEMENTS:
        return None, None, None, None
    arrays = {spec.name: spec.filled(1) for spec in signature.inputs}
    infer = {"inputs": [_tensor(spec, arrays[spec.name]) for spec in signature.inputs]}
    specs = {spec.name: spec for spec in signature.outputs}
    names = signature.default_outputs or tuple(specs)
    results = dict(zip(names, answers or [specs[name].filled(0) for name in names], strict=True))
    answer = {
        "model_name": signature.name,
        "model_version": signature.version,
        "outputs": [_tensor(specs[name], array) for name, array in results.items()],
    }
    nested = {name: json.loads(to_json(array)) for name, array in arrays.items()}
    columns: Any = nested if len(nested) > 1 else next(iter(nested.values()), [])
    codec = v1.V1Codec(signature)
    inference = codec.decode(msgspec.json.encode({"inputs": columns}))
    return infer, answer, {"inputs": columns}, json.loads(codec.encode(inference, list(results.values())))


def _tensor(spec: TensorSpec, array: Array) -> dict[str, Any]:
    data = json.loads(to_json(array.reshape(-1)))
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": list(array.shape), "data": data}


# --- the page ---------------------------------------------------------------------------------------------------------

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f4f6f8;padding:.7rem;overflow-x:auto;border-radius:4px}summary{cursor:pointer;padding:.3rem 0}
summary b{display:inline-block;min-width:3.2rem}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}
details{border-bottom:1px solid #dde2e7}
@media(prefers-color-scheme:dark){body{color:#dde2e7;background:#15181c}pre{background:#20252b}details{border-color:#333a42}}
"""


def page(document: bytes) -> bytes:
    """The document as one HTML page that needs nothing else: operations with examples and a curl line, then the schemas."""
    content = json.loads(document)
    info = content["info"]
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(info["title"])}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{html.escape(info['title'])}, version {html.escape(info['version'])}</h1>",
        f"<p>{html.escape(info['description'])}</p>",
        '<p>As a document: <a href="/openapi.json">openapi.json</a>. In the lines below, SERVER is the address of this page.</p>',
        "<h2>Operations</h2>",
    ]
    for path, methods in content["paths"].items():
        parts += [_operation_html(method.upper(), path, operation) for method, operation in methods.items()]
    parts.append("<h2>Schemas</h2>")
    for name, schema in content["components"]["schemas"].items():
        parts.append(f"<details><summary><code>{html.escape(name)}</code></summary>{_code(_pretty(schema))}</details>")
    parts.append("</body></html>")
    return "\n".join(parts).encode()


def _operation_html(method: str, path: str, operation: Mapping[str, Any]) -> str:
    title = f"<summary><b>{method}</b> <code>{html.escape(path)}</code> {html.escape(operation['summary'])}</summary>"
    curl = f"curl -s $SERVER{shlex.quote(path)}"
    if body := operation.get("requestBody"):
        media = body["content"]["application/json"]
        sent = json.dumps(media.get("example", {}), separators=(",", ":"))
        curl = f"curl -s -X {method} $SERVER{shlex.quote(path)} -H 'content-type: application/json' -d {shlex.quote(sent)}"
        if len(curl) > _MAX_SHOWN or "example" not in media:
            curl = f"curl -s -X {method} $SERVER{shlex.quote(path)} -H 'content-type: application/json' -d @request.json"
    parts = [title, _code(curl)]
    answers = operation["responses"]["200"]["content"].values()
    parts += [_code(json.dumps(media["example"])) for media in answers if media.get("example") is not None]
    rows = "".join(
        f"<tr><td>{status}</td><td>{html.escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
        if status != "200"
    )
    return f"<details>{''.join(parts)}<table>{rows}</table></details>"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2)


def _code(text: str) -> str:
    cut = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ... (whole in openapi.json)"
    return f"<pre>{html.escape(cut)}</pre>"
