"""Requests that are slow before they end: told from how many are in flight, and how many have ended."""

from dataclasses import dataclass, replace

from slipway.core.sequential import Tally

# What is seen of routers is as old as their latest answers: two looks may lie so much closer together than it seems.
_SLACK_SECONDS = 1.5
_KEPT_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """How many requests were in flight at some time (seconds), and how many had ended since counting began."""

    at: float
    in_flight: int
    ended: int


@dataclass(frozen=True)
class Flight:
    """The looks at one revision's requests over the last minute, the latest one last."""

    looks: tuple[Look, ...] = ()

    def add(self, look: Look) -> "Flight":
        """Answer the flight after another look; where fewer have ended than before, counting began anew."""
        if self.looks and look.ended < self.looks[-1].ended:
            return Flight((look,))
        return Flight((*(each for each in self.looks if look.at - each.at <= _KEPT_SECONDS), look))

    def longer_than(self, seconds: float) -> int:
        """Answer how many requests at the least have been in flight for so long.

        Of those in flight at an earlier look at most as many have ended as ended at all since.
        """
        if not self.looks:
            return 0
        now = self.looks[-1]
        for then in reversed(self.looks):
            if now.at - then.at >= seconds + _SLACK_SECONDS:
                return max(min(then.in_flight - (now.ended - then.ended), now.in_flight), 0)
        return 0


@dataclass(frozen=True)
class Foreseen:
    """How many requests in flight are counted as slow already, so that they are not counted again as they end."""

    count: int = 0

    def add(self, ended: Tally, gone: int, hanging: int) -> tuple[Tally, "Foreseen"]:
        """Answer what to count of requests that ended (bad: slow) while so many hang; `gone` ended without a latency."""
        known = min(self.count, int(ended.bad))
        left = max(self.count - known - gone, 0)
        now = max(left, hanging)
        more = now - left - known
        return Tally(ended.requests + more, ended.bad + more), replace(self, count=now)
