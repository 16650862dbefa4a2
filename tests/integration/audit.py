"""What an account asked of the API server, by the server's audit log."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Right = tuple[str, str, str, str]
"""Group, resource (with its subresource), name (or `all`), verb."""


@dataclass(frozen=True)
class Asked:
    """One request for an object, and the code that it was answered with."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    code: int

    @property
    def verbs(self) -> tuple[str, ...]:
        """Answer the verbs that a right is needed of: an object that is applied and not there yet is created too."""
        return ("patch", "create") if (self.verb, self.code) == ("patch", 201) else (self.verb,)

    def uses(self, right: Right) -> bool:
        """Tell whether the request rests on this right."""
        group, resource, name, verb = right
        return (self.group or "core", self.resource) == (group, resource) and name in ("all", self.name) and verb in self.verbs


def asked(log: Path, user: str, since: int) -> Iterator[Asked]:
    """Yield what the user asked for, of what was logged after the first `since` bytes. A watch counts when it begins."""
    with log.open("rb") as lines:
        lines.seek(since)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # it is being written
            entry = json.loads(line)
            if entry["user"]["username"] != user or (entry["verb"] == "watch" and entry["stage"] == "ResponseComplete"):
                continue
            of = entry.get("objectRef", {})
            resource = "/".join(filter(None, (of.get("resource"), of.get("subresource"))))
            at = of.get("apiGroup", ""), resource, of.get("namespace", ""), of.get("name", "")
            yield Asked(entry["verb"], *at, entry["responseStatus"]["code"])


def unused(granted: Iterable[Right], requests: Iterable[Asked]) -> set[Right]:
    """Answer the rights on which none of the requests rests."""
    made = [request for request in requests if request.code < 300 or request.code in (404, 409)]
    return {right for right in granted if not any(request.uses(right) for request in made)}
