"""What is measured of a candidate, and what it must keep."""

from typing import Annotated, Any

from pydantic import Field

from slipway.api.base import PERCENT_PATTERN, DnsName, Duration, Rule, Type, duration, text
from slipway.api.pod import EnvVar, Labels, Named, Object, PodMetadata, Volume, VolumeMount

_SAYS_SHARE = "must be a percentage above 0% and below 100%, such as 1% or 0.5%"
_A_SHARE = "double(self.replace('%', '')) > 0.0 && double(self.replace('%', '')) < 100.0"
_SAYS_LEAST = "must be a percentage above 0% and at most 100%, such as 99% or 99.9%"
_A_LEAST = "double(self.replace('%', '')) > 0.0 && double(self.replace('%', '')) <= 100.0"
_ADDRESS = r"^https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[^@?#\s]*)?$"
_SAYS_ADDRESS = "must be http(s)://HOST[:PORT][/PATH] without a user name or a query, such as http://prometheus:9090"
_URL = r"^https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[^@#\s]*)?$"
_SAYS_URL = "must be http(s)://HOST[:PORT]/PATH without a user name or a fragment, such as http://gate/churn"
_WHOM = (
    "HOST is the name of a Service in this namespace (http), or one of the hosts that the platform allows (the chart's "
    "`checks.allowedHosts`)"
)
_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SAYS_NAME = "must begin with a letter and hold lower-case letters, digits and '-', such as smoke-test"
_AN_INTERVAL = "duration(self) >= duration('1s') && duration(self) <= duration('1h')"
_A_TIMEOUT = "duration(self) >= duration('100ms') && duration(self) <= duration('30s')"
_A_RUN = "duration(self) >= duration('1s') && duration(self) <= duration('24h')"

Interval = Annotated[str, duration(_AN_INTERVAL, " between 1s and 1h")]
Timeout = Annotated[str, duration(_A_TIMEOUT, " between 100ms and 30s")]
_MIN_REQUESTS = "How many requests it must rest on at a step. Default: `rollout.minRequests`."
_MIN_SAMPLES = "How many good answers a step must have had to be passed. The latest one must be good too."
_FAILURE_LIMIT = "With so many bad answers at one step the candidate is withdrawn. Who does not answer gives no bad answer."


class ErrorRateCheck(Type):
    """An upper bound on the share of failed requests: answers 5xx, timeouts, resets and refused connections."""

    max: Annotated[str, text(PERCENT_PATTERN, _SAYS_SHARE, 16, also=_A_SHARE)] = Field(
        description="Such as `1%`. A candidate is withdrawn when it is above, and worse than stable."
    )
    min_requests: int | None = Field(default=None, ge=1, le=1000000, description=_MIN_REQUESTS)


class LatencyCheck(Type):
    """An upper bound on a latency quantile, as callers feel it."""

    percentile: int = Field(default=95, ge=50, le=99)
    max: Duration | None = Field(default=None, description="The bound itself, such as `150ms`.")
    relative_to_stable: float | None = Field(
        default=None, ge=1, le=100, description="The bound as a multiple of what stable has at the same time, such as 1.25."
    )
    min_requests: int | None = Field(default=None, ge=1, le=1000000, description=_MIN_REQUESTS)

    rules = (
        Rule(
            "has(self.max) || has(self.relativeToStable)",
            "rollout.checks.latency needs max, relativeToStable, or both",
        ),
        Rule("!has(self.max) || duration(self.max) >= duration('1ms')", "rollout.checks.latency.max must be 1ms or more", ".max"),
    )


class PrometheusCheck(Type):
    """Bounds on what a Prometheus answers to a query, asked again and again while a step lasts."""

    address: Annotated[str, text(_ADDRESS, _SAYS_ADDRESS, 512)] | None = Field(
        default=None,
        description=f"Where it is; {_WHOM}. Default: the platform's own (the chart's `checks.prometheus.address`).",
    )
    query: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="PromQL that gives one number: a scalar, or a vector of one. `{{namespace}}`, `{{name}}`, `{{revision}}` "
        "(the candidate) and `{{stable}}` stand for their names."
    )
    min: float | None = Field(default=None, description="The least that is good.")
    max: float | None = Field(default=None, description="The most that is good.")
    interval: Interval = Field(default="15s", description="How often it is asked; the first time after one interval.")
    timeout: Timeout = Field(default="5s", description="How long an answer may take.")
    min_samples: int = Field(default=1, ge=1, le=1000, description=_MIN_SAMPLES)
    failure_limit: int = Field(default=3, ge=1, le=1000, description=_FAILURE_LIMIT)

    rules = (
        Rule("has(self.min) || has(self.max)", "rollout.checks.prometheus needs min, max, or both"),
        Rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "rollout.checks.prometheus: no number is both at least min and at most max; swap them",
            ".min",
        ),
    )


class Metric(Type):
    """A number of yours, of which a Prometheus tells each arm's mean, by which an A/B test compares them."""

    address: Annotated[str, text(_ADDRESS, _SAYS_ADDRESS, 512)] | None = Field(
        default=None,
        description=f"Where it is; {_WHOM}. Default: the platform's own (the chart's `checks.prometheus.address`).",
    )
    query: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="PromQL that gives one number, the mean of one arm over the last interval. `{{revision}}` stands for the "
        "arm's name, `{{namespace}}` and `{{name}}` for those of the ModelDeployment."
    )
    interval: Interval = Field(default="1m", description="How often each arm's mean is asked; the first time after one interval.")
    higher_is_better: bool = Field(
        default=True, description="Whether the arm with the higher mean wins, or the one with the lower."
    )

    rules = (
        Rule(
            "self.query.contains('{{revision}}')",
            "rollout.abTest.metric.query must hold {{revision}}, the arm's name: else it gives the same number of every arm",
            ".query",
        ),
    )


