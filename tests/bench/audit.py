"""Counts the requests of one user in the API server's audit log."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_WRITES = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Counts:
    """Requests by (verb, resource), the resource with its subresource as in `modeldeployments/status`."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def writes(self) -> int:
        """Answer the writes: what renews the Lease, and events, are counted apart."""
        return self._sum(writes=True, but=("leases", "events"))

    def events(self) -> int:
        """Answer the Kubernetes events written."""
        return sum(count for (verb, resource), count in self.requests.items() if resource == "events" and verb in _WRITES)

    def reads(self) -> int:
        """Answer the gets, lists and watches begun."""
        return self._sum(writes=False, but=("leases",))

    def all(self) -> int:
        """Answer all requests but those for the Lease."""
        return self.writes() + self.events() + self.reads()

    def by_verb(self) -> str:
        """Answer the verbs with their counts."""
        return self._listed(lambda verb, resource: verb)

    def by_request(self) -> str:
        """Answer verb and resource with their counts."""
        return self._listed(lambda verb, resource: f"{verb} {resource}")

    def _listed(self, name: Callable[[str, str], str]) -> str:
        counter = Counter[str]()
        for (verb, resource), count in self.requests.items():
            if resource != "leases":
                counter[name(verb, resource)] += count
        return ", ".join(f"{count} {what}" for what, count in counter.most_common())

    def _sum(self, *, writes: bool, but: tuple[str, ...]) -> int:
        return sum(
            count for (verb, resource), count in self.requests.items() if (verb in _WRITES) is writes and resource not in but
        )


class AuditLog:
    """The audit log, read on from where it was read to last."""

    def __init__(self, path: Path, user: str) -> None:
        self._path, self._user, self._at = path, user.encode(), 0
        self.skip()

    def skip(self) -> None:
        """Forget what was logged so far."""
        self._at = self._path.stat().st_size

    def read(self) -> Counts:
        """Answer the user's requests since the last call. A watch counts once: when it begins."""
        counts = Counts()
        with self._path.open("rb") as log:
            log.seek(self._at)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # being written
                self._at += len(line)
                if self._user not in line:
                    continue
                entry = json.loads(line)
                started = entry["stage"] == "ResponseStarted"
                if entry["user"]["username"].encode() != self._user or started is not (entry["verb"] == "watch"):
                    continue
                of = entry.get("objectRef", {})
                resource = "/".join(filter(None, (of.get("resource", "discovery"), of.get("subresource"))))
                counts.requests[entry["verb"], resource] += 1
        return counts
