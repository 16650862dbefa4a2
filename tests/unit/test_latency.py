"""Latencies: the bounds of a quantile always hold, sums and differences are those of the samples."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.latency import EDGES_MS, Histogram, bucket_of

latencies = st.lists(st.floats(0, 200_000), max_size=60)
shares = st.floats(0, 1)


def histogram(sample: list[float]) -> Histogram:
    return sum((Histogram({bucket_of(latency): 1}) for latency in sample), Histogram())


def exact(sample: list[float], share: float) -> float:
    """Answer the least value that at least this share of the sample does not exceed."""
    return next(value for value in sorted(sample) if sum(other <= value for other in sample) >= share * len(sample) - 1e-9)


@pytest.mark.parametrize(
    ("latency_ms", "edges"),
    [
        (0, (0, 1)),
        (0.9, (0, 1)),
        (9, (9, 10)),
        (99.5, (99, 100)),
        (100, (100, 110)),
        (999, (990, 1000)),
        (1000, (1000, 1100)),
        (10_000, (10_000, 11_000)),
        (59_999, (59_000, 60_000)),
        (60_000, (60_000, math.inf)),
        (1e9, (60_000, math.inf)),
    ],
)
def test_buckets(latency_ms: float, edges: tuple[float, float]) -> None:
    bucket = bucket_of(latency_ms)
    assert (EDGES_MS[bucket], EDGES_MS[bucket + 1]) == edges


def test_buckets_are_fine_where_objectives_are() -> None:
    assert all(0 < high - low <= max(1, 0.1 * low) for low, high in pairwise(EDGES_MS[:-1]))
    assert EDGES_MS[-2:] == (60_000, math.inf)


@given(latencies.filter(bool), shares)
def test_the_bounds_of_a_quantile_hold(sample: list[float], share: float) -> None:
    found = histogram(sample).quantile(share)
    assert found is not None
    assert found.low_ms <= exact(sample, share) < found.high_ms
    assert found.low_ms <= found.estimate_ms <= found.high_ms


@given(latencies.filter(bool), shares, shares)
def test_quantiles_grow_with_their_share(sample: list[float], one: float, other: float) -> None:
    less, more = (histogram(sample).quantile(share) for share in sorted((one, other)))
    assert less is not None
    assert more is not None
    assert less.estimate_ms <= more.estimate_ms


@given(latencies, latencies, latencies)
def test_histograms_add_as_their_samples_do_in_any_order(one: list[float], two: list[float], three: list[float]) -> None:
    a, b, c = histogram(one), histogram(two), histogram(three)
    assert (a + b) + c == a + (b + c) == histogram([*three, *one, *two])
    assert (a + b) - a == b
    assert (a + b).sample == len(one) + len(two)


def test_a_histogram_that_lost_something_is_no_later_one() -> None:
    with pytest.raises(ValueError, match="bucket 7 had 3 requests and has 2"):
        Histogram({7: 2}) - Histogram({7: 3})


def test_without_requests_there_is_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().quantile_range(0.5, 3) is None


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_slower_than_a_latency(fast: int, slow: int) -> None:
    found = Histogram({bucket_of(20): fast, bucket_of(250): slow})
    assert (found.slower_than(100), found.slower_than(1000)) == (slow, 0)


def test_the_range_of_a_quantile_narrows_with_the_sample() -> None:
    def spread(times: int) -> tuple[float, float]:
        found = Histogram({bucket_of(latency): times for latency in range(100)}).quantile_range(0.5, 3)
        assert found is not None
        return found

    assert spread(1) == (34, 65)  # ranks 50 -+ 15
    assert spread(100) == (48, 52)
    few = Histogram({bucket_of(5): 3}).quantile_range(0.95, 3)
    assert few == (5.0, math.inf), "three requests do not say how slow the slowest twentieth is"
