"""A rollout as planned: the steps of a candidate's weight, and what it must keep meanwhile."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from slipway.api.base import duration_seconds
from slipway.api.rollout import AbTest, BlueGreen, Measure, OnFailure, Pause, Promotion, Rollout, Shadow, StableCapacity, Strategy
from slipway.api.status import CheckStatus, TrialStatus
from slipway.core.polled import Polled, metric, polled
from slipway.core.revision import Target
from slipway.core.steering import Match, Sticky


@dataclass(frozen=True)
class Step:
    """One step: the candidate's weight (percent; of several, together), and what it takes to end it.

    It is held `hold_seconds` at the least once live; where it is `judged` it must pass the checks; then it waits for a word for
    `pause_seconds` (infinite: for ever). `mirror` percent of the requests are copied to the candidate. It needs pods for `share`
    percent of stable's replicas, and `replicas` at the least.
    """

    weight: int
    hold_seconds: float = 0.0
    judged: bool = False
    pause_seconds: float = 0.0
    mirror: int = 0
    share: int = 0
    replicas: int = 1

    def pods(self, replicas: int) -> int:
        """Answer how many pods the candidate needs, where a whole set are so many."""
        return max(replicas_for(max(self.weight, self.mirror, self.share), replicas), self.replicas)


@dataclass(frozen=True)
class Bound:
    """One check: at most `share` of the requests fail; or take longer than `seconds`, or than `ratio` times stable's quantile.

    `min_requests` is how many it must rest on, where that differs from the plan's.
    """

    name: str
    share: float
    seconds: float | None = None
    ratio: float | None = None
    min_requests: int | None = None

    @property
    def is_latency(self) -> bool:
        """Tell whether it bounds latencies rather than errors."""
        return self.seconds is not None or self.ratio is not None


@dataclass(frozen=True)
class AgreementBound:
    """At least the share `least` (above 0, at most 1) of the compared requests agree, told from `min_requests` at a step.

    Of the requests `share` percent are compared; numbers may differ by the `tolerance`, or only `labels` have to be the same.
    """

    least: float
    min_requests: int = 100
    share: int = 5
    tolerance: float = 0.0
    labels: bool = False

    @property
    def most_bad(self) -> float:
        """Answer the share of pairs that may disagree."""
        return 1 - self.least


@dataclass(frozen=True)
class Trial:
    """What an A/B test compares: errors, a percentile of latency, or a metric; and how sure (0 to 1) it must be of a winner."""

    percentile: int | None = None
    confidence: float = 0.95
    metric: Polled | None = None
    higher_is_better: bool = False


@dataclass(frozen=True)
class Arm:
    """A further candidate of an A/B test, and the percent of callers that are its own."""

    target: Target
    weight: int


@dataclass(frozen=True)
class Plan:
    """The steps to the whole weight, which is always the last. Strategy Immediate has that one alone.

    `pauses`: a candidate that fails is not withdrawn, the rollout waits for a word. `proportional`: stable keeps pods for its
    share only. `preview`: the candidate answers alone under a name of its own. What served keeps its pods for `keep_seconds`.
    `arms` are tried beside the candidate, each with the same share at every step but the whole one, which one alone gets.
    """

    steps: tuple[Step, ...] = (Step(100),)
    bounds: tuple[Bound, ...] = ()
    polled: tuple[Polled, ...] = ()
    min_requests: int = 1
    step_seconds: float = 3600.0
    pauses: bool = False
    proportional: bool = False
    testers: Match | None = None
    preview: bool = False
    keep_seconds: float = 0.0
    agreement: AgreementBound | None = None
    trial: Trial | None = None
    sticky: Sticky | None = None
    arms: tuple[Arm, ...] = ()

    def share(self, revision: str, step: Step) -> int:
        """Answer what a step that is not the whole weight gives one candidate."""
        others = {arm.target.revision: arm.weight for arm in self.arms}
        return others[revision] if revision in others else step.weight - sum(others.values())

    def without(self, revision: str) -> "Plan":
        """Answer the plan without an arm, whose callers stable has."""
        arms = tuple(arm for arm in self.arms if arm.target.revision != revision)
        if arms == self.arms:
            return self
        less = sum(arm.weight for arm in self.arms) - sum(arm.weight for arm in arms)
        steps = tuple(step if step.weight == 100 else replace(step, weight=step.weight - less) for step in self.steps)
        return replace(self, steps=steps, arms=arms)

    def step(self, number: int) -> Step:
        """Answer step `number`, counted from 1. Beyond the end, which only an unreadable spec makes, it is the last."""
        return self.steps[min(number, len(self.steps)) - 1]

    def number(self, weight: int) -> int:
        """Answer the step, counted from 1, that a candidate of this weight is at.

        It is the first of those with the largest weight that is no more, else the first of all.
        """
        fits = max((step.weight for step in self.steps if step.weight <= weight), default=self.steps[0].weight)
        return 1 + next(index for index, step in enumerate(self.steps) if step.weight == fits)

    def after(self, number: int, weight: int) -> int:
        """Answer the step that follows step `number`: the same, where it gives more than the weight, which another plan gave."""
        return number if number and self.step(number).weight > weight else number + 1


IMMEDIATE = Plan()


def replicas_for(weight: int, replicas: int) -> int:
    """Answer how many of a full set of replicas a weight needs: its share, rounded up, and one at the least."""
    return max(1, math.ceil(replicas * weight / 100))


def plan(rollout: Rollout, arms: Iterable[Target] = ()) -> Plan:
    """Answer the plan that a resource's `spec.rollout` asks for; `arms` are the revisions of its `abTest.arms`."""
    steps = _STEPS[rollout.strategy](rollout)
    if rollout.promotion == Promotion.MANUAL:
        steps = [*steps[:-1], replace(steps[-1], pause_seconds=math.inf)]
    if steps[-1].weight < 100:
        steps.append(Step(100))
    agreement = _agreement(rollout)
    blue_green = rollout.blue_green or BlueGreen()
    ab_test = (rollout.ab_test or AbTest()) if rollout.strategy == Strategy.AB_TEST else None
    return Plan(
        tuple(steps),
        _bounds(rollout),
        polled(rollout),
        rollout.min_requests,
        duration_seconds(rollout.step_deadline) if ab_test is None else _after_hold_seconds(ab_test),
        pauses=rollout.on_failure == OnFailure.PAUSE,
        proportional=rollout.stable_capacity == StableCapacity.PROPORTIONAL,
        testers=_testers(rollout),
        preview=rollout.strategy == Strategy.BLUE_GREEN or agreement is not None,
        agreement=agreement,
        trial=_trial(ab_test, metric(rollout)) if ab_test is not None else None,
        sticky=_sticky(ab_test) if ab_test is not None else None,
        arms=tuple(Arm(each, weight) for each, weight in zip(arms, _weights(ab_test), strict=False)),
        keep_seconds=duration_seconds(blue_green.scale_down_delay) if rollout.strategy == Strategy.BLUE_GREEN else 0.0,
    )


