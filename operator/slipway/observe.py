"""observe(): the one place that gathers what the decisions see. It reads the store and the meter, never the network."""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from slipway.core.figures import Figures
from slipway.core.observation import RevisionSeen, RoutesSeen
from slipway.core.plan import Judged
from slipway.core.revision import Target
from slipway.core.state import World
from slipway.core.symptoms import diagnose, leaving, pod_ready, stage
from slipway.kube.kinds import CONTROLLER_REVISION, DEPLOYMENT, POD
from slipway.kube.store import Store
from slipway.manifests.labels import REVISION_LABEL
from slipway.model import Model


def observe(
    model: Model,
    store: Store,
    routes: RoutesSeen,
    figures: Callable[[str], Figures],
    judged: Judged,
    now: datetime,
) -> World:
    """Answer the frozen picture of one ModelDeployment's world; `figures` answers a revision's."""
    pods: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for pod in store.children(model.namespace, model.name, POD):
        pods[pod["metadata"]["labels"].get(REVISION_LABEL, "")].append(pod)
    revisions: dict[str, RevisionSeen] = {}
    for deployment in store.children(model.namespace, model.name, DEPLOYMENT):
        name = deployment["metadata"]["name"]
        if REVISION_LABEL not in deployment["metadata"].get("labels", {}):
            continue  # a comparer's
        if deployment["metadata"].get("deletionTimestamp") or not _owned(deployment, model):
            continue
        ready = [pod for pod in pods[name] if pod_ready(pod)]
        revisions[name] = RevisionSeen(
            deployment["spec"]["replicas"],
            len(ready),
            diagnose(pods[name], deployment, now),
            stage(pods[name], now),
            figures(name),
            leaving(ready, deployment, now),
        )
    known = {
        obj["metadata"]["name"]: Target(
            obj["metadata"]["name"], obj["data"]["model"].get("version", ""), obj["data"]["model"].get("sha256")
        )
        for obj in store.children(model.namespace, model.name, CONTROLLER_REVISION)
        if _owned(obj, model)
    }
    return World(
        target=model.target,
        replicas=model.replicas,
        revisions=revisions,
        known=known,
        routes=routes,
        deadline_seconds=model.deadline_seconds,
        timeout_seconds=model.timeout_seconds,
        now=now,
        plan=model.plan,
        judged=judged,
        minimum=model.minimum,
        scaling=model.scaling,
        sizes=model.sizes,
    )


def _owned(obj: dict[str, Any], model: Model) -> bool:
    return any(ref["uid"] == model.identity.uid for ref in obj["metadata"].get("ownerReferences", ()))
