"""Kubernetes events about a ModelDeployment."""

import hashlib
from datetime import datetime
from typing import Any

from slipway.core.clock import stamp
from slipway.core.transitions import Event
from slipway.kube.api import Api, ApiError
from slipway.kube.kinds import EVENT

_COMPONENT = "slipway"


async def send(api: Api, model: dict[str, Any], event: Event, identity: str, now: datetime) -> None:
    """Record the event, once: its name is made from what it says, so that a repetition after a crash is the same event."""
    metadata = model["metadata"]
    said = f"{metadata['uid']} {metadata['generation']} {event.reason} {event.message}"
    name = f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    body = {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": model["apiVersion"],
            "kind": model["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": identity,
    }
    try:
        await api.apply(body, create=True)
    except ApiError as error:
        if error.status != 409:
            raise
