"""What a verb may do now and what came of it, from the status alone: why it is not sent, and what Slipway made of it."""

from collections.abc import Iterator
from datetime import UTC, datetime

from slipway.api.status import ConditionType, Phase, Request, RevisionStatus, RolloutStatus, Status, Verb
from slipway.core.verbs import served_before
from slipway.kubectl.show import named


def request(verb: Verb, by: str, *, full: bool = False, revision: str | None = None, weight: int | None = None) -> Request:
    """Answer a request of now."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Request(verb=verb, at=at, by=by[:256], full=full, revision=revision, weight=weight)


def refusal(status: Status, asked: Request, kept: set[str] | None) -> str | None:
    """Say why a verb makes no sense now, None where it does. `kept` are the revisions that are kept, None where not known."""
    return next(_objections(status, asked, kept), None)


def _objections(status: Status, asked: Request, kept: set[str] | None) -> Iterator[str]:
    rollout = status.rollout
    if asked.verb == Verb.RETRY:
        if status.pinned is None and (rollout is None or not rollout.outcome):
            yield "there is nothing to retry: no rollout of this spec failed, and nothing was rolled back"
    elif asked.verb == Verb.ROLLBACK and (asked.revision or status.candidate is None):
        yield from _no_way_back(status, asked.revision, kept)
    elif status.candidate is None:
        last = ""
        if rollout is not None and rollout.outcome:
            last = f"; {rollout.revision} was withdrawn ({rollout.message}): `retry` tries it again"
        yield f"no rollout is under way{last}"
    elif status.stable is None:
        yield f"nothing served before {named(status.candidate)}, which serves as soon as it is ready"
    elif rollout is not None and asked.verb == Verb.PAUSE and rollout.paused and rollout.weight_set is None:
        yield f"the rollout of {_names(status)} is paused already"
    elif rollout is not None and asked.verb == Verb.RESUME and status.phase != Phase.PAUSED and not rollout.paused:
        yield f"the rollout of {_names(status)} is not paused"
    elif asked.verb == Verb.SET_WEIGHT and status.arms:
        yield f"{_names(status)} are tried together: each keeps its weight until one is promoted"
    elif rollout is not None and asked.verb == Verb.PROMOTE:
        yield from _no_such_arm(status, rollout, asked.revision)


def _no_such_arm(status: Status, rollout: RolloutStatus, revision: str | None) -> Iterator[str]:
    told = rollout.trial.arms if rollout.trial is not None else ()
    better = [arm.revision for arm in told if arm.verdict == "Better" and not arm.reason]
    if revision is None and status.arms and not better:
        yield f"{_names(status)} are tried together and none is shown to be better: name the one to promote"
    elif revision is not None and revision not in [each.revision for each in status.candidates]:
        yield f"{revision} is not tried; it is {_names(status)}"


def _names(status: Status) -> str:
    """Name all that is tried."""
    return ", ".join(map(named, status.candidates))


def _no_way_back(status: Status, revision: str | None, kept: set[str] | None) -> Iterator[str]:
    if status.stable is None:
        yield "nothing serves yet"
        return
    for condition in status.conditions:
        if condition.type == ConditionType.SPEC_VALID and condition.status == "False":
            yield f"Slipway cannot read the spec ({condition.message}): correct it first"
    asked_for = _of_spec(status)
    if revision is None:
        known = {entry.revision for entry in status.history} if kept is None else kept
        if served_before(status.history, known, status.stable.revision, asked_for) is None:
            yield f"no revision that served before {named(status.stable)} is kept"
    elif revision == asked_for:
        yield f"{revision} is what the spec asks for" + ("" if revision == status.stable.revision else ": `retry` tries it")
    elif status.pinned is not None and revision == status.stable.revision == status.pinned.revision:
        yield f"{revision} serves already"
    elif kept is not None and revision not in kept:
        yield f"{revision} is not kept; kept are {', '.join(sorted(kept - {asked_for})) or 'none'}"


def _of_spec(status: Status) -> str:
    """Answer the revision that the spec asks for, as far as status tells."""
    if status.pinned is not None:
        return status.pinned.instead_of
    if status.rollout is not None:
        return status.rollout.revision
    return status.stable.revision if status.stable is not None else ""


def outcome(before: Status, after: Status, asked: Request) -> tuple[bool, str]:
    """Tell whether an obeyed request did something, and what."""
    told = _DONE[asked.verb](before, after)
    return (True, told) if told else (False, "Slipway passed it over: meanwhile there was nothing to do")


def _serves(before: Status, after: Status) -> str:
    """Say that one of those that were tried serves; nothing where none does."""
    serves = after.stable is not None and after.stable.revision in [each.revision for each in before.candidates]
    return f"{named(after.stable)} serves all requests" if after.stable is not None and serves else ""


def _promoted(before: Status, after: Status) -> str:
    rollout, candidate = after.rollout, _chosen(after)
    if serves := _serves(before, after):
        return serves
    if candidate is None or rollout is None or not rollout.forced:
        return ""
    if rollout.forced >= max(rollout.steps, 1):
        return f"{named(candidate)} skips all steps that are left"
    if rollout.step > rollout.forced:
        return f"{named(candidate)} goes on to step {rollout.step} of {rollout.steps} with {candidate.weight}%"
    return f"{named(candidate)} leaves step {rollout.forced} as soon as it is live and the pods for the next are ready"


def _chosen(status: Status) -> RevisionStatus | None:
    """Answer the candidate that goes on; of several, the one that was chosen."""
    chosen = status.rollout.chosen if status.rollout is not None else None
    return next((each for each in status.candidates if each.revision == chosen), status.candidate)


def _withdrawn(before: Status, after: Status) -> str:
    if before.candidate is None or (after.candidate is not None and after.candidate.revision == before.candidate.revision):
        return ""
    goes_on = f"; {named(after.stable)} serves all requests" if after.stable is not None else ""
    return f"{_names(before)} {'are' if before.arms else 'is'} withdrawn{goes_on}"


def _paused(before: Status, after: Status) -> str:
    if after.candidate is None or after.rollout is None or not after.rollout.paused:
        return ""
    stays = ", ".join(f"{named(each)} stays at {each.weight}%" for each in after.candidates)
    return f"{stays} until `resume` or `promote`"


def _weight_set(before: Status, after: Status) -> str:
    if after.candidate is None or after.rollout is None or after.rollout.weight_set is None:
        return ""
    weight = after.rollout.weight_set
    if after.candidate.weight != weight:
        return f"{named(after.candidate)} gets {weight}% as soon as it has pods enough, until `resume` or `promote`"
    return f"{named(after.candidate)} gets {weight}% until `resume` or `promote`"


def _resumed(before: Status, after: Status) -> str:
    if serves := _serves(before, after):
        return serves
    if after.candidate is None or after.rollout is None or after.rollout.paused:
        return ""
    return ", ".join(f"{named(each)} goes on" for each in after.candidates)


def _retried(before: Status, after: Status) -> str:
    if after.candidate is not None and after.pinned is None and _tried(before) != _tried(after):
        return f"{named(after.candidate)} is tried again"
    if before.pinned is not None and after.pinned is None and after.stable is not None:
        return f"{named(after.stable)} serves all requests, as the spec asks for"
    return ""


def _rolled_back(before: Status, after: Status) -> str:
    if after.pinned is None or (after.pinned, _tried(after)) == (before.pinned, _tried(before)):
        return _withdrawn(before, after)
    refused = f"{after.pinned.instead_of} is refused until the spec asks for another one, or `retry`"
    if after.candidate is not None and after.candidate.revision == after.pinned.revision:
        return f"{named(after.candidate)} takes over as soon as it is ready; {refused}"
    return f"{after.pinned.revision} serves; {refused}"


def _tried(status: Status) -> str:
    return status.candidate.revision if status.candidate is not None else ""


_DONE = {
    Verb.PROMOTE: _promoted,
    Verb.ABORT: _withdrawn,
    Verb.PAUSE: _paused,
    Verb.RESUME: _resumed,
    Verb.RETRY: _retried,
    Verb.ROLLBACK: _rolled_back,
    Verb.SET_WEIGHT: _weight_set,
}


class Wanted:
    """The revision that somebody waits for: the one that the spec asked for when it was first seen."""

    def __init__(self) -> None:
        self._revision = ""

    def ended(self, status: Status) -> tuple[bool, str] | None:
        """Tell whether it was promoted and how it ended; None while it is under way."""
        if not self._revision:
            self._revision = _of_spec(status)
        pinned, rollout, stable = status.pinned, status.rollout, status.stable
        invalid = next(
            (each for each in status.conditions if each.type == ConditionType.SPEC_VALID and each.status == "False"), None
        )
        if invalid is not None:
            return False, f"Slipway cannot read the spec: {invalid.message}"
        if pinned is not None and pinned.won and stable is not None and pinned.instead_of == self._revision:
            return True, f"{named(stable)} serves: it won the A/B test"
        if pinned is not None and pinned.instead_of == self._revision:
            return False, f"{self._revision} was rolled back" + (f" by {pinned.by}" if pinned.by else "")
        if stable is not None and stable.revision == self._revision:
            return True, f"{named(stable)} serves"
        if status.candidate is not None and rollout is not None and rollout.revision == self._revision:
            return None
        if rollout is not None and rollout.outcome and rollout.revision == self._revision:
            return False, f"{self._revision} was withdrawn: {rollout.message}"
        entry = next((each for each in status.history if each.revision == self._revision), None)
        if entry is None:
            return None
        if entry.outcome == "Served":
            return True, f"{named(entry)} served, and another version has taken its place since"
        return False, f"{named(entry)} was withdrawn: {entry.message or 'the spec asks for another version'}"
