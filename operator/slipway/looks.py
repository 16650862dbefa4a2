"""What the scaling policy is shown of a revision: what the routers counted of it since the look before, and its pods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from slipway.core.evidence import since
from slipway.core.figures import LIVE_SECONDS, Slice
from slipway.core.pods import Pods
from slipway.core.routing import mirror_names
from slipway.core.scaling.memory import Look
from slipway.meter.meter import Meter


@dataclass(frozen=True)
class Totals:
    """All that was counted of a revision so far: what its pods were asked, and how much of it were copies of others' requests."""

    asked: Slice | None = None
    copies: int = 0

    @classmethod
    def of(cls, meter: Meter, namespace: str, revision: str) -> "Totals":
        """Read what the routers counted."""
        asked = meter.total(namespace, revision)
        copied = [total for name in mirror_names(revision) if (total := meter.total(namespace, name)) is not None]
        copied = [replace(each, counts=each.counts._replace(refused=0)) for each in copied]  # nobody waits for those
        for each in copied:
            asked = each if asked is None else asked + each
        return cls(asked, sum(each.counts.requests for each in copied))


@dataclass(frozen=True)
class Part:
    """One revision between two looks: what its pods were asked (None where that is not known), copies included, and its pods."""

    asked: Slice | None
    copies: int
    in_flight: int
    copies_in_flight: int
    reliable: bool
    pods: Pods

    @classmethod
    def of(cls, meter: Meter, namespace: str, revision: str, before: Totals, now: Totals, pods: Pods) -> "Part":
        """Read what came between two looks, and what is in flight now."""
        asked = since(now.asked, before.asked) if now.asked is not None and before.asked is not None else None
        figures = meter.figures(namespace, revision, LIVE_SECONDS)
        names = mirror_names(revision) if now.copies else ()
        copied = sum(meter.figures(namespace, name, LIVE_SECONDS).in_flight for name in names)
        copies = max(now.copies - before.copies, 0)
        return cls(asked, copies, figures.in_flight + copied, copied, figures.reliable, pods)

    def look(self, others: "Sequence[Part]", replicas: int, *, woken: bool = False) -> Look:
        """Answer a look at this one; in a rollout, beside the others. `woken`: somebody asks for a first pod."""
        if not others:
            return Look(
                self.asked,
                self.in_flight,
                self.pods.ready,
                replicas,
                self.reliable,
                woken=woken,
                start_seconds=self.pods.start_seconds,
                hindrance=self.pods.hindrance,
            )
        asked = self.asked
        theirs = next((other.asked for other in others if other.asked is not None), None)
        if asked is None and theirs is not None:
            asked = Slice(theirs.since, theirs.until)  # of which no router has told yet: it got none
        return Look(
            asked,
            self.in_flight,
            self.pods.ready,
            replicas,
            self.reliable,
            start_seconds=self.pods.start_seconds
            or max((each for other in others if (each := other.pods.start_seconds)), default=None),
            rolling=True,
            elsewhere=sum(other.callers for other in others) - self.copies,
            in_flight_elsewhere=sum(other.in_flight - other.copies_in_flight for other in others) - self.copies_in_flight,
            hindrance=self.pods.hindrance,
        )

    @property
    def callers(self) -> int:
        """Answer the requests that callers sent it."""
        if self.asked is None:
            return 0
        return self.asked.counts.requests + self.asked.counts.refused - self.copies
