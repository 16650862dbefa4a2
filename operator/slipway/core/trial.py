"""An A/B test under way: what each arm has had since it began, which status keeps, and what that says of the rollout."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from slipway.api.status import ArmStatus, CheckStatus, CountsStatus, MetricStatus, TrialStatus
from slipway.core.ab import Comparison, ErrorRatio, Moments, compare_latency, compare_paired
from slipway.core.clock import stamp_up
from slipway.core.evidence import failed
from slipway.core.figures import Slice
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.plan import Judgement, Trial, Verdict
from slipway.core.polled import METRIC, NO_ANSWERS, Answers, MetricQuery, Outcome, Polled
from slipway.core.revision import Target
from slipway.core.sequential import Tally


@dataclass(frozen=True)
class Arm:
    """What one arm has had: requests, of which some failed, and the latencies of those that were answered."""

    tally: Tally = field(default_factory=Tally)
    latency: Histogram = field(default_factory=Histogram)

    def add(self, got: Slice) -> "Arm":
        """Answer the arm with what it got since."""
        return Arm(self.tally + failed(got), self.latency + got.latency)


def load(arm: CountsStatus) -> Arm:
    """Read what a revision has had from status. What cannot be read counts as nothing."""
    try:
        pairs = [each.split(":") for each in arm.latencies.split()]
        counts = {int(bucket): int(count) for bucket, count in pairs}
    except ValueError:
        return Arm()
    if any(not 0 <= bucket < len(EDGES_MS) - 1 or count <= 0 for bucket, count in counts.items()):
        return Arm()
    return Arm(Tally(arm.requests, arm.errors), Histogram(counts))


def dump(arm: Arm) -> CountsStatus:
    """Write what a revision has had as status keeps it."""
    latencies = " ".join(f"{bucket}:{count}" for bucket, count in sorted(arm.latency.counts.items()))
    return CountsStatus(requests=int(arm.tally.requests), errors=int(arm.tally.bad), latencies=latencies)


def enrolled(arms: Iterable[tuple[Target, int]]) -> TrialStatus:
    """Answer a test that begins, of candidates and the percent of callers that are each one's own."""
    return TrialStatus(
        arms=[ArmStatus(revision=target.revision, version=target.version, weight=weight) for target, weight in arms]
    )


def blank(told: TrialStatus) -> TrialStatus:
    """Answer the same test with nothing counted yet."""
    names = ("revision", "version", "weight", "reason", "message")
    return TrialStatus(arms=[ArmStatus.model_validate({name: getattr(arm, name) for name in names}) for arm in told.arms])


def joined(decided: TrialStatus | None, counted: TrialStatus | None) -> TrialStatus | None:
    """Answer the test with what was counted and said of the arms; who takes part, and who was withdrawn, is as was decided."""
    if decided is None or counted is None:
        return decided
    said = {arm.revision: arm for arm in counted.arms}
    roles = ("version", "weight")
    arms = [
        arm if arm.reason else said.get(arm.revision, arm).model_copy(update={name: getattr(arm, name) for name in roles})
        for arm in decided.arms
    ]
    return decided.model_copy(update={"stable": counted.stable, "arms": arms})


def metric_of(check: Polled, told: ArmStatus) -> MetricStatus:
    """Answer what status keeps of a metric; of another query than the one asked now, nothing."""
    assert isinstance(check.ask, MetricQuery)  # noqa: S101 - a test has no other question
    asked = json.dumps([check.ask.query, check.ask.address, check.interval_seconds])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    kept = told.metric
    return kept if kept is not None and kept.of == digest and kept.samples > 0 else MetricStatus(of=digest)


def with_means(check: Polled, told: ArmStatus, pairs: Iterable[tuple[float, float]], at: float) -> ArmStatus:
    """Answer what is told of an arm with the means of more intervals: its own and stable's; the last ended `at`."""
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
    return told.model_copy(update={"metric": metric})


def tell(trial: Trial, before: TrialStatus, stable: Slice, got: Mapping[str, Slice]) -> TrialStatus:
    """Answer how the test stands, from what was counted `before` this process began and what callers got since, by arm.

    Of a metric all is in `before`. An arm without callers any more stays as it was.
    """
    theirs = load(before.stable).add(stable)
    arms = [
        _told(trial, len(before.arms), arm, load(arm).add(got[arm.revision]), theirs) if arm.revision in got else arm
        for arm in before.arms
    ]
    return TrialStatus(stable=dump(theirs), arms=arms)