class WebhookCheck(Type):
    """The word of a service of yours, asked by POST again and again while a step lasts."""

    url: Annotated[str, text(_URL, _SAYS_URL, 1024)] = Field(description=f"What is asked; {_WHOM}.")
    interval: Interval = Field(default="10s", description="How often it is asked; the first time at once.")
    timeout: Timeout = Field(default="5s", description="How long an answer may take.")
    min_samples: int = Field(default=1, ge=1, le=1000, description=_MIN_SAMPLES)
    failure_limit: int = Field(default=3, ge=1, le=1000, description=_FAILURE_LIMIT)


def _by(key: str) -> dict[str, Any]:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class JobContainer(Type):
    """The container of a check's pod."""

    name: Annotated[str, text("^check$", "must be check: the pod has no other container", 63)] = Field(
        default="check", description="Always `check`."
    )
    image: Annotated[str, text(r"^[a-z0-9][^\s]*$", "must be an image reference in lower case, such as tests:1", 512)]
    command: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=64)] | None = Field(
        default=None, description="As in a Pod."
    )
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=64)] | None = Field(
        default=None, description="As in a Pod."
    )
    env: Annotated[list[EnvVar], Field(max_length=32, json_schema_extra=_by("name"))] | None = Field(
        default=None, description="As in a Pod, beside the `SLIPWAY_` variables."
    )
    env_from: Annotated[list[Object], Field(max_length=16)] | None = Field(default=None, description="As in a Pod.")
    resources: Object | None = Field(default=None, description="As in a Pod. Default: requests of 50m CPU and 64Mi of memory.")
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16, json_schema_extra=_by("mountPath"))] | None = Field(
        default=None, description="As in a Pod."
    )


class JobPod(Type):
    """The pod of a check. What is not listed here is set by Slipway, its security as for a model's pods."""

    node_selector: Labels | None = Field(default=None, description="As in a Pod.")
    tolerations: Annotated[list[Object], Field(max_length=32)] | None = Field(default=None, description="As in a Pod.")
    affinity: Object | None = Field(default=None, description="As in a Pod.")
    priority_class_name: DnsName | None = Field(default=None, description="As in a Pod.")
    runtime_class_name: DnsName | None = Field(default=None, description="As in a Pod.")
    service_account_name: DnsName | None = Field(default=None, description="As in a Pod.")
    automount_service_account_token: bool = Field(default=False, description="Whether its token is mounted.")
    image_pull_secrets: Annotated[list[Named], Field(max_length=8, json_schema_extra=_by("name"))] | None = Field(
        default=None, description="As in a Pod."
    )
    volumes: Annotated[list[Volume], Field(max_length=16, json_schema_extra=_by("name"))] | None = Field(
        default=None, description="As in a Pod."
    )
    containers: Annotated[list[JobContainer], Field(min_length=1, max_length=1)] = Field(
        description="One entry, the container `check`.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class JobTemplate(Type):
    """The pod template of a check."""

    metadata: PodMetadata | None = Field(default=None, description="Labels and annotations added to the pod.")
    spec: JobPod


class JobCheck(Type):
    """A Job of yours, run once at each step: it passes if the Job completes, and fails if the Job does."""

    template: JobTemplate = Field(description="Its pod, which runs as a user that is not root and is never restarted.")
    timeout: Annotated[str, duration(_A_RUN, " between 1s and 24h")] = Field(
        default="10m",
        description="How long it may take. Then it is ended and has no result: the step waits, up to its deadline.",
    )
    failure_limit: int = Field(
        default=1, ge=1, le=10, description="With so many failed pods the candidate is withdrawn; until then another is tried."
    )


_KINDS = ("errorRate", "latency", "agreement", "prometheus", "webhook", "job")


class AgreementCheck(Type):
    """A lower bound on the share of live requests that candidate and stable answer alike.

    Copies of requests are answered once more by both; callers are answered as ever.
    """

    min: Annotated[str, text(PERCENT_PATTERN, _SAYS_LEAST, 16, also=_A_LEAST)] = Field(description="Such as `99%`.")
    share: int = Field(default=5, ge=1, le=100, description="Percent of requests that are compared.")
    tolerance: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="How far numbers may differ: |a - b| / max(1, |a|, |b|), absolute for small ones, relative for large ones.",
    )
    labels: bool = Field(default=False, description="Only labels have to be the same: the largest of scores, integers and texts.")
    min_requests: int | None = Field(default=None, ge=1, le=1000000, description=_MIN_REQUESTS)


class Check(Type):
    """One thing that is measured of a candidate."""

    name: Annotated[str, text(_NAME, _SAYS_NAME, 63)] | None = Field(
        default=None, description="What status calls it. Default: what it measures, such as `errorRate`, `p95` or `prometheus`."
    )
    error_rate: ErrorRateCheck | None = None
    latency: LatencyCheck | None = None
    agreement: AgreementCheck | None = None
    prometheus: PrometheusCheck | None = None
    webhook: WebhookCheck | None = None
    job: JobCheck | None = None

    rules = (
        Rule(
            f"[{', '.join(f'has(self.{kind})' for kind in _KINDS)}].exists_one(found, found)",
            f"a check is one of {', '.join(_KINDS[:-1])} and {_KINDS[-1]}: make a list entry of each",
        ),
        Rule("!(has(self.name) && has(self.agreement))", "rollout.checks.name: the one check agreement is called that", ".name"),
        Rule(
            "!has(self.name) || !self.name.matches('^(prometheus|webhook|job|p[0-9]+)$')",
            "rollout.checks.name: prometheus, webhook, job and p95 are what checks without a name are called; use another",
            ".name",
        ),
    )
