"""The spec of a ModelDeployment: what a user asks for."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from slipway.api.base import Duration, LabelValue, Percent, Quantity, Rule, Type, duration, text
from slipway.api.pod import PodTemplate

_HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
Resources = Annotated[dict[str, Quantity], Field(max_length=16)]


class Format(StrEnum):
    """How the model is stored."""

    ONNX = "ONNX"
    SKLEARN = "SKLearn"
    XGBOOST = "XGBoost"
    LIGHTGBM = "LightGBM"
    PYTHON = "Python"
    CUSTOM = "Custom"


class Protocol(StrEnum):
    """What the server speaks: it decides the default readiness path."""

    V2 = "V2"
    OPENAI = "OpenAI"
    HTTP = "HTTP"


class Strategy(StrEnum):
    """How a new revision takes over."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    SHADOW = "Shadow"
    AB_TEST = "ABTest"
    IMMEDIATE = "Immediate"


class OnFailure(StrEnum):
    """What happens to a candidate that fails."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"


class Promotion(StrEnum):
    """Who decides that a candidate that passed becomes stable."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


_SAYS_SHA256 = "must be the 64 lower-case hex digits that sha256sum prints"


class Model(Type):
    """The model: where it lies, what it is, and how it is known to be the right one."""

    uri: str | None = Field(
        default=None,
        max_length=2048,
        description="Where the model lies: `configmap://NAME/KEY`, `pvc://CLAIM/PATH`, `file:///PATH` (in the image), "
        "`http://...` or `https://...`. Without it `server.image` holds the model itself (`format: Custom`).",
    )
    format: Format = Field(description="How the model is stored. The bundled server loads ONNX.")
    version: LabelValue = Field(
        default="",
        description="Your own label for this version. Callers see it as `model_version`.",
    )
    sha256: Annotated[str, text("^[a-f0-9]{64}$", _SAYS_SHA256, 64)] | None = Field(
        default=None,
        description="The digest of the file, in lower-case hex. A file that differs is refused before it is parsed.",
    )

    rules = (
        Rule(
            "has(self.uri) || self.format == 'Custom'",
            "model.uri is needed: only format Custom, with a server.image that holds the model, goes without",
            ".uri",
        ),
        Rule("has(self.uri) || !has(self.sha256)", "model.sha256 has no effect without model.uri: remove it", ".sha256"),
        Rule(
            "!has(self.uri) || self.uri.matches('^(configmap|pvc|file|http|https|s3|gs|az|hf|oci)://')",
            "model.uri must begin with one of configmap:// pvc:// file:/// http:// https:// s3:// gs:// az:// hf:// oci://",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('^(s3|gs|az|hf|oci)://')",
            "model.uri: s3, gs, az, hf and oci are not available in this version of Slipway; "
            "use configmap, pvc, file, http or https",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('configmap:') || "
            "self.uri.matches('^configmap://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[-._a-zA-Z0-9]{1,253}$')",
            "model.uri must be configmap://NAME/KEY, with the name of a ConfigMap in this namespace and one of its keys",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('pvc:') || "
            "self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[^/].*$')",
            "model.uri must be pvc://CLAIM/PATH, with the name of a PersistentVolumeClaim in this namespace and the path "
            "of a file on it",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('file:') || self.uri.matches('^file:///[^/].*$')",
            "model.uri must be file:///PATH, the absolute path of a file in the image",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('^(pvc|file):') || !self.uri.matches('(^|/)[.][.](/|$)')",
            "model.uri must not hold '..': name the file by its path below the volume or the image's root",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('^https?:') || self.uri.matches('^https?://[^/@?#]+/[^#]*$')",
            "model.uri must be http(s)://HOST/PATH without a user name, password or fragment: "
            "a credential in a spec is visible to whoever may read it",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('[[:space:][:cntrl:]]')",
            "model.uri must not hold spaces or control characters: percent-encode them",
            ".uri",
        ),
    )


class ResourceRequirements(Type):
    """Compute resources of the server's container."""

    requests: Resources | None = Field(
        default=None, description="What a pod is guaranteed, such as `cpu: 500m`, `memory: 512Mi`."
    )
    limits: Resources | None = Field(default=None, description="What a pod may use at most.")

    rules = (
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
            "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
            "server.resources: a request is larger than its limit; raise the limit or lower the request",
        ),
        Rule(
            "(has(self.requests) ? self.requests.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.contains('/') || "
            "k.startsWith('hugepages-')) : true) && (has(self.limits) ? self.limits.all(k, k in ['cpu', 'memory', "
            "'ephemeral-storage'] || k.contains('/') || k.startsWith('hugepages-')) : true)",
            "server.resources: a resource is cpu, memory, ephemeral-storage, hugepages-SIZE or DOMAIN/NAME (nvidia.com/gpu)",
        ),
        Rule(
            "!has(self.requests) || self.requests.all(k, !(k.contains('/') || k.startsWith('hugepages-')) || "
            "(has(self.limits) && k in self.limits && "
            "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) == 0))",
            "server.resources: a device such as nvidia.com/gpu, or hugepages, cannot be shared: give it in limits (a request, "
            "if any, must be the same)",
            ".requests",
        ),
        Rule(
            "!has(self.limits) || self.limits.all(k, !k.contains('/') || quantity(string(self.limits[k])).isInteger())",
            "server.resources: a device such as nvidia.com/gpu comes in whole numbers",
            ".limits",
        ),
    )


