"""All children of a ModelDeployment together: what there should be, and what of what there is should go."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.api.spec import Spec
from slipway.core.capacity import replicas as replicas_of
from slipway.core.plan import Plan
from slipway.core.revision import arm_specs, target
from slipway.core.state import State, World
from slipway.core.verbs import plan_in_force
from slipway.manifests import check_job, exposure, labels, model, trying
from slipway.manifests.labels import Owner
from slipway.settings import Settings

Object = dict[str, Any]
_HELD = ("Deployment", "Service", "PodDisruptionBudget")
_OUTSIDE = ("HTTPRoute", "Ingress")


@dataclass(frozen=True)
class Stored:
    """The children that there are."""

    revisions: dict[str, Object]
    others: tuple[Object, ...]
    outside: tuple[Object, ...] = ()
    jobs: tuple[Object, ...] = ()

    @classmethod
    def of(cls, objects: Iterable[Object]) -> "Stored":
        """Sort objects by what they are."""
        listed = list(objects)
        revisions = {obj["metadata"]["name"]: obj for obj in listed if obj["kind"] == "ControllerRevision"}
        kinds = (_HELD, _OUTSIDE, ("Job",))
        others, outside, jobs = (tuple(obj for obj in listed if obj["kind"] in each) for each in kinds)
        return cls(revisions, others, outside, jobs)

    def jobs_of(self, uid: str) -> dict[str, Object]:
        """Answer the Jobs of the ModelDeployment, by name."""
        return {job["metadata"]["name"]: job for job in self.jobs if _owned(job, uid)}


def build(owner: Owner, spec: Spec | None, state: State, world: World, stored: Stored, settings: Settings) -> Iterator[Object]:
    """Yield the children that there should be, each revision before its pods.

    A revision that is kept is not rendered again: its pods stay as they were made. One whose ControllerRevision was deleted
    and that the spec does not describe keeps the pods that it has.
    """
    name, namespace, uid = owner.name, owner.namespace, owner.uid
    yield model.build_service(name, namespace, name, uid, h2c=_takes_h2c(name, spec, stored))
    stable = stored.revisions.get(state.stable.revision) if state.stable is not None else None
    port: int | None = stable["data"]["port"] if stable is not None else None
    yield from trying.build(owner, spec, state, world.plan, port, settings)
    number = max((obj["revision"] for obj in stored.revisions.values()), default=0)
    for revision in state.active:
        kept = stored.revisions.get(revision)
        if kept is None or not _owned(kept, uid):
            asked = _described(name, spec, revision)
            if asked is None:
                continue
            number += 1
            kept = model.build_revision(name, namespace, uid, target(name, asked), number, asked, settings)
            yield kept
        data = kept["data"]
        replicas = replicas_of(state, world, revision)
        yield model.build_endpoints_service(name, namespace, uid, revision, data["port"])
        yield model.build_deployment(name, namespace, uid, revision, data["template"], replicas)
        if state.candidate is not None and revision == state.candidate.revision:
            plan = plan_in_force(state, world.plan)
            yield from check_job.build_jobs(owner, state, plan, data["port"], stored.jobs_of(uid), settings)
    budget = model.build_disruption_budget(name, namespace, uid, world.replicas)
    if budget is not None:
        yield budget


def _takes_h2c(name: str, spec: Spec | None, stored: Stored) -> bool:
    """Tell whether the Service has the port for a Gateway; where the spec cannot be read, it is as it was."""
    if spec is not None:
        return spec.routing.gateway is not None
    services = (obj for obj in stored.others if (obj["kind"], obj["metadata"]["name"]) == ("Service", name))
    return any(port["port"] == model.H2C_PORT for service in services for port in service["spec"]["ports"])


def _described(name: str, spec: Spec | None, revision: str) -> Spec | None:
    """Answer the spec of a revision: the resource's own, or that with the model of an arm; None where neither makes it."""
    specs = (spec, *arm_specs(spec)) if spec is not None else ()
    return next((each for each in specs if target(name, each).revision == revision), None)


def adopted(owner: Owner, objects: Iterable[Object]) -> Iterator[Object]:
    """Yield what makes those of the objects children again that were a child of a ModelDeployment of this name and have no owner.

    A backup is restored without owners, for the uids in it name nothing any more. The label tells whose it was, the annotation
    that Slipway made it. What has any owner stays its owner's.
    """
    for obj in objects:
        metadata = obj["metadata"]
        if metadata.get("ownerReferences") or labels.APPLIED not in metadata.get("annotations", {}):
            continue
        same = {key: metadata[key] for key in ("name", "namespace", "uid")}
        owned = {**same, "ownerReferences": [labels.owner(owner.name, owner.uid)]}
        yield {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": owned}


def outside_kinds(spec: Spec | None, stored: Stored) -> list[str]:
    """Answer the kinds of the ways in from outside that are asked for; where the spec cannot be read, of those that there are."""
    if spec is None:
        return [obj["kind"] for obj in stored.outside]
    asked = {"HTTPRoute": spec.routing.gateway, "Ingress": spec.routing.ingress}
    return [kind for kind, settings in asked.items() if settings is not None]


def build_outside(owner: Owner, spec: Spec, hosts: Sequence[str]) -> list[Object]:
    """Answer the ways in from outside that there should be for these hosts."""
    return exposure.build(owner.name, owner.namespace, owner.uid, spec.routing, hosts)


def unwanted_outside(owner: Owner, wanted: Iterable[Object], stored: Stored) -> list[Object]:
    """Answer the ways in from outside that should go."""
    kept = {(obj["kind"], obj["metadata"]["name"]) for obj in wanted}
    going = [obj for obj in stored.outside if (obj["kind"], obj["metadata"]["name"]) not in kept]
    return [obj for obj in going if owns(owner, obj)]


def unwanted(owner: Owner, state: State, plan: Plan, replicas: int, history_limit: int, stored: Stored) -> list[Object]:
    """Answer the children that should go: those of revisions without a role, and the oldest ControllerRevisions."""
    name = owner.name
    active = set(state.active)
    wanted = {("Service", name)}
    wanted |= {(kind, revision) for kind in ("Deployment", "Service") for revision in active}
    wanted |= trying.names(name, state, plan)
    if replicas >= 2:
        wanted.add(("PodDisruptionBudget", name))
    going = [obj for obj in stored.others if (obj["kind"], obj["metadata"]["name"]) not in wanted]
    # Pods that have lost their Service would be strays to whoever takes over in between, and get it back to drain.
    going.sort(key=lambda obj: obj["kind"] != "Deployment")
    retired = [obj for revision, obj in stored.revisions.items() if revision not in active]
    retired.sort(key=lambda obj: obj["revision"], reverse=True)
    jobs = check_job.unwanted_jobs(state, stored.jobs_of(owner.uid))
    return [obj for obj in (*going, *retired[history_limit:], *jobs) if _owned(obj, owner.uid)]


def selector(name: str) -> str:
    """Answer the label selector of a ModelDeployment's model pods, of whatever revision.

    Whoever scales by what pods do on average needs all that share the requests: in a rollout stable's alone have a part of them.
    """
    return f"{labels.MODEL_LABEL}={name},{labels.COMPONENT}=model"


def owns(owner: Owner, obj: Object | None) -> bool:
    """Tell whether the object is there and a child of the ModelDeployment."""
    return obj is not None and _owned(obj, owner.uid)


def _owned(obj: Object, uid: str) -> bool:
    return any(ref["uid"] == uid for ref in obj["metadata"].get("ownerReferences", ()))
