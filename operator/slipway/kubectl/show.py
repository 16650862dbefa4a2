"""A ModelDeployment in words: pure, from the object and the time to text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from slipway.api.rollout import Rollout
from slipway.api.status import (
    ArmStatus,
    CheckStatus,
    Condition,
    ConditionType,
    HistoryEntry,
    Phase,
    RevisionStatus,
    RolloutStatus,
    Status,
)
from slipway.core.clock import to_datetime
from slipway.core.plan import plan

Object = dict[str, Any]
_PHASES = {Phase.READY: "32", Phase.DEGRADED: "31", Phase.PAUSED: "33", Phase.PROGRESSING: "36", Phase.PENDING: "36"}
_VERDICTS = {"Passed": "32", "Failed": "31"}
_ENDS = {"Served": "served", "Failed": "withdrawn", "Superseded": "superseded", "Cancelled": "cancelled"}
_DIGEST = 12
# Conditions that are told when they are not True; of Progressing and UnsafeModel see _troubles.
_WANTED = (
    ConditionType.READY,
    ConditionType.AVAILABLE,
    ConditionType.ROUTES_LIVE,
    ConditionType.SPEC_VALID,
    ConditionType.SCALING_ACTIVE,
    ConditionType.EXPOSED,
)


@dataclass(frozen=True)
class Paint:
    """Colours, where they are wanted."""

    on: bool = False

    def __call__(self, text: str, code: str) -> str:
        """Answer the text in a colour of ANSI's."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and code else text


PLAIN = Paint()


@dataclass(frozen=True)
class _Node:
    """One line of a tree and what hangs below it."""

    text: str
    below: Sequence["_Node"] = field(default=())

    def lines(self, indent: str = "") -> Iterable[str]:
        """Yield the lines below it, drawn."""
        for number, node in enumerate(self.below):
            last = number == len(self.below) - 1
            yield f"{indent}{'└─ ' if last else '├─ '}{node.text}"
            yield from node.lines(indent + ("   " if last else "│  "))


def status_of(obj: Object) -> Status:
    """Read the status of a ModelDeployment; one that nobody has written yet is empty. What would steer a terminal is left out.

    Messages hold words of pods, and requests those of whoever wrote them.
    """
    return Status.model_validate(_clean(obj.get("status") or {}))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(each if each.isprintable() else " " for each in value)
    if isinstance(value, list):
        return [_clean(each) for each in cast("list[Any]", value)]
    return {key: _clean(each) for key, each in cast("Object", value).items()} if isinstance(value, dict) else value


def tree(obj: Object, now: datetime, paint: Paint = PLAIN) -> str:
    """Draw one ModelDeployment."""
    status = status_of(obj)
    phase = paint(status.phase.value, _PHASES[status.phase])
    head = f"{paint(obj['metadata']['name'], '1')}  {phase}  {status.url}".rstrip()
    nodes: list[_Node] = []
    if status.stable is not None:
        nodes.append(_Node(_role("stable", status.stable)))
    if status.candidate is not None:
        below = _rollout(status.rollout, _hold_seconds(obj, status.rollout), now, paint) if status.rollout is not None else ()
        nodes.append(
            _Node(
                _role("candidate", status.candidate, status.rollout, status.arms),
                [*below, *_measured(status, status.candidate, paint)],
            )
        )
        nodes += [_Node(_role("arm", each), _measured(status, each, paint)) for each in status.arms]
        nodes += [_Node(f"{'withdrawn':9}  {named(arm)}  {paint(f'{arm.reason}: {arm.message}', '31')}") for arm in _gone(status)]
    elif status.rollout is not None:
        why = f"{status.rollout.reason}: {status.rollout.message}"
        checks = [_Node(line) for line in _checks(status.rollout.checks, paint)]
        nodes.append(_Node(f"{'refused':9}  {status.rollout.revision}  {paint(why, '31')}", checks))
    for each in status.draining:
        kept = f"  kept until {each.until}" if each.until is not None else ""
        nodes.append(_Node(f"{'leaves':9}  {each.revision}{kept}"))
    if status.pinned is not None:
        pinned = status.pinned
        told = f"{pinned.revision} instead of {pinned.instead_of}{_by(pinned.by)}{_ago(pinned.at, now)}"
        nodes.append(_Node(f"{'pinned':9}  {told}"))
    if status.request is not None and status.request.at != status.handled:
        told = f"{status.request.verb}{_by(status.request.by)}{_ago(status.request.at, now)}, not obeyed yet"
        nodes.append(_Node(f"{'asked':9}  {paint(told, '33')}"))
    if behind(obj, status):
        nodes.append(_Node(f"{'spec':9}  {paint('changed; Slipway has not taken notice of it yet', '33')}"))
    nodes += [_Node(f"{each.type} is {each.status}  {each.reason}: {each.message}") for each in _troubles(status)]
    if status.history:
        nodes.append(_Node(f"{'last':9}  {_ended(status.history[0], now)}"))
    return "\n".join((head, *_Node("", nodes).lines()))