_SAYS_IMAGE = "must be an image reference in lower case, such as registry.example.com/team/server:1"
_SAYS_PATH = "must be a path that begins with '/', such as /health"


class Server(Type):
    """What runs the model."""

    image: Annotated[str, text(r"^[a-z0-9][^\s]*$", _SAYS_IMAGE, 512)] | None = Field(
        default=None, description="Any image that answers HTTP. Default: the bundled server."
    )
    protocol: Protocol = Field(
        default=Protocol.V2, description="What the server speaks. Callers depend on it, so it cannot be changed afterwards."
    )
    port: int = Field(default=8080, ge=1024, le=65535, description="The port that the container listens on.")
    readiness_path: Annotated[str, text(r"^/[^\s]*$", _SAYS_PATH, 256)] | None = Field(
        default=None,
        description="The path that answers 200 when the model can serve. Default: `/v2/health/ready` for V2, `/health` for "
        "OpenAI; for HTTP an open port is enough.",
    )
    resources: ResourceRequirements | None = Field(
        default=None, description="Default: requests of 100m CPU and 256Mi of memory, no limits."
    )
    pod_template: PodTemplate | None = Field(
        default=None, description="Node selectors, tolerations, volumes, environment and the like for the model's pods."
    )

    rules = (
        Rule(
            "has(self.image) || self.protocol == 'V2'",
            "server.protocol: the bundled server speaks V2; name a server.image for another protocol",
            ".protocol",
        ),
        Rule(
            "has(self.image) || !has(self.readinessPath)",
            "server.readinessPath has no effect on the bundled server; remove it or name a server.image",
            ".readinessPath",
        ),
        Rule(
            "has(self.image) || !has(self.podTemplate) || !has(self.podTemplate.spec) || "
            "!has(self.podTemplate.spec.containers) || self.podTemplate.spec.containers.all(c, !has(c.args))",
            "server.podTemplate.spec.containers[0].args: the bundled server's arguments are set by Slipway; "
            "remove them or name a server.image",
            ".podTemplate.spec.containers",
        ),
    )


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


class Step(Type):
    """One step of a canary."""

    weight: int = Field(ge=0, le=100, description="Percent of requests that the candidate gets.")
    hold: Duration | None = Field(default=None, description="How long the step lasts at the least, such as `5m`.")


class ErrorRateCheck(Type):
    """An upper bound on the share of failed requests."""

    max: Percent


class LatencyCheck(Type):
    """An upper bound on a latency quantile."""

    percentile: int = Field(default=95, ge=50, le=99)
    max: Duration | None = None
    relative_to_stable: float | None = Field(default=None, ge=1)


class Check(Type):
    """One thing that is measured of a candidate."""

    error_rate: ErrorRateCheck | None = None
    latency: LatencyCheck | None = None


def _unbuilt(field: str) -> Rule:
    return Rule(
        f"!has(self.{field})",
        f"rollout.{field} is not available in this version of Slipway, which rolls out with strategy Immediate; remove it",
        f".{field}",
    )


class Rollout(Type):
    """How a new revision takes over."""

    strategy: Strategy = Field(
        default=Strategy.IMMEDIATE,
        description="Immediate: the new revision gets all requests as soon as all its replicas are ready and every router "
        "sees them; the old one leaves after its last request.",
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="Steps of a canary."
    )
    checks: Annotated[list[Check], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Checks of a canary."
    )
    min_requests: int | None = Field(default=None, ge=1, description="How many requests a step must have seen.")
    on_failure: OnFailure | None = Field(default=None, description="What happens to a candidate that fails its checks.")
    promotion: Promotion | None = Field(default=None, description="Whether a candidate that passed is promoted by itself.")
    progress_deadline: Annotated[str, duration("duration(self) >= duration('1s')", " of 1s or more")] = Field(
        default="10m",
        description="How long a candidate may take to become ready. After that it is withdrawn and what served goes on "
        "serving; a change of the spec tries again.",
    )

    rules = (
        Rule(
            "self.strategy == 'Immediate'",
            "rollout.strategy: Canary, BlueGreen, Shadow and ABTest are not available in this version of Slipway; use Immediate",
            ".strategy",
        ),
        *(_unbuilt(field) for field in ("steps", "checks", "minRequests", "onFailure", "promotion")),
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
            "has(self.server.image) || self.model.format == 'ONNX'",
            "model.format: the bundled server loads ONNX; name a server.image for another format",
            ".model.format",
        ),
        Rule(
            "self.server.protocol == oldSelf.server.protocol",
            "server.protocol cannot be changed: callers speak it. Create a ModelDeployment of another name and move them",
            ".server.protocol",
        ),
    )
