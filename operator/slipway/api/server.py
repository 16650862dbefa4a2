"""The server: which image runs the model, with what, within which limits."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from slipway.api.base import Quantity, Rule, Type, duration, text
from slipway.api.pod import PodTemplate

Resources = Annotated[dict[str, Quantity], Field(max_length=16)]


class Protocol(StrEnum):
    """What the server speaks: it decides the default readiness path."""

    V2 = "V2"
    OPENAI = "OpenAI"
    HTTP = "HTTP"


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
_A_DELAY = "duration(self) <= duration('1s')"
_A_REQUEST = "duration(self) >= duration('100ms') && duration(self) <= duration('1h')"


class Batching(Type):
    """How requests that wait for the model are put together. Models that mix the rows of a batch are never batched."""

    max_size: int = Field(default=64, ge=1, le=4096, description="The most rows in one run of the model; 1 switches it off.")
    max_delay: Annotated[str, duration(_A_DELAY, " up to 1s")] = Field(
        default="0s",
        description="How long a run waits for more requests. 0s: not at all, whatever waits when the model is free is the batch.",
    )


class Limits(Type):
    """What one request, and all of them together, may take of a pod. Beyond: 413, 400, 431, 408, 504, or 429 with Retry-After."""

    body_size: Quantity | None = Field(default=None, description="Bytes of a body, also once inflated. Default: `16Mi`.")
    header_size: Quantity | None = Field(default=None, description="Bytes of a request's headers. Default: `32Ki`.")
    json_depth: int | None = Field(default=None, ge=4, le=512, description="How deep JSON may nest. Default: 64.")
    tensor_elements: int | None = Field(
        default=None, ge=1, description="Elements of a request's inputs together. Default: 16777216."
    )
    concurrency: int | None = Field(default=None, ge=1, le=65536, description="Requests at once in a pod. Default: 512.")
    request_timeout: Annotated[str, duration(_A_REQUEST, " between 100ms and 1h")] | None = Field(
        default=None, description="How long a request may take to arrive, and then to be answered. Default: `60s`."
    )


class Server(Type):
    """What runs the model."""

    image: Annotated[str, text(r"^[a-z0-9][^\s]*$", _SAYS_IMAGE, 512)] | None = Field(
        default=None,
        description="Default: Slipway's server. With format Custom any image that answers HTTP; with any other format an image "
        "built from Slipway's server (`FROM slipway/server`), with packages that your model needs.",
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
        default=None,
        description="Default: requests of 100m CPU and 256Mi of memory, no limits. With `nvidia.com/gpu` in the limits the GPU "
        "build of Slipway's server runs.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes in a pod. Default: one for each whole CPU of the limit, 1 without a limit.",
    )
    batching: Batching | None = Field(default=None, description="How requests that wait for the model are put together.")
    limits: Limits | None = Field(default=None, description="What one request, and all of them together, may take.")
    pod_template: PodTemplate | None = Field(
        default=None, description="Node selectors, tolerations, volumes, environment and the like for the model's pods."
    )
