"""A user's sample of requests for a candidate that no caller reaches yet: JSON lines, or one JSON list."""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from slipway.api.base import Type, text

BYTES_MAX = 256 * 1024
REQUESTS_MAX = 100
_PATH = r"^/[!-\"$-~]*$"
_SAYS_PATH = "must begin with / and be printable ASCII without spaces and #"
_HEADER = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
_VALUE = re.compile(r"^[ -~]{0,1024}$")
# What the connection, or Slipway, says itself. By x-envoy-... a caller may change what a router does.
_OWN_HEADERS = re.compile(
    r"^(host|connection|keep-alive|content-length|transfer-encoding|te|trailer|upgrade|expect|proxy-.*|x-envoy-.*)$"
)


class SampleError(ValueError):
    """The sample is of no use. The message says where and why, and nothing of what the sample holds."""


class _Request(Type):
    """One request as the user writes it."""

    path: Annotated[str, text(_PATH, _SAYS_PATH, 2048)] | None = None
    method: Literal["GET", "POST", "PUT"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict, max_length=32)
    body: Any = None
    body_base64: str | None = None


@dataclass(frozen=True)
class SampleRequest:
    """One request, ready to be sent."""

    path: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


def parse(sample: str, model: str) -> tuple[SampleRequest, ...]:
    """Read the sample of the ModelDeployment `model`; a request without a path asks it to infer.

    Raises SampleError.
    """
    size = len(sample.encode("utf-8", "surrogatepass"))
    if size > BYTES_MAX:
        raise SampleError(f"it has {size} bytes, expected at most {BYTES_MAX}")
    told = _values(sample)
    if not 0 < len(told) <= REQUESTS_MAX:
        raise SampleError(f"it has {len(told)} requests, expected 1 to {REQUESTS_MAX}")
    return tuple(_read(value, f"/v2/models/{model}/infer", number) for number, value in enumerate(told, start=1))


def _values(sample: str) -> list[Any]:
    if sample.lstrip().startswith("["):
        return _json(sample, "it")
    lines = [(number, line) for number, line in enumerate(sample.splitlines(), start=1) if line.strip()]
    return [_json(line, f"line {number}") for number, line in lines]


def _json(part: str, what: str) -> Any:
    try:
        return json.loads(part)
    except json.JSONDecodeError as error:  # its message names a kind of mistake, never the text
        where = f"line {error.lineno}, column {error.colno}" if what == "it" else f"{what}, column {error.colno}"
        raise SampleError(f"{where}: not JSON: {error.msg}; write a JSON list of requests, or one request a line") from None
    except (ValueError, RecursionError):
        raise SampleError(f"{what} is not JSON that can be read: a number is too long, or it is nested too deeply") from None


def _read(value: Any, path: str, number: int) -> SampleRequest:
    try:
        asked = _Request.model_validate(value)
    except ValidationError as invalid:
        raise SampleError(f"request {number}: {_told(invalid)}") from None
    headers = {name.lower(): held for name, held in asked.headers.items()}
    for name, held in headers.items():
        if not _HEADER.match(name) or not _VALUE.match(held):
            raise SampleError(f"request {number}: headers: a name or a value is not printable ASCII, or is too long")
        if _OWN_HEADERS.match(name):
            raise SampleError(f"request {number}: headers.{name} is not for a sample to set; remove it")
    if "body" in asked.model_fields_set and asked.body_base64 is not None:
        raise SampleError(f"request {number}: has both body and bodyBase64; write one of them")
    body = b""
    if asked.body_base64 is not None:
        try:
            body = base64.b64decode(asked.body_base64, validate=True)
        except (binascii.Error, ValueError):
            raise SampleError(f"request {number}: bodyBase64 is not base64") from None
    elif "body" in asked.model_fields_set:
        body = json.dumps(asked.body, separators=(",", ":")).encode("utf-8", "surrogatepass")
        headers.setdefault("content-type", "application/json")
    return SampleRequest(asked.path or path, asked.method, tuple(sorted(headers.items())), body)


_FIELDS = {"path", "method", "headers", "body", "bodyBase64"}


def _told(invalid: ValidationError) -> str:
    """Answer the first mistake, by the name of a field that a request has: other names may be content."""
    first = invalid.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"has a member that no request has, expected {', '.join(sorted(_FIELDS))}"
    if first["type"] == "string_pattern_mismatch":
        return f"{name} {_SAYS_PATH}"
    if not name:
        return "is not a JSON object"
    return f"{name}: {first['msg']}"
