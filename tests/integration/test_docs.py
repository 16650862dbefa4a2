"""The documentation's YAML: the real API server takes it, and the operator reads the same from it. Its commands and code work."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration import gateway_api
from tests.integration.client import MODEL, Client, models
from tests.integration.commands import ROOT
from tests.integration.test_api_accepted import assert_read_alike
from tests.unit.server.support import serving

from slipway.api.spec import Spec
from slipway.api.status import RolloutStatus
from slipway_server.tree import digest_of

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SERVING = (ROOT / "docs" / "serving.md").read_text()
KINDS = {
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "Gateway": "gateways",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
}
FIELDS, ROLLOUT_FIELDS = ({field.alias or name for name, field in kind.model_fields.items()} for kind in (Spec, RolloutStatus))


def blocks(text: str, language: str) -> list[str]:
    """Answer the fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def documents() -> list[Any]:
    """Answer every YAML document of every page, those that a shell is given by <<EOF too."""
    found: list[Any] = []
    for page in PAGES:
        text = page.read_text()
        given = re.findall(r"<<EOF\n(.*?)^EOF$", text, re.MULTILINE | re.DOTALL)
        written = [document for block in (*blocks(text, "yaml"), *given) for document in yaml.safe_load_all(block)]
        found += [pytest.param(document, id=f"{page.name}:{number}") for number, document in enumerate(written)]
    return found


@pytest.mark.parametrize("document", documents())
def test_yaml_is_accepted(cluster: Client, namespace: str, document: dict[str, Any]) -> None:
    """Part of a spec counts as in a resource that has no more than it needs; part of `status.rollout` as the operator's type."""
    if document.keys() <= ROLLOUT_FIELDS:
        RolloutStatus.model_validate({"since": "2026-01-01T00:00:00Z", **document})
        return
    if "kind" not in document:
        assert document.keys() <= FIELDS, "neither an object nor part of a ModelDeployment's spec"
        spec = yaml.safe_load(MODEL) | document if "model" not in document else document
        document = {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "part"}, "spec": spec}
    is_model = document["kind"] == "ModelDeployment"
    if document["kind"] == "Gateway":
        gateway_api.install(cluster)
    group = "/api/v1" if document["apiVersion"] == "v1" else f"/apis/{document['apiVersion']}"
    path = models(namespace) if is_model else f"{group}/namespaces/{namespace}/{KINDS[document['kind']]}"
    made = cluster.request("POST", f"{path}?fieldValidation=Strict&dryRun=All", document)
    if is_model:
        assert_read_alike(document["spec"], made["spec"])


def test_the_page_of_the_server_shows_every_format_and_source() -> None:
    specs = [document.get("spec", document) for block in blocks(SERVING, "yaml") for document in yaml.safe_load_all(block)]
    shown = [spec["model"] for spec in specs if "model" in spec]
    assert {model["format"] for model in shown} == {"ONNX", "XGBoost", "LightGBM", "SKLearn", "Python", "Custom"}
    sources = {"configmap", "pvc", "file", "https", "s3", "gs", "az", "hf", "oci"}
    assert {model["uri"].partition("://")[0] for model in shown} == sources


def test_the_python_model_is_served(tmp_path: Path) -> None:
    """And the bodies that the page sends it have the form that is right for it."""
    (code,) = (block for block in blocks(SERVING, "python") if "class Model" in block)
    folder = tmp_path / "models/model"
    folder.mkdir(parents=True)
    (folder / "stop-words.txt").write_text("the of\n")
    with serving(tmp_path, code.encode(), "--format", "Python", name="model/model.py") as server:
        tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["the end of it", "all"]}
        (output,) = server.infer({"inputs": [tensor]}).json["outputs"]
    assert (output["name"], output["datatype"], output["data"]) == ("length", "INT32", [2, 1])


def test_the_digest_of_a_folder_is_what_the_command_prints(tmp_path: Path) -> None:
    (command,) = (block for block in blocks(SERVING, "sh") if block.startswith("find"))
    for name, content in {"b/c d": "1", "B": "2", "b-a": "3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    said = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == digest_of(tmp_path)[0]