def behind(obj: Object, status: Status) -> bool:
    """Tell whether the operator has not taken notice of the latest spec yet."""
    return status.observed_generation < obj["metadata"].get("generation", 0)


def named(role: RevisionStatus | HistoryEntry | ArmStatus) -> str:
    """Name a revision with its version."""
    return f"{role.revision} (version {role.version})" if role.version else role.revision


def _role(label: str, role: RevisionStatus, rollout: RolloutStatus | None = None, arms: Sequence[RevisionStatus] = ()) -> str:
    weight = f"{role.weight}%"
    if rollout is not None and rollout.live_weight != sum(each.weight for each in (role, *arms)):
        weight += f" (live {rollout.live_weight}%{' with all arms' if arms else ''})"
    words = [f"{label:9}", role.revision, f"version {role.version}" if role.version else "", weight]
    words.append(f"{role.ready}/{role.replicas} ready")
    if role.requests_per_second is not None:
        words.append(f"{role.requests_per_second:g}/s")
    words += [f"p95 {role.p95}" if role.p95 else "", f"errors {role.error_rate}" if role.error_rate else ""]
    return "  ".join(word for word in words if word)


def _hold_seconds(obj: Object, rollout: RolloutStatus | None) -> float:
    """Answer how long the step under way is held at the least; 0 where the spec cannot be read here."""
    try:
        steps = plan(Rollout.model_validate(obj["spec"].get("rollout") or {})).steps
    except (ValidationError, KeyError):
        return 0.0
    return steps[rollout.step - 1].hold_seconds if rollout is not None and 0 < rollout.step <= len(steps) else 0.0


def _rollout(rollout: RolloutStatus, hold_seconds: float, now: datetime, paint: Paint) -> list[_Node]:
    """Tell how far a candidate is and what is measured of it."""
    if not rollout.step:
        where = "before its first step"
    else:
        where = f"step {rollout.step} of {rollout.steps}"
        if rollout.step_since is None:
            where += ", its weight is on its way to the routers"
        else:
            held = (now - to_datetime(rollout.step_since)).total_seconds()
            left = f", {duration(hold_seconds - held)} of its hold left" if hold_seconds > held else ""
            where += f", live for {duration(held)}{left}"
    if rollout.mirror:
        where += f", copies of {rollout.mirror}% of the requests"
    if rollout.weight_set is not None:
        where += f", weight set to {rollout.weight_set}%"
    if rollout.paused:
        where = paint(f"paused: {where}", "33")
    elif rollout.forced and rollout.forced >= rollout.step:
        where += f", promoted{_by(rollout.forced_by)}"
    preview = [_Node(f"preview  {rollout.preview}")] if rollout.preview else []
    told = [(rollout.reason, rollout.message), (rollout.paused_reason, rollout.paused_message)]
    trouble = [_Node(paint(f"{reason}: {message}", "31")) for reason, message in told if reason]
    return [_Node(where), *preview, *trouble]


