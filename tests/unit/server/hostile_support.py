"""What hostile requests are made of, and what must still be true of a server that has had them."""

import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from onnx import TensorProto, helper
from tests.unit.server.support import INFER, Server, model, wait_until

from slipway_server.wire import frames
from slipway_server.wire.hpack import Decoder, Field, encode

SECRET = "hunter2-secret"  # noqa: S105
"""In every request: it may come back to whoever sent it, and be written nowhere."""
GROWTH_BYTES = 24 << 20
"""Of memory, by a test: allocators keep some; of what one request takes at most, hundreds would be left otherwise."""

# --- models -----------------------------------------------------------------------------------------------------------


def several_types() -> bytes:
    """f FP32 [N,4], i INT64 [N], h FP16 [N,K], b BOOL [N], s BYTES [N] -> each again: F, I, H, B, S."""
    inputs: dict[str, tuple[int, list[int | str | None]]] = {
        "f": (TensorProto.FLOAT, ["N", 4]),
        "i": (TensorProto.INT64, ["N"]),
        "h": (TensorProto.FLOAT16, ["N", "K"]),
        "b": (TensorProto.BOOL, ["N"]),
        "s": (TensorProto.STRING, ["N"]),
    }
    return model(
        [helper.make_node("Identity", [name], [name.upper()]) for name in inputs],
        inputs,
        {name.upper(): kind for name, kind in inputs.items()},
    )


REQUEST: Mapping[str, Any] = {
    "id": SECRET,
    "inputs": [
        {"name": "f", "datatype": "FP32", "shape": [2, 4], "data": [[1, 2, 3, 4], [5.5, 6, 7, 8]]},
        {"name": "i", "datatype": "INT64", "shape": [2], "data": [-1, 9007199254740993]},
        {"name": "h", "datatype": "FP16", "shape": [2, 2], "data": [1, 2, 3, 4]},
        {"name": "b", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        {"name": "s", "datatype": "BYTES", "shape": [2], "data": [SECRET, "é\n\u0000"]},
    ],
    "outputs": [{"name": "S"}, {"name": "F", "parameters": {"binary_data": False}}],
}
INSTANCES: Mapping[str, Any] = {
    "instances": [{"f": [1, 2, 3, 4], "i": 5, "h": [1, 2], "b": True, "s": {"b64": "aHVudGVyMi1zZWNyZXQ="}}] * 2
}
PYTHON = """
import numpy as np
class Model:
    inputs = [("x", "FP32", [-1, 2]), ("who", "BYTES", [-1])]
    outputs = [("y", "FP64", [-1]), ("whom", "BYTES", [-1])]
    def predict(self, inputs):
        return {"y": inputs["x"].sum(1), "whom": inputs["who"]}
"""
PYTHON_REQUEST: Mapping[str, Any] = {
    "id": SECRET,
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        {"name": "who", "datatype": "BYTES", "shape": [1], "data": [SECRET]},
    ],
}
ROWS_REQUEST: Mapping[str, Any] = {
    "id": SECRET,
    "inputs": [{"name": "input", "datatype": "FP64", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}],
}

# --- requests ---------------------------------------------------------------------------------------------------------


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: m", f"x-caller: {SECRET}", *headers, f"content-length: {len(body)}", "", "")
    return "\r\n".join(lines).encode("latin-1") + body


def binary(document: Mapping[str, Any], tensors: bytes, length: int | None = None, *headers: str) -> bytes:
    text = json.dumps(document).encode()
    size = len(text) if length is None else length
    return request(INFER, text + tensors, f"inference-header-content-length: {size}", *headers)


TOKENS = [
    b"", b"\0", b"\r\n", b"\r", b"\n\n", b" ", b"\t", b":", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"NaN",
    b"-Infinity", b"1e999", b"-0", b"9" * 400, b"18446744073709551616", b"-1", b"0x10", b"null", b"true", b"{}", b"[]",
    b"[" * 200, b"]" * 200, b'"', b",", b'{"inputs":' * 50, b"%00", b"../", b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip\r\n", b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\nconnection: upgrade\r\n", b"content-encoding: gzip\r\n", b"content-encoding: deflate\r\n",
    b"inference-header-content-length: 7\r\n", b"connection: close\r\n", b"HTTP/1.0", b"HTTP/9.9", b"0\r\n\r\n",
    b"FFFFFFFFFFFFFFFF\r\n", b"x" * 9000, b"a: b\r\n" * 101,
]  # fmt: skip