def _testers(rollout: Rollout) -> Match | None:
    asked = rollout.testers
    if asked is None:
        return None
    if asked.header is not None:
        return Match(asked.header.name, asked.header.value)
    return Match(asked.cookie.name, asked.cookie.value, cookie=True) if asked.cookie is not None else None


def _immediate(rollout: Rollout) -> list[Step]:
    return [Step(0, share=100) if rollout.promotion == Promotion.MANUAL else Step(100)]


def _canary(rollout: Rollout) -> list[Step]:
    return [
        Step(
            step.weight,
            duration_seconds(step.hold),
            judged=step.weight > 0 or step.mirror is not None,
            pause_seconds=_pause_seconds(step.pause),
            mirror=step.mirror or 0,
            replicas=step.replicas or 1,
        )
        for step in rollout.steps or ()
    ]


def _ab_test(rollout: Rollout) -> list[Step]:
    asked = rollout.ab_test or AbTest()
    return [Step(asked.weight + sum(_weights(asked)), duration_seconds(asked.hold), judged=True)]


def _weights(asked: AbTest | None) -> list[int]:
    return [arm.weight for arm in (asked.arms if asked is not None else None) or ()]


def _agreement(rollout: Rollout) -> AgreementBound | None:
    asked = next((check.agreement for check in rollout.checks or () if check.agreement is not None), None)
    if asked is None:
        return None
    least, enough = float(asked.min.rstrip("%")) / 100, asked.min_requests or rollout.min_requests
    return AgreementBound(least, enough, asked.share, asked.tolerance, asked.labels)


