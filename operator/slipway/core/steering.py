"""What routers do with requests beside weights."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Match:
    """Requests that carry a header, or where it is one a cookie, of this value."""

    name: str
    value: str
    cookie: bool = False


@dataclass(frozen=True)
class Sticky:
    """Whose requests stay with one revision: those with one value of a header, or of a cookie that routers give out.

    `salt` tells one test from another. `arms` are the candidates as the test began, each with its percent of callers.
    """

    name: str
    cookie: bool = False
    ttl_seconds: float = 0.0
    salt: str = ""
    arms: tuple[tuple[str, int], ...] = ()

    def places(self, weights: Mapping[str, int]) -> list[tuple[str, int]]:
        """Answer who has which percent of callers, in the order of their hashes; each revision has its weight in all.

        An arm's place stays where it was as the test began. What it does not have there stable has: nobody else moves.
        """
        left, places = dict(weights), list[tuple[str, int]]()

        def place(revision: str, percent: int) -> int:
            given = min(percent, left.get(revision, 0))
            left[revision] = left.get(revision, 0) - given
            if places and places[-1][0] == revision:
                places[-1] = revision, places[-1][1] + given
            elif given:
                places.append((revision, given))
            return given

        arms = [revision for revision, _ in self.arms]
        others = sorted(revision for revision in weights if revision not in arms)
        for revision, percent in self.arms:
            missing = percent - place(revision, percent)
            for other in others:
                missing -= place(other, missing)
        for revision in (*arms, *others):
            place(revision, left.get(revision, 0))
        return places


@dataclass(frozen=True)
class Steering:
    """What the routers do with requests beside weights, for the candidate `revision`; without one nothing.

    They copy `mirror` percent of the requests to it and `compare` percent to its comparer, send it those of `testers`, and with
    `preview` all that ask for `NAME-preview`. By `sticky` whoever had one revision's answer gets that revision's again.
    """

    revision: str = ""
    mirror: int = 0
    preview: bool = False
    testers: Match | None = None
    sticky: Sticky | None = None
    compare: int = 0


UNSTEERED = Steering()
