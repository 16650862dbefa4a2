"""What every type of the API shares: the pydantic base, CEL rules, and the scalar types with their units."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


@dataclass(frozen=True)
class Rule:
    """One CEL rule of the CRD (`x-kubernetes-validations`), evaluated by the API server at every write.

    `message` names the field and the cure; `message_expression` is CEL that computes it where a value helps.
    """

    rule: str
    message: str
    field_path: str = ""
    message_expression: str = ""

    def schema(self) -> dict[str, Any]:
        """Answer the rule as one entry of `x-kubernetes-validations`."""
        entry: dict[str, Any] = {"rule": self.rule, "message": self.message}
        if self.field_path:
            entry["fieldPath"] = self.field_path
        if self.message_expression:
            entry["messageExpression"] = self.message_expression
        return entry


class Type(BaseModel):
    """Base of all API types: camelCase outside, snake_case inside, unknown fields refused, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    rules: ClassVar[tuple[Rule, ...]] = ()


DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
PERCENT_PATTERN = r"^[0-9]+(\.[0-9]+)?%$"
_LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
DNS_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


def text(pattern: str, says: str, max_length: int, *, also: str = "") -> Any:
    """Answer the constraints of a string that matches a pattern; `also` is CEL that must hold too.

    pydantic reads the pattern. The API server gets a rule instead: its message tells the cure, a pattern's does not.
    """
    rule = Rule(f"self.matches(r'{pattern}')" + (f" && {also}" if also else ""), says)

    def ruled(schema: dict[str, Any]) -> None:
        del schema["pattern"]
        schema["x-kubernetes-validations"] = [rule.schema()]

    return Field(pattern=pattern, max_length=max_length, json_schema_extra=ruled)


def duration(also: str = "", limits: str = "") -> Any:
    """Answer the constraints of a duration; `also` is CEL over `self`, which `limits` says in words."""
    says = f"must be a duration{limits}: numbers with ms, s, m or h, such as 250ms, 30s or 1m30s"
    return text(DURATION_PATTERN, says, 32, also=also)


Duration = Annotated[str, duration()]
Percent = Annotated[str, text(PERCENT_PATTERN, "must be a percentage such as 1% or 0.5%", 16)]
DnsName = Annotated[
    str, text(DNS_PATTERN, "must be the name of an object: lower-case letters, digits, '-' and '.', such as high-priority", 253)
]
LabelValue = Annotated[
    str,
    text(
        _LABEL_VALUE,
        "must be letters, digits, '-', '_' and '.', begin and end with a letter or digit, and have at most 63 characters",
        63,
    ),
]
_QUANTITY = Rule(
    "isQuantity(string(self)) && !quantity(string(self)).isLessThan(quantity('0'))",
    "must be a quantity, not negative: an integer, or in quotes a number and a suffix, such as 500m, 2, 512Mi or 1Gi",
)
# None is above 2**63: what has an exponent of more digits is something else, a digest for example.
QUANTITY_PATTERN = r"^([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"


def _a_quantity(value: int | str) -> int | str:
    text = str(value)
    if not re.match(QUANTITY_PATTERN, text) or text.startswith("-"):
        raise ValueError(f"{text!r} {_QUANTITY.message}")
    return value


Quantity = Annotated[
    int | str,
    AfterValidator(_a_quantity),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            "x-kubernetes-validations": [_QUANTITY.schema()],
        },
    ),
]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_seconds(text: str) -> float:
    """Convert a duration such as `1m30s` or `250ms` to seconds.

    Raises ValueError where the text is no duration.
    """
    if not re.match(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is not a duration: write a number and ms, s, m or h, such as 30s or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text))
