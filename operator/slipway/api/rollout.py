"""How a new revision takes over: strategy and steps."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from slipway.api.base import PERCENT_PATTERN, DnsName, Duration, Rule, Type, duration, text
from slipway.api.checks import Check, Metric
from slipway.api.model import Model


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


class StableCapacity(StrEnum):
    """How many pods stable keeps while a candidate has a share of the requests."""

    FULL = "Full"
    PROPORTIONAL = "Proportional"


class Pause(Type):
    """A wait for somebody's word (`kubectl slipway promote` or `resume`) once a step has passed."""

    duration: Duration | None = Field(default=None, description="After this long the rollout goes on by itself; none: never.")


_A_MIRROR = "Percent of requests that are copied to the candidate. Its answers to copies are discarded."


class Step(Type):
    """One step of a canary. It begins when its weight is live in every router."""

    weight: int = Field(ge=0, le=100, description="Percent of requests that the candidate gets.")
    hold: Duration = Field(default="0s", description="How long the step lasts at the least, such as `5m`.")
    pause: Pause | None = Field(default=None, description="After its hold, and once it has passed, the step waits for a word.")
    replicas: int | None = Field(
        default=None, ge=1, le=1000, description="How many pods the candidate has at the least; more where its weight needs them."
    )
    mirror: int | None = Field(default=None, ge=1, le=100, description=_A_MIRROR)

    rules = (
        Rule(
            "!has(self.mirror) || self.weight == 0",
            "rollout.steps: requests are mirrored at weight 0 only: the candidate would get copies of what it answers itself",
            ".mirror",
        ),
    )


_TOKEN = r"^[A-Za-z0-9!#$&^_.+|~-]+$"  # noqa: S105 - RFC 9110's word for the characters of a header's name
_SAYS_TOKEN = "must be a name of letters, digits and - _ . only"  # noqa: S105
_VALUE = r"^[!-:<-~]+$"
_SAYS_VALUE = "must be printable ASCII without spaces and semicolons"


class Match(Type):
    """A header or a cookie by its name, and the value that it must have."""

    name: Annotated[str, text(_TOKEN, _SAYS_TOKEN, 64)]
    value: Annotated[str, text(_VALUE, _SAYS_VALUE, 256)]


class Testers(Type):
    """Whose requests go to the candidate whatever its weight: those that carry a header or a cookie."""

    header: Match | None = None
    cookie: Match | None = None

    rules = (Rule("has(self.header) != has(self.cookie)", "rollout.testers needs either header or cookie"),)


class Synthetic(Type):
    """Requests of the user's own that are sent to a candidate whom no caller reaches yet."""

    config_map: DnsName = Field(description="The ConfigMap, of this namespace, that holds the sample.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        default="requests.jsonl",
        description="Its key: JSON lines, or a JSON list, of `{path, method, headers, body or bodyBase64}`.",
    )
    requests_per_second: int = Field(default=5, ge=1, le=50)


class BlueGreen(Type):
    """The candidate has all its pods and is checked behind `NAME-preview`; then it gets all requests at once."""

    hold: Duration = Field(default="0s", description="How long it is checked at the least.")
    mirror: int | None = Field(default=None, ge=1, le=100, description=_A_MIRROR)
    synthetic: Synthetic | None = Field(default=None, description="Requests of your own to check it by.")
    scale_down_delay: Duration = Field(
        default="30s", description="How long the pods of what served before stay after the switch, to be there for a way back."
    )


class Shadow(Type):
    """The candidate gets copies of live requests, and no caller its answers, until it has passed its checks."""

    mirror: int = Field(default=10, ge=1, le=100, description=_A_MIRROR)
    hold: Duration = Field(default="10m", description="How long it is watched at the least.")


class StickyCookie(Type):
    """A cookie that the routers give to callers who have none."""

    name: Annotated[str, text(_TOKEN, _SAYS_TOKEN, 64)] = "slipway-arm"
    ttl: Duration = Field(default="720h", description="How long callers keep it.")


