"""The laws of what an A/B test says: bounds that hold at every look, an A/A test that names no winner, effects that are found."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slipway.core.ab import ErrorRatio, Moments, compare_latency, compare_paired, quantile_evidence
from slipway.core.latency import EDGES_MS, Histogram
from slipway.core.sequential import Tally

SIZES = st.integers(1, 6)
ONE = 192  # the place of the ratio 1 among those that are tried


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    requests = draw(st.integers(1, 500))
    return Tally(requests, draw(st.integers(0, requests)))


def chance(bad: int, requests: int, share: float) -> float:
    return math.comb(requests, bad) * share**bad * (1 - share) ** (requests - bad)


@settings(max_examples=60)
@given(rate=st.floats(0, 1), steps=st.integers(-192, 192), seen=st.tuples(tallies(), tallies()), sizes=st.tuples(SIZES, SIZES))
def test_evidence_against_the_true_ratio_of_errors_never_grows_on_average(
    rate: float, steps: int, seen: tuple[Tally, Tally], sizes: tuple[int, int]
) -> None:
    ratio = 2 ** (steps / 32)
    stable = rate / max(ratio, 1)
    before = ErrorRatio().add(*seen)
    grown = sum(
        chance(mine, sizes[0], min(stable * ratio, 1.0))
        * chance(theirs, sizes[1], stable)
        * math.exp(
            before.add(Tally(sizes[0], mine), Tally(sizes[1], theirs)).log_evidence()[ONE + steps]
            - before.log_evidence()[ONE + steps]
        )
        for mine, theirs in itertools.product(range(sizes[0] + 1), range(sizes[1] + 1))
    )
    assert grown <= 1 + 1e-9


@settings(max_examples=60)
@given(arms=st.tuples(tallies(), tallies()), confidence=st.floats(0.5, 0.999))
@example(arms=(Tally(5_000, 40), Tally(5_000, 90)), confidence=0.999)  # rejected by so little that the bounds end at 0
def test_bounds_leave_out_no_difference_exactly_when_the_p_value_says_so(arms: tuple[Tally, Tally], confidence: float) -> None:
    found = ErrorRatio().add(*arms).compare(confidence)
    assert (found.p_value <= 1 - confidence) == (not found.lower < 0 < found.upper) == (found.winner is not None)
    assert found.difference is None or found.lower <= found.difference <= found.upper or abs(found.difference) > 0.98
    mirrored = ErrorRatio().add(*reversed(arms)).compare(confidence)
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert {found.winner, mirrored.winner} in ({None}, {"candidate", "stable"})


def test_requests_of_one_arm_wait_for_the_other_and_are_not_lost() -> None:
    apart, together = ErrorRatio(), ErrorRatio()
    for _ in range(10):
        apart = apart.add(Tally(20, 4), Tally()).add(Tally(), Tally(30, 0))
        together = together.add(Tally(20, 4), Tally(30, 0))
    assert apart == together
    assert together.compare().winner == "stable"
    assert ErrorRatio().add(Tally(1000, 1000), Tally()).compare().winner is None


def test_a_trouble_common_to_both_while_the_shares_move_is_no_difference() -> None:
    """Summed up, the candidate would have 25% errors against stable's 7%."""
    test = ErrorRatio().add(Tally(1_000, 10), Tally(9_000, 90)).add(Tally(9_000, 2_700), Tally(1_000, 300))
    found = test.compare()
    assert found.winner is None
    assert found.p_value == 1


def test_totals_of_an_earlier_process_come_to_the_same_as_their_blocks() -> None:
    blocks = [(Tally(50, bad), Tally(150, 3)) for bad in (0, 2, 1, 4, 0)]
    each = ErrorRatio()
    for candidate, stable in blocks:
        each = each.add(candidate, stable)
    assert each.compare().p_value == pytest.approx(ErrorRatio().add(each.candidate, each.stable).compare().p_value)


def counted(draws: np.random.Generator, requests: int, median_ms: float) -> Histogram:
    latencies = median_ms * np.exp(0.5 * draws.standard_normal(requests))
    counts, _ = np.histogram(latencies, bins=EDGES_MS)
    return Histogram({bucket: int(count) for bucket, count in enumerate(counts) if count})


def p95_ms(median_ms: float) -> float:
    return median_ms * math.exp(0.5 * 1.6449)


def test_an_a_a_test_on_errors_names_a_winner_in_one_of_twenty_at_most() -> None:
    """1,000 tests, looked at 12 times each; the bounds of all looks hold the truth as often."""
    draws = np.random.default_rng(5)
    wrong = outside = 0
    for run in range(1000):
        share = (0.002, 0.02, 0.3)[run % 3]
        ratio, test, winner, missed = (1.0, 2.0)[run % 2], ErrorRatio(), False, False
        for _ in range(12):
            sizes = draws.poisson(400), draws.poisson(1200)
            bad = draws.binomial(sizes[0], share * ratio), draws.binomial(sizes[1], share)
            test = test.add(Tally(int(sizes[0]), int(bad[0])), Tally(int(sizes[1]), int(bad[1])))
            found = test.compare()
            winner = winner or found.winner is not None
            missed = missed or not found.lower <= ratio - 1 <= found.upper
        wrong += winner and ratio == 1
        outside += missed
    assert wrong <= 0.05 * 500
    assert outside <= 0.05 * 1000


