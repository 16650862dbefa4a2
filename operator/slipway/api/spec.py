"""The spec of a ModelDeployment: what a user asks for."""

from typing import Annotated

from pydantic import Field

from slipway.api.base import Rule, Type, duration, text
from slipway.api.model import Model
from slipway.api.rollout import Rollout
from slipway.api.routing import Routing
from slipway.api.server import Server

_A_LATENCY = "duration(self) >= duration('1ms')"
_A_WINDOW = "duration(self) >= duration('1m') && duration(self) <= duration('168h')"
_AN_IDLE_TIME = "duration(self) >= duration('5s') && duration(self) <= duration('168h')"
_CRON = r"^[0-9A-Za-z*/,-]+( +[0-9A-Za-z*/,-]+){4}$"
_SAYS_CRON = "must be five fields of cron (minute, hour, day, month, weekday), such as 0 8 * * 1-5"
_SHARE = r"^[1-9][0-9]{0,3}%$"
_SAYS_SHARE = "must be a whole percentage of the request, such as 70%"
_ZONE = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
_SAYS_ZONE = "must be a time zone such as UTC or Europe/Berlin"


class Objective(Type):
    """What Slipway keeps by its number of replicas; of several, the one that needs most of them."""

    latency: Annotated[str, duration(_A_LATENCY, " of 1ms or more")] | None = Field(
        default=None, description="What `percentile` of the requests do not exceed, as callers feel it, such as `100ms`."
    )
    percentile: int = Field(default=95, ge=50, le=99)
    concurrency: int | None = Field(default=None, ge=1, le=100000, description="Requests in flight for each replica.")
    requests_per_second: int | None = Field(default=None, ge=1, le=1000000, description="For each replica.")
    cpu: Annotated[str, text(_SHARE, _SAYS_SHARE, 8)] | None = Field(
        default=None, description="Of what the pods request, such as `70%`, as metrics-server measures it."
    )

    rules = (
        Rule(
            "has(self.latency) || has(self.concurrency) || has(self.requestsPerSecond) || has(self.cpu)",
            "scaling.objective needs latency, concurrency, requestsPerSecond or cpu",
        ),
    )


_WindowDuration = Annotated[str, duration(_A_WINDOW, " between 1m and 168h")]


class Window(Type):
    """A time of the week with a larger least number of replicas."""

    start: Annotated[str, text(_CRON, _SAYS_CRON, 128)] = Field(
        description="When it begins, as five fields of cron: `0 8 * * 1-5` is 8:00 from Monday to Friday."
    )
    duration: _WindowDuration = Field(description="How long it lasts, such as `10h`.")
    min: int = Field(ge=1, le=1000)
    time_zone: Annotated[str, text(_ZONE, _SAYS_ZONE, 64)] = Field(default="UTC", description="Such as `Europe/Berlin`.")


_IdleAfter = Annotated[str, duration(_AN_IDLE_TIME, " between 5s and 168h")]


class Scaling(Type):
    """How many replicas each serving revision has."""

    min: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="The number of replicas; `kubectl scale` sets it. With an objective, the least number. With 0 there are none "
        "while nobody asks: the next request waits for the first.",
    )
    idle_after: _IdleAfter | None = Field(
        default=None, description="How long nobody must have asked for `min: 0` to mean none; 5m by default."
    )
    max: int | None = Field(default=None, ge=1, le=1000, description="The largest number of replicas under an objective.")
    objective: Objective | None = Field(default=None, description="What Slipway keeps by its number of replicas.")
    increase_per_minute: int | None = Field(default=None, ge=1, le=1000, description="At most so many more replicas a minute.")
    decrease_per_minute: int | None = Field(default=None, ge=1, le=1000, description="At most so many fewer replicas a minute.")
    schedule: Annotated[list[Window], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Times at which no fewer replicas than those are kept, whatever is measured."
    )

    rules = (
        Rule(
            "!has(self.idleAfter) || self.min == 0",
            "scaling.idleAfter has an effect with scaling.min: 0 only; remove one of them",
            ".idleAfter",
        ),
        Rule(
            "has(self.objective) == has(self.max)",
            "scaling.objective and scaling.max need each other: how far it may go to keep it",
            ".max",
        ),
        Rule("!has(self.max) || self.max >= self.min", "scaling.max must not be smaller than scaling.min", ".max"),
        Rule(
            "has(self.objective) || !(has(self.increasePerMinute) || has(self.decreasePerMinute) || has(self.schedule))",
            "scaling.increasePerMinute, decreasePerMinute and schedule have an effect with scaling.objective only",
        ),
    )

    @property
    def fixed(self) -> bool:
        """Tell whether there are always `min` replicas."""
        return self.objective is None and self.min > 0


class Spec(Type):
    """What a user asks for."""

    model: Model
    server: Server = Field(default_factory=Server, description="What runs the model: by default the bundled server.")
    scaling: Scaling = Field(default_factory=Scaling, description="How many replicas.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a new revision takes over.")
    routing: Routing = Field(default_factory=Routing, description="How callers reach the model.")
    revision_history_limit: int = Field(
        default=10, ge=0, le=100, description="How many retired revisions are kept (as ControllerRevisions)."
    )

    rules = (
        Rule(
            "self.model.format != 'Custom' || has(self.server.image)",
            "model.format: Custom needs a server.image that knows what to do with the model",
            ".model.format",
        ),
        Rule(
            "self.model.format == 'Custom' || self.server.protocol == 'V2'",
            "server.protocol: Slipway's server speaks V2; another protocol needs model.format: Custom and a server.image",
            ".server.protocol",
        ),
        Rule(
            "self.model.format == 'Custom' || !has(self.server.readinessPath)",
            "server.readinessPath has no effect on Slipway's server; remove it, or use model.format: Custom and a server.image",
            ".server.readinessPath",
        ),
        Rule(
            "self.model.format == 'Custom' || !has(self.server.podTemplate) || !has(self.server.podTemplate.spec) || "
            "!has(self.server.podTemplate.spec.containers) || self.server.podTemplate.spec.containers.all(c, !has(c.args))",
            "server.podTemplate.spec.containers[0].args: the arguments of Slipway's server are set by Slipway; "
            "remove them, or use model.format: Custom and a server.image",
            ".server.podTemplate.spec.containers",
        ),
        Rule(
            "self.model.format != 'Custom' || "
            "!(has(self.server.workers) || has(self.server.batching) || has(self.server.limits))",
            "server.workers, batching and limits are settings of Slipway's server, without effect on an image of your own; "
            "remove them",
            ".server",
        ),
        Rule(
            "!has(self.rollout.abTest) || !has(self.rollout.abTest.arms) || "
            "self.rollout.abTest.arms.all(arm, (arm.model.format == 'Custom') == (self.model.format == 'Custom'))",
            "rollout.abTest.arms: spec.server runs all arms; where one model's format is Custom, all others' must be",
            ".rollout",
        ),
        Rule(
            "self.server.protocol == oldSelf.server.protocol",
            "server.protocol cannot be changed: callers speak it. Create a ModelDeployment of another name and move them",
            ".server.protocol",
        ),
    )
