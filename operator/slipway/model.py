"""A ModelDeployment as stored, read: what is asked, what status remembers, and what could not be understood."""

from dataclasses import dataclass
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
from slipway.core.revision import Target, target
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

    @property
    def replicas(self) -> int:
        """Answer the number of replicas of a serving revision; where it cannot be known, what there was."""
        had = self.status.stable.replicas if self.status.stable else 0
        if self.spec is None:
            return had or 1
        scaling = self.spec.scaling
        if scaling.objective is None or scaling.max is None:
            return scaling.min
        sized = self.scaling.replicas if self.scaling is not None else had
        return min(max(sized, scaling.min), scaling.max)

    @property
    def minimum(self) -> int:
        """Answer how many replicas it has at the least."""
        return self.spec.scaling.min if self.spec is not None else self.replicas

    @property
    def unsafe(self) -> bool:
        """Tell whether loading the model may run code of its author."""
        return self.spec is not None and self.spec.model.trust == Trust.UNSAFE

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
        return plan(self.spec.rollout) if self.spec is not None else IMMEDIATE

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
    return _refused(spec, settings) or _not_asked(spec, namespace, settings) or _no_time(spec)


def _refused(spec: Spec, settings: Settings) -> Symptom | None:
    scheme = (spec.model.uri or "").partition("://")[0]
    if not scheme or not settings.model_schemes or scheme in settings.model_schemes:
        return None
    allowed = ", ".join(settings.model_schemes)
    return Symptom(
        "SchemeNotAllowed",
        f"spec.model.uri: {scheme}:// is not allowed in this cluster, whose models come from {allowed}; "
        "what served before goes on serving",
    )


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