def _gone(status: Status) -> list[ArmStatus]:
    """Answer the arms that were withdrawn while others go on."""
    trial = status.rollout.trial if status.rollout is not None else None
    return [arm for arm in trial.arms if arm.reason] if trial is not None else []


def _measured(status: Status, role: RevisionStatus, paint: Paint) -> list[_Node]:
    """Tell what is measured of one candidate."""
    if status.rollout is None:
        return []
    arms = status.rollout.trial.arms if status.rollout.trial is not None else ()
    said = [_Node(f"A/B test  {arm.statement}") for arm in arms if arm.revision == role.revision and arm.statement]
    checks = [check for check in status.rollout.checks if check.revision in (None, role.revision)]
    return [*said, *(_Node(line) for line in _checks(checks, paint))]


def _checks(checks: Sequence[CheckStatus], paint: Paint) -> list[str]:
    rows = [_check(check) for check in checks]
    colours = [_VERDICTS.get(check.verdict, "33") for check in checks]
    return [
        f"{line[: -len(row[-1])]}{paint(row[-1], colour)}"
        for line, row, colour in zip(_columns(rows), rows, colours, strict=True)
    ]


def _check(check: CheckStatus) -> tuple[str, ...]:
    """Tell of one check: its figures, on how many requests or answers they rest, and what it comes to."""
    if check.kind is not None:
        told = f": {check.message}" if check.message and check.verdict not in ("Passed", "InsufficientAnswers") else ""
        answers = "1 answer" if check.sample == 1 else f"{check.sample} answers"
        limit = f"limit {check.limit}" if check.limit else f"stable {check.stable}" if check.stable else ""
        return check.name, check.candidate or "-", check.kind, limit, answers, check.verdict + told
    figures = check.candidate or "-", f"stable {check.stable or '-'}", f"limit {check.limit or '-'}"
    return check.name, *figures, f"{check.sample} requests", check.verdict


def _troubles(status: Status) -> list[Condition]:
    """Answer the conditions that are not as they should be. Progressing is told where Ready does not say the same."""
    by_type = {condition.type: condition for condition in status.conditions}
    found = [by_type[kind] for kind in _WANTED if kind in by_type and by_type[kind].status != "True"]
    progressing, unsafe = by_type.get(ConditionType.PROGRESSING), by_type.get(ConditionType.UNSAFE_MODEL)
    if progressing is not None and progressing.status == "False" and progressing.reason != "Complete":
        found += [progressing] if progressing.reason not in [each.reason for each in found] else []
    return found + ([unsafe] if unsafe is not None and unsafe.status == "True" else [])


def _ended(entry: HistoryEntry, now: datetime) -> str:
    why = f": {entry.message}" if entry.message else ""
    if entry.outcome == "Served":
        return f"{named(entry)} became stable{_ago(entry.at, now)}{why}"
    return f"{named(entry)} was {_ENDS[entry.outcome]}{_ago(entry.at, now)}{why}"


def line(obj: Object) -> str:
    """Tell in one line how a ModelDeployment stands, without what moves by itself."""
    status = status_of(obj)
    words = [f"{status.phase.value}:"]
    if status.candidate is not None:
        live = status.rollout.live_weight if status.rollout is not None else 0
        moving = f", live {live}%" if live != sum(each.weight for each in status.candidates) else ""
        words.append(f"{', '.join(f'{named(each)} has {each.weight}%' for each in status.candidates)}{moving},")
        if status.rollout is not None and status.rollout.step:
            words.append(f"step {status.rollout.step} of {status.rollout.steps},")
        ready, replicas = (
            sum(counts) for counts in zip(*((each.ready, each.replicas) for each in status.candidates), strict=True)
        )
        words.append(f"{ready}/{replicas} ready")
    elif status.stable is not None:
        words.append(f"{named(status.stable)} serves")
    else:
        words.append("nothing serves")
    ready = next((each for each in status.conditions if each.type == ConditionType.READY), None)
    if behind(obj, status):
        words.append("(the spec has changed)")
    elif ready is not None and ready.status != "True":
        words.append(f"({ready.reason})")
    return " ".join(words)


