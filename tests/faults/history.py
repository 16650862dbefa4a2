"""What happened in a run: objects as watches told of them, what routers did, which pods could answer. Invariants read it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.proxy import Done

Object = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """An object came (ADDED), changed (MODIFIED) or went (DELETED)."""

    at: float
    type: str
    obj: Object

    @property
    def kind(self) -> str:
        """Answer the kind."""
        return self.obj["kind"]

    @property
    def name(self) -> str:
        """Answer the object's name."""
        return self.obj["metadata"]["name"]

    @property
    def uid(self) -> str:
        """Answer which object of that name it is."""
        return self.obj["metadata"]["uid"]


@dataclass(frozen=True)
class Look:
    """What a router pod does from now on: percent of requests by ModelDeployment and revision. `up` False: it has gone."""

    at: float
    router: str
    weights: dict[str, dict[str, int]]
    up: bool = True


@dataclass(frozen=True)
class Capacity:
    """How many pods of a revision can answer from now on."""

    at: float
    revision: str
    pods: int


@dataclass(frozen=True)
class Lost:
    """A router had no answer for a caller, and why."""

    at: float
    router: str
    revision: str
    why: str


@dataclass(frozen=True)
class Marked:
    """The scenario did something that changes what is to be expected, such as `deleted` or `status wiped`."""

    at: float
    what: str


Entry = Event | Look | Capacity | Lost | Marked


@dataclass
class History:
    """All of one run, in the order in which it was seen."""

    namespace: str
    entries: list[Entry] = field(default_factory=list[Entry])
    requests: list[Done] = field(default_factory=list[Done])
    logs: str = ""
    secret: str = ""
    foreign: dict[str, Object] = field(default_factory=dict[str, Object])
    """Objects that are not Slipway's, by kind/name, as they were made; and of those that are, the fields that others set."""
    broken: frozenset[str] = frozenset()
    """Revisions whose models fail to load."""
    misled: frozenset[str] = frozenset()
    """Kinds of which watches told the operator late, wrongly or not at all."""
    asked: frozenset[str] = frozenset()
    """Revisions that the specs asked for."""

    def events(self, *kinds: str) -> Iterator[Event]:
        """Yield the events of some kinds, all without."""
        for entry in self.entries:
            if isinstance(entry, Event) and (not kinds or entry.kind in kinds):
                yield entry

    def marked(self, what: str) -> float:
        """Answer when the scenario first did something; infinity where it did not."""
        return next((each.at for each in self.entries if isinstance(each, Marked) and each.what == what), math.inf)
