"""An A/B test under way: what each arm has had since it began, which status keeps, and what that says of the rollout."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from slipway.api.status import ArmStatus, CheckStatus, MetricStatus, TrialStatus
from slipway.core.ab import Comparison, ErrorRatio, Moments, compare_latency, compare_paired
from slipway.core.clock import stamp_up
from slipway.core.evidence import Got, failed
from slipway.core.figures import Slice
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.plan import Judgement, Trial, Verdict
from slipway.core.polled import METRIC, NO_ANSWERS, Answers, MetricQuery, Outcome, Polled
from slipway.core.sequential import Tally


@dataclass(frozen=True)
class Arm:
    """What one arm has had: requests, of which some failed, and the latencies of those that were answered."""

    tally: Tally = field(default_factory=Tally)
    latency: Histogram = field(default_factory=Histogram)

    def add(self, got: Slice) -> "Arm":
        """Answer the arm with what it got since."""
        return Arm(self.tally + failed(got), self.latency + got.latency)


def load(arm: ArmStatus) -> Arm:
    """Read an arm from status. What cannot be read counts as nothing."""
    try:
        pairs = [each.split(":") for each in arm.latencies.split()]
        counts = {int(bucket): int(count) for bucket, count in pairs}
    except ValueError:
        return Arm()
    if any(not 0 <= bucket < len(EDGES_MS) - 1 or count <= 0 for bucket, count in counts.items()):
        return Arm()
    return Arm(Tally(arm.requests, arm.errors), Histogram(counts))


def dump(arm: Arm) -> ArmStatus:
    """Write an arm as status keeps it."""
    latencies = " ".join(f"{bucket}:{count}" for bucket, count in sorted(arm.latency.counts.items()))
    return ArmStatus(requests=int(arm.tally.requests), errors=int(arm.tally.bad), latencies=latencies)


def metric_of(check: Polled, told: TrialStatus | None) -> MetricStatus:
    """Answer what status keeps of a metric; of another query than the one asked now, nothing."""
    assert isinstance(check.ask, MetricQuery)  # noqa: S101 - a test has no other question
    asked = json.dumps([check.ask.query, check.ask.address, check.interval_seconds])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    kept = told.metric if told is not None else None
    return kept if kept is not None and kept.of == digest and kept.samples > 0 else MetricStatus(of=digest)


def with_means(check: Polled, told: TrialStatus | None, pairs: Iterable[tuple[float, float]], at: float) -> TrialStatus:
    """Answer what is told of a test with the means of more intervals: the candidate's and stable's; the last ended `at`."""
    metric = metric_of(check, told)
    for candidate, stable in pairs:
        samples, difference = metric.samples + 1, candidate - stable
        update = {
            "samples": samples,
            "total": metric.total + difference,
            "squares": metric.squares + difference * difference,
            "candidate": metric.candidate + (candidate - metric.candidate) / samples,
            "stable": metric.stable + (stable - metric.stable) / samples,
            "last_asked": stamp_up(datetime.fromtimestamp(at, UTC)),
        }
        metric = metric.model_copy(update=update)
    return (told or TrialStatus()).model_copy(update={"metric": metric})


def tell(trial: Trial, before: TrialStatus | None, got: Got) -> TrialStatus:
    """Answer how the test stands, from what was counted `before` this process began and what callers got since.

    Of a metric all is in `before`.
    """
    was = before or TrialStatus()
    candidate, stable = load(was.candidate).add(got.candidate), load(was.stable).add(got.stable)
    metric = metric_of(trial.metric, was) if trial.metric is not None else None
    compared = _compare(trial, candidate, stable, metric)
    return TrialStatus(
        candidate=dump(candidate),
        stable=dump(stable),
        metric=metric,
        statement=str(compared),
        p_value=float(f"{compared.p_value:.2g}"),
        winner=compared.winner,
    )


def _compare(trial: Trial, candidate: Arm, stable: Arm, metric: MetricStatus | None) -> Comparison:
    if metric is not None:
        differences = Moments(metric.samples, metric.total, metric.squares)
        return compare_paired("metric", differences, higher_is_better=trial.higher_is_better, confidence=trial.confidence)
    if trial.percentile is None:
        return ErrorRatio().add(candidate.tally, stable.tally).compare(trial.confidence)
    return compare_latency(candidate.latency, stable.latency, trial.percentile, trial.confidence)


def _unanswered(check: Polled, answers: Answers) -> str:
    """Say why a metric is not known now; empty where it is."""
    if answers.last is not None and answers.last.outcome == Outcome.NONE:
        return answers.last.phrase
    stale = answers.last is not None and answers.age_seconds > check.stale_seconds
    return f"no answer for {answers.age_seconds:.0f} s" if stale else ""


def _shown(metric: MetricStatus, winner: str | None, trouble: str) -> CheckStatus:
    """Answer the row of a metric among the checks."""
    known = "Unclear" if metric.samples else "InsufficientAnswers"
    verdict = {"candidate": "Passed", "stable": "Failed"}.get(winner or "", known)
    return CheckStatus.model_validate(
        {
            "name": METRIC,
            "candidate": f"{metric.candidate:.4g}" if metric.samples else None,
            "stable": f"{metric.stable:.4g}" if metric.samples else None,
            "sample": metric.samples,
            "verdict": "Unanswered" if trouble else verdict,
            "kind": "Prometheus",
            "message": trouble or None,
        }
    )


def judge(trial: Trial, told: TrialStatus, checks: Judgement, min_requests: int, answers: Answers = NO_ANSWERS) -> Judgement:
    """Answer the verdict: the winner's, where the candidate keeps its checks too and both arms have had requests enough.

    `answers` are those to the question for the metric. An interval without one counts for nobody, and undoes nothing.
    """
    judgement, trouble = replace(checks, trial=told), ""
    if trial.metric is not None and told.metric is not None:
        trouble = _unanswered(trial.metric, answers)
        judgement = replace(judgement, checks=(*checks.checks, _shown(told.metric, told.winner, trouble)))
    if checks.verdict == Verdict.FAIL:
        return judgement
    if told.winner is None and trouble:
        return replace(judgement, verdict=Verdict.WAIT, reason="CheckUnanswered", message=f"{METRIC}: {trouble}")
    few = min(told.candidate.requests, told.stable.requests) < min_requests
    if few:
        message = f"an arm has had fewer than {min_requests} requests yet"
        return replace(judgement, verdict=Verdict.WAIT, reason="InsufficientRequests", message=message)
    if told.winner == "stable":
        return replace(judgement, verdict=Verdict.FAIL, reason="LostABTest", message=told.statement)
    if told.winner is None:
        return replace(judgement, verdict=Verdict.WAIT, reason="NoWinnerYet", message=told.statement)
    return judgement if checks.verdict == Verdict.WAIT else replace(judgement, reason="WonABTest", message=told.statement)
