"""What the protocols say differently: from a request's head and body to an Inference, and from its result to an Answer.

One module a family; each class is one kind of call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from slipway_server.engine import Engine
from slipway_server.exchange import Answer, Headers
from slipway_server.protocol import CodecLimits, Inference
from slipway_server.protocol.v2 import V2Codec
from slipway_server.tensors import Array, Signature

if TYPE_CHECKING:
    from slipway_server.protocol.grpc import GrpcCodec
    from slipway_server.protocol.v1 import V1Codec

REST, V1, GRPC = range(3)
"""Places in metrics.PROTOCOLS."""
Result = Sequence[Array] | Mapping[str, Array]


class Ready:
    """A model that is loaded and warmed up, its runs and its codecs; those of V1 and gRPC are made when first asked for."""

    def __init__(self, signature: Signature, limits: CodecLimits, engine: Engine, explains: bool) -> None:
        self.signature = signature
        self.limits = limits
        self.engine = engine
        self.explains = explains
        self.v2 = V2Codec(signature, limits)

    @cached_property
    def v1(self) -> "V1Codec":
        """The codec of V1."""
        from slipway_server.protocol.v1 import V1Codec

        return V1Codec(self.signature, self.limits)

    @cached_property
    def grpc(self) -> "GrpcCodec":
        """The codec of gRPC."""
        from slipway_server.protocol.grpc import GrpcCodec

        return GrpcCodec(self.signature, self.limits)


@dataclass(slots=True)
class Call:
    """What the application notes of a request that it has admitted."""

    dialect: "Dialect"
    body_bytes: int
    """The limit of its body, unpacked too."""
    timeout_seconds: float
    started: float = 0.0
    held: int = 0
    """Bytes of its body that are counted as held."""
    encoding: bytes | None = None
    """How the body is compressed."""
    accepts: bytes | None = None
    """Accept-Encoding."""
    json_length: int | None = None
    """Inference-Header-Content-Length."""


class Dialect:
    """One kind of call of one protocol: the base of each."""

    protocol = REST
    explains = False
    needs_model = True
    noted: frozenset[bytes] = frozenset()
    """The headers that `note` wants to see."""

    def note(self, call: Call, name: bytes, value: bytes) -> None:
        """Keeps what a header says; raises RequestError where that cannot be done."""
        raise NotImplementedError

    def read(self, ready: Ready | None, call: Call, body: bytes | bytearray) -> Inference | Answer:
        """A checked inference, or the answer where none is needed; raises RequestError. `ready` is set if needs_model."""
        raise NotImplementedError

    def write(self, ready: Ready, call: Call, inference: Inference, result: Result) -> Answer:
        """The answer that says the result of an inference that `read` made."""
        raise NotImplementedError

    def failure(self, status: int, message: str, headers: Headers = (), *, close: bool = False) -> Answer:
        """The answer that says what went wrong; `status` is HTTP's."""
        raise NotImplementedError
