"""The status of a ModelDeployment: what Slipway did and sees. It is also the operator's only memory."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from slipway.api.base import Type

_CONDITIONS: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _Remembered(Type):
    """Base of the status: read leniently, for another version of Slipway may have written it."""

    model_config = ConfigDict(extra="ignore")


class Phase(StrEnum):
    """One word for `kubectl get md`; the conditions say why."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    READY = "Ready"
    DEGRADED = "Degraded"
    SCALED_TO_ZERO = "ScaledToZero"


class ConditionType(StrEnum):
    """The conditions that every ModelDeployment has, and the last two, which only one that asks for it has."""

    READY = "Ready"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    ROUTES_LIVE = "RoutesLive"
    SPEC_VALID = "SpecValid"
    SCALING_ACTIVE = "ScalingActive"
    SCALING_LIMITED = "ScalingLimited"
    UNSAFE_MODEL = "UnsafeModel"
    EXPOSED = "Exposed"


class Condition(_Remembered):
    """A condition as in `metav1.Condition`."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    observed_generation: int
    last_transition_time: Time


class RevisionStatus(_Remembered):
    """One revision and what it does now."""

    revision: str = Field(description="Name of the ControllerRevision, the Deployment and the headless Service.")
    version: str = Field(default="", description="The user's label, `spec.model.version`.")
    digest: str | None = Field(default=None, description="`spec.model.sha256`, where given.")
    weight: int = Field(default=0, ge=0, le=100, description="Percent of requests asked of the routers.")
    ready: int = Field(default=0, description="Ready pods.")
    replicas: int = Field(default=0, description="Pods asked for.")
    requests_per_second: float | None = Field(
        default=None, description="Over the minute before `measuredAt`, as are the next two; none while it had no request yet."
    )
    p95: str | None = Field(
        default=None, description="Latency that 95% of the requests did not exceed, as the routers measure it, such as `12ms`."
    )
    error_rate: str | None = Field(
        default=None, description="Requests that failed by no fault of their callers (5xx, gRPC errors, cut off), such as `0.5%`."
    )
    measured_at: Time | None = Field(
        default=None,
        description="When the three were measured. They are written when they moved by more than 10%, at most once a minute.",
    )


class LearnedStatus(_Remembered):
    """What was learned of the model's pods in minutes of traffic: it outlives the operator."""

    service_ms: list[float] | None = Field(default=None, description="How long requests take that need not wait, by quantiles.")
    parallelism: float | None = Field(default=None, description="Requests that one pod answers at a time without any waiting.")
    pooling: float | None = Field(default=None, description="How well requests find a free pod: 1 as in one queue, 0 by chance.")
    caution: float | None = Field(default=None, description="Grows where the objective was not kept, and shrinks again.")
    admission: float | None = Field(
        default=None, description="Of what the model lets a replica have in flight, the part that keeps the objective."
    )
    deviation: float | None = Field(default=None, description="How much arrivals vary over a pod's start-up, as a share of them.")


class HindranceStatus(_Remembered):
    """Why pods that were ordered do not come."""

    reason: str
    message: str = ""


class ScalingStatus(_Remembered):
    """How many replicas the objective asks for, and why."""

    replicas: int = Field(description="What was decided.")
    wanted: int = Field(default=0, description="What the objective asks for, before limits.")
    reason: str = ""
    message: str = ""
    at: Time | None = Field(
        default=None, description="When this was written: when replicas change or a limit binds, else once a minute at most."
    )
    concurrency_limit: float | None = Field(
        default=None,
        description="Requests in flight for each replica up to which the objective is kept, as learned. "
        "Where there can be no more replicas, routers refuse what is beyond.",
    )
    refused_per_second: float | None = Field(
        default=None, description="Requests that routers refused, over the minute before this was written; none without any."
    )
    hindrance: HindranceStatus | None = None
    learned: LearnedStatus | None = None
    activation: str = Field(default="", description="The time of the last activation that was obeyed.")


class Activation(_Remembered):
    """Somebody asked for the model while it had no pod: written by the activator, which holds the request."""

    at: Annotated[str, Field(max_length=64)] = Field(
        description="When, with microseconds: it also tells one activation from another."
    )


class Draining(_Remembered):
    """A revision without requests whose pods leave once its last request is answered."""

    revision: str
    since: Time | None = Field(default=None, description="When weight 0 was seen live in every router.")
    until: Time | None = Field(default=None, description="Its pods stay until then, idle as they may be: they are a way back.")


