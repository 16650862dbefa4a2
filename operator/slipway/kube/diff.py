"""Whether an object as stored already is what is wanted."""

import hashlib
import json
from typing import Any

from slipway.core import quantity
from slipway.manifests.labels import APPLIED

# The API server identifies the entries of these lists by a key, and others may add entries of their own.
_KEYS = ("name", "containerPort", "port", "uid", "mountPath", "topologyKey", "type")
# It replaces these whole, for an entry more changes what they mean: a Service would select nothing, a route go elsewhere.
_WHOLE = ("selector", "matchLabels", "nodeSelector", "parentRefs", "backendRefs", "tls")


def mark(obj: dict[str, Any]) -> dict[str, Any]:
    """Answer the object with the annotation that holds the hash of all that is wanted of it."""
    digest = hashlib.sha256(json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), APPLIED: digest}}}


def covers(stored: Any, wanted: Any) -> bool:
    """Tell whether `stored` holds all that is `wanted`: defaults that the server or others add do not count."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(_covers_field(stored, key, value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(stored, list) and _covers_list(stored, wanted)
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted  # in Python 1 == True
    return stored == wanted or _same_quantity(stored, wanted)


def _covers_field(stored: dict[str, Any], key: str, wanted: Any) -> bool:
    if key not in stored:
        return wanted in ({}, [], None)
    return covers(stored[key], wanted) and (key not in _WHOLE or len(stored[key]) == len(wanted))


def _covers_list(stored: list[Any], wanted: list[Any]) -> bool:
    key = next((key for key in _KEYS if wanted and all(isinstance(item, dict) and key in item for item in wanted)), None)
    if key is None:
        return len(stored) == len(wanted) and all(covers(a, b) for a, b in zip(stored, wanted, strict=True))
    by_key = {item[key]: item for item in stored if isinstance(item, dict) and key in item}
    return all(item[key] in by_key and covers(by_key[item[key]], item) for item in wanted)


def _same_quantity(stored: Any, wanted: Any) -> bool:
    """Tell whether two scalars are the same quantity: the API server writes 0.5 CPU as 500m."""
    if stored is None or wanted is None:
        return False
    try:
        return quantity.parse(str(stored)) == quantity.parse(str(wanted))
    except ValueError:
        return False
