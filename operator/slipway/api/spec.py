"""The spec of a ModelDeployment: what a user asks for."""

from typing import Annotated

from pydantic import Field

from slipway.api.base import Duration, Percent, Rule, Type, duration, text
from slipway.api.model import Model
from slipway.api.rollout import Rollout
from slipway.api.server import Server

_HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


class Objective(Type):
    """What the autoscaler keeps."""

    percentile: int | None = Field(default=None, ge=50, le=99)
    latency: Duration | None = None
    concurrency: int | None = Field(default=None, ge=1)
    requests_per_second: int | None = Field(default=None, ge=1)
    cpu: Percent | None = None


class Scaling(Type):
    """How many replicas each serving revision has."""

    min: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="The number of replicas; `kubectl scale` sets it. With an objective, the least number.",
    )
    max: int | None = Field(default=None, ge=1, le=1000, description="The largest number of replicas under an objective.")
    objective: Objective | None = Field(default=None, description="What the autoscaler keeps.")

    rules = (
        Rule(
            "self.min >= 1",
            "scaling.min: scale to zero is not available in this version of Slipway; use 1 or more",
            ".min",
        ),
        Rule(
            "!has(self.objective)",
            "scaling.objective: scaling on an objective is not available in this version of Slipway; set scaling.min",
            ".objective",
        ),
        Rule(
            "!has(self.max) || self.max == self.min",
            "scaling.max has no effect without an objective, which is not available in this version of Slipway; remove it",
            ".max",
        ),
    )


_SAYS_HOST = "must be a host name in lower case without scheme, port or path, such as churn.example.com or *.example.com"
_A_REQUEST = "duration(self) >= duration('1ms') && duration(self) <= duration('1h')"


class Routing(Type):
    """How callers reach the model."""

    hosts: Annotated[list[Annotated[str, text(_HOST, _SAYS_HOST, 253)]], Field(max_length=16)] | None = Field(
        default=None,
        description="Host names that the router answers to beside the Service's own, for an Ingress or Gateway in front.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    timeout: Annotated[str, duration(_A_REQUEST, " between 1ms and 1h")] = Field(
        default="30s", description="How long a request may take; 504 afterwards."
    )


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
            "self.server.protocol == oldSelf.server.protocol",
            "server.protocol cannot be changed: callers speak it. Create a ModelDeployment of another name and move them",
            ".server.protocol",
        ),
    )
