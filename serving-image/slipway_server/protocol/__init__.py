"""Wire protocols: bytes of a request into arrays, arrays into bytes of an answer. No I/O, no HTTP.

Every codec takes the model's Signature and CodecLimits; every `decode` raises RequestError, whose message names what was
expected and what came.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slipway_server.tensors import Array


@dataclass(frozen=True, slots=True)
class CodecLimits:
    """What a request may ask a codec to build: levels of lists in a tensor's JSON data, and elements of all its tensors."""

    depth: int = 64
    elements: int = 16_777_216


@dataclass(slots=True)
class Inference:
    """A checked request: an array for every input of the model, the outputs to answer with, and how.

    `binary` holds a flag for each of `outputs`: whether it is answered as bytes after the JSON (V2) or raw (gRPC).
    """

    feeds: "dict[str, Array]"
    outputs: tuple[str, ...]
    id: str | None = None
    binary: tuple[bool, ...] = ()


@dataclass(slots=True)
class Encoded:
    """The body of an answer; `json_length` is set where binary tensors follow that many bytes of JSON."""

    body: bytes
    json_length: int | None = None
