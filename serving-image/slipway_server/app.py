"""The application: routes, limits and status codes. Bytes are protocol/'s business, runs are the engine's."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from slipway_server import __version__, logs
from slipway_server.dialects import REST, Call, Dialect, Ready
from slipway_server.dialects.rest import JSON, RepositoryIndex, V1Explain, V1Predict, V2Explain, V2Infer
from slipway_server.exchange import RESERVED_BYTES, Answer, Headers, Request, Respond, Work
from slipway_server.formats import ModelInputError, ModelMemoryError, ModelRunError
from slipway_server.metrics import BUFFERED, CONTENT_TYPE, IN_FLIGHT, Metrics
from slipway_server.protocol import Inference
from slipway_server.protocol.v2 import error_body, repository_index, server_metadata
from slipway_server.tensors import RequestError

_ALLOW_READ: Headers = ((b"allow", b"GET, HEAD"),)
_ALLOW_POST: Headers = ((b"allow", b"POST"),)
_ALLOW_BOTH: Headers = ((b"allow", b"GET, HEAD, POST"),)
_RETRY_SOON: Headers = ((b"retry-after", b"1"),)
_GRPC = "/inference.GRPCInferenceService/"
_HTML = b"text/html; charset=utf-8"
_READ_AHEAD = 8
"""Times the concurrency, requests may be read: a body that comes slowly takes no place of those that are here."""
_LOADING = "the model is loading"
_SMALL_BYTES = 64 << 10  # what a socket holds of an answer, more or less


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take."""

    body_bytes: int
    concurrency: int
    buffered_bytes: int
    request_seconds: float


class _Run:
    """An inference that is being made in a task."""

    __slots__ = ("app", "call", "respond", "task")

    def __init__(self, app: "Application", call: Call, respond: Respond, inference: Inference, ready: Ready) -> None:
        self.app = app
        self.call = call
        self.respond = respond
        self.task = asyncio.get_running_loop().create_task(self._make(inference, ready))

    def cancel(self) -> None:
        """The caller has left."""
        self.task.cancel()
        self.app.abandon(self)

    async def _make(self, inference: Inference, ready: Ready) -> None:
        call = self.call
        status = 200
        try:
            if call.dialect.explains:
                result = await ready.engine.explain(inference.feeds, call.timeout_seconds)
            else:
                result = await ready.engine.infer(inference.feeds, inference.outputs, call.timeout_seconds)
            answer = call.dialect.write(ready, call, inference, result)
        except Exception as error:
            status, answer = _failed(call, error)
        self.app.finish(self, status, answer)


