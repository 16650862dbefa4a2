"""The laws that make a test safe to look at at any time, checked exactly, and how soon it finds what is bad."""

import math
import statistics

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core.sequential import OneSample, Tally, TwoSample

SHARES = st.floats(0.0, 1.0)
SIZES = st.integers(0, 6)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    requests = draw(st.integers(0, 500))
    return Tally(requests, draw(st.integers(0, requests)))


def chance(bad: int, requests: int, share: float) -> float:
    return math.comb(requests, bad) * share**bad * (1 - share) ** (requests - bad)


@settings(max_examples=300)
@given(limit=st.floats(0.001, 0.999), below=SHARES, seen=tallies(), size=SIZES)
def test_evidence_against_a_share_within_its_limit_never_grows_on_average(
    limit: float, below: float, seen: Tally, size: int
) -> None:
    before, share = OneSample(limit, seen), limit * below
    grown = sum(chance(bad, size, share) * math.exp(before.add(Tally(size, bad)).log_evidence) for bad in range(size + 1))
    assert grown <= 1 + 1e-9


@settings(max_examples=300)
@given(stable=SHARES, part=SHARES, seen=st.tuples(tallies(), tallies()), sizes=st.tuples(SIZES, SIZES))
def test_evidence_against_a_candidate_not_worse_than_stable_never_grows_on_average(
    stable: float, part: float, seen: tuple[Tally, Tally], sizes: tuple[int, int]
) -> None:
    before, candidate = TwoSample(*seen), stable * part
    grown = sum(
        chance(mine, sizes[0], candidate)
        * chance(theirs, sizes[1], stable)
        * math.exp(before.add(Tally(sizes[0], mine), Tally(sizes[1], theirs)).log_evidence)
        for mine in range(sizes[0] + 1)
        for theirs in range(sizes[1] + 1)
    )
    assert grown <= 1 + 1e-9


def seconds_to_find(candidate: float, stable: float, rate: float, weight: float, draws: np.random.Generator) -> int | None:
    """Answer after how many seconds of `rate` requests the evidence reaches 1/alpha = 100, None within ten minutes."""
    test = TwoSample()

    def block(expected: float, share: float) -> Tally:
        requests = int(draws.poisson(expected))
        return Tally(requests, int(draws.binomial(requests, share)))

    for second in range(1, 601):
        test = test.add(block(rate * weight, candidate), block(rate * (1 - weight), stable))
        if test.log_evidence >= math.log(100):
            return second
    return None


def test_a_bad_candidate_is_found_and_one_like_stable_is_not() -> None:
    draws = np.random.default_rng(7)
    for share in (0.0, 0.01, 0.2):
        found = [seconds_to_find(share, share, 50, 0.25, draws) for _ in range(100)]
        assert sum(each is not None for each in found) <= 3, f"stable and candidate both {share}"
    for candidate, within in ((0.05, 30), (0.5, 6), (1.0, 3)):
        found = [seconds_to_find(candidate, 0.0, 50, 0.25, draws) for _ in range(50)]
        assert None not in found
        assert statistics.median(each for each in found if each) <= within, f"candidate {candidate}"


def test_requests_wait_for_something_to_be_compared_with_and_are_not_lost() -> None:
    apart, together = TwoSample(), TwoSample()
    for _ in range(10):
        apart = apart.add(Tally(2, 2), Tally()).add(Tally(), Tally(3, 0))
        together = together.add(Tally(2, 2), Tally(3, 0))
    assert apart == together
    assert apart.log_evidence > math.log(100)
    assert TwoSample().add(Tally(1000, 1000), Tally()).log_evidence == 0
