"""Kubernetes quantities such as 500m or 1Gi."""

import re
from decimal import Decimal

from slipway.api.base import QUANTITY_PATTERN

_QUANTITY = re.compile(QUANTITY_PATTERN)
_SUFFIX = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(1000),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def parse(text: str) -> Decimal:
    """Answer the number that a quantity stands for.

    Raises ValueError where the text is no quantity.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write a number and a suffix, such as 500m or 1Gi")
    number, suffix = match[1], match[2] or ""
    if suffix in _SUFFIX:
        return Decimal(number) * _SUFFIX[suffix]
    return Decimal(number) * Decimal(10) ** int(suffix[1:])
