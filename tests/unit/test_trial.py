"""An A/B test under way: what status keeps of it, what outlives the operator, and what it makes of the rollout."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from slipway.api.rollout import Rollout
from slipway.api.status import ArmStatus, CountsStatus, MetricStatus, TrialStatus
from slipway.core import trial as trials
from slipway.core.figures import Counts, Slice
from slipway.core.latency import EDGES_MS, Histogram, bucket_of
from slipway.core.plan import UNJUDGED, Judgement, Step, Trial, Verdict, plan
from slipway.core.plan import Arm as Planned
from slipway.core.polled import METRIC, NO_ANSWERS, Answer, MetricQuery, Outcome, Polled
from slipway.core.revision import Target
from slipway.core.sequential import Tally
from slipway.core.steering import Sticky
from slipway.core.trial import Arm, blank, dump, enrolled, joined, load, metric_of

ERRORS, P95 = Trial(), Trial(95)
SALES = Polled(METRIC, 0, MetricQuery("sales{{revision}}"), 60.0, 5.0)
SALE = Trial(metric=SALES, higher_is_better=True)
BAD = Judgement(Verdict.FAIL, "ErrorRateTooHigh", "errorRate 7%, limit 1%")
WAITS = Judgement(Verdict.WAIT, "Holding", "too early")


def got(requests: int, errors: int, latency_ms: float = 20) -> Slice:
    return Slice(0, 0, Counts(requests=requests, errors=errors), Histogram({bucket_of(latency_ms): requests - errors}))


B, C, D = (Target(f"m-{letter}", letter, None) for letter in "bcd")
Arms = dict[str, Slice]


def both(candidate: Slice, stable: Slice) -> Arms:
    return {"m-b": candidate, "stable": stable}


def tell(trial: Trial, before: TrialStatus | None, got: Arms) -> TrialStatus:
    """Answer how a test stands whose arms have had that."""
    arms = {revision: had for revision, had in got.items() if revision != "stable"}
    begun = enrolled((each, 20) for each in (B, C, D) if each.revision in arms)
    return trials.tell(trial, before or begun, got["stable"], arms)


def judge(trial: Trial, told: TrialStatus, checks: Judgement, min_requests: int, answers: Any = NO_ANSWERS) -> Judgement:
    return trials.judge(trial, told, {"m-b": checks}, min_requests, {"m-b": answers})["m-b"]


def with_means(check: Polled, told: TrialStatus | None, pairs: Any, at: float) -> TrialStatus:
    begun = told or enrolled([(B, 20)])
    (arm,) = begun.arms
    return begun.model_copy(update={"arms": [trials.with_means(check, arm, pairs, at)]})


def metric(told: TrialStatus) -> MetricStatus | None:
    return told.arms[0].metric


def test_the_plan() -> None:
    asked: dict[str, Any] = {"weight": 30, "cookie": {"ttl": "1h"}, "measure": "Latency", "hold": "1h", "duration": "24h"}
    made = plan(Rollout.model_validate({"strategy": "ABTest", "abTest": asked}))
    assert made.steps == (Step(30, 3600, judged=True), Step(100))
    assert (made.trial, made.sticky) == (Trial(95, 0.95), Sticky("slipway-arm", cookie=True, ttl_seconds=3600))
    assert made.step_seconds == 23 * 3600, "the hold is part of the whole"


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.dictionaries(st.integers(0, len(EDGES_MS) - 2), st.integers(1, 10**9), max_size=60),
)
def test_status_keeps_an_arm(requests: int, errors: int, counts: dict[int, int]) -> None:
    arm = Arm(Tally(requests, errors), Histogram(counts))
    assert load(dump(arm)) == arm


@pytest.mark.parametrize("latencies", ["x", "1:2:3", "9999:1", "-1:1", "5:-1", "5:0"])
def test_what_cannot_be_read_is_nothing(latencies: str) -> None:
    assert load(CountsStatus(requests=5, latencies=latencies)) == Arm()


def test_an_operator_that_starts_anew_goes_on_counting() -> None:
    first = tell(P95, None, both(got(400, 3, 20), got(500, 2, 40)))
    second = tell(P95, first, both(got(100, 1, 21), got(100, 0, 41)))
    (arm,) = second.arms
    assert (arm.requests, arm.errors, second.stable.requests) == (500, 4, 600)
    assert load(arm).latency.sample == 496
    whole = both(got(400, 3, 20) + got(100, 1, 21), got(500, 2, 40) + got(100, 0, 41))
    assert tell(P95, None, whole) == second


@pytest.mark.parametrize(
    ("told", "checks", "verdict", "reason"),
    [
        (tell(ERRORS, None, both(got(2000, 10), got(2000, 200))), UNJUDGED, Verdict.PASS, "WonABTest"),
        (tell(ERRORS, None, both(got(2000, 200), got(2000, 10))), UNJUDGED, Verdict.FAIL, "LostABTest"),
        (tell(ERRORS, None, both(got(2000, 20), got(2000, 20))), UNJUDGED, Verdict.WAIT, "NoWinnerYet"),
        (tell(P95, None, both(got(2000, 0, 20), got(2000, 0, 60))), UNJUDGED, Verdict.PASS, "WonABTest"),
        (tell(P95, None, both(got(2000, 0, 60), got(2000, 0, 20))), UNJUDGED, Verdict.FAIL, "LostABTest"),
        (tell(ERRORS, None, both(got(2000, 10), got(2000, 200))), BAD, Verdict.FAIL, "ErrorRateTooHigh"),
        (tell(ERRORS, None, both(got(2000, 10), got(2000, 200))), WAITS, Verdict.WAIT, "Holding"),
        (tell(ERRORS, None, both(got(2000, 10), got(99, 99))), UNJUDGED, Verdict.WAIT, "InsufficientRequests"),
        (tell(ERRORS, None, both(got(0, 0), got(0, 0))), UNJUDGED, Verdict.WAIT, "InsufficientRequests"),
    ],
)
def test_verdicts(told: TrialStatus, checks: Judgement, verdict: Verdict, reason: str) -> None:
    judgement = judge(ERRORS, told, checks, 100)
    assert (judgement.verdict, judgement.reason) == (verdict, reason)
    if reason in ("WonABTest", "LostABTest", "NoWinnerYet"):
        assert judgement.message == told.arms[0].statement
    assert replace(judgement, verdict=checks.verdict, reason=checks.reason, message=checks.message) == checks


def sold(*means: tuple[float, float], of: Polled = SALES, before: TrialStatus | None = None) -> TrialStatus:
    return with_means(of, before, means, 1_000_000_000.5)


CLEAR = [(3.0 + number % 3, 2.0 + number % 2) for number in range(60)]
REQUESTS = both(got(200, 0), got(200, 0))


def test_the_plan_of_a_metric() -> None:
    asked_for = {"query": "sales{{revision}}", "interval": "2m", "higherIsBetter": False}
    made = plan(
        Rollout.model_validate({"strategy": "ABTest", "abTest": {"header": "x-user", "measure": "Metric", "metric": asked_for}})
    )
    asked = Polled(METRIC, 0, MetricQuery("sales{{revision}}"), 120.0, 5.0)
    assert made.trial == Trial(None, 0.95, asked, higher_is_better=False)
    assert made.polled == (), "it is no check"


def test_the_sums_of_a_metric_are_kept_and_go_on() -> None:
    whole = metric(sold(*CLEAR))
    assert whole is not None
    assert (whole.samples, whole.last_asked) == (60, "2001-09-09T01:46:41Z")
    differences = [candidate - stable for candidate, stable in CLEAR]
    assert whole.total == pytest.approx(sum(differences))
    assert whole.squares == pytest.approx(sum(each**2 for each in differences))
    assert whole.candidate - whole.stable == pytest.approx(whole.total / 60)
    first = TrialStatus.model_validate(sold(*CLEAR[:25]).model_dump(by_alias=True, mode="json"))
    assert metric(sold(*CLEAR[25:], before=first)) == whole, "another operator goes on from status"


@pytest.mark.parametrize(
    "another",
    [
        replace(SALES, ask=MetricQuery("losses{{revision}}")),
        replace(SALES, ask=MetricQuery("sales{{revision}}", "http://b")),
        replace(SALES, interval_seconds=30.0),
    ],
)
def test_another_query_begins_anew(another: Polled) -> None:
    before = sold(*CLEAR)
    assert metric_of(another, before.arms[0]).samples == 0
    after = metric(sold((5.0, 3.0), of=another, before=before))
    assert after is not None
    assert (after.samples, after.total, after.candidate, after.stable) == (1, 2.0, 5.0, 3.0)


ANSWERED = NO_ANSWERS.add(Answer(Outcome.GOOD, "3, stable 2", 3.0, 2.0))
AWAY = ANSWERED.add(Answer(Outcome.NONE, "metrics cannot be reached"))
LESS = [(stable, candidate) for candidate, stable in CLEAR]
ALIKE = [(2.0 + number % 3, 2.0 + (number + 1) % 3) for number in range(60)]


@pytest.mark.parametrize(
    ("trial", "means", "answers", "verdict", "reason", "row"),
    [
        (SALE, CLEAR, ANSWERED, Verdict.PASS, "WonABTest", "Passed"),
        (SALE, LESS, ANSWERED, Verdict.FAIL, "LostABTest", "Failed"),
        (replace(SALE, higher_is_better=False), LESS, ANSWERED, Verdict.PASS, "WonABTest", "Passed"),
        (SALE, ALIKE, ANSWERED, Verdict.WAIT, "NoWinnerYet", "Unclear"),
        (SALE, CLEAR[:29], ANSWERED, Verdict.WAIT, "NoWinnerYet", "Unclear"),
        (SALE, [], NO_ANSWERS, Verdict.WAIT, "NoWinnerYet", "InsufficientAnswers"),
        (SALE, [], AWAY, Verdict.WAIT, "CheckUnanswered", "Unanswered"),
        (SALE, ALIKE, AWAY, Verdict.WAIT, "CheckUnanswered", "Unanswered"),
        (SALE, ALIKE, replace(ANSWERED, age_seconds=136.0), Verdict.WAIT, "CheckUnanswered", "Unanswered"),
        (SALE, CLEAR, AWAY, Verdict.PASS, "WonABTest", "Unanswered"),
    ],
)
def test_verdicts_on_a_metric(
    trial: Trial, means: list[tuple[float, float]], answers: Any, verdict: Verdict, reason: str, row: str
) -> None:
    judgement = judge(trial, tell(trial, sold(*means), REQUESTS), UNJUDGED, 100, answers)
    assert (judgement.verdict, judgement.reason) == (verdict, reason), judgement.message
    (shown,) = judgement.checks
    assert (shown.name, shown.verdict, shown.sample) == (METRIC, row, len(means))
    if reason == "CheckUnanswered":
        assert shown.message
        assert shown.message in judgement.message


def test_a_metric_is_no_way_around_requests_and_checks() -> None:
    few = tell(SALE, sold(*CLEAR), both(got(99, 0), got(200, 0)))
    assert judge(SALE, few, UNJUDGED, 100, ANSWERED).reason == "InsufficientRequests"
    told = tell(SALE, sold(*CLEAR), REQUESTS)
    assert judge(SALE, told, BAD, 100, ANSWERED).reason == "ErrorRateTooHigh"
    assert judge(SALE, told, WAITS, 100, ANSWERED).reason == "Holding"
    assert metric(tell(ERRORS, sold(*CLEAR), REQUESTS)) is None, "another measure forgets it"


def test_what_status_says_of_a_metric_may_be_anything() -> None:
    of = metric_of(SALES, ArmStatus(revision="m-b")).of
    spoilt = ArmStatus(revision="m-b", metric=MetricStatus(of=of, samples=-1, total=5))
    assert metric_of(SALES, spoilt).samples == 0


FEW, MANY, WORST = got(4000, 20), got(4000, 200), got(4000, 600)
ALL = {"m-b": UNJUDGED, "m-c": UNJUDGED, "m-d": UNJUDGED}


def test_the_plan_of_several_arms() -> None:
    model = {"uri": "configmap://models/x.onnx", "format": "ONNX"}
    asked = {"weight": 30, "header": "x-user", "arms": [{"weight": 20, "model": model}, {"weight": 10, "model": model}]}
    made = plan(Rollout.model_validate({"strategy": "ABTest", "abTest": asked}), [C, D])
    assert made.steps == (Step(60, judged=True), Step(100))
    assert [made.share(each.revision, made.steps[0]) for each in (B, C, D)] == [30, 20, 10]
    assert made.without("m-a") is made
    less = made.without("m-c")
    assert (less.steps, less.arms) == ((Step(40, judged=True), Step(100)), (Planned(D, 10),))
    assert [less.share(each.revision, less.steps[0]) for each in (B, D)] == [30, 10]


def test_of_those_that_are_better_the_best_wins() -> None:
    told = tell(ERRORS, None, {"m-b": got(4000, 60), "m-c": FEW, "m-d": got(4000, 195), "stable": MANY})
    assert [arm.verdict for arm in told.arms] == ["Better", "Better", None]
    verdicts = trials.judge(ERRORS, told, ALL, 100)
    assert [verdicts[each.revision].verdict for each in (B, C, D)] == [Verdict.WAIT, Verdict.PASS, Verdict.WAIT]
    assert verdicts["m-b"].message.startswith("m-c is better still: ")


def test_of_two_alike_the_first_wins() -> None:
    told = tell(ERRORS, None, {"m-b": FEW, "m-c": FEW, "stable": MANY})
    verdicts = trials.judge(ERRORS, told, {"m-b": UNJUDGED, "m-c": UNJUDGED}, 100)
    assert [verdicts[each.revision].verdict for each in (B, C)] == [Verdict.PASS, Verdict.WAIT]


def test_the_best_that_breaks_a_check_leaves_the_next_one_to_win() -> None:
    told = tell(ERRORS, None, {"m-b": got(4000, 60), "m-c": FEW, "m-d": WORST, "stable": MANY})
    verdicts = trials.judge(ERRORS, told, {**ALL, "m-c": BAD}, 100)
    assert [verdicts[each.revision].verdict for each in (B, C, D)] == [Verdict.PASS, Verdict.FAIL, Verdict.FAIL]
    assert (verdicts["m-c"].reason, verdicts["m-d"].reason) == ("ErrorRateTooHigh", "LostABTest")


def test_each_arm_has_its_share_of_the_confidence() -> None:
    alone = tell(ERRORS, None, {"m-b": got(2000, 28), "stable": got(2000, 60)}).arms[0]
    together = tell(ERRORS, None, {"m-b": got(2000, 28), "m-c": MANY, "m-d": MANY, "stable": got(2000, 60)}).arms[0]
    assert together.p_value == pytest.approx(3 * alone.p_value, rel=0.05)
    assert (alone.verdict, together.verdict) == ("Better", None), f"p {alone.p_value} and {together.p_value}"


def test_an_arm_that_left_keeps_its_counts_and_its_share_of_the_confidence() -> None:
    both_told = tell(ERRORS, None, {"m-b": got(500, 5), "m-c": got(500, 50), "stable": got(500, 5)})
    why = {"reason": "ErrorRateTooHigh", "message": "errorRate 10%, limit 1%"}
    decided = both_told.model_copy(update={"arms": [both_told.arms[0], both_told.arms[1].model_copy(update=why)]})
    after = joined(decided, trials.tell(ERRORS, decided, got(100, 1), {"m-b": got(100, 1)}))
    assert after is not None
    assert [arm.requests for arm in after.arms] == [600, 500]
    assert after.arms[1] == decided.arms[1]
    p_value = trials.tell(ERRORS, decided, got(9000, 200), {"m-b": got(9000, 80)}).arms[0].p_value
    assert p_value == tell(ERRORS, both_told, {"m-b": got(9000, 80), "stable": got(9000, 200)}).arms[0].p_value
    assert [arm.requests for arm in blank(after).arms] == [0, 0]
    assert blank(after).arms[1].reason == "ErrorRateTooHigh", "it is not tried again because the others are judged anew"
