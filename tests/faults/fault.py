"""Faults as values: what goes wrong at the n-th request, or watch event, of a kind; and the requests that they are told by."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verb(StrEnum):
    """What the operator asks of the API server. A watch is one verb, whatever events it brings."""

    GET = "GET"
    LIST = "LIST"
    WATCH = "WATCH"
    APPLY = "APPLY"
    DELETE = "DELETE"
    OTHER = "OTHER"


WRITES = (Verb.APPLY, Verb.DELETE)


class Action(StrEnum):
    """What goes wrong."""

    KILL_BEFORE = "kill-before"  # the operator dies, the request never leaves it
    KILL_SENT = "kill-sent"  # it is done, the operator dies before the answer
    KILL_AFTER = "kill-after"  # it dies right after the answer
    CONFLICT = "409"
    BUSY = "429"
    ERROR = "500"
    UNAVAILABLE = "503"
    TIMEOUT = "timeout"  # never done, never answered
    CUT = "cut"  # done, and the connection cut before the answer
    LATE = "late"  # done only after some seconds, whether or not the operator still waits
    STEAL = "steal"  # another replica gets the Lease just before, and the request is late
    STALE = "stale"  # a list is answered as it was the first time
    DROP = "drop"  # of a watch: the event never comes
    DELAY = "delay"  # it and all after it come later
    REORDER = "reorder"  # it comes after the next one
    GONE = "410"  # the watch ends: its version is too old
    END = "end"  # the watch ends
    HIDE = "hide"  # the deletion never comes


KILLS = (Action.KILL_BEFORE, Action.KILL_SENT, Action.KILL_AFTER)
REFUSALS = (Action.CONFLICT, Action.BUSY, Action.ERROR, Action.UNAVAILABLE)
ON_WATCH = (Action.DROP, Action.DELAY, Action.REORDER, Action.GONE, Action.END, Action.HIDE)


@dataclass(frozen=True)
class Call:
    """A kind of request: `deployments`, or with its subresource `modeldeployments/status`."""

    verb: Verb
    kind: str

    def __str__(self) -> str:
        return f"{self.verb}:{self.kind}"

    @classmethod
    def of(cls, method: str, path: str, query: Mapping[str, str]) -> "Call":
        """Read a request to the API server."""
        parts = path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            parts = parts[2:]
        if not parts:
            return cls(Verb.OTHER, "discovery")
        kind = "/".join((parts[0], *parts[2:]))
        if method == "GET":
            if "watch" in query:
                return cls(Verb.WATCH, kind)
            return cls(Verb.GET if len(parts) > 1 else Verb.LIST, kind)
        return cls({"PATCH": Verb.APPLY, "DELETE": Verb.DELETE}.get(method, Verb.OTHER), kind)


@dataclass(frozen=True)
class Fault:
    """An action at the `number`-th call, counted from 1 over all lives of the operator; of a watch, at its number-th event.

    Written `ACTION:VERB:KIND:NUMBER`, with `:SECONDS` where it lasts.
    """

    action: Action
    call: Call
    number: int
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.action}:{self.call}:{self.number}" + (f":{self.seconds:g}" if self.seconds else "")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read a fault as `str` writes it. Raises ValueError."""
        parts = text.split(":")
        if not 4 <= len(parts) <= 5:
            raise ValueError(f"{text}: a fault is ACTION:VERB:KIND:NUMBER[:SECONDS], such as kill-after:APPLY:deployments:2")
        fault = cls(Action(parts[0]), Call(Verb(parts[1]), parts[2]), int(parts[3]), float(parts[4]) if len(parts) > 4 else 0.0)
        if (fault.action in ON_WATCH) != (fault.call.verb == Verb.WATCH):
            raise ValueError(f"{text}: {fault.action} does not happen to {fault.call.verb}")
        return fault