def _told(trial: Trial, arms: int, before: ArmStatus, arm: Arm, stable: Arm) -> ArmStatus:
    """Answer how one of so many arms stands. Each has its share of 1 - confidence, so p-values count that many times."""
    metric = metric_of(trial.metric, before) if trial.metric is not None else None
    compared = _compare(replace(trial, confidence=1 - (1 - trial.confidence) / arms), arm, stable, metric)
    compared = replace(compared, p_value=min(arms * compared.p_value, 1.0), confidence=trial.confidence)
    difference = compared.difference
    said = {
        **dump(arm).model_dump(),
        "metric": metric,
        "statement": str(compared),
        "p_value": float(f"{compared.p_value:.2g}"),
        "difference": difference if difference is not None and math.isfinite(difference) else None,
        "verdict": {"candidate": "Better", "stable": "Worse"}.get(compared.winner or ""),
    }
    return before.model_copy(update=said)


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


def _shown(metric: MetricStatus, verdict: str | None, trouble: str) -> CheckStatus:
    """Answer the row of a metric among the checks."""
    known = "Unclear" if metric.samples else "InsufficientAnswers"
    word = {"Better": "Passed", "Worse": "Failed"}.get(verdict or "", known)
    return CheckStatus.model_validate(
        {
            "name": METRIC,
            "candidate": f"{metric.candidate:.4g}" if metric.samples else None,
            "stable": f"{metric.stable:.4g}" if metric.samples else None,
            "sample": metric.samples,
            "verdict": "Unanswered" if trouble else word,
            "kind": "Prometheus",
            "message": trouble or None,
        }
    )


def judge(
    trial: Trial,
    told: TrialStatus,
    checks: Mapping[str, Judgement],
    min_requests: int,
    answers: Mapping[str, Answers] | None = None,
) -> dict[str, Judgement]:
    """Answer the verdicts on the arms that have `checks`: of those that are better than stable and keep them, the best passes.

    `answers` are those to the question for the metric. An interval without one counts for nobody, and undoes nothing.
    """
    arms, heard = {arm.revision: arm for arm in told.arms if arm.revision in checks}, answers or {}
    verdicts = {
        revision: _judge(trial, arm, told.stable, checks[revision], min_requests, heard.get(revision, NO_ANSWERS))
        for revision, arm in arms.items()
    }
    better = [revision for revision, judgement in verdicts.items() if judgement.verdict == Verdict.PASS]
    best = min(better, key=lambda revision: _rank(trial, arms[revision]), default=None)
    for revision in better:
        if revision != best:
            message = f"{best} is better still: {arms[revision].statement}"
            verdicts[revision] = replace(verdicts[revision], verdict=Verdict.WAIT, reason="NoWinnerYet", message=message)
    return verdicts


def _rank(trial: Trial, arm: ArmStatus) -> float:
    """Answer what is the less the better an arm is; of two alike the first is taken."""
    difference = arm.difference or 0.0
    return -difference if trial.higher_is_better else difference


def _judge(
    trial: Trial, arm: ArmStatus, stable: CountsStatus, checks: Judgement, min_requests: int, answers: Answers
) -> Judgement:
    """Answer the verdict on one arm: that of the test, where it keeps its checks and both have had requests enough."""
    judgement, trouble = checks, ""
    if trial.metric is not None and arm.metric is not None:
        trouble = _unanswered(trial.metric, answers)
        judgement = replace(judgement, checks=(*checks.checks, _shown(arm.metric, arm.verdict, trouble)))
    if checks.verdict == Verdict.FAIL:
        return judgement
    if arm.verdict is None and trouble:
        return replace(judgement, verdict=Verdict.WAIT, reason="CheckUnanswered", message=f"{METRIC}: {trouble}")
    if min(arm.requests, stable.requests) < min_requests:
        message = f"an arm has had fewer than {min_requests} requests yet"
        return replace(judgement, verdict=Verdict.WAIT, reason="InsufficientRequests", message=message)
    if arm.verdict == "Worse":
        return replace(judgement, verdict=Verdict.FAIL, reason="LostABTest", message=arm.statement)
    if arm.verdict is None:
        return replace(judgement, verdict=Verdict.WAIT, reason="NoWinnerYet", message=arm.statement)
    return judgement if checks.verdict == Verdict.WAIT else replace(judgement, reason="WonABTest", message=arm.statement)