def test_an_a_a_test_on_latency_names_a_winner_in_one_of_twenty_at_most() -> None:
    draws = np.random.default_rng(6)
    wrong = outside = 0
    for run in range(120):
        ratio, arms = (1.0, 1.2)[run % 2], (Histogram(), Histogram())
        winner = missed = False
        for _ in range(6):
            arms = arms[0] + counted(draws, 300, 40 * ratio), arms[1] + counted(draws, 300, 40)
            found = compare_latency(*arms, percentile=95)
            winner = winner or found.winner is not None
            missed = missed or not found.lower <= ratio - 1 <= found.upper
        wrong += winner and ratio == 1
        outside += missed
    assert wrong <= 0.05 * 60
    assert outside <= 0.05 * 120


@settings(max_examples=100)
@given(
    share=st.sampled_from([0.5, 0.9, 0.99]),
    below=st.floats(0, 1),
    above=st.floats(0, 1),
    seen=st.tuples(*[st.integers(0, 200)] * 3),
    new=st.integers(1, 8),
)
def test_evidence_against_the_true_quantile_never_grows_on_average(
    share: float, below: float, above: float, seen: tuple[int, int, int], new: int
) -> None:
    """The quantile lies in bucket 5: `share` of latencies at the most are in bucket 2, 1 - `share` at the most in bucket 9."""
    chances = (share * below, 1 - share * below - (1 - share) * above, (1 - share) * above)

    def evidence(counts: tuple[int, ...]) -> float:
        arm = Histogram({bucket: count for bucket, count in zip((2, 5, 9), counts, strict=True) if count})
        return quantile_evidence(arm, share)[5]

    before, grown = evidence(seen), 0.0
    for fast, slow in itertools.product(range(new + 1), repeat=2):
        if fast + slow <= new:
            more = (fast, new - fast - slow, slow)
            ways = math.factorial(new) / math.prod(map(math.factorial, more))
            weight = ways * math.prod(part**count for part, count in zip(chances, more, strict=True))
            grown += weight * math.exp(evidence(tuple(map(sum, zip(seen, more, strict=True)))) - before)
    assert grown <= 1 + 1e-9


def test_what_differs_is_found_and_said() -> None:
    draws = np.random.default_rng(7)
    test = ErrorRatio().add(Tally(50_000, 310), Tally(50_000, 500))
    assert str(test.compare()) == "candidate 38% [19.5%, 52.1%] fewer errors than stable, p 4e-09 always valid"
    broken = ErrorRatio().add(Tally(1_000, 50), Tally(9_000)).compare()
    assert (broken.winner, broken.difference) == ("stable", math.inf)
    assert str(broken) == "candidate at least 2,477% more errors than stable, p 1.4e-45 always valid"
    slow = compare_latency(counted(draws, 20_000, 48), counted(draws, 20_000, 40), percentile=95)
    assert slow.winner == "stable"
    assert slow.lower <= 0.2 <= slow.upper
    assert "higher p95 than stable" in str(slow)
    sold = compare_paired("revenue", differences(draws, 100, 1.1), higher_is_better=True)
    assert sold.winner == "candidate"
    assert sold.lower <= 0.1 <= sold.upper
    assert "higher revenue than stable" in str(sold)
    assert compare_paired("cost", differences(draws, 100, 1.1), higher_is_better=False).winner == "stable"


def differences(draws: np.random.Generator, intervals: int, mean: float) -> Moments:
    """Answer the differences between means of 50 samples of a candidate and of stable, both of exponential distributions."""
    drawn = draws.gamma(50, mean / 50, intervals) - draws.gamma(50, 1 / 50, intervals)
    return Moments(intervals, float(drawn.sum()), float((drawn**2).sum()))


def test_an_a_a_test_on_a_metric_names_a_winner_in_one_of_twenty_at_most() -> None:
    draws = np.random.default_rng(8)
    wrong = 0
    for _ in range(500):
        told, winner = Moments(), False
        for _ in range(60):
            told += differences(draws, 1, 1)
            winner = winner or compare_paired("value", told, higher_is_better=True).winner is not None
        wrong += winner
    assert wrong <= 0.05 * 500


def test_nothing_is_said_of_nothing() -> None:
    nothing = (
        ErrorRatio().compare(),
        ErrorRatio().add(Tally(1000), Tally(1000)).compare(),
        compare_latency(Histogram(), Histogram({3: 1000}), 95),
        compare_paired("value", Moments(), higher_is_better=True),
        compare_paired("value", Moments(29, 29, 29), higher_is_better=True),
    )
    for each in nothing:
        assert each.winner is None
        assert each.p_value == pytest.approx(1)
        assert each.lower in (-1, -math.inf)
        assert each.upper == math.inf
    assert str(nothing[1]) == "errors: nothing to compare yet"


def test_more_confidence_takes_more() -> None:
    arms = Tally(5_000, 40), Tally(5_000, 90)
    usual, sure = (ErrorRatio().add(*arms).compare(confidence) for confidence in (0.95, 0.9999))
    assert usual.winner == "candidate"
    assert sure.winner is None
    assert sure.lower < usual.lower
    assert sure.upper > usual.upper
