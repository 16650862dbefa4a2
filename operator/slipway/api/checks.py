"""What is measured of a candidate, and what it must keep."""

from typing import Annotated

from pydantic import Field

from slipway.api.base import PERCENT_PATTERN, Duration, Rule, Type, text

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
