"""What the rollout policy sees and what it remembers, and the changes of roles that several of its rules make."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from slipway.api.status import Draining, HistoryEntry, Pinned, Request, RevisionStatus, RolloutStatus, ScalingStatus, Status
from slipway.core.clock import stamp, to_datetime
from slipway.core.observation import RevisionSeen, RoutesSeen
from slipway.core.plan import IMMEDIATE, UNJUDGED, Judgement, Plan
from slipway.core.revision import Target
from slipway.core.steering import UNSTEERED, Steering

HISTORY_MAX = 20


@dataclass(frozen=True)
class World:
    """All that the policy sees."""

    target: Target | None
    replicas: int
    revisions: Mapping[str, RevisionSeen]
    known: Mapping[str, Target]
    routes: RoutesSeen
    deadline_seconds: float
    timeout_seconds: float
    now: datetime
    plan: Plan = IMMEDIATE
    judgement: Judgement = UNJUDGED
    minimum: int = 1
    scaling: ScalingStatus | None = None

    def since(self, moment: str) -> float:
        """Answer how many seconds ago a moment that status remembers was."""
        return (self.now - to_datetime(moment)).total_seconds()

    def seen(self, revision: str) -> RevisionSeen:
        """Answer what is seen of a revision's pods; of one without a Deployment, none."""
        return self.revisions.get(revision, RevisionSeen())


@dataclass(frozen=True)
class State:
    """The roles of revisions: what status remembers of a rollout."""

    stable: Target | None = None
    candidate: Target | None = None
    weight: int = 0
    draining: tuple[Draining, ...] = ()
    rollout: RolloutStatus | None = None
    history: tuple[HistoryEntry, ...] = field(default=())
    pinned: Pinned | None = None
    handled: str = ""
    request: Request | None = None

    @property
    def weights(self) -> dict[str, int]:
        """Answer the percent of requests by revision: they sum to 100, or there are none while nothing serves yet."""
        weights: dict[str, int] = {}
        if self.candidate is not None and (self.weight or self.stable is not None):
            weights[self.candidate.revision] = self.weight
        if self.stable is not None:
            weights[self.stable.revision] = 100 - self.weight
        return weights

    def steering(self, plan: Plan) -> Steering:
        """Answer what the routers do beside weights at the step under way: nothing before the first, or once it has them all."""
        if self.stable is None or self.candidate is None or not self.step or self.weight == 100:
            return UNSTEERED
        step = plan.step(self.step)
        compare = plan.agreement.share if plan.agreement is not None else 0
        steering = Steering(self.candidate.revision, step.mirror, plan.preview, plan.testers, plan.sticky, compare)
        return UNSTEERED if steering == Steering(self.candidate.revision) else steering

    @property
    def active(self) -> list[str]:
        """Answer the revisions that have pods: stable, candidate and those that drain."""
        roles = [role.revision for role in (self.stable, self.candidate) if role is not None]
        return roles + [entry.revision for entry in self.draining]

    @property
    def step(self) -> int:
        """Answer the step under way, counted from 1; 0 before the first."""
        return self.rollout.step if self.rollout is not None and self.candidate is not None else 0


def load(status: Status) -> State:
    """Read the state that status remembers."""

    def role(seen: RevisionStatus | None) -> Target | None:
        return None if seen is None else Target(seen.revision, seen.version, seen.digest)

    return State(
        stable=role(status.stable),
        candidate=role(status.candidate),
        weight=status.candidate.weight if status.candidate else 0,
        draining=tuple(status.draining),
        rollout=status.rollout,
        history=tuple(status.history),
        pinned=status.pinned,
        handled=status.handled,
        request=status.request,
    )


def ended(state: State, world: World, revision: Target, outcome: str, message: str | None = None) -> tuple[HistoryEntry, ...]:
    """Answer the history with how a revision's rollout ended."""
    entry = HistoryEntry.model_validate(
        {
            "revision": revision.revision,
            "version": revision.version,
            "digest": revision.digest,
            "outcome": outcome,
            "at": stamp(world.now),
            "message": message,
        }
    )
    return (entry, *state.history)[:HISTORY_MAX]


def withdraw(state: State) -> State:
    """Take the candidate out: all weight back to stable, its pods drained."""
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    leaving = Draining(revision=state.candidate.revision)
    return replace(state, candidate=None, weight=0, rollout=None, draining=(*state.draining, leaving))


def failed_with(state: State, world: World, reason: str, message: str) -> State:
    """Take the candidate out and remember why: it is not tried again until the spec changes."""
    assert state.candidate is not None  # noqa: S101 - every caller checked it
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    outcome = {"outcome": "Failed", "reason": reason, "message": message, "checks": list(world.judgement.checks)}
    failed = state.rollout.model_copy(update=outcome)
    return replace(withdraw(state), rollout=failed, history=ended(state, world, state.candidate, "Failed", message))