class CheckStatus(_Remembered):
    """One check of the step under way, as measured."""

    name: str = Field(description="What is checked, such as `errorRate`, `p95` or `p95 to stable's`.")
    candidate: str | None = Field(default=None, description="The candidate's figure over the step; none without requests.")
    stable: str | None = Field(default=None, description="Stable's figure, over the same time or, without requests then, before.")
    limit: str | None = Field(default=None, description="What the candidate's figure may be at the most.")
    sample: int = Field(default=0, description="How many of the candidate's requests, or answers with a `kind`, it rests on.")
    verdict: Literal[
        "Passed",
        "InsufficientRequests",
        "InsufficientAnswers",
        "Running",
        "Unanswered",
        "Unclear",
        "CommonCause",
        "Failed",
    ] = "InsufficientRequests"
    kind: Literal["Prometheus", "Webhook", "Job"] | None = Field(
        default=None, description="Whom it asks; none where it measures requests."
    )
    message: str | None = Field(default=None, description="What the last answer said, or why there was none.")
    revision: str | None = Field(default=None, description="Whose it is, where several candidates are tried at once.")


class CountsStatus(_Remembered):
    """What a revision has had since an A/B test began."""

    requests: int = 0
    errors: int = 0
    latencies: str = Field(default="", description="How many requests each bucket of latencies has: `BUCKET:COUNT`, by blanks.")


class MetricStatus(_Remembered):
    """What an A/B test's metric was in the intervals that count: those of which a Prometheus told every arm's mean."""

    of: str = Field(default="", description="Which query it was: another one begins anew.")
    samples: int = Field(default=0, description="How many intervals count.")
    total: float = Field(default=0.0, description="Sum of the candidate's mean less stable's of each.")
    squares: float = Field(default=0.0, description="Sum of the squares of these differences.")
    candidate: float = Field(default=0.0, description="The candidate's mean over all of them.")
    stable: float = Field(default=0.0, description="Stable's.")
    last_asked: Time | None = Field(default=None, description="When the last of them ended.")


class ArmStatus(CountsStatus):
    """How one candidate of an A/B test stands against stable. One that was withdrawn alone has a reason."""

    revision: str
    version: str = ""
    weight: int = Field(default=0, ge=0, le=100, description="Percent of callers that are its own, in the order of arms.")
    metric: MetricStatus | None = Field(default=None, description="What the metric was, where that is the measure.")
    statement: str = Field(default="", description="The difference with its bounds, which hold however often one looks.")
    p_value: float = Field(
        default=1.0, description="Always valid: the chance of as much from any arm, did none differ from stable."
    )
    difference: float | None = Field(
        default=None, description="The arm's figure less stable's: of errors and latency as a share of stable's."
    )
    verdict: Literal["Better", "Worse"] | None = Field(default=None, description="Than stable, once that is shown.")
    reason: str | None = Field(default=None, description="Why it was withdrawn while others went on.")
    message: str | None = None


class TrialStatus(_Remembered):
    """How an A/B test stands: what was counted, which outlives the operator, and what it says of each arm."""

    stable: CountsStatus = Field(default_factory=CountsStatus)
    arms: Annotated[list[ArmStatus], Field(json_schema_extra=_ATOMIC)] = Field(
        default_factory=list[ArmStatus], description="The candidates as the test began, those withdrawn since included."
    )


class Verb(StrEnum):
    """What a person may do to a rollout, without touching the spec."""

    PROMOTE = "Promote"
    ABORT = "Abort"
    PAUSE = "Pause"
    RESUME = "Resume"
    RETRY = "Retry"
    ROLLBACK = "Rollback"
    SET_WEIGHT = "SetWeight"


class Request(_Remembered):
    """A verb that somebody used (`kubectl slipway`). Slipway obeys it once; `handled` then names its time."""

    verb: Verb
    at: Annotated[str, Field(max_length=64)] = Field(
        description="When, with microseconds: it also tells one request from another."
    )
    by: Annotated[str, Field(max_length=256)] = Field(default="", description="Who, as `kubectl auth whoami` says.")
    full: bool = Field(default=False, description="Promote: skip all steps that are left.")
    revision: Annotated[str, Field(max_length=253)] | None = Field(
        default=None,
        description="Rollback: to which kept revision; else to the one that served before. Promote: which arm of an A/B test.",
    )
    weight: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="SetWeight: the candidate's percent of requests."
    )


class Pinned(_Remembered):
    """A revision that serves instead of the one that the spec asks for: by request, or because it won an A/B test."""

    revision: str
    instead_of: str = Field(description="The spec's revision, which is refused: another spec, or the verb Retry, ends it.")
    by: str = ""
    at: str = ""
    won: bool = Field(default=False, description="It is an arm that won the spec's A/B test.")