def table(objects: Iterable[Object], now: datetime, *, namespaces: bool = False, wide: bool = False) -> str:
    """List ModelDeployments, a line each."""
    head = ["NAME", "VERSION", "PHASE", "READY", "CANDIDATE", "WEIGHT", "STEP", "P95", "ERRORS", "AGE"]
    rows = [(["NAMESPACE"] if namespaces else []) + head + (["STABLE", "URL", "WHY"] if wide else [])]
    for obj in objects:
        status, metadata = status_of(obj), obj["metadata"]
        stable, candidate, rollout = status.stable, status.candidate, status.rollout
        row = [metadata["namespace"]] if namespaces else []
        row += [
            metadata["name"],
            stable.version if stable else "",
            status.phase.value,
            f"{stable.ready}/{stable.replicas}" if stable else "",
            ",".join(each.version or each.revision for each in status.candidates),
            ",".join(f"{each.weight}%" for each in status.candidates),
            f"{rollout.step}/{rollout.steps}" if candidate and rollout and rollout.step else "",
            stable.p95 or "" if stable else "",
            stable.error_rate or "" if stable else "",
            duration((now - to_datetime(metadata["creationTimestamp"])).total_seconds()),
        ]
        if wide:
            ready = next((each for each in status.conditions if each.type == ConditionType.READY), None)
            why = ready.reason if ready is not None and ready.status != "True" else ""
            row += [stable.revision if stable else "", status.url, why]
        rows.append(row)
    return "\n".join(_columns([[cell or "-" for cell in row] for row in rows]))


def history(obj: Object, kept: set[str] | None, now: datetime) -> str:
    """Tell who served from when to when, how each rollout ended and why. None for `kept` where that is not known."""
    status = status_of(obj)
    if not status.history:
        return "no rollout has ended yet"
    rows = [("", "REVISION", "VERSION", "DIGEST", "ENDED AS", "AT", "UNTIL", "KEPT", "WHY")]
    until = ""
    for entry in status.history:
        served = entry.outcome == "Served"
        now_serves = served and not until
        rows.append(
            (
                "*" if now_serves else "",
                entry.revision,
                entry.version or "-",
                (entry.digest or "-")[:_DIGEST],
                "serves" if now_serves else _ENDS[entry.outcome],
                _at(entry.at, now),
                until if served else "",
                "" if kept is None else "yes" if entry.revision in kept else "no",
                entry.message or "",
            )
        )
        until = entry.at if served else until
    lines = list(_columns(rows))
    if kept is None:
        lines.append("Which are kept is not known: you may not list controllerrevisions.")
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out cells in columns; one that is empty throughout is left out."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    bare = [not any(column) for column in zip(*rows[1:], strict=True)] if len(rows) > 1 else [False] * len(widths)
    laid = ([f"{cell:{width}}" for cell, width, empty in zip(row, widths, bare, strict=True) if not empty] for row in rows)
    return ["  ".join(cells).rstrip() for cells in laid]


def duration(seconds: float) -> str:
    """Write a time span with its two largest units, such as `3m12s`."""
    left, words = max(round(seconds), 0), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count}{unit}")
        elif words:
            break
    return "".join(words[:2]) or "0s"


def _at(moment: str, now: datetime) -> str:
    return f"{moment} ({duration((now - to_datetime(moment)).total_seconds())} ago)"


def _ago(moment: str, now: datetime) -> str:
    return f", {duration((now - to_datetime(moment)).total_seconds())} ago" if moment else ""


def _by(who: str) -> str:
    return f" by {who}" if who else ""
