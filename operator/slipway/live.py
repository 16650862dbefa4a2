"""The roles that the store holds, with what the meter knows of them: for the operator's metrics, and to write status when due."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from slipway.api.status import RevisionStatus
from slipway.core.figures import LIVE_SECONDS
from slipway.core.live import overdue, rested
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Store
from slipway.meter.meter import Meter
from slipway.queue import Key


class Role(NamedTuple):
    """A revision in its role (stable or candidate), as status tells it."""

    namespace: str
    name: str
    role: str
    status: dict[str, Any]


def roles(store: Store) -> Iterator[Role]:
    """Yield the roles of all ModelDeployments."""
    for obj in store.all(MODEL_DEPLOYMENT):
        status = obj.get("status") or {}
        for role in ("stable", "candidate"):
            for each in (status.get(role), *(status.get("arms", ()) if role == "candidate" else ())):
                if each:
                    yield Role(obj["metadata"]["namespace"], obj["metadata"]["name"], role, each)


def rolling(store: Store, namespace: str) -> bool:
    """Tell whether any ModelDeployment of the namespace has a candidate."""
    return any((obj.get("status") or {}).get("candidate") for obj in store.all(MODEL_DEPLOYMENT, namespace))


def unwritten(store: Store, meter: Meter, now: datetime) -> Iterator[Key]:
    """Yield the ModelDeployments whose live figures have moved from what their status says."""
    for role in roles(store):
        status = RevisionStatus.model_validate(role.status)
        if rested(status, now) and overdue(status, meter.figures(role.namespace, status.revision, LIVE_SECONDS), now):
            yield role.namespace, role.name