class RolloutStatus(_Remembered):
    """The rollout under way, or how the last one of this spec failed."""

    revision: str = Field(description="The candidate; of several, the one of the spec's own model.")
    since: Time = Field(description="When the candidate was made.")
    step: int = Field(default=0, description="The step under way, counted from 1; 0 before the first.")
    steps: int = Field(default=0, description="How many steps there are, the one to all requests included.")
    step_since: Time | None = Field(default=None, description="When the step's weight was seen live in every router.")
    paused: bool = Field(
        default=False, description="Set by the verb Pause, or by a failed check with onFailure Pause: no step begins."
    )
    paused_reason: str | None = Field(
        default=None, description="Why it paused by itself: a check failed, and onFailure is Pause."
    )
    paused_message: str | None = None
    judged_since: Time | None = Field(
        default=None, description="When it was resumed after a failed check: what was measured before does not count."
    )
    released: int = Field(default=0, description="Steps up to this one wait for no word any more, by the verb Resume.")
    weight_set: int | None = Field(
        default=None, description="Weight set by hand, by the verb SetWeight: it stays until the rollout is resumed."
    )
    resumed: Time | None = Field(default=None, description="When a pause ended: it does not count towards a deadline.")
    forced: int = Field(default=0, description="Steps up to this one count as passed, by the verb Promote.")
    forced_by: str = Field(default="", description="Who asked for that.")
    chosen: str | None = Field(default=None, description="Which of several candidates goes on, by the verb Promote.")
    live_weight: int = Field(
        default=0, description="Percent of requests that every router was last seen to give the candidate; several, together."
    )
    mirror: int = Field(default=0, description="Percent of requests that are copied to the candidate.")
    preview: str = Field(default="", description="Where the candidate alone answers.")
    checks: Annotated[list[CheckStatus], Field(json_schema_extra=_ATOMIC)] = Field(
        default_factory=list[CheckStatus],
        description="What is measured of the candidate. Figures alone are written at most once in 10 s; those of a candidate "
        "that was withdrawn are the last.",
    )
    trial: TrialStatus | None = Field(default=None, description="How the A/B test stands.")
    measured_at: Time | None = Field(default=None, description="When checks and A/B test were measured.")
    outcome: Literal["Failed"] | None = Field(default=None, description="Set when the candidate was withdrawn.")
    reason: str | None = Field(default=None, description="Why the candidate is not ready, or was withdrawn.")
    message: str | None = None


class HistoryEntry(_Remembered):
    """How one rollout ended."""

    revision: str
    version: str = ""
    digest: str | None = None
    outcome: Literal["Served", "Failed", "Superseded", "Cancelled"]
    at: Time
    message: str | None = None


class Status(_Remembered):
    """What Slipway did and sees."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    url: str = Field(default="", description="Where callers inside the cluster reach the model.")
    selector: str = Field(
        default="", description="Label selector of the model's pods, of stable and candidate, for the scale subresource."
    )
    replicas: int = Field(default=0, description="Pods of the serving revision.")
    stable: RevisionStatus | None = Field(default=None, description="The revision that serves.")
    candidate: RevisionStatus | None = Field(default=None, description="The revision being tried.")
    arms: Annotated[list[RevisionStatus], Field(json_schema_extra=_ATOMIC)] = Field(
        default_factory=list[RevisionStatus], description="The others that are tried at the same time, in an A/B test."
    )
    draining: Annotated[list[Draining], Field(json_schema_extra=_ATOMIC)] = Field(
        default_factory=list, description="Revisions that leave."
    )
    scaling: ScalingStatus | None = Field(default=None, description="How the objective is kept; none without one.")
    activation: Activation | None = None
    rollout: RolloutStatus | None = None
    pinned: Pinned | None = None
    handled: str = Field(default="", description="The time of the last request that was obeyed, or refused.")
    request: Request | None = None
    history: Annotated[list[HistoryEntry], Field(json_schema_extra=_ATOMIC)] = Field(
        default_factory=list, description="How each rollout ended, the latest first (at most 20)."
    )
    conditions: Annotated[list[Condition], Field(json_schema_extra=_CONDITIONS)] = Field(default_factory=list)

    @property
    def candidates(self) -> list[RevisionStatus]:
        """Answer all revisions that are tried."""
        return [] if self.candidate is None else [self.candidate, *self.arms]

    @property
    def roles(self) -> list[RevisionStatus]:
        """Answer all revisions that have, or are to have, requests."""
        return self.candidates if self.stable is None else [self.stable, *self.candidates]