def mutate(message: bytes, seed: int) -> bytes:
    """A few changes to a message: bytes changed, pieces cut and repeated, numbers and nasty words put in."""
    chance = Random(seed)  # noqa: S311
    data = bytearray(message)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 2, 4, 20, 200)))
        match chance.randrange(8):
            case 0:
                if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                data[at:end] = chance.choice(TOKENS)
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * chance.choice((1, 3, 50))
            case 5:
                del data[at:]
            case 6:
                numbers = [*re.finditer(rb"\d+", data)]
                if numbers:
                    number = chance.choice(numbers)
                    data[number.start() : number.end()] = chance.choice((b"0", b"-1", b"4294967296", b"1e400", b"9" * 30, b"1.5"))
            case _:
                data[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        if not data:
            break
    return bytes(data)


# --- answers ----------------------------------------------------------------------------------------------------------


def statuses(received: bytes) -> list[int]:
    """Of the whole answers of HTTP/1.1 that were received, 100 aside; fails on bytes that are none."""
    found: list[int] = []
    while received:
        head, ended, rest = received.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert line, received[:80]
        if not ended:
            break
        if line[1] == b"100":
            received = rest
            continue
        length = re.search(rb"(?mi)^content-length: (\d+)\r?$", head)
        assert length, head
        if len(rest) < int(length[1]) and not found:
            break
        found.append(int(line[1]))
        received = rest[int(length[1]) :]
    return found


def exchange(server: Server, sent: bytes, until: Callable[[bytes], object] | None = None) -> bytes:
    """Sends bytes and then, when `until` is true of what came or the server has had a moment, the end; all that comes back.

    The end is a caller that leaves: what is still being made for it is not.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            connection.sendall(sent)
            if until is None:
                select.select([connection], [], [], 0.004)
            while until and not until(received) and (piece := connection.recv(65536)):
                received += piece
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except OSError as error:
            assert not isinstance(error, TimeoutError), sent[:300]  # the others: the server had said enough
    return received


def answered_or_closed(server: Server, messages: Sequence[bytes], seconds: float) -> list[bytes]:
    """Sends all of them at once, each on a connection that stays open; what came back when each was answered or closed."""
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in messages]
    received = [b""] * len(messages)
    waiting: dict[int, int] = {}
    poll = select.poll()
    try:
        for place, (connection, message) in enumerate(zip(connections, messages, strict=True)):
            waiting[connection.fileno()] = place
            poll.register(connection, select.POLLIN)
            try:
                connection.sendall(message)
            except OSError:
                continue  # answered while it still sent
        deadline = time.monotonic() + seconds
        while waiting:
            assert time.monotonic() < deadline, [(messages[place][:300], received[place]) for place in waiting.values()][:3]
            for descriptor, _ in poll.poll(100):
                place = waiting[descriptor]
                try:
                    piece = connections[place].recv(65536)
                except OSError:
                    piece = b""
                received[place] += piece
                if not piece or statuses(received[place]):
                    poll.unregister(descriptor)
                    del waiting[descriptor]
    finally:
        for connection in connections:
            connection.close()
    return received


# --- HTTP/2 -----------------------------------------------------------------------------------------------------------

OPENING = frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0)


def stream(path: str, body: bytes, *headers: Field, number: int = 1) -> bytes:
    """The frames of one request."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"m"), *headers]
    block = encode([*fields, (b"x-caller", SECRET.encode())])
    data = [body[at : at + frames.FRAME_BYTES] for at in range(0, len(body), frames.FRAME_BYTES)] or [b""]
    sent = frames.frame(frames.HEADERS, frames.END_HEADERS, number, block)
    for place, piece in enumerate(data):
        sent += frames.frame(frames.DATA, frames.END_STREAM if place == len(data) - 1 else 0, number, piece)
    return sent


def call(message: bytes, method: str = "ModelInfer", prefix: bytes | None = None, *headers: Field, number: int = 1) -> bytes:
    """The frames of one call of gRPC."""
    if prefix is None:
        prefix = b"\0" + len(message).to_bytes(4, "big")
    path = f"/inference.GRPCInferenceService/{method}"
    fields = ((b"content-type", b"application/grpc"), (b"te", b"trailers"), *headers)
    return stream(path, prefix + message, *fields, number=number)


@dataclass
class Told:
    """What an HTTP/2 server said in all."""

    status: dict[int, int]
    """By stream."""
    grpc: dict[int, int]
    ends: list[int]
    """Codes of GOAWAY and RST_STREAM."""


def told(received: bytes) -> Told:
    """Reads the frames that a server sent; fails on what are none."""
    result = Told({}, {}, [])
    decoder = Decoder()
    at = 0
    while at + frames.HEAD_BYTES <= len(received):
        word, _, number = frames.HEAD.unpack_from(received, at)
        payload = received[at + 9 : at + 9 + (word >> 8)]
        if len(payload) < word >> 8:
            break
        at += 9 + len(payload)
        kind = word & 0xFF
        assert kind <= frames.CONTINUATION, received[:80]
        if kind == frames.HEADERS:
            fields = dict(decoder.decode(payload, 1 << 20, 1000) or [])
            if b":status" in fields and fields[b":status"] != b"100":
                result.status[number] = int(fields[b":status"])
            if b"grpc-status" in fields:
                result.grpc[number] = int(fields[b"grpc-status"])
        elif kind in (frames.GOAWAY, frames.RST_STREAM):
            result.ends.append(int.from_bytes(payload[4 * (kind == frames.GOAWAY) :][:4], "big"))
    return result


# --- unharmed ---------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """A server, and a request with the outputs that it must always answer."""

    server: Server
    good: Mapping[str, Any]
    right: Mapping[str, list[Any]]

    def check(self) -> None:
        answer = self.server.infer(self.good)
        assert answer.status == 200, answer.body
        assert {output["name"]: output["data"] for output in answer.json["outputs"]} == self.right

    def descriptors(self) -> int:
        return len([file for pid in self.server.workers() for file in Path(f"/proc/{pid}/fd").iterdir()])

    def metric(self, name: str) -> float:
        found = re.search(rf"(?m)^\S*{re.escape(name)} (\S+)$", self.server.get("/metrics").body.decode())
        assert found, name
        return float(found[1])


@contextmanager
def unharmed(target: Target, growth_bytes: int = GROWTH_BYTES) -> Iterator[None]:
    """What happens inside leaves the server as it was: right, without a defect, and no larger."""
    server = target.server
    for _ in range(20):
        target.check()
    files, memory = target.descriptors(), server.memory_bytes()
    yield
    assert server.process.poll() is None, server.log.read_text()[-2000:]
    target.check()
    wait_until(lambda: target.descriptors() <= files, "closed connections")
    wait_until(lambda: target.metric("requests_in_flight") == 0, "requests over")
    assert target.metric("buffered_bytes") == 0
    assert server.memory_bytes() - memory < growth_bytes
    log = server.log.read_text()
    assert SECRET not in log
    assert not re.search(r"Traceback|defect| error ", log), log