class Application:
    """One model. Until `ready` is set it is live and not ready."""

    def __init__(self, name: str, version: str, revision: str, limits: Limits, metrics: Metrics) -> None:
        self.ready: Ready | None = None
        self.in_flight = 0
        self.unsent: Callable[[], int] = int
        """Bytes of answers that callers have not taken: the wire's to say, 0 until it does."""
        self._name = name
        self._version = version
        self._limits = limits
        self._metrics = metrics
        self._row = metrics.row
        self._buffered = 0
        self._reading = 0  # of those in flight
        self._openapi: tuple[bytes, bytes] | None = None
        self._runs: set[_Run] = set()
        self._common: Headers = ((b"x-slipway-revision", revision.encode()),) if revision else ()
        self._server = server_metadata(__version__)
        self._live = Answer(200, b'{"live":true}', JSON, self._common)
        self._is_ready = Answer(200, b'{"ready":true}', JSON, self._common)
        self._not_ready = Answer(503, b'{"ready":false}', JSON, self._common)
        self._reads: dict[str, Callable[[], Answer]] = {
            "/": lambda: self._ok(b'{"status":"alive"}'),  # what KServe's V1 client asks for liveness
            "/v2": lambda: self._ok(self._server),
            "/v2/health/live": lambda: self._live,
            "/v2/health/ready": self._readiness,
            "/v2/repository/index": self._index,
            "/v1/models": lambda: self._ok(msgspec.json.encode({"models": [name]})),
            f"/v1/models/{name}": self._v1_state,
            "/metrics": lambda: self._ok(metrics.table.render(), CONTENT_TYPE),
            "/docs": lambda: self._document(1, _HTML),
            "/openapi.json": lambda: self._document(0, JSON),
        }
        self._calls: dict[str, Dialect] = {
            "/v2/repository/index": RepositoryIndex(self._common, name, version),
            f"/v1/models/{name}:predict": V1Predict(self._common),
            f"/v1/models/{name}:explain": V1Explain(self._common),
        }
        for base in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
            self._reads[base] = self._metadata
            self._reads[f"{base}/ready"] = self._readiness
            self._calls[f"{base}/infer"] = V2Infer(self._common)
            self._calls[f"{base}/explain"] = V2Explain(self._common)

    # --- what the wire calls ------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> Answer | int:
        """See exchange.Application."""
        dialect = self._calls.get(request.path)
        if dialect is None or request.method != "POST":
            return self._read(request)
        limits = self._limits
        ready = self.ready
        if ready is None and dialect.needs_model:
            return self._refused(dialect, 503, _LOADING, "loading", _RETRY_SOON)
        if self.in_flight - self._reading >= limits.concurrency or self._reading >= _READ_AHEAD * limits.concurrency:
            return self._refused(dialect, 429, self._too_many(), "concurrency", _RETRY_SOON)
        if dialect.explains and ready and not ready.explains:
            return self._refused(dialect, 501, f"'{self._name}' does not explain: its format cannot")
        call = Call(dialect, limits.body_bytes, limits.request_seconds)
        noted = dialect.noted
        try:
            for name, value in request.headers:
                if name == b"content-length":
                    call.held = int(value)  # the wire lets only digits through
                elif name in noted:
                    dialect.note(call, name, value)
        except RequestError as error:
            return self._refused(dialect, error.status, str(error))
        if call.held > limits.body_bytes:
            message = f"the body has {call.held} bytes, the limit is {limits.body_bytes}: send fewer rows at once"
            return self._refused(dialect, 413, message)
        if self._buffered + self.unsent() + call.held > limits.buffered_bytes:
            return self._refused(dialect, 429, self._too_much(), "buffered", _RETRY_SOON)
        if call.held > RESERVED_BYTES:
            call.held = 0
        self._reading += 1
        self._row[BUFFERED] = self._buffered = self._buffered + call.held
        self._row[IN_FLIGHT] = self.in_flight = self.in_flight + 1
        call.started = time.perf_counter()
        request.call = call
        return limits.body_bytes

    def grow(self, request: Request, size: int) -> Answer | None:
        """See exchange.Application."""
        call = _call(request)
        if self._buffered + size - call.held <= self._limits.buffered_bytes:
            self._row[BUFFERED] = self._buffered = self._buffered + size - call.held
            call.held = size
            return None
        self._reading -= 1
        self._release(call)
        return self._refused(call.dialect, 429, self._too_much(), "buffered", _RETRY_SOON)

    def answer(self, request: Request, respond: Respond) -> Work | None:
        """See exchange.Application. A short run is made in place, without a task."""
        call = _call(request)
        self._reading -= 1
        if self.in_flight - self._reading > self._limits.concurrency:  # taken while its body came
            self._release(call)
            respond(self._refused(call.dialect, 429, self._too_many(), "concurrency", _RETRY_SOON))
            return None
        status = 200
        try:
            dialect = call.dialect
            ready = self.ready
            inference = dialect.read(ready if dialect.needs_model or self._all_ready() else None, call, request.body)
            if isinstance(inference, Answer):
                answer = inference
            else:
                assert ready is not None  # noqa: S101 - admitted, and needs_model
                arrays = None if dialect.explains else ready.engine.run_now(inference.feeds, inference.outputs)
                if arrays is None:
                    run = _Run(self, call, respond, inference, ready)
                    self._runs.add(run)
                    return run
                answer = dialect.write(ready, call, inference, arrays)
        except Exception as error:
            status, answer = _failed(call, error)
        if len(answer.body) > _SMALL_BYTES:
            status, answer = self._if_taken(call, status, answer)
        self._release(call)
        self._metrics.observe(call.dialect.protocol, status, time.perf_counter() - call.started)
        respond(answer)
        return None

    def too_large(self, request: Request) -> Answer:
        """See exchange.Application."""
        call = _call(request)
        message = f"the body has more than {call.body_bytes} bytes, the limit: send fewer rows at once"
        return self._broken_off(call, 413, message)

    def too_slow(self, request: Request) -> Answer:
        """See exchange.Application."""
        seconds = self._limits.request_seconds
        return self._broken_off(_call(request), 408, f"the rest of the request did not come within {seconds:g} s")

    def refuse(self, status: int, message: str) -> Answer:
        """See exchange.Application."""
        self._metrics.refuse(REST, status, "connections" if status == 503 else "")
        return Answer(status, error_body(message), JSON, self._common, close=True)

    def leave(self, request: Request) -> None:
        """See exchange.Application."""
        self._reading -= 1
        self._release(_call(request))
        self._metrics.abandon()

    # --- runs in tasks ------------------------------------------------------------------------------------------------

    def finish(self, run: _Run, status: int, answer: Answer) -> None:
        """A run has ended while its caller waits."""
        self._runs.discard(run)
        if len(answer.body) > _SMALL_BYTES:
            status, answer = self._if_taken(run.call, status, answer)
        self._release(run.call)
        self._metrics.observe(run.call.dialect.protocol, status, time.perf_counter() - run.call.started)
        run.respond(answer)

    def abandon(self, run: _Run) -> None:
        """A run has lost its caller."""
        self._runs.discard(run)
        self._release(run.call)
        self._metrics.abandon()

    def stop(self) -> None:
        """The drain's time is over: answers what is still being made."""
        for run in list(self._runs):
            run.task.cancel()
            self.finish(run, 503, run.call.dialect.failure(503, "the server is stopping", _RETRY_SOON, close=True))

    # --- parts --------------------------------------------------------------------------------------------------------

    def _release(self, call: Call) -> None:
        self._row[BUFFERED] = self._buffered = self._buffered - call.held
        self._row[IN_FLIGHT] = self.in_flight = self.in_flight - 1

    def _if_taken(self, call: Call, status: int, answer: Answer) -> tuple[int, Answer]:
        """A large answer, unless callers leave too many untaken already: with each that was admitted they would be more."""
        if self.unsent() <= self._limits.buffered_bytes:
            return status, answer
        return 429, call.dialect.failure(429, self._too_much(), _RETRY_SOON)

    def _broken_off(self, call: Call, status: int, message: str) -> Answer:
        self._reading -= 1
        self._release(call)
        self._metrics.observe(call.dialect.protocol, status, time.perf_counter() - call.started)
        return call.dialect.failure(status, message, close=True)

    def _refused(self, dialect: Dialect, status: int, message: str, reason: str = "", headers: Headers = ()) -> Answer:
        self._metrics.refuse(dialect.protocol, status, reason)
        return dialect.failure(status, message, headers)

    def _too_many(self) -> str:
        return f"more than {self._limits.concurrency} requests at once: try again later"

    def _too_much(self) -> str:
        return f"requests being read and answers not taken hold {self._limits.buffered_bytes} bytes, the limit: try again later"

    def _grpc(self, request: Request) -> Answer | int:
        """The first call of gRPC, or one that is none."""
        from slipway_server.dialects import grpc

        if request.path not in self._calls:
            self._calls.update(grpc.calls(self._name, self._version, self._common))
        if not request.http2 or request.method != "POST":
            return self._error(400, "gRPC is POST over HTTP/2 (RFC 9113), with prior knowledge")
        if request.path in self._calls:
            return self.admit(request)
        method = request.path[len(_GRPC) :][:100]
        return self._refused(grpc.ModelInfer(self._common), 501, f"method '{method}' is not one of {grpc.SERVICE}")

    def _read(self, request: Request) -> Answer | int:
        """What is answered by the head alone."""
        path, method = request.path, request.method
        read = self._reads.get(path)
        if read and method in ("GET", "HEAD"):
            return read()
        if path in self._calls:
            use, allow = ("POST", _ALLOW_POST) if not read else ("GET or POST", _ALLOW_BOTH)
        elif read:
            use, allow = "GET", _ALLOW_READ
        elif path.startswith(_GRPC):
            return self._grpc(request)
        else:
            return self._error(404, self._unknown(path))
        return self._error(405, f"{method[:32]} is not allowed here: use {use}", allow)

    def _error(self, status: int, message: str, headers: Headers = ()) -> Answer:
        return Answer(status, error_body(message), JSON, self._common + headers)

    def _ok(self, body: bytes, content_type: bytes = JSON) -> Answer:
        return Answer(200, body, content_type, self._common)

    def _all_ready(self) -> bool:
        return self.ready is not None and self._metrics.table.all_ready()

    def _readiness(self) -> Answer:
        return self._is_ready if self._all_ready() else self._not_ready

    def _metadata(self) -> Answer:
        return self._ok(self.ready.v2.metadata) if self.ready else self._error(503, _LOADING, _RETRY_SOON)

    def _v1_state(self) -> Answer:
        return self._ok(msgspec.json.encode({"name": self._name, "ready": self._all_ready()}))

    def _index(self) -> Answer:
        return self._ok(repository_index(b"", self._name, self._version, self._all_ready()))

    def _documents(self) -> tuple[bytes, bytes] | None:
        """(OpenAPI document, page) of the model, with what it answers to ones as the example; None until it is loaded."""
        if self._openapi is None and self.ready is not None:
            from slipway_server.protocol import openapi

            ready = self.ready
            signature = ready.signature
            answers = None
            with suppress(ModelInputError, ModelRunError):
                feeds = {spec.name: spec.filled(1) for spec in signature.inputs}
                answers = ready.engine.run_now(feeds, signature.default_outputs or tuple(spec.name for spec in signature.outputs))
            document = openapi.document(signature, __version__, ready.limits, ready.explains, answers)
            self._openapi = document, openapi.page(document)
        return self._openapi

    def _document(self, which: int, content_type: bytes) -> Answer:
        documents = self._documents()
        return self._ok(documents[which], content_type) if documents else self._error(503, _LOADING, _RETRY_SOON)

    def _unknown(self, path: str) -> str:
        parts = path.split("/")
        name = parts[3].partition(":")[0] if parts[1:3] == ["v1", "models"] and len(parts) == 4 else ""
        if parts[1:3] == ["v2", "models"] and len(parts) > 3:
            name = parts[3]
        if name and name != self._name:
            return f"model '{name[:100]}' is not served here: this is '{self._name}'"
        if parts[4:5] == ["versions"] and len(parts) > 5 and parts[5] != self._version:
            return f"version '{parts[5][:100]}' of '{self._name}' is not served here: this is '{self._version}'"
        return "no such path: see GET /v2 and /v2/models/" + self._name


def _call(request: Request) -> Call:
    assert isinstance(request.call, Call)  # noqa: S101 - the wire asks about admitted requests only
    return request.call


def _failed(call: Call, error: Exception) -> tuple[int, Answer]:
    """(HTTP's status, answer) for what came of an inference instead of a result."""
    match error:
        case RequestError():
            status, message = error.status, str(error)
        case ModelInputError():
            status, message = 400, f"the model refuses these values: {error}"
        case TimeoutError():
            status, message = 504, f"the model took longer than {call.timeout_seconds:g} s"
        case ModelMemoryError():
            logs.error("a run needed more memory than there is")
            status, message = 500, "the model needed more memory than there is: send less at once"
        case ModelRunError():
            logs.error("a run failed")  # not why: the runtime's message may quote the request
            status, message = 500, f"the model failed: {error}"
        case MemoryError():
            logs.error("out of memory reading or answering a request")
            status, message = 500, "out of memory: send less at once"
        case _:
            place = error.__traceback__
            while place and place.tb_next:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_qualname}:{place.tb_lineno}" if place else ""
            logs.error("a defect: an inference failed", error=type(error).__name__, where=where)  # no message: it may quote
            status, message = 500, "a defect of the server: see its log"
    return status, call.dialect.failure(status, message)
