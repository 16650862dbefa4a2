"""Waiting for what should become true, and looking at conditions."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

Object = dict[str, Any]
Found = TypeVar("Found")
_POLL_SECONDS = 0.1


def await_(condition: Callable[[], Found], what: str, timeout: float = 150.0) -> Found:
    """Wait until the condition answers something true, and answer that."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(_POLL_SECONDS)
    return found


def stays(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Watch that the condition holds, all the time, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"not for {seconds:g} s: {what}"
        time.sleep(_POLL_SECONDS * 5)


def condition_of(obj: Object | None, kind: str) -> Object:
    """Answer one condition of an object's status; an empty one where it has none."""
    found = ((obj or {}).get("status") or {}).get("conditions", ())
    return next((condition for condition in found if condition["type"] == kind), {})


def is_ready(pod: Object) -> bool:
    """Tell whether a pod is ready and stays."""
    return condition_of(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in pod["metadata"]
