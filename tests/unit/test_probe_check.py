"""The check `agreement`: a candidate that answers otherwise fails, one within its bound passes, and nothing unmeasured does."""

import math
import random

import pytest

from slipway.core.agreement_check import Agreement, AgreementBound, judge_agreement, together
from slipway.core.plan import UNJUDGED, Judgement, Verdict
from slipway.core.sequential import Tally

BOUND = AgreementBound(0.99, 100)


def rollout(
    share: float, seconds: int, seed: int = 0, per_second: int = 10, bound: AgreementBound = BOUND
) -> tuple[Judgement, int]:
    """Answer the last verdict on a candidate of this share of disagreements, and when it was told (a failure ends it)."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    evidence, total = Agreement.begin(bound, 1, Tally(), 0.0), Tally()
    judgement = judge_agreement(evidence, age_seconds=0)
    for second in range(1, seconds + 1):
        total += Tally(per_second, sum(chance.random() < share for _ in range(per_second)))
        evidence = evidence.add(1, total, float(second))
        judgement = judge_agreement(evidence, age_seconds=0)
        if judgement.verdict == Verdict.FAIL:
            return judgement, second
    return judgement, seconds


def test_a_candidate_that_answers_otherwise_is_told_of_in_seconds() -> None:
    judgement, second = rollout(0.5, 60)
    assert (judgement.verdict, judgement.reason) == (Verdict.FAIL, "AgreementTooLow")
    assert second <= 2
    (check,) = judgement.checks
    assert (check.name, check.verdict, check.limit) == ("agreement", "Failed", "99%")
    assert judgement.message.startswith("agreement ")


def test_one_that_agrees_passes_once_enough_was_compared() -> None:
    assert rollout(0, 9)[0].reason == "InsufficientRequests"
    judgement, _ = rollout(0, 10)
    assert judgement.verdict == Verdict.PASS
    (check,) = judgement.checks
    assert (check.candidate, check.limit, check.sample, check.verdict) == ("100%", "99%", 100, "Passed")


def test_at_its_bound_it_fails_in_at_most_one_of_a_hundred_rollouts() -> None:
    assert sum(rollout(0.01, 150, seed)[0].verdict == Verdict.FAIL for seed in range(200)) <= 2


def test_five_times_its_bound_it_fails_nearly_always_and_soon() -> None:
    told = [rollout(0.05, 120, seed) for seed in range(100)]
    assert sum(judgement.verdict == Verdict.FAIL for judgement, _ in told) >= 99
    assert sorted(second for _, second in told)[50] <= 30


def test_what_begins_late_is_noticed() -> None:
    evidence, total = Agreement.begin(BOUND, 1, Tally(), 0.0), Tally()
    for second in range(1, 3600):
        total += Tally(10, 0)
        evidence = evidence.add(1, total, float(second))
    for second in range(3600, 3690):
        total += Tally(10, 2)
        evidence = evidence.add(1, total, float(second))
    assert judge_agreement(evidence, age_seconds=0).verdict == Verdict.FAIL
    assert len(evidence.tests) <= 5


def test_a_step_counts_its_own_from_when_it_is_live() -> None:
    evidence = Agreement.begin(BOUND, 1, Tally(500, 100), 0.0)
    evidence = evidence.add(1, Tally(700, 100), 1.0)
    assert judge_agreement(evidence, age_seconds=0).verdict == Verdict.PASS, "what was before the rollout is not held against it"
    evidence = evidence.add(2, Tally(750, 100), 2.0, live=False).add(2, Tally(800, 100), 3.0, live=False)
    assert evidence.step_pairs == Tally()
    evidence = evidence.add(2, Tally(899, 100), 4.0)
    assert judge_agreement(evidence, age_seconds=0).reason == "InsufficientRequests"
    assert judge_agreement(evidence.add(2, Tally(900, 100), 5.0), age_seconds=0).verdict == Verdict.PASS


def test_totals_that_began_anew_are_new() -> None:
    evidence = Agreement.begin(BOUND, 1, Tally(), 0.0).add(1, Tally(500, 0), 1.0).add(1, Tally(3, 3), 2.0)
    assert [test.seen for _, test in evidence.tests] == [Tally(503, 3)]
    assert evidence.seen == Tally(3, 3)


def test_beyond_the_bound_but_not_clearly_waits() -> None:
    evidence = Agreement.begin(BOUND, 1, Tally(), 0.0).add(1, Tally(100, 2), 1.0)
    judgement = judge_agreement(evidence, age_seconds=0)
    assert (judgement.verdict, judgement.reason) == (Verdict.WAIT, "Unclear")
    assert judgement.checks[0].candidate == "98%"


@pytest.mark.parametrize("age", [10.1, math.inf])
def test_what_is_not_told_lately_passes_nothing(age: float) -> None:
    evidence = Agreement.begin(BOUND, 1, Tally(), 0.0).add(1, Tally(1000, 0), 1.0)
    judgement = judge_agreement(evidence, age_seconds=age)
    assert (judgement.verdict, judgement.reason) == (Verdict.WAIT, "MetricsStale")
    failing = Agreement.begin(BOUND, 1, Tally(), 0.0).add(1, Tally(1000, 900), 1.0)
    assert judge_agreement(failing, age_seconds=age).verdict == Verdict.FAIL, "what was seen was seen"


def test_where_all_must_agree_one_that_does_not_is_proof() -> None:
    evidence = Agreement.begin(AgreementBound(1.0, 10), 1, Tally(), 0.0).add(1, Tally(10_000, 0), 1.0)
    assert judge_agreement(evidence, age_seconds=0).verdict == Verdict.PASS
    judgement = judge_agreement(evidence.add(1, Tally(10_100, 1), 2.0), age_seconds=0)
    assert judgement.verdict == Verdict.FAIL
    assert judgement.checks[0].candidate == "99.99%", "not 100%, for one did not"


def test_more_bounds_ask_for_more_evidence() -> None:
    evidence = Agreement.begin(BOUND, 1, Tally(), 0.0)
    bad = 0
    while judge_agreement(evidence, age_seconds=0).verdict != Verdict.FAIL:
        bad += 1
        evidence = evidence.add(1, Tally(bad, bad), float(bad))
    assert judge_agreement(evidence, age_seconds=0, tests=50).verdict != Verdict.FAIL


def test_two_judgements_are_one() -> None:
    passes = judge_agreement(Agreement.begin(BOUND, 1, Tally(), 0.0).add(1, Tally(100, 0), 1.0), age_seconds=0)
    waits = judge_agreement(Agreement.begin(BOUND, 1, Tally(), 0.0), age_seconds=0)
    fails = rollout(0.5, 60)[0]
    assert together(UNJUDGED, passes).checks == passes.checks
    for first, second, verdict in [(passes, waits, Verdict.WAIT), (waits, fails, Verdict.FAIL), (UNJUDGED, passes, Verdict.PASS)]:
        for told in (together(first, second), together(second, first)):
            assert told.verdict == verdict
            assert len(told.checks) == len(first.checks) + len(second.checks)
    assert together(passes, waits).message == waits.message
