"""All children of a ModelDeployment together: what there should be, and what of what there is should go."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from slipway.api.spec import Spec
from slipway.core import rollout
from slipway.core.state import State, World
from slipway.manifests import labels, model
from slipway.settings import Settings

Object = dict[str, Any]
_HELD = ("Deployment", "Service", "PodDisruptionBudget")


class Owner(Protocol):
    """The ModelDeployment whose children they are."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Stored:
    """The children that there are."""

    revisions: dict[str, Object]
    others: tuple[Object, ...]

    @classmethod
    def of(cls, objects: Iterable[Object]) -> "Stored":
        """Sort objects by what they are."""
        listed = list(objects)
        revisions = {obj["metadata"]["name"]: obj for obj in listed if obj["kind"] == "ControllerRevision"}
        return cls(revisions, tuple(obj for obj in listed if obj["kind"] in _HELD))


def build(owner: Owner, spec: Spec | None, state: State, world: World, stored: Stored, settings: Settings) -> Iterator[Object]:
    """Yield the children that there should be, each revision before its pods.

    A revision that is kept is not rendered again: its pods stay as they were made. One whose ControllerRevision was deleted
    and that the spec does not describe keeps the pods that it has.
    """
    name, namespace, uid = owner.name, owner.namespace, owner.uid
    yield model.build_service(name, namespace, uid)
    for revision in state.active:
        kept = stored.revisions.get(revision)
        if kept is None or not _owned(kept, uid):
            if spec is None or world.target is None or world.target.revision != revision:
                continue
            number = 1 + max((obj["revision"] for obj in stored.revisions.values()), default=0)
            kept = model.build_revision(name, namespace, uid, world.target, number, spec, settings)
            yield kept
        data = kept["data"]
        replicas = rollout.replicas(state, world, revision)
        yield model.build_endpoints_service(name, namespace, uid, revision, data["port"])
        yield model.build_deployment(name, namespace, uid, revision, data["template"], replicas)
    budget = model.build_disruption_budget(name, namespace, uid, world.replicas)
    if budget is not None:
        yield budget


def unwanted(owner: Owner, state: State, replicas: int, history_limit: int, stored: Stored) -> list[Object]:
    """Answer the children that should go: those of revisions without a role, and the oldest ControllerRevisions."""
    name = owner.name
    active = set(state.active)
    wanted = {("Service", name)}
    wanted |= {(kind, revision) for kind in ("Deployment", "Service") for revision in active}
    if replicas >= 2:
        wanted.add(("PodDisruptionBudget", name))
    going = [obj for obj in stored.others if (obj["kind"], obj["metadata"]["name"]) not in wanted]
    retired = [obj for revision, obj in stored.revisions.items() if revision not in active]
    retired.sort(key=lambda obj: obj["revision"], reverse=True)
    return [obj for obj in (*going, *retired[history_limit:]) if _owned(obj, owner.uid)]


def selectors(state: State) -> dict[str, str]:
    """Answer the label selector of each revision's pods."""
    return {revision: f"{labels.REVISION_LABEL}={revision}" for revision in state.active}


def _owned(obj: Object, uid: str) -> bool:
    return any(ref["uid"] == uid for ref in obj["metadata"].get("ownerReferences", ()))
