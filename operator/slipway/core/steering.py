"""What routers do with requests beside weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Match:
    """Requests that carry a header, or where it is one a cookie, of this value."""

    name: str
    value: str
    cookie: bool = False


@dataclass(frozen=True)
class Sticky:
    """Whose requests stay with one revision: those with one value of a header, or of a cookie that routers give out."""

    name: str
    cookie: bool = False
    ttl_seconds: float = 0.0


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
