"""What all parts of Envoy's configuration share."""

import json
from typing import Any

TYPE = "type.googleapis.com/envoy"


def to_json(data: dict[str, Any]) -> str:
    """Write JSON without blanks: a ConfigMap is small."""
    return json.dumps(data, separators=(",", ":"))


def resources(version: int, listed: list[str]) -> str:
    """Answer a file of resources, each given as JSON, as Envoy's file subscription takes it."""
    return f'{{"version_info":"{version}","resources":[{",".join(listed)}]}}'


def header(name: str, value: str) -> dict[str, Any]:
    """Answer a header that is set whatever it was."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
