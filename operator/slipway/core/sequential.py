"""Tests that may be looked at at any time: is a share of requests (errors, or slow ones) too large?

Each keeps the evidence against its null hypothesis as the logarithm of an e-value: a nonnegative supermartingale from 1 on.
By Ville's inequality it ever reaches 1/alpha with probability alpha at most while the hypothesis is true, however often one
looks and whenever one stops. Bets are running estimates, made before the samples that they bet on: a cautious one and a bold one,
each with half of the stake.

Sources: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference" (2023) for the one-sample
test; Turner, Ly, Grünwald, "Generic e-variables for exact sequential k-sample tests that allow for optional stopping" (2024) for
the two-sample one, which is exact for any block sizes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace


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


# What a share is guessed to be before there are samples, as two requests: a candidate a little worse than stable; and one that
# fails every other request, so that a few failures of a few are enough.
_CANDIDATE_PRIORS, _STABLE_PRIOR = (Tally(2.0, 0.2), Tally(2.0, 1.0)), Tally(2.0, 0.05)
_Bets = tuple[float, float]
_NONE: _Bets = (0.0, 0.0)


@dataclass(frozen=True)
class OneSample:
    """The hypothesis that a share is at most `limit`, 0 < limit < 1."""

    limit: float
    seen: Tally = Tally()
    bets: _Bets = _NONE

    def add(self, block: Tally) -> "OneSample":
        """Answer the test after more requests."""

        def gained(prior: Tally) -> float:
            guess = (prior + self.seen).share
            return _log_ratio(block, guess, self.limit) if guess > self.limit else 0.0

        return OneSample(self.limit, self.seen + block, _placed(self.bets, gained))

    @property
    def log_evidence(self) -> float:
        """Answer the logarithm of the e-value."""
        return _mean(self.bets)


@dataclass(frozen=True)
class TwoSample:
    """The hypothesis that the candidate's share is at most stable's.

    Requests of one wait until the other has some too: nothing is compared with nothing, and nothing is lost.
    """

    candidate: Tally = Tally()
    stable: Tally = Tally()
    bets: _Bets = _NONE
    waiting: tuple[Tally, Tally] = (Tally(), Tally())

    def add(self, candidate: Tally, stable: Tally) -> "TwoSample":
        """Answer the test after more requests of both at the same time."""
        candidate, stable = self.waiting[0] + candidate, self.waiting[1] + stable
        if not candidate.requests or not stable.requests:
            return replace(self, waiting=(candidate, stable))
        better = (_STABLE_PRIOR + self.stable).share

        def gained(prior: Tally) -> float:
            worse = (prior + self.candidate).share
            if worse <= better:
                return 0.0
            common = (candidate.requests * worse + stable.requests * better) / (candidate.requests + stable.requests)
            return _log_ratio(candidate, worse, common) + _log_ratio(stable, better, common)

        return TwoSample(self.candidate + candidate, self.stable + stable, _placed(self.bets, gained))

    @property
    def log_evidence(self) -> float:
        """Answer the logarithm of the e-value."""
        return _mean(self.bets)


def _placed(bets: _Bets, gained: Callable[[Tally], float]) -> _Bets:
    """Answer the bets after another block, by what each prior has gained."""
    cautious, bold = (bet + gained(prior) for bet, prior in zip(bets, _CANDIDATE_PRIORS, strict=True))
    return cautious, bold


def _mean(bets: _Bets) -> float:
    """Answer the logarithm of the mean of what the bets are worth."""
    most, least = max(bets), min(bets)
    return most + math.log((1 + math.exp(least - most)) / 2)


def _log_ratio(block: Tally, claimed: float, assumed: float) -> float:
    """Answer the log likelihood ratio of a block under two shares, both within (0, 1)."""
    return block.bad * math.log(claimed / assumed) + (block.requests - block.bad) * math.log((1 - claimed) / (1 - assumed))
