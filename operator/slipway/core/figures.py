"""What callers of a revision got: counts and latencies, over a window of time, from however many routers."""

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from slipway.core.latency import Histogram

# Over which time live figures are told, and how old they may be.
LIVE_SECONDS = 60.0
STALE_SECONDS = 10.0


class Counters(NamedTuple):
    """What one router has counted of one revision since it began.

    The first are answers as callers saw them, those that the router gave itself included: all, 4xx, 5xx. Then what the router
    met, per attempt (a retried one counts, though its caller never knew), and what callers did: `hung_up` counts
    connections and streams that the router ended with a request on them, at its own timeouts and when callers left.
    `unavailable` are the 503 among the 5xx: what the router says where it was reset.
    """

    answered: int = 0
    client_errors: int = 0
    server_errors: int = 0
    timeouts: int = 0
    resets: int = 0
    connect_failures: int = 0
    overflows: int = 0
    no_endpoint: int = 0
    grpc_errors: int = 0
    retries: int = 0
    unavailable: int = 0
    hung_up: int = 0

    def began_anew(self, earlier: "Counters") -> bool:
        """Tell whether they cannot have grown from an earlier state: any of them is smaller."""
        return any(map(operator.lt, self, earlier))

    def admitted(self, counted: "Counters") -> "Counters":
        """Answer the counts of requests that the router let in, never less than was counted already; `overflows` are the others.

        A router refuses where as many are under way as may be, and its caller is told 429. None is retried, each counts once,
        but Envoy counts it as 503 too, before it says otherwise to the caller; and of a refusal that happens while statistics are
        read it may have told half: what is an error until the next reading must not be counted again when it is none.
        """
        refused = min(self.overflows, self.answered, self.server_errors, self.unavailable)
        admitted = self._replace(
            answered=self.answered - refused,
            server_errors=self.server_errors - refused,
            unavailable=self.unavailable - refused,
            overflows=refused,
        )
        return Counters(*map(max, admitted, counted))

    def since(self, earlier: "Counters") -> "Counters":
        """Answer what was counted since an earlier state of what has not begun anew."""
        return Counters(*map(operator.sub, self, earlier))

    @property
    def abandoned(self) -> int:
        """Answer the requests that their callers gave up: neither answered nor timed out."""
        return max(self.hung_up - self.timeouts, 0)

    @property
    def errors(self) -> int:
        """Answer the requests that failed by no fault of their callers, of those that were let in.

        That is every 5xx; gRPC answers of a failed status, which HTTP calls 200; and answers cut off after their head, which
        HTTP calls 200 too. Where the router fails a gRPC request itself, both the first and the second count it: it is taken
        off once. Cut off is what was reset, neither retried nor told to the caller by a 503: too few where the model says 503
        of itself, which are errors already.
        """
        by_router = self.timeouts + self.resets + self.no_endpoint + self.connect_failures
        twice = min(self.server_errors, self.grpc_errors, by_router)
        told = max(self.unavailable - self.no_endpoint, 0)
        cut_off = max(self.resets - self.retries - told, 0)
        return self.server_errors + self.grpc_errors - twice + cut_off


class Counts(NamedTuple):
    """What became of requests over some time: all that came to an end, those that failed, and what they met (kinds overlap).

    `refused` are no part of the others: a router did not let them in.
    """

    requests: int = 0
    errors: int = 0
    client_errors: int = 0
    server_errors: int = 0
    timeouts: int = 0
    resets: int = 0
    connect_failures: int = 0
    no_endpoint: int = 0
    grpc_errors: int = 0
    retries: int = 0
    abandoned: int = 0
    refused: int = 0

    @classmethod
    def of(cls, grown: Counters) -> "Counts":
        """Answer what counters of admitted requests say that have grown by so much."""
        return cls(
            requests=grown.answered + grown.abandoned,
            errors=grown.errors,
            client_errors=grown.client_errors,
            server_errors=grown.server_errors,
            timeouts=grown.timeouts,
            resets=grown.resets,
            connect_failures=grown.connect_failures,
            no_endpoint=grown.no_endpoint,
            grpc_errors=grown.grpc_errors,
            retries=grown.retries,
            abandoned=grown.abandoned,
            refused=grown.overflows,
        )

    def plus(self, other: "Counts") -> "Counts":
        """Answer both together."""
        return Counts(*map(operator.add, self, other))

    def since(self, earlier: "Counts") -> "Counts":
        """Answer what was counted since an earlier state of the same total.

        Raises ValueError where it cannot be one: it counts more.
        """
        grown = Counts(*map(operator.sub, self, earlier))
        if min(grown) < 0:
            raise ValueError(f"{earlier} is no earlier state of {self}")
        return grown


NOTHING = Counts()


@dataclass(frozen=True)
class Slice:
    """What routers counted from `since` to `until` (seconds on one monotonic clock)."""

    since: float
    until: float
    counts: Counts = NOTHING
    latency: Histogram = field(default_factory=Histogram)

    def __add__(self, other: "Slice") -> "Slice":
        """Answer what was counted in both, whether they lie side by side (two routers) or one after the other."""
        return Slice(
            min(self.since, other.since),
            max(self.until, other.until),
            self.counts.plus(other.counts),
            self.latency + other.latency,
        )


@dataclass(frozen=True)
class Figures:
    """What callers of one revision got over the last `seconds`, as all routers together count it.

    `age_seconds` is the age of the oldest of the routers' latest answers, infinite where none has answered; `missing` is how
    many of the `routers` did not answer when last asked: then counts lack what they did since.
    `latency` is that of answered requests and of timeouts; what failed otherwise is in the errors alone, for most of it fails
    fast and would flatter.
    """

    seconds: float
    age_seconds: float
    routers: int
    missing: int
    in_flight: int
    requests_per_second: float
    counts: Counts = NOTHING
    latency: Histogram = field(default_factory=Histogram)

    @property
    def reliable(self) -> bool:
        """Tell whether every router has part in it, and lately."""
        return not self.missing and self.age_seconds <= STALE_SECONDS

    @property
    def error_rate(self) -> float | None:
        """Answer the share of requests that failed (0 to 1), None without requests."""
        return min(self.counts.errors / self.counts.requests, 1.0) if self.counts.requests else None


def over(slices: Iterable[Slice], since: float, until: float) -> tuple[Slice, float]:
    """Answer what was counted in the slices that touch the window, and the requests a second in it.

    Counts are those of whole slices. The rate takes of a slice that the window cuts the part that lies in it.
    """
    touching = [each for each in slices if each.until > since]
    requests = sum(each.counts.requests * _share(each, since) for each in touching)
    return merge(touching), requests / (until - since) if until > since else 0.0


def merge(slices: Iterable[Slice]) -> Slice:
    """Answer the sum of slices; of none, an empty one that touches no time."""
    since, until, counts = math.inf, -math.inf, NOTHING
    latency: dict[int, int] = {}
    for each in slices:
        since, until, counts = min(since, each.since), max(until, each.until), counts.plus(each.counts)
        for bucket, count in each.latency.counts.items():
            latency[bucket] = latency.get(bucket, 0) + count
    return Slice(since, until, counts, Histogram(latency))


def _share(each: Slice, since: float) -> float:
    length = each.until - each.since
    return min((each.until - since) / length, 1.0) if length > 0 else 1.0
