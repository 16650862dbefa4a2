"""JSON schemas for kubeconform, made from what a running API server says of itself (/openapi/v3)."""

import json
from pathlib import Path
from typing import Any

from tests.integration.client import Client

# How kubeconform asks for a kind's schema. What it calls the group of a core kind is its version.
LOCATION = "{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}.json"
_REF = "#/components/schemas/"


def write_schemas(client: Client, folder: Path) -> str:
    """Write a strict schema of every kind that the API server has into the folder, and answer kubeconform's location of them."""
    for name, document in client.get("/openapi/v3")["paths"].items():
        if name.count("/") not in (1, 2) or not name.startswith(("api/", "apis/")):
            continue  # not one version of one group
        schemas = client.get(document["serverRelativeURL"]).get("components", {}).get("schemas", {})
        strict = {key: _strict(schema) for key, schema in schemas.items()}
        for key, schema in schemas.items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                path = folder / f"{kind['group'] or kind['version']}_{kind['version']}_{kind['kind'].lower()}.json"
                path.write_text(json.dumps({"$ref": f"#/definitions/{key}", "definitions": _reachable(key, strict)}))
    return str(folder / LOCATION)


def _strict(node: Any) -> Any:
    """Answer the schema with unknown fields refused, and its references as JSON Schema writes them."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return {"$ref": "#/definitions/" + node["$ref"].removeprefix(_REF)}
    out = {key: _strict(value) for key, value in node.items()}
    closed = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(node.get("properties"), dict) and not closed:
        out["additionalProperties"] = False
    return out


def _reachable(key: str, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left = [key]
    while left:
        name = left.pop()
        if name not in found:
            found[name] = schemas[name]
            left += _references(schemas[name])
    return found


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for each in node for name in _references(each)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].removeprefix("#/definitions/")] if isinstance(node.get("$ref"), str) else []
    return own + [name for each in node.values() for name in _references(each)]
