"""The ways in from outside the cluster, of one ModelDeployment: made, removed, and what is said of them."""

from dataclasses import dataclass

from slipway.core.exposure import Way, exposed
from slipway.core.observation import Symptom
from slipway.core.report import Verdict
from slipway.kube.converge import Converger
from slipway.kube.kinds import SERVICE
from slipway.kube.owner import Owner
from slipway.kube.store import Store
from slipway.manifests import children
from slipway.model import Model
from slipway.routers import Routers


@dataclass(frozen=True)
class Outside:
    """Whether callers outside the cluster reach it (None: not asked for), and what hinders a way in that should be there."""

    verdict: Verdict | None
    hindrance: Symptom | None = None


async def open_ways(
    model: Model, owner: Owner, routers: Routers, converger: Converger, store: Store, hindrance: Symptom | None
) -> Outside:
    """Apply and delete the HTTPRoute and the Ingress, for the hosts that the routers were told of.

    Where the Service is not the model's own (`hindrance` then says so) there must be none: they would lead elsewhere. Where the
    spec cannot be read they stay as they are.
    """
    found = children.Stored.of(store.children(model.namespace, model.name))
    kinds = children.outside_kinds(model.spec, found)
    if not kinds and not found.outside:
        return Outside(None)
    hosts, refused = routers.hosts(model)
    if not children.owns(model.identity, store.get(SERVICE, model.namespace, model.name)):
        hosts, refused = (), refused or hindrance
    hindrances: dict[str, Symptom | None] = {}
    if model.spec is not None:
        wanted = children.build_outside(model.identity, model.spec, hosts)
        hindrances = {obj["kind"]: await converger.apply(obj, owner) for obj in wanted}
        await converger.delete(children.unwanted_outside(model.identity, wanted, found))
        found = children.Stored.of(store.children(model.namespace, model.name))
    stored = {obj["kind"]: obj for obj in found.outside if children.owns(model.identity, obj)}
    verdict = exposed([Way(stored.get(kind), hindrances.get(kind)) for kind in kinds], refused)
    return Outside(verdict, next(filter(None, hindrances.values()), None))
