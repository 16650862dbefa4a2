"""Which rollouts wish for synthetic requests: those with a step under way at which no caller reaches the candidate."""

from collections.abc import Iterator

from pydantic import ValidationError

from slipway.api.base import duration_seconds
from slipway.api.spec import Spec
from slipway.core.routing import preview_name
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Store
from slipway.probe.synthetic import Wish


def wishes(store: Store) -> Iterator[Wish]:
    """Yield the wishes of all ModelDeployments; one whose spec cannot be read has none."""
    for obj in store.all(MODEL_DEPLOYMENT):
        status = obj.get("status") or {}
        candidate, step = status.get("candidate"), (status.get("rollout") or {}).get("step", 0)
        if not candidate or not step or candidate.get("weight") or status.get("pinned"):
            continue  # nearly all of them: the spec is read of the others alone
        try:
            spec = Spec.model_validate(obj["spec"])
        except ValidationError:
            continue
        asked = spec.rollout.blue_green.synthetic if spec.rollout.blue_green is not None else None
        if asked is not None:
            name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
            host, timeout = f"{preview_name(name)}.{namespace}", duration_seconds(spec.routing.timeout)
            yield Wish(namespace, name, host, asked.config_map, asked.key, float(asked.requests_per_second), timeout)
