"""What the rollout policy sees and what it remembers, and the changes of roles that several of its rules make."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from slipway.api.status import (
    CheckStatus,
    Draining,
    HistoryEntry,
    Pinned,
    Request,
    RevisionStatus,
    RolloutStatus,
    ScalingStatus,
    Status,
)
from slipway.core.clock import stamp, to_datetime
from slipway.core.observation import RevisionSeen, RoutesSeen
from slipway.core.plan import IMMEDIATE, NOBODY_JUDGED, Judged, Plan
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
    judged: Judged = NOBODY_JUDGED
    minimum: int = 1
    scaling: ScalingStatus | None = None
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    def full(self, revision: str) -> int:
        """Answer the replicas of a revision that has all requests: under an objective each revision's own number."""
        return self.sizes.get(revision, self.replicas)

    @property
    def awake(self) -> "World":
        """Answer the world as a rollout sees it: there is a replica of every revision, whoever sleeps outside of one."""
        return replace(self, replicas=max(self.replicas, 1), sizes={name: max(size, 1) for name, size in self.sizes.items()})

    def since(self, moment: str) -> float:
        """Answer how many seconds ago a moment that status remembers was."""
        return (self.now - to_datetime(moment)).total_seconds()

    def seen(self, revision: str) -> RevisionSeen:
        """Answer what is seen of a revision's pods; of one without a Deployment, none."""
        return self.revisions.get(revision, RevisionSeen())


@dataclass(frozen=True)
class Candidate:
    """A revision that is tried, and the percent of requests that is asked for it."""

    target: Target
    weight: int = 0

    @property
    def revision(self) -> str:
        """Answer its name."""
        return self.target.revision


@dataclass(frozen=True)
class State:
    """The roles of revisions: what status remembers of a rollout. Only an A/B test has several candidates."""

    stable: Target | None = None
    candidates: tuple[Candidate, ...] = ()
    draining: tuple[Draining, ...] = ()
    rollout: RolloutStatus | None = None
    history: tuple[HistoryEntry, ...] = field(default=())
    pinned: Pinned | None = None
    handled: str = ""
    request: Request | None = None

    @property
    def candidate(self) -> Target | None:
        """Answer the candidate; of several, the first."""
        return self.candidates[0].target if self.candidates else None

    @property
    def weight(self) -> int:
        """Answer the percent of requests that the candidates have together."""
        return sum(each.weight for each in self.candidates)

    @property
    def given(self) -> int:
        """Answer what the step gave them: with what those had that were withdrawn since."""
        trial = self.rollout.trial if self.rollout is not None else None
        gone = sum(arm.weight for arm in trial.arms if arm.reason) if trial is not None else 0
        return min(self.weight + gone, 100)

    @property
    def weights(self) -> dict[str, int]:
        """Answer the percent of requests by revision: they sum to 100, or there are none while nothing serves yet."""
        weights = {each.revision: each.weight for each in self.candidates if self.weight or self.stable is not None}
        if self.stable is not None:
            weights[self.stable.revision] = 100 - self.weight
        return weights

    def steering(self, plan: Plan) -> Steering:
        """Answer what the routers do beside weights at the step under way: nothing before the first, or once it has them all."""
        if self.stable is None or self.candidate is None or self.rollout is None or not self.step or self.weight == 100:
            return UNSTEERED
        step, sticky = plan.step(self.step), plan.sticky
        compare = plan.agreement.share if plan.agreement is not None else 0
        if sticky is not None:
            arms = self.rollout.trial.arms if self.rollout.trial is not None else ()
            sticky = replace(sticky, salt=self.rollout.revision, arms=tuple((arm.revision, arm.weight) for arm in arms))
        steering = Steering(self.candidate.revision, step.mirror, plan.preview, plan.testers, sticky, compare)
        return UNSTEERED if steering == Steering(self.candidate.revision) else steering

    @property
    def active(self) -> list[str]:
        """Answer the revisions that have pods: stable, candidates and those that drain."""
        roles = [self.stable.revision] if self.stable is not None else []
        roles += [each.revision for each in self.candidates]
        return roles + [entry.revision for entry in self.draining]

    @property
    def step(self) -> int:
        """Answer the step under way, counted from 1; 0 before the first."""
        return self.rollout.step if self.rollout is not None and self.candidate is not None else 0


def load(status: Status) -> State:
    """Read the state that status remembers."""

    def role(seen: RevisionStatus) -> Target:
        return Target(seen.revision, seen.version, seen.digest)

    return State(
        stable=None if status.stable is None else role(status.stable),
        candidates=tuple(Candidate(role(each), each.weight) for each in status.candidates),
        draining=tuple(status.draining),
        rollout=status.rollout,
        history=tuple(status.history),
        pinned=status.pinned,
        handled=status.handled,
        request=status.request,
    )


def ended(
    state: State, world: World, revisions: Iterable[Target], outcome: str, message: str | None = None
) -> tuple[HistoryEntry, ...]:
    """Answer the history with how the rollout of each of the revisions ended, the first as the latest."""
    entries = tuple(
        HistoryEntry.model_validate(
            {
                "revision": revision.revision,
                "version": revision.version,
                "digest": revision.digest,
                "outcome": outcome,
                "at": stamp(world.now),
                "message": message,
            }
        )
        for revision in revisions
    )
    return (*entries, *state.history)[:HISTORY_MAX]


def tried(state: State) -> list[Target]:
    """Answer the candidates."""
    return [each.target for each in state.candidates]


def checks_of(state: State, world: World) -> list[CheckStatus]:
    """Answer what is measured of the candidates; of an A/B test with several, each check says whose it is."""
    trial = state.rollout.trial if state.rollout is not None else None
    several = trial is not None and len(trial.arms) > 1
    return [
        check.model_copy(update={"revision": each.revision}) if several else check
        for each in state.candidates
        for check in world.judged.of(each.revision).checks
    ]


def withdraw(state: State) -> State:
    """Take the candidates out: all weight back to stable, their pods drained."""
    leaving = (Draining(revision=each.revision) for each in state.candidates)
    return replace(state, candidates=(), rollout=None, draining=(*state.draining, *leaving))


def failed_with(state: State, world: World, reason: str, message: str) -> State:
    """Take the candidates out and remember why: they are not tried again until the spec changes."""
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    outcome = {"outcome": "Failed", "reason": reason, "message": message, "checks": checks_of(state, world)}
    failed = state.rollout.model_copy(update=outcome)
    return replace(withdraw(state), rollout=failed, history=ended(state, world, tried(state), "Failed", message))


def drop(state: State, world: World, revision: str, reason: str, message: str) -> State:
    """Take one candidate out; the others go on as they are, and stable has its callers. With the last one the rollout fails."""
    assert state.rollout is not None  # noqa: S101 - a candidate has one
    trial = state.rollout.trial
    if len(state.candidates) == 1 or trial is None:
        return failed_with(state, world, reason, message if revision == state.rollout.revision else f"{revision}: {message}")
    gone = next(each.target for each in state.candidates if each.revision == revision)
    why = {"reason": reason, "message": message}
    arms = [arm.model_copy(update=why) if arm.revision == revision else arm for arm in trial.arms]
    update: dict[str, object] = {"trial": trial.model_copy(update={"arms": arms})}
    if state.rollout.chosen == revision:
        update |= {"chosen": None, "forced": 0}
    return replace(
        state,
        candidates=tuple(each for each in state.candidates if each.revision != revision),
        draining=(*state.draining, Draining(revision=revision)),
        rollout=state.rollout.model_copy(update=update),
        history=ended(state, world, [gone], "Failed", message),
    )
