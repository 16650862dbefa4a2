"""What a candidate has beside its pods while it is tried: a Service of its own, and the comparer."""

from collections.abc import Iterator
from typing import Any

from slipway.api.base import duration_seconds
from slipway.api.spec import Spec
from slipway.core.agreement import Rule
from slipway.core.plan import Plan
from slipway.core.routing import preview_name
from slipway.core.state import State
from slipway.core.verbs import plan_in_force
from slipway.manifests import comparer, model
from slipway.manifests.labels import Owner
from slipway.settings import Settings

Object = dict[str, Any]


def build(
    owner: Owner, spec: Spec | None, state: State, plan: Plan, stable_port: int | None, settings: Settings
) -> Iterator[Object]:
    """Yield what there should be; `stable_port` is that of stable's pods, where its revision is kept."""
    name, namespace, uid, plan = owner.name, owner.namespace, owner.uid, plan_in_force(state, plan)
    if state.stable is None or state.candidate is None:
        return
    if plan.preview:
        yield model.build_service(preview_name(name), namespace, name, uid)
    if plan.agreement is None or not settings.operator_image or stable_port is None or spec is None:
        return
    asked = comparer.Comparing(
        state.stable.revision,
        stable_port,
        state.candidate.revision,
        f"{preview_name(name)}.{namespace}",
        Rule(plan.agreement.tolerance, plan.agreement.labels),
        duration_seconds(spec.routing.timeout),
    )
    yield comparer.build_service(name, namespace, uid)
    yield comparer.build_deployment(name, namespace, uid, asked, settings)


def names(name: str, state: State, plan: Plan) -> set[tuple[str, str]]:
    """Answer kind and name of all that `build` makes."""
    plan = plan_in_force(state, plan)
    if state.stable is None or state.candidate is None:
        return set()
    previewed = {("Service", preview_name(name))} if plan.preview else set[tuple[str, str]]()
    compared = (
        {(kind, comparer.comparer_name(name)) for kind in ("Deployment", "Service")} if plan.agreement is not None else set()
    )
    return previewed | compared
