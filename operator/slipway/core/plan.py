"""A rollout as planned: the steps of a candidate's weight, and what it must keep meanwhile."""

import math
from dataclasses import dataclass
from enum import Enum

from slipway.api.base import duration_seconds
from slipway.api.rollout import Rollout, Strategy
from slipway.api.status import CheckStatus


@dataclass(frozen=True)
class Step:
    """One weight (percent), how long it is held at the least once live (seconds), and whether it must pass the checks."""

    weight: int
    hold_seconds: float = 0.0
    judged: bool = False


@dataclass(frozen=True)
class Bound:
    """One check: at most `share` of the requests fail; or take longer than `seconds`, or than `ratio` times stable's quantile."""

    name: str
    share: float
    seconds: float | None = None
    ratio: float | None = None

    @property
    def is_latency(self) -> bool:
        """Tell whether it bounds latencies rather than errors."""
        return self.seconds is not None or self.ratio is not None


@dataclass(frozen=True)
class Plan:
    """The steps to the whole weight, which is always the last. Strategy Immediate has that one alone."""

    steps: tuple[Step, ...] = (Step(100),)
    bounds: tuple[Bound, ...] = ()
    min_requests: int = 1
    step_seconds: float = 3600.0

    def step(self, number: int) -> Step:
        """Answer step `number`, counted from 1. Beyond the end, which only an unreadable spec makes, it is the last."""
        return self.steps[min(number, len(self.steps)) - 1]

    def number(self, weight: int) -> int:
        """Answer the step, counted from 1, that a candidate of this weight is at: the last that gives no more, else the first."""
        return max(sum(step.weight <= weight for step in self.steps), 1)

    def after(self, number: int, weight: int) -> int:
        """Answer the step that follows step `number`: the same, where it gives more than the weight, which another plan gave."""
        return number if number and self.step(number).weight > weight else number + 1


IMMEDIATE = Plan()


def replicas_for(weight: int, replicas: int) -> int:
    """Answer how many of a full set of replicas a weight needs: its share, rounded up, and one at the least."""
    return max(1, math.ceil(replicas * weight / 100))


def plan(rollout: Rollout) -> Plan:
    """Answer the plan that a resource's `spec.rollout` asks for."""
    if rollout.strategy != Strategy.CANARY:
        return IMMEDIATE
    steps = [Step(step.weight, duration_seconds(step.hold), judged=step.weight > 0) for step in rollout.steps or ()]
    if not steps or steps[-1].weight < 100:
        steps.append(Step(100))
    return Plan(tuple(steps), _bounds(rollout), rollout.min_requests, duration_seconds(rollout.step_deadline))


def _bounds(rollout: Rollout) -> tuple[Bound, ...]:
    bounds: list[Bound] = []
    for check in rollout.checks or ():
        if check.error_rate is not None:
            bounds.append(Bound("errorRate", float(check.error_rate.max.rstrip("%")) / 100))
        elif check.latency is not None:
            latency = check.latency
            share = 1 - latency.percentile / 100
            if latency.max is not None:
                bounds.append(Bound(f"p{latency.percentile}", share, seconds=duration_seconds(latency.max)))
            if latency.relative_to_stable is not None:
                bounds.append(Bound(f"p{latency.percentile} to stable's", share, ratio=latency.relative_to_stable))
    return tuple(bounds)


class Verdict(Enum):
    """What the measurements say of a candidate now."""

    PASS = "pass"  # noqa: S105 - a verdict
    WAIT = "wait"
    FAIL = "fail"


@dataclass(frozen=True)
class Judgement:
    """The verdict on the step under way, and why, in words for status, with the figures of each check."""

    verdict: Verdict
    reason: str
    message: str
    checks: tuple[CheckStatus, ...] = ()


UNJUDGED = Judgement(Verdict.PASS, "NoChecks", "nothing is checked")
