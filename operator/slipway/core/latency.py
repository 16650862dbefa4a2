"""Latency: requests counted in fixed buckets, and quantiles of them with the bounds of their error.

The buckets are those in which Envoy keeps a histogram of whole milliseconds (circllhist, two significant decimal digits): 1 ms
wide up to 100 ms, then 10 ms up to 1 s, 100 ms up to 10 s, 1 s up to 60 s, and one for all beyond. So a quantile is known to
1 ms, above 10 ms to 10% at worst. A router tells only the buckets that are not empty.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

_STEPS_MS = ((0, 100, 1), (100, 1_000, 10), (1_000, 10_000, 100), (10_000, 60_001, 1_000))
# Bucket n holds what took at least EDGES_MS[n] and less than EDGES_MS[n + 1].
EDGES_MS: tuple[float, ...] = (*(float(edge) for first, end, step in _STEPS_MS for edge in range(first, end, step)), math.inf)


def bucket_of(latency_ms: float) -> int:
    """Answer the bucket of a latency."""
    return bisect_right(EDGES_MS, latency_ms, hi=len(EDGES_MS) - 1) - 1


@dataclass(frozen=True)
class Quantile:
    """A quantile of a sample: surely from `low_ms` to `high_ms`, and where between them it is likeliest."""

    low_ms: float
    high_ms: float
    estimate_ms: float


@dataclass(frozen=True)
class Histogram:
    """Requests by bucket, empty buckets left out."""

    counts: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def sample(self) -> int:
        """Answer the number of requests."""
        return sum(self.counts.values())

    def __add__(self, other: "Histogram") -> "Histogram":
        """Answer the histogram of both samples together."""
        counts = dict(self.counts)
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        return Histogram(counts)

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """Answer what was counted since an earlier state of the same histogram.

        Raises ValueError where it cannot be one: it counts more.
        """
        counts = dict(self.counts)
        for bucket, count in earlier.counts.items():
            left = counts.get(bucket, 0) - count
            if left < 0:
                raise ValueError(f"bucket {bucket} had {count} requests and has {left + count}")
            if left:
                counts[bucket] = left
            else:
                del counts[bucket]
        return Histogram(counts)

    def quantile(self, share: float) -> Quantile | None:
        """Answer the least latency that at least this share (0 to 1) of the requests did not exceed, None without requests.

        The definition is type 1 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996): the request of rank
        ceil(share * sample). Its bucket is known exactly, so its edges bound it; the estimate takes the requests of a bucket
        to be spread over it evenly. Beyond the last edge nothing is known but that edge.
        """
        sample = self.sample
        if not sample:
            return None
        # The product may lie a rounding error above a whole number.
        return self._at(min(max(math.ceil(share * sample - 1e-9), 1), sample))

    def slower_than(self, latency_ms: float) -> int:
        """Answer how many requests surely took so long: those in buckets that begin there or later."""
        return sum(count for bucket, count in self.counts.items() if EDGES_MS[bucket] >= latency_ms)

    def quantile_range(self, share: float, sigmas: float) -> tuple[float, float] | None:
        """Answer between which latencies (ms) the quantile of all requests like these lies, None without requests.

        That is the interval between two order statistics that holds for whatever distribution (Conover, "Practical
        Nonparametric Statistics", 3.2), by the normal approximation: ranks share * n -+ sigmas * sqrt(n * share * (1 - share)).
        A rank outside the sample leaves that side open: 0 or infinite.
        """
        sample = self.sample
        if not sample:
            return None
        margin = sigmas * math.sqrt(sample * share * (1 - share))
        first, last = math.floor(share * sample - margin), math.ceil(share * sample + margin)
        low = self._at(first).low_ms if first >= 1 else 0.0
        return low, self._at(last).high_ms if last <= sample else math.inf

    def _at(self, rank: int) -> Quantile:
        """Answer the latency of the request of that rank: 1 is the fastest."""
        before = 0
        for bucket in sorted(self.counts):
            count = self.counts[bucket]
            if before + count >= rank:
                low, high = EDGES_MS[bucket], EDGES_MS[bucket + 1]
                within = (rank - before - 0.5) / count
                return Quantile(low, high, low if math.isinf(high) else low + within * (high - low))
            before += count
        raise ValueError(f"rank {rank} of {before}")
