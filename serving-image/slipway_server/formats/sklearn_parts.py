"""What an estimator is made of."""

from collections.abc import Iterator
from typing import Any

import numpy as np


def parts(root: Any) -> Iterator[Any]:
    """Everything that an estimator is made of, itself first."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
        elif isinstance(part, np.ndarray):
            if part.dtype == object:
                waiting += part.ravel().tolist()
        else:
            waiting += getattr(part, "__dict__", {}).values()