class Measure(StrEnum):
    """What the arms of an A/B test are compared by."""

    ERROR_RATE = "ErrorRate"
    LATENCY = "Latency"
    METRIC = "Metric"


class Arm(Type):
    """One more version of the model in an A/B test, beside the candidate; `spec.server` runs it as well."""

    model: Model
    weight: int = Field(ge=1, le=98, description="Percent of callers that get it.")


_A_CONFIDENCE = "double(self.replace('%', '')) >= 80.0 && double(self.replace('%', '')) <= 99.99"


class AbTest(Type):
    """Callers are assigned to stable or a candidate, and stay there, until one is shown to be better."""

    weight: int = Field(default=50, ge=1, le=99, description="Percent of callers that get the candidate.")
    arms: Annotated[list[Arm], Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="Further candidates: other versions of the model, tried at the same time. Stable has the other callers.",
    )
    header: Annotated[str, text(_TOKEN, _SAYS_TOKEN, 64)] | None = Field(
        default=None, description="Requests with one value of this header stay with one revision."
    )
    cookie: StickyCookie | None = Field(default=None, description="Callers who keep cookies stay with one revision.")
    measure: Measure = Field(
        default=Measure.ERROR_RATE,
        description="By what they are compared. Of errors and latency the lower wins; `metric` says what else is measured.",
    )
    metric: Metric | None = Field(default=None, description="What is asked of a Prometheus, where that is the measure.")
    percentile: int = Field(default=95, ge=50, le=99, description="Of latency, where that is the measure.")
    confidence: Annotated[str, text(PERCENT_PATTERN, "must be a percentage from 80% to 99.99%", 16, also=_A_CONFIDENCE)] = Field(
        default="95%", description="How sure the test must be to name a winner, looked at as often as you like."
    )
    hold: Duration = Field(default="0s", description="How long the test lasts at the least, however clear it is.")
    duration: Duration = Field(
        default="168h",
        description="How long it may last. Without a winner by then all candidates are withdrawn: nothing is better.",
    )

    rules = (
        Rule(
            "!(has(self.header) && has(self.cookie))", "rollout.abTest: callers stay by header or by cookie: give one", ".cookie"
        ),
        Rule(
            "(self.measure == 'Metric') == has(self.metric)",
            "rollout.abTest.metric, which says what is asked, and measure Metric need each other",
            ".metric",
        ),
        Rule(
            "!has(self.arms) || self.weight + self.arms.map(arm, arm.weight).sum() <= 99",
            "rollout.abTest.arms: the weights of all candidates come to 100% or more; leave stable some, to be compared with",
            ".arms",
        ),
    )


_A_DEADLINE = "duration(self) >= duration('1s')"