def _after_hold_seconds(asked: AbTest) -> float:
    return max(duration_seconds(asked.duration) - duration_seconds(asked.hold), 0.0)


def _trial(asked: AbTest, metric: Polled | None) -> Trial:
    percentile = asked.percentile if asked.measure == Measure.LATENCY else None
    higher_is_better = asked.metric is not None and asked.metric.higher_is_better
    return Trial(percentile, float(asked.confidence.rstrip("%")) / 100, metric, higher_is_better)


def _sticky(asked: AbTest) -> Sticky | None:
    if asked.cookie is not None:
        return Sticky(asked.cookie.name, cookie=True, ttl_seconds=duration_seconds(asked.cookie.ttl))
    return Sticky(asked.header) if asked.header is not None else None


def _pause_seconds(pause: Pause | None) -> float:
    if pause is None:
        return 0.0
    return math.inf if pause.duration is None else duration_seconds(pause.duration)


def _blue_green(rollout: Rollout) -> list[Step]:
    asked = rollout.blue_green or BlueGreen()
    return [Step(0, duration_seconds(asked.hold), judged=rollout.checks is not None, mirror=asked.mirror or 0, share=100)]


def _shadow(rollout: Rollout) -> list[Step]:
    asked = rollout.shadow or Shadow()
    return [Step(0, duration_seconds(asked.hold), judged=True, mirror=asked.mirror)]


_STEPS: dict[Strategy, Callable[[Rollout], list[Step]]] = {
    Strategy.IMMEDIATE: _immediate,
    Strategy.CANARY: _canary,
    Strategy.BLUE_GREEN: _blue_green,
    Strategy.SHADOW: _shadow,
    Strategy.AB_TEST: _ab_test,
}


def _bounds(rollout: Rollout) -> tuple[Bound, ...]:
    bounds: list[Bound] = []
    for check in rollout.checks or ():
        if check.error_rate is not None:
            rate = check.error_rate
            share = float(rate.max.rstrip("%")) / 100
            bounds.append(Bound(check.name or "errorRate", share, min_requests=rate.min_requests))
        elif check.latency is not None:
            latency = check.latency
            name, share, least = check.name or f"p{latency.percentile}", 1 - latency.percentile / 100, latency.min_requests
            if latency.max is not None:
                bounds.append(Bound(name, share, seconds=duration_seconds(latency.max), min_requests=least))
            if latency.relative_to_stable is not None:
                bounds.append(Bound(f"{name} to stable's", share, ratio=latency.relative_to_stable, min_requests=least))
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


@dataclass(frozen=True)
class Judged:
    """The verdicts on all candidates, by revision, and how their A/B test stands."""

    by_revision: Mapping[str, Judgement] = field(default_factory=dict[str, Judgement])
    trial: TrialStatus | None = None

    def of(self, revision: str) -> Judgement:
        """Answer the verdict on a candidate; where none is needed, none is asked for."""
        return self.by_revision.get(revision, UNJUDGED)

    def anew(self) -> "Judged":
        """Answer the verdicts where all that was measured is to count no more: none yet."""
        waits = Judgement(Verdict.WAIT, "InsufficientRequests", "nothing was measured since it was resumed")
        return replace(self, by_revision=dict.fromkeys(self.by_revision, waits))


NOBODY_JUDGED = Judged()
