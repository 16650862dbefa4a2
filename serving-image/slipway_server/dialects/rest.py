"""V2 and V1 over HTTP: JSON errors, and compression by HTTP's headers."""

from collections.abc import Mapping
from typing import cast

from slipway_server.dialects import V1, Call, Dialect, Ready, Result
from slipway_server.exchange import Answer, Headers
from slipway_server.protocol import Encoded, Inference
from slipway_server.protocol.v2 import error_body, repository_index
from slipway_server.tensors import Array, RequestError

JSON = b"application/json"
_BINARY = b"application/octet-stream"
_JSON_LENGTH = b"inference-header-content-length"


class _Rest(Dialect):
    noted = frozenset((b"accept-encoding", b"content-encoding", _JSON_LENGTH))

    def __init__(self, common: Headers) -> None:
        self.common = common

    def note(self, call: Call, name: bytes, value: bytes) -> None:
        """How the body is made up, and how the answer may be."""
        if name == b"accept-encoding":
            call.accepts = value
        elif name == _JSON_LENGTH:
            if not value.isdigit() or len(value) > 18:
                raise RequestError("Inference-Header-Content-Length is not a number of bytes")
            call.json_length = int(value)
        else:
            encoding = value.strip().lower()
            if encoding in (b"gzip", b"x-gzip", b"deflate"):
                call.encoding = encoding
            elif encoding != b"identity":
                shown = value.decode("latin-1")[:32]
                raise RequestError(f"content encoding '{shown}' is not served: use gzip, deflate or none", 415)

    def failure(self, status: int, message: str, headers: Headers = (), *, close: bool = False) -> Answer:
        """A JSON object with the message as `error`."""
        return Answer(status, error_body(message), JSON, self.common + headers, close=close)

    def _unpacked(self, call: Call, body: bytes | bytearray) -> bytes | bytearray:
        if call.encoding is None:
            return body
        from slipway_server.protocol.compression import decompress

        return decompress(body, call.encoding, call.body_bytes)

    def _answer(self, call: Call, body: bytes, json_length: int | None = None) -> Answer:
        headers = self.common
        content_type = JSON
        if json_length is not None:
            content_type = _BINARY
            headers += ((_JSON_LENGTH, b"%d" % json_length),)
        if call.accepts is not None:
            from slipway_server.protocol.compression import compress

            body, encoding = compress(body, call.accepts)
            if encoding:
                headers += ((b"content-encoding", encoding), (b"vary", b"accept-encoding"))
        return Answer(200, body, content_type, headers)


class V2Infer(_Rest):
    """POST /v2/models/NAME/infer: V2 JSON, or JSON and binary tensors."""

    def read(self, ready: Ready | None, call: Call, body: bytes | bytearray) -> Inference | Answer:
        """See Dialect."""
        return cast(Ready, ready).v2.decode(body if call.encoding is None else self._unpacked(call, body), call.json_length)

    def write(self, ready: Ready, call: Call, inference: Inference, result: Result) -> Answer:
        """See Dialect."""
        encoded = ready.v2.encode(inference, cast(list[Array], result))
        return self._answer(call, encoded.body, encoded.json_length)


class V2Explain(V2Infer):
    """POST /v2/models/NAME/explain: each array of the explanation as an output."""

    explains = True

    def write(self, ready: Ready, call: Call, inference: Inference, result: Result) -> Answer:
        """See Dialect."""
        encoded: Encoded = ready.v2.encode_explanation(inference, cast(Mapping[str, Array], result))
        return self._answer(call, encoded.body, encoded.json_length)


class RepositoryIndex(_Rest):
    """POST /v2/repository/index."""

    needs_model = False

    def __init__(self, common: Headers, name: str, version: str) -> None:
        super().__init__(common)
        self._name = name
        self._version = version

    def read(self, ready: Ready | None, call: Call, body: bytes | bytearray) -> Inference | Answer:
        """See Dialect."""
        text = repository_index(self._unpacked(call, body), self._name, self._version, ready is not None)
        return self._answer(call, text)


class V1Predict(_Rest):
    """POST /v1/models/NAME:predict."""

    protocol = V1

    def read(self, ready: Ready | None, call: Call, body: bytes | bytearray) -> Inference | Answer:
        """See Dialect."""
        return cast(Ready, ready).v1.decode(self._unpacked(call, body))

    def write(self, ready: Ready, call: Call, inference: Inference, result: Result) -> Answer:
        """See Dialect."""
        return self._answer(call, ready.v1.encode(inference, cast(list[Array], result)))


class V1Explain(V1Predict):
    """POST /v1/models/NAME:explain."""

    explains = True

    def write(self, ready: Ready, call: Call, inference: Inference, result: Result) -> Answer:
        """See Dialect."""
        return self._answer(call, ready.v1.encode_explanation(inference, cast(Mapping[str, Array], result)))
