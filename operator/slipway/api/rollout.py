"""How a new revision takes over: strategy, steps, and the checks that a candidate must pass."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from slipway.api.base import PERCENT_PATTERN, Duration, Rule, Type, duration, text


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


class Step(Type):
    """One step of a canary. It begins when its weight is live in every router."""

    weight: int = Field(ge=0, le=100, description="Percent of requests that the candidate gets.")
    hold: Duration = Field(default="0s", description="How long the step lasts at the least, such as `5m`.")


_SAYS_SHARE = "must be a percentage above 0% and below 100%, such as 1% or 0.5%"
_A_SHARE = "double(self.replace('%', '')) > 0.0 && double(self.replace('%', '')) < 100.0"


class ErrorRateCheck(Type):
    """An upper bound on the share of failed requests: answers 5xx, timeouts, resets and refused connections."""

    max: Annotated[str, text(PERCENT_PATTERN, _SAYS_SHARE, 16, also=_A_SHARE)] = Field(
        description="Such as `1%`. A candidate is withdrawn when it is above, and worse than stable."
    )


class LatencyCheck(Type):
    """An upper bound on a latency quantile, as callers feel it."""

    percentile: int = Field(default=95, ge=50, le=99)
    max: Duration | None = Field(default=None, description="The bound itself, such as `150ms`.")
    relative_to_stable: float | None = Field(
        default=None, ge=1, le=100, description="The bound as a multiple of what stable has at the same time, such as 1.25."
    )

    rules = (
        Rule(
            "has(self.max) || has(self.relativeToStable)",
            "rollout.checks.latency needs max, relativeToStable, or both",
        ),
        Rule("!has(self.max) || duration(self.max) >= duration('1ms')", "rollout.checks.latency.max must be 1ms or more", ".max"),
    )


class Check(Type):
    """One thing that is measured of a candidate."""

    error_rate: ErrorRateCheck | None = None
    latency: LatencyCheck | None = None

    rules = (
        Rule(
            "has(self.errorRate) != has(self.latency)",
            "a check is one of errorRate and latency: make a list entry of each",
        ),
    )


_A_DEADLINE = "duration(self) >= duration('1s')"


class Rollout(Type):
    """How a new revision takes over."""

    strategy: Strategy = Field(
        default=Strategy.IMMEDIATE,
        description="Immediate: the new revision gets all requests as soon as all its replicas are ready and every router "
        "sees them; the old one leaves after its last request. Canary: it gets them step by step, and is withdrawn if it fails "
        "its checks.",
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="The steps of a canary. After the last one the candidate gets all requests."
    )
    checks: Annotated[list[Check], Field(min_length=1, max_length=16)] | None = Field(
        default=None,
        description="What a canary must keep. Each is tested at every moment of every step: a plainly bad candidate "
        "is withdrawn within seconds, one that is like stable in at most 1% of rollouts.",
    )
    min_requests: int = Field(default=100, ge=1, le=1000000, description="How many requests a step must have seen to be passed.")
    on_failure: OnFailure = Field(default=OnFailure.ROLLBACK, description="What happens to a candidate that fails its checks.")
    promotion: Promotion = Field(
        default=Promotion.AUTOMATIC, description="Whether a candidate that passed is promoted by itself."
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
        Rule(
            "self.strategy in ['Immediate', 'Canary']",
            "rollout.strategy: BlueGreen, Shadow and ABTest are not available in this version of Slipway; use Canary or "
            "Immediate",
            ".strategy",
        ),
        Rule(
            "self.onFailure == 'Rollback'",
            "rollout.onFailure: Pause is not available in this version of Slipway; use Rollback",
            ".onFailure",
        ),
        Rule(
            "self.promotion == 'Automatic'",
            "rollout.promotion: Manual is not available in this version of Slipway; use Automatic",
            ".promotion",
        ),
        Rule("(self.strategy == 'Canary') == has(self.steps)", "rollout.steps and strategy Canary need each other", ".steps"),
        Rule(
            "self.strategy == 'Canary' || !has(self.checks)", "rollout.checks has an effect with strategy Canary only", ".checks"
        ),
        Rule(
            "!has(self.steps) || self.steps.all(one, self.steps.filter(other, other.weight == one.weight).size() == 1) && "
            "self.steps.map(step, step.weight).isSorted()",
            "rollout.steps: each step's weight must be larger than the one before",
            ".steps",
        ),
    )
