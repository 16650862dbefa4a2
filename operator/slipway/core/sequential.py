"""Tests that may be looked at at any time: is a share of requests (errors, or slow ones) too large?

Each keeps the evidence against its null hypothesis as the logarithm of an e-value: a nonnegative supermartingale from 1 on.
By Ville's inequality it ever reaches 1/alpha with probability alpha at most while the hypothesis is true, however often one
looks and whenever one stops. Bets are the running estimates, made before the samples that they bet on.

Sources: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference" (2023) for the one-sample
test; Turner, Ly, Grünwald, "Generic e-variables for exact sequential k-sample tests that allow for optional stopping" (2024) for
the two-sample one, which is exact for any block sizes.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """Requests, and how many of them were bad."""

    requests: float = 0.0
    bad: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        """Answer both together."""
        return Tally(self.requests + other.requests, self.bad + other.bad)

    @property
    def share(self) -> float:
        """Answer the bad share; 0 without requests."""
        return self.bad / self.requests if self.requests else 0.0


# What a share is guessed to be before there are samples, as two requests: a candidate a little worse than stable, so that one
# that fails at once is bet against from the first answers on.
_CANDIDATE_PRIOR, _STABLE_PRIOR = Tally(2.0, 0.2), Tally(2.0, 0.05)


@dataclass(frozen=True)
class OneSample:
    """The hypothesis that a share is at most `limit`, 0 < limit < 1."""

    limit: float
    seen: Tally = Tally()
    log_evidence: float = 0.0

    def add(self, block: Tally) -> "OneSample":
        """Answer the test after more requests."""
        guess = (_CANDIDATE_PRIOR + self.seen).share
        gained = 0.0
        if guess > self.limit:
            gained = _log_ratio(block, guess, self.limit)
        return OneSample(self.limit, self.seen + block, self.log_evidence + gained)


@dataclass(frozen=True)
class TwoSample:
    """The hypothesis that the candidate's share is at most stable's."""

    candidate: Tally = Tally()
    stable: Tally = Tally()
    log_evidence: float = 0.0

    def add(self, candidate: Tally, stable: Tally) -> "TwoSample":
        """Answer the test after more requests of both at the same time."""
        gained = 0.0
        if candidate.requests and stable.requests:
            worse = (_CANDIDATE_PRIOR + self.candidate).share
            better = (_STABLE_PRIOR + self.stable).share
            if worse > better:
                common = (candidate.requests * worse + stable.requests * better) / (candidate.requests + stable.requests)
                gained = _log_ratio(candidate, worse, common) + _log_ratio(stable, better, common)
        return TwoSample(self.candidate + candidate, self.stable + stable, self.log_evidence + gained)


def _log_ratio(block: Tally, claimed: float, assumed: float) -> float:
    """Answer the log likelihood ratio of a block under two shares, both within (0, 1)."""
    return block.bad * math.log(claimed / assumed) + (block.requests - block.bad) * math.log((1 - claimed) / (1 - assumed))
