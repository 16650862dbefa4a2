"""A ModelDeployment as stored, read: what is asked, what status remembers, and what could not be understood."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from slipway.api.base import duration_seconds
from slipway.api.model import Trust
from slipway.api.spec import Spec
from slipway.api.status import ScalingStatus, Status
from slipway.core import sizing
from slipway.core.observation import Symptom
from slipway.core.plan import IMMEDIATE, Plan, plan
from slipway.core.polled import Outward, metric, polled
from slipway.core.revision import Target, arm_specs, target
from slipway.settings import Settings


@dataclass(frozen=True)
class Identity:
    """Whose children they are."""

    name: str
    namespace: str
    uid: str


@dataclass(frozen=True)
class Model:
    """One ModelDeployment. `spec` is None where it cannot be read; `spec_error` then says why."""

    obj: dict[str, Any]
    spec: Spec | None
    spec_error: Symptom | None
    status: Status
    scaling: ScalingStatus | None = None
    """How many replicas its objective asks for; None without one, or where that is not known yet."""
    decided: Mapping[str, int] = field(default_factory=dict[str, int])
    """That of each revision with a role, if it had all requests."""

    @property
    def name(self) -> str:
        """Answer its name."""
        return self.obj["metadata"]["name"]

    @property
    def namespace(self) -> str:
        """Answer its namespace."""
        return self.obj["metadata"]["namespace"]

    @property
    def generation(self) -> int:
        """Answer the version of its spec."""
        return self.obj["metadata"]["generation"]

    @property
    def resource_version(self) -> str:
        """Answer the version of the whole object."""
        return self.obj["metadata"]["resourceVersion"]

    @property
    def identity(self) -> Identity:
        """Answer name, namespace and uid."""
        return Identity(self.name, self.namespace, self.obj["metadata"]["uid"])

    @property
    def raw_status(self) -> dict[str, Any]:
        """Answer the status as stored."""
        return self.obj.get("status") or {}

    @cached_property
    def target(self) -> Target | None:
        """Answer the revision that the spec asks for."""
        return target(self.name, self.spec) if self.spec is not None else None

    @cached_property
    def arms(self) -> list[Target]:
        """Answer the revisions that an A/B test tries beside it."""
        return [target(self.name, each) for each in arm_specs(self.spec)] if self.spec is not None else []

    @property
    def replicas(self) -> int:
        """Answer the number of replicas of a serving revision; where it cannot be known, what there was."""
        had = self.status.stable.replicas if self.status.stable else 0
        if self.spec is None:
            return had or 1
        scaling = self.spec.scaling
        if scaling.fixed:
            return scaling.min
        sized = self.scaling.replicas if self.scaling is not None else had or 1
        return min(max(sized, scaling.min), scaling.max or 1)

    @property
    def sizes(self) -> dict[str, int]:
        """Answer the number of replicas of each revision if it had all requests, where it has one of its own."""
        scaling = self.spec.scaling if self.spec is not None else None
        if scaling is None or scaling.max is None:
            return {}
        return {revision: min(max(replicas, scaling.min), scaling.max) for revision, replicas in self.decided.items()}

    @property
    def minimum(self) -> int:
        """Answer how many replicas it has at the least."""
        return self.spec.scaling.min if self.spec is not None else self.replicas

    @property
    def unsafe(self) -> bool:
        """Tell whether loading the model, or that of an arm, may run code of its author."""
        return self.spec is not None and any(each.model.trust == Trust.UNSAFE for each in (self.spec, *arm_specs(self.spec)))

    @property
    def history_limit(self) -> int:
        """Answer how many retired revisions are kept; where the spec cannot be read, all."""
        return self.spec.revision_history_limit if self.spec is not None else 100

    @property
    def deadline_seconds(self) -> float:
        """Answer how long a candidate may take to be ready."""
        return duration_seconds(self.spec.rollout.progress_deadline) if self.spec is not None else float("inf")

    @property
    def plan(self) -> Plan:
        """Answer the steps and checks of a rollout."""
        return plan(self.spec.rollout, self.arms) if self.spec is not None else IMMEDIATE

    @property
    def timeout_seconds(self) -> float:
        """Answer how long a request may take."""
        return duration_seconds(self.spec.routing.timeout) if self.spec is not None else 30.0


def read(obj: dict[str, Any], settings: Settings) -> Model:
    """Read a stored ModelDeployment. What cannot be read, or is not allowed here, becomes `spec_error`, never an exception.

    An unreadable status is a lost one: it is rebuilt from the revisions and the routes.
    """
    spec: Spec | None = None
    error: Symptom | None = None
    try:
        spec = Spec.model_validate(obj.get("spec") or {})
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        error = Symptom("SpecInvalid", f"{where}: {first['msg']}; what served before goes on serving")
    if spec is not None and (refused := _unusable(spec, obj["metadata"]["namespace"], settings)):
        spec, error = None, refused
    try:
        status = Status.model_validate(obj.get("status") or {})
    except ValidationError:
        status = Status()
    return Model(obj, spec, error, status)


def _unusable(spec: Spec, namespace: str, settings: Settings) -> Symptom | None:
    return _refused(spec, settings) or _alike(spec) or _not_asked(spec, namespace, settings) or _no_time(spec)


def _refused(spec: Spec, settings: Settings) -> Symptom | None:
    if spec.scaling.min == 0 and not settings.activator:
        return Symptom(
            "ActivatorOff",
            "spec.scaling.min: 0 needs the activator, and this cluster has none: use 1 or more, or ask for activator.replicas "
            "in the chart's values; what served before goes on serving",
        )
    for where, each in _models(spec).items():
        scheme = (each.model.uri or "").partition("://")[0]
        if scheme and settings.model_schemes and scheme not in settings.model_schemes:
            allowed = ", ".join(settings.model_schemes)
            return Symptom(
                "SchemeNotAllowed",
                f"{where}.uri: {scheme}:// is not allowed in this cluster, whose models come from {allowed}; "
                "what served before goes on serving",
            )
    return None


def _alike(spec: Spec) -> Symptom | None:
    """Say which two arms of an A/B test are one and the same revision."""
    found: dict[str, str] = {}
    for where, each in _models(spec).items():
        other = found.setdefault(target("", each).revision, where)
        if other != where:
            message = f"{where} is the same as {other}: remove it, or name another; what served before goes on serving"
            return Symptom("SpecInvalid", message)
    return None


def _models(spec: Spec) -> dict[str, Spec]:
    """Answer the spec of each model that it names, by the field."""
    arms = {f"spec.rollout.abTest.arms[{number}].model": each for number, each in enumerate(arm_specs(spec))}
    return {"spec.model": spec, **arms}


def _no_time(spec: Spec) -> Symptom | None:
    """Say what is wrong with a schedule that only looks like one."""
    try:
        sizing.settings(spec.scaling)
    except ValueError as error:
        return Symptom("SpecInvalid", f"spec.scaling.schedule: {error}; what served before goes on serving")
    return None


def _not_asked(spec: Spec, namespace: str, settings: Settings) -> Symptom | None:
    outward = Outward(settings.prometheus_address, settings.check_hosts, settings.cluster_domain)
    compared = metric(spec.rollout)
    for check in (*polled(spec.rollout), *([compared] if compared is not None else [])):
        if refusal := outward.refusal(check, namespace):
            reason, message = refusal
            return Symptom(reason, f"{message}; what served before goes on serving")
    return None