class Rollout(Type):
    """How a new revision takes over."""

    strategy: Strategy = Field(
        default=Strategy.IMMEDIATE,
        description="Immediate: the new revision gets all requests as soon as all its replicas are ready and every router "
        "sees them; the old one leaves after its last request. Canary: it gets them step by step, and is withdrawn if it fails "
        "its checks. BlueGreen: it is checked behind a preview, then gets all at once. Shadow: it is checked by copies of live "
        "requests, then gets all at once. ABTest: callers stay with one or the other until one is shown to be better.",
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="The steps of a canary. After the last one the candidate gets all requests."
    )
    blue_green: BlueGreen | None = Field(default=None, description="Settings of strategy BlueGreen.")
    shadow: Shadow | None = Field(default=None, description="Settings of strategy Shadow.")
    ab_test: AbTest | None = Field(default=None, description="Settings of strategy ABTest.")
    testers: Testers | None = Field(
        default=None,
        description="Requests that go to the candidate whatever its weight, from its first step on; a step of weight 0 is theirs "
        "alone.",
    )
    checks: Annotated[list[Check], Field(min_length=1, max_length=16)] | None = Field(
        default=None,
        description="What a candidate must keep. Each is tested at every moment of every step: a plainly bad candidate "
        "is withdrawn within seconds, one that is like stable in at most 1% of rollouts.",
    )
    min_requests: int = Field(default=100, ge=1, le=1000000, description="How many requests a step must have seen to be passed.")
    on_failure: OnFailure = Field(
        default=OnFailure.ROLLBACK,
        description="Rollback: a candidate that fails its checks, or its deadline, is withdrawn. Pause: it stays as it is until "
        "somebody resumes, promotes or aborts it; one without any ready pod is withdrawn all the same.",
    )
    promotion: Promotion = Field(
        default=Promotion.AUTOMATIC,
        description="Automatic: a candidate that passed gets all requests. Manual: it waits for `kubectl slipway promote`.",
    )
    stable_capacity: StableCapacity = Field(
        default=StableCapacity.FULL,
        description="Full: stable keeps all its pods to the end, so that it can take all requests back at once. Proportional: it "
        "keeps those that its share needs; after a withdrawal it has too few until new ones are ready.",
    )
    progress_deadline: Annotated[str, duration(_A_DEADLINE, " of 1s or more")] = Field(
        default="10m",
        description="How long a candidate may take to become ready, for a step or at all. After that it is withdrawn and what "
        "served goes on serving; a change of the spec tries again.",
    )
    step_deadline: Annotated[str, duration(_A_DEADLINE, " of 1s or more")] = Field(
        default="1h",
        description="How long a step may go on after its hold without enough requests or a clear result. After that the "
        "candidate is withdrawn: it never passes unmeasured.",
    )

    rules = (
        Rule("(self.strategy == 'Canary') == has(self.steps)", "rollout.steps and strategy Canary need each other", ".steps"),
        Rule(
            "self.strategy == 'BlueGreen' || !has(self.blueGreen)",
            "rollout.blueGreen has an effect with strategy BlueGreen only",
            ".blueGreen",
        ),
        Rule(
            "(self.strategy == 'ABTest') == (has(self.abTest) && (has(self.abTest.header) || has(self.abTest.cookie)))",
            "rollout.abTest with header or cookie, by which callers stay with a revision, and strategy ABTest need each other",
            ".abTest",
        ),
        Rule(
            "self.strategy == 'Shadow' || !has(self.shadow)", "rollout.shadow has an effect with strategy Shadow only", ".shadow"
        ),
        Rule(
            "self.strategy != 'Immediate' || !has(self.checks)",
            "rollout.checks has no effect with strategy Immediate: nothing is measured before it is over",
            ".checks",
        ),
        Rule(
            "!has(self.checks) || self.checks.all(one, !has(one.name) || "
            "self.checks.exists_one(other, has(other.name) && other.name == one.name))",
            "rollout.checks: two have the same name; status could not tell them apart",
            ".checks",
        ),
        Rule(
            "self.strategy != 'Immediate' || !has(self.testers)",
            "rollout.testers has no effect with strategy Immediate: use Canary with a first step of weight 0",
            ".testers",
        ),
        Rule(
            "self.strategy == 'Canary' || self.stableCapacity == 'Full'",
            "rollout.stableCapacity: Proportional has an effect with strategy Canary only",
            ".stableCapacity",
        ),
        Rule(
            "!has(self.checks) || self.checks.filter(check, has(check.agreement)).size() <= 1",
            "rollout.checks: at most one check agreement: there is one comparer",
            ".checks",
        ),
        Rule(
            "!has(self.abTest) || !has(self.abTest.arms) || !has(self.checks) || "
            "self.checks.all(check, !has(check.agreement) && !has(check.job))",
            "rollout.checks: agreement and job try one candidate, and have no place beside abTest.arms",
            ".checks",
        ),
        Rule(
            "!has(self.steps) || self.steps.map(step, step.weight).isSorted()",
            "rollout.steps: no step's weight may be smaller than the one before",
            ".steps",
        ),
    )
