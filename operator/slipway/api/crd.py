"""Generates the CustomResourceDefinition from the pydantic types."""

from typing import Any

from slipway.api import GROUP, KIND, PLURAL, VERSION
from slipway.api.base import Rule, Type
from slipway.api.spec import Spec
from slipway.api.status import Status

# A child is named <name>-<hash of 8>: it must be a DNS-1035 label of at most 63 characters, for its Service.
NAME_MAX = 52
ROUTER_NAME = "slipway-router"

_ROOT_RULES = (
    Rule(
        f"size(self.metadata.name) <= {NAME_MAX}",
        f"metadata.name must have at most {NAME_MAX} characters: the names of its revisions add a dash and 8 more",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must begin with a letter and hold only lower-case letters, digits and dashes: it names a Service",
    ),
    Rule(
        f"!self.metadata.name.startsWith('{ROUTER_NAME}')",
        f"metadata.name must not begin with {ROUTER_NAME}: that name belongs to the namespace's router",
    ),
)

_COLUMNS = (
    ("Version", "string", ".status.stable.version", "The version that serves", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether the current spec serves", 0),
    ("Phase", "string", ".status.phase", "What is happening", 0),
    ("Replicas", "integer", ".status.replicas", "Pods of the serving revision", 0),
    ("Candidate", "string", ".status.candidate.version", "The version being tried", 0),
    ("Weight", "integer", ".status.candidate.weight", "Percent of requests that the candidate gets", 0),
    ("P95", "string", ".status.stable.p95", "Latency that 95% of the requests to the version that serves do not exceed", 0),
    ("Age", "date", ".metadata.creationTimestamp", "", 0),
    ("URL", "string", ".status.url", "Where callers in the cluster reach it", 1),
    ("Revision", "string", ".status.stable.revision", "The revision that serves", 1),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].message', "Why it is or is not ready", 1),
)


def schema_of(type_: type[Type]) -> dict[str, Any]:
    """Answer the structural OpenAPI schema of an API type, with its CEL rules."""
    full = type_.model_json_schema(by_alias=True)
    return _structural(full, full.get("$defs", {}), {t.__name__: t for t in _types(Type)})


def _types(base: type[Type]) -> list[type[Type]]:
    return [found for type_ in base.__subclasses__() for found in (type_, *_types(type_))]


def _structural(node: dict[str, Any], defs: dict[str, Any], types: dict[str, type[Type]]) -> dict[str, Any]:
    """Convert one node of pydantic's JSON schema: references inlined, nullable unions dropped, rules added."""
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        siblings = {k: v for k, v in node.items() if k != "$ref"}
        return _structural({**target, **siblings}, defs, types)
    if node.get("x-kubernetes-int-or-string"):
        kept = {k: node[k] for k in ("description", "maxLength", "x-kubernetes-validations") if k in node}
        return {**kept, "x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "anyOf" in node:
        (only,) = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
        siblings = {k: v for k, v in node.items() if k != "anyOf" and not (k == "default" and v is None)}
        return _structural({**only, **siblings}, defs, types)
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return {k: v for k, v in node.items() if k not in ("title", "additionalProperties")}
    out = {k: v for k, v in node.items() if k not in ("title", "$defs", "additionalProperties", "properties", "items")}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], defs, types)
    if "properties" in node:
        out["properties"] = {name: _structural(sub, defs, types) for name, sub in node["properties"].items()}
        type_ = types[node["title"]]
        for field in type_.model_fields.values():
            # An absent object is filled in whole: the API server checks the rules on this default before those inside it.
            if field.default_factory in types.values():
                filled = field.get_default(call_default_factory=True, validated_data={})
                out["properties"][field.alias]["default"] = filled.model_dump(by_alias=True, mode="json", exclude_none=True)
        if type_.rules:
            out["x-kubernetes-validations"] = [rule.schema() for rule in type_.rules]
    if "items" in node:
        out["items"] = _structural(node["items"], defs, types)
    return out


def build_crd() -> dict[str, Any]:
    """Answer the CustomResourceDefinition of ModelDeployment."""
    root = {
        "type": "object",
        "description": "A model and how it is served. Slipway keeps it served and says in status what it does.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(Spec),
            "status": schema_of(Status),
        },
        "x-kubernetes-validations": [rule.schema() for rule in _ROOT_RULES],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["md"],
                "categories": ["all", "slipway"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": root},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.scaling.min",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": type_,
                            "jsonPath": path,
                            "priority": priority,
                            **({"description": text} if text else {}),
                        }
                        for name, type_, path, text, priority in _COLUMNS
                    ],
                }
            ],
        },
    }
