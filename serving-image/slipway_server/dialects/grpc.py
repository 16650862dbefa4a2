"""inference.GRPCInferenceService over HTTP/2. Importing this imports protobuf, 30 ms that most servers never need."""

from typing import cast

from slipway_server import __version__
from slipway_server.dialects import GRPC, Call, Dialect, Ready, Result
from slipway_server.exchange import Answer, Headers
from slipway_server.protocol import Inference
from slipway_server.protocol.grpc import (
    ACCEPT_ENCODING,
    SERVICE,
    GrpcService,
    encode_message,
    frame,
    status_of,
    unframe,
)
from slipway_server.tensors import Array, RequestError

_CONTENT_TYPE = b"application/grpc"
_OK: Headers = ((b"grpc-status", b"0"),)
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNARY = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "RepositoryIndex")


class _Grpc(Dialect):
    protocol = GRPC
    noted = frozenset((b"content-type", b"grpc-encoding", b"grpc-timeout"))

    def __init__(self, common: Headers) -> None:
        self._common = (*common, (b"grpc-accept-encoding", ACCEPT_ENCODING))
        self._packed = (*self._common, (b"grpc-encoding", b"gzip"))

    def note(self, call: Call, name: bytes, value: bytes) -> None:
        """How the message is made up, and how long its caller waits."""
        if name == b"grpc-encoding":
            call.encoding = value
        elif name == b"content-type":
            if value not in (_CONTENT_TYPE, b"application/grpc+proto"):
                raise RequestError("the content-type of a call is application/grpc", 415)
        elif value[:-1].isdigit() and len(value) <= 9 and value[-1:] in _UNIT_SECONDS:
            call.timeout_seconds = min(call.timeout_seconds, int(value[:-1]) * _UNIT_SECONDS[value[-1:]])
        else:
            raise RequestError("grpc-timeout is not up to 8 digits and one of H, M, S, m, u, n")

    def failure(self, status: int, message: str, headers: Headers = (), *, close: bool = False) -> Answer:
        """gRPC's status for HTTP's, and the message, as trailers."""
        trailers = ((b"grpc-status", b"%d" % status_of(status)), (b"grpc-message", encode_message(message)))
        return Answer(200, b"", _CONTENT_TYPE, self._common + headers, trailers, close)

    def _answer(self, call: Call, message: bytes) -> Answer:
        # All clients say that they accept gzip; only one that uses it itself means it.
        packed = call.encoding == b"gzip"
        return Answer(200, frame(message, packed), _CONTENT_TYPE, self._packed if packed else self._common, _OK)


class ModelInfer(_Grpc):
    """The call that runs the model."""

    def read(self, ready: Ready | None, call: Call, body: bytes | bytearray) -> Inference | Answer:
        """See Dialect."""
        return cast(Ready, ready).grpc.decode(unframe(body, call.encoding, call.body_bytes))

    def write(self, ready: Ready, call: Call, inference: Inference, result: Result) -> Answer:
        """See Dialect."""
        return self._answer(call, ready.grpc.encode(inference, cast(list[Array], result)))


class Unary(_Grpc):
    """Any other call."""

    needs_model = False

    def __init__(self, common: Headers, service: GrpcService, method: str) -> None:
        super().__init__(common)
        self._service = service
        self._method = method

    def read(self, ready: Ready | None, call: Call, body: bytes | bytearray) -> Inference | Answer:
        """See Dialect."""
        message = unframe(body, call.encoding, call.body_bytes)
        return self._answer(call, self._service.unary(self._method, message, ready and ready.signature))


def calls(name: str, version: str, common: Headers) -> dict[str, Dialect]:
    """The calls by path."""
    service = GrpcService(name, version, __version__)
    unary = {f"/{SERVICE}/{method}": Unary(common, service, method) for method in _UNARY}
    return {f"/{SERVICE}/ModelInfer": ModelInfer(common), **unary}
