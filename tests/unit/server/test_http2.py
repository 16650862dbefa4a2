"""HTTP/2 on real sockets: every rule that a peer can break, floods, slow callers, and clients that nobody here wrote."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.server.http2_support import Peer, Running, block, data, headers, running

from slipway_dev import debian, tools
from slipway_server.exchange import Answer
from slipway_server.wire import WireConfig, frames, listener, streams
from slipway_server.wire.hpack import encode

NONE, PROTOCOL, FLOW, CLOSED, SIZE = (
    frames.NO_ERROR, frames.PROTOCOL_ERROR, frames.FLOW_CONTROL_ERROR, frames.STREAM_CLOSED, frames.FRAME_SIZE_ERROR,
)  # fmt: skip
CALM, COMPRESSION, REFUSED = frames.ENHANCE_YOUR_CALM, frames.COMPRESSION_ERROR, frames.REFUSED_STREAM
frame = frames.frame


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture
def peer(server: Running) -> Iterator[Peer]:
    with server.peer() as peer:
        yield peer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener sweeps fifty times a second."""
    monkeypatch.setattr(listener, "SWEEP_SECONDS", 0.02)


# --- exchanges --------------------------------------------------------------------------------------------------------


def test_a_request_and_its_answer(peer: Peer) -> None:
    peer.send(headers(1), data(1, b"hello"))
    reply = peer.reply(1)
    assert (reply.status, reply.body, reply.trailers) == (200, b"hello", {})
    assert reply.headers[b"content-length"] == b"5"
    assert reply.headers[b"content-type"] == b"application/json"


def test_grpc_has_trailers_and_no_content_length(peer: Peer) -> None:
    peer.send(headers(1, path="/test.Echo/Call"), data(1, b"hello"))
    reply = peer.reply(1)
    assert (reply.body, reply.trailers) == (b"hello", {b"grpc-status": b"0"})
    assert b"content-length" not in reply.headers


def test_an_answer_of_trailers_only_is_one_block_however_long(peer: Peer) -> None:
    peer.send(headers(1, path="/error/20000", end=True))
    reply = peer.reply(1)
    assert (reply.body, reply.sizes, reply.trailers) == (b"", [], {})
    assert reply.headers[b"grpc-status"] == b"3"
    assert len(reply.headers[b"grpc-message"]) == 20_000


def test_what_the_application_is_given(server: Running, peer: Peer) -> None:
    peer.send(headers(1, (b"x-a", b"1"), (b"x-a", b"2"), path="/a%20b?c=%20d", end=True))
    assert peer.reply(1).status == 200
    seen = server.app.seen
    assert seen is not None
    assert (seen.method, seen.path, seen.query, seen.http2) == ("POST", "/a b", "c=%20d", True)
    assert seen.headers == [(b"x-a", b"1"), (b"x-a", b"2")]


def test_head_and_no_content(peer: Peer) -> None:
    peer.send(headers(1, method="HEAD", path="/big/100", end=True), headers(3, path="/none", end=True))
    head, none = peer.reply(1), peer.reply(3)
    assert (head.headers[b"content-length"], head.body) == (b"100", b"")
    assert (none.status, none.body, b"content-length" in none.headers) == (204, b"", False)


def test_padding_priority_continuation_and_trailers_are_understood(peer: Peer) -> None:
    whole = block()
    padded = bytes([3]) + b"\0\0\0\0\x10" + whole[:4] + bytes(3)
    peer.send(
        frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY, 1, padded),
        frame(frames.CONTINUATION, 0, 1, whole[4:10]),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, whole[10:]),
        frame(frames.PRIORITY, 0, 7, b"\0\0\0\1\x10"),
        frame(0xBE, 0xFF, 1, b"unknown"),
        frame(frames.DATA, frames.PADDED, 1, b"\4abc" + bytes(4)),
        frame(frames.DATA, 0, 1, b"def"),
        frame(frames.HEADERS, frames.END_STREAM | frames.END_HEADERS, 1, encode([(b"x-checksum", b"1")])),
    )
    assert peer.reply(1).body == b"abcdef"


def test_expect_100_is_answered_before_the_body(peer: Peer) -> None:
    peer.send(headers(1, (b"expect", b"100-continue")))
    peer.expect(frames.HEADERS)
    assert peer.decoder.decode(peer.frames[-1].payload, 1000, 9) == [(b":status", b"100")]
    peer.send(data(1, b"now"))
    assert peer.reply(1).body == b"now"


def test_a_smaller_header_table_is_acknowledged_in_our_first_block(server: Running) -> None:
    with server.peer(_1=0) as peer:
        peer.send(headers(1, end=True), headers(3, end=True))
        first, second = peer.expect(frames.HEADERS), peer.expect(frames.HEADERS)
        assert first.payload[0] == 0x20
        assert first.payload[1:] == second.payload


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 400), max_size=30))
def test_answers_do_not_depend_on_how_the_bytes_arrive(server: Running, cuts: list[int]) -> None:
    sent = b"".join(
        [frames.PREFACE, frames.settings({}), headers(1), data(1, b"a" * 100), headers(3, (b"x", b"y")), data(3, b"b")]
    )
    peer = Peer(server.port)
    with peer.socket:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in sorted({0, *cuts} - {len(sent)}):
            after = min((other for other in cuts if other > cut), default=len(sent))
            peer.send(sent[cut:after])
        assert peer.reply(1).body == b"a" * 100
        assert peer.reply(3).body == b"b"


# --- rules: what is sent, the connection's or the stream's error -------------------------------------------------------

SETTINGS_ACK = frame(frames.SETTINGS, frames.ACK, 0)
UPPER = block((b"X-Upper", b"1"))
CONNECTION_RULES = {
    "even stream": (headers(2, end=True), PROTOCOL),
    "stream 0": (headers(0, end=True), PROTOCOL),
    "ids go up": (headers(5, end=True) + headers(3, end=True), CLOSED),
    "request twice": (headers(1, end=True) + headers(1, end=True), CLOSED),
    "continuation of nothing": (frame(frames.CONTINUATION, frames.END_HEADERS, 1, block()), PROTOCOL),
    "continuation of another": (
        frame(frames.HEADERS, 0, 1, block()[:5]) + frame(frames.CONTINUATION, frames.END_HEADERS, 3, block()[5:]),
        PROTOCOL,
    ),
    "frame within a block": (frame(frames.HEADERS, 0, 1, block()[:5]) + frame(frames.PING, 0, 0, bytes(8)), PROTOCOL),
    "unknown frame within a block": (frame(frames.HEADERS, 0, 1, block()[:5]) + frame(0xBE, 0, 1), PROTOCOL),
    "block that is none": (frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x80"), COMPRESSION),
    "block on a refused stream that is none": (
        headers(1, (b"te", b"gzip")) + frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x80"),
        COMPRESSION,
    ),
    "padding of all": (frame(frames.HEADERS, frames.PADDED | frames.END_HEADERS, 1, b"\x06" + bytes(5)), PROTOCOL),
    "padding of nothing": (frame(frames.HEADERS, frames.PADDED | frames.END_HEADERS, 1), SIZE),
    "data padding": (headers(1) + frame(frames.DATA, frames.PADDED, 1, b"\x02\0"), PROTOCOL),
    "priority cut": (frame(frames.HEADERS, frames.HAS_PRIORITY | frames.END_HEADERS, 1, b"\0\0"), SIZE),
    "priority on itself": (frame(frames.PRIORITY, 0, 3, b"\0\0\0\3\x10"), PROTOCOL),
    "priority of stream 0": (frame(frames.PRIORITY, 0, 0, b"\0\0\0\3\x10"), PROTOCOL),
    "priority of 4 bytes": (frame(frames.PRIORITY, 0, 1, bytes(4)), SIZE),
    "frame too large": (headers(1) + frame(frames.DATA, 0, 1, bytes(16385)), SIZE),
    "data on stream 0": (frame(frames.DATA, 0, 0, b"x"), PROTOCOL),
    "data before its request": (frame(frames.DATA, 0, 1, b"x"), PROTOCOL),
    "data after the end": (headers(1, end=True) + frame(frames.DATA, 0, 1, b"x"), CLOSED),
    "push": (frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(4) + block()), PROTOCOL),
    "reset before": (frame(frames.RST_STREAM, 0, 1, bytes(4)), PROTOCOL),
    "reset of stream 0": (frame(frames.RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    "reset of 3 bytes": (headers(1) + frame(frames.RST_STREAM, 0, 1, bytes(3)), SIZE),
    "settings on a stream": (frame(frames.SETTINGS, 0, 1), PROTOCOL),
    "settings of 5 bytes": (frame(frames.SETTINGS, 0, 0, bytes(5)), SIZE),
    "settings acknowledged with more": (frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), SIZE),
    "push allowed twice": (frames.settings({frames.ENABLE_PUSH: 2}), PROTOCOL),
    "window setting": (frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}), FLOW),
    "frame size setting below": (frames.settings({frames.MAX_FRAME_SIZE: 16383}), PROTOCOL),
    "frame size setting above": (frames.settings({frames.MAX_FRAME_SIZE: 1 << 24}), PROTOCOL),
    "window setting over an open stream's": (
        headers(1) + frames.window_update(1, 1 << 30) + frames.settings({frames.INITIAL_WINDOW_SIZE: (1 << 31) - 1}),
        FLOW,
    ),
    "ping of 7 bytes": (frame(frames.PING, 0, 0, bytes(7)), SIZE),
    "ping on a stream": (frame(frames.PING, 0, 1, bytes(8)), PROTOCOL),
    "goaway of 7 bytes": (frame(frames.GOAWAY, 0, 0, bytes(7)), SIZE),
    "goaway on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "window by 0": (frames.window_update(0, 0), PROTOCOL),
    "window of 3 bytes": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "window too large": (frames.window_update(0, (1 << 31) - 1), FLOW),
    "window of a stream before": (frames.window_update(1, 1), PROTOCOL),
}


@pytest.mark.parametrize("name", CONNECTION_RULES)
def test_rules_of_the_connection(server: Running, peer: Peer, name: str) -> None:
    sent, code = CONNECTION_RULES[name]
    peer.send(sent)
    assert peer.expect(frames.GOAWAY).code == code
    assert peer.closed()
    server.wait(lambda: server.app.held == 0, "places given back")


STREAM_RULES = {
    "no :path": (headers(1, drop=b":path", end=True), PROTOCOL),
    "no :method": (headers(1, drop=b":method", end=True), PROTOCOL),
    "no :scheme": (headers(1, drop=b":scheme", end=True), PROTOCOL),
    "empty :path": (headers(1, path="", end=True), PROTOCOL),
    ":path that is none": (headers(1, path="echo", end=True), PROTOCOL),
    ":method that is none": (headers(1, method="GE T", end=True), PROTOCOL),
    "CONNECT": (headers(1, method="CONNECT", path="", end=True), PROTOCOL),
    "pseudo-header twice": (headers(1, (b":path", b"/"), end=True), PROTOCOL),
    "unknown pseudo-header": (headers(1, (b":protocol", b"x"), end=True), PROTOCOL),
    "answer's pseudo-header": (headers(1, (b":status", b"200"), end=True), PROTOCOL),
    "pseudo-header last": (frame(frames.HEADERS, 5, 1, block((b"x", b"y")) + encode([(b":path", b"/")])), PROTOCOL),
    "upper case": (frame(frames.HEADERS, 5, 1, UPPER), PROTOCOL),
    "space in a name": (headers(1, (b"a b", b"1"), end=True), PROTOCOL),
    "empty name": (headers(1, (b"", b"1"), end=True), PROTOCOL),
    "line end in a value": (headers(1, (b"a", b"1\r\nb: 2"), end=True), PROTOCOL),
    "NUL in a value": (headers(1, (b"a", b"\0"), end=True), PROTOCOL),
    "space before a value": (headers(1, (b"a", b" 1"), end=True), PROTOCOL),
    "connection": (headers(1, (b"connection", b"close"), end=True), PROTOCOL),
    "transfer-encoding": (headers(1, (b"transfer-encoding", b"chunked"), end=True), PROTOCOL),
    "upgrade": (headers(1, (b"upgrade", b"h2c"), end=True), PROTOCOL),
    "te": (headers(1, (b"te", b"gzip"), end=True), PROTOCOL),
    "content-length that is none": (headers(1, (b"content-length", b"1x")) + data(1, b"x"), PROTOCOL),
    "two lengths": (headers(1, (b"content-length", b"1"), (b"content-length", b"2")) + data(1, b"x"), PROTOCOL),
    "body shorter": (headers(1, (b"content-length", b"2")) + data(1, b"x"), PROTOCOL),
    "body longer": (headers(1, (b"content-length", b"2")) + data(1, b"xxx"), PROTOCOL),
    "body absent": (headers(1, (b"content-length", b"2"), end=True), PROTOCOL),
    "body shorter before trailers": (
        headers(1, (b"content-length", b"2")) + data(1, b"x", end=False) + frame(frames.HEADERS, 5, 1, encode([(b"a", b"b")])),
        PROTOCOL,
    ),
    "trailers with a pseudo-header": (headers(1) + frame(frames.HEADERS, 5, 1, encode([(b":path", b"/")])), PROTOCOL),
    "trailers that end nothing": (headers(1) + frame(frames.HEADERS, 4, 1, encode([(b"a", b"b")])), PROTOCOL),
    "data beyond the end": (headers(1, path="/later", end=True) + frame(frames.DATA, 0, 1, b"x"), CLOSED),
    "headers beyond the end": (headers(1, path="/later", end=True) + headers(1, end=True), CLOSED),
    "window by 0": (headers(1, path="/later") + frames.window_update(1, 0), PROTOCOL),
    "window too large": (headers(1, path="/later") + frames.window_update(1, (1 << 31) - 1), FLOW),
}


@pytest.mark.parametrize("name", STREAM_RULES)
def test_rules_of_a_stream_leave_the_connection_alone(server: Running, peer: Peer, name: str) -> None:
    sent, code = STREAM_RULES[name]
    peer.send(sent)
    assert peer.reply(1).reset == code
    peer.send(headers(3), data(3, b"still here"))
    assert peer.reply(3).body == b"still here"
    server.wait(lambda: server.app.held == 0, "places given back")


def test_what_is_on_its_way_to_a_stream_that_we_reset_is_no_fault(peer: Peer) -> None:
    peer.send(headers(1, (b"te", b"gzip")), data(1, b"x" * 50_000), headers(3, end=True))
    assert peer.reply(1).reset == PROTOCOL
    assert peer.reply(3).status == 200


def test_a_bad_header_stays_bad_when_it_comes_from_the_table(peer: Peer) -> None:
    kept = b"\x40\x07x-Upper\x011"
    peer.send(frame(frames.HEADERS, 5, 1, block() + kept), frame(frames.HEADERS, 5, 3, block() + b"\xbe"))
    assert peer.reply(1).reset == PROTOCOL
    assert peer.reply(3).reset == PROTOCOL
    peer.send(headers(5, end=True))
    assert peer.reply(5).status == 200


def test_equal_blocks_mean_what_the_table_says_now(server: Running, peer: Peer) -> None:
    indexes = b"\x83\x86\x84\xbe"  # POST, http, / and the newest of the table
    for stream, value in ((1, b"one"), (7, b"two")):
        peer.send(frame(frames.HEADERS, 5, stream, block() + b"\x40\x01x\x03" + value))
        for following in (stream + 2, stream + 4):  # read, then known
            peer.send(frame(frames.HEADERS, 5, following, indexes))
            assert peer.reply(following).status == 200
            assert server.app.seen is not None
            assert server.app.seen.headers == [(b"x", value)]


def test_the_first_frame_is_settings(server: Running) -> None:
    for first in (frame(frames.PING, 0, 0, bytes(8)), SETTINGS_ACK, headers(1, end=True)):
        peer = Peer(server.port)
        with peer.socket:
            peer.send(frames.PREFACE, first)
            assert peer.expect(frames.GOAWAY).code == PROTOCOL
            assert peer.closed()


def test_h2spec() -> None:
    """The conformance suite. One case cannot pass on a port that HTTP/1.1 shares: what does not begin as HTTP/2 is answered
    by HTTP/1.1's 400, not by silence."""
    with running() as server:
        ended = subprocess.run(
            [tools.ensure(["h2spec"])["h2spec"], "-h", "127.0.0.1", "-p", str(server.port), "--strict", "-o", "5"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        failed = [line.strip() for line in ended.stdout.partition("Failures:")[2].splitlines() if "×" in line]
        assert failed == ["× 2: Sends invalid connection preface"], ended.stdout
        server.wait(lambda: server.app.held == 0, "places given back")


# --- flow control -----------------------------------------------------------------------------------------------------


def test_a_large_answer_keeps_to_the_callers_windows_and_frames(server: Running) -> None:
    with server.peer(_4=10_000, _5=20_000) as peer:
        peer.send(headers(1, path="/big/100000", end=True))
        assert sum(len(sent.payload) for sent in peer.ping() if sent.kind == frames.DATA) == 10_000
        peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 30_000}))  # applies to the open stream
        assert sum(len(sent.payload) for sent in peer.ping() if sent.kind == frames.DATA) == 20_000
        peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))  # the window is then below 0
        peer.send(frames.window_update(1, 30_000))
        assert not [sent for sent in peer.ping() if sent.kind == frames.DATA]
        peer.send(frames.window_update(1, 1))
        assert [len(sent.payload) for sent in peer.ping() if sent.kind == frames.DATA] == [1]
        peer.send(frames.window_update(1, 100_000))
        assert sum(len(sent.payload) for sent in peer.ping() if sent.kind == frames.DATA) == 65_535 - 30_001  # the connection's
        peer.send(frames.window_update(0, 100_000))
        reply = peer.reply(1)
        assert reply.ended
        assert max(reply.sizes) == 20_000


def test_small_answers_pass_a_large_one_that_waits(server: Running) -> None:
    with server.peer() as peer:
        peer.send(headers(1, path="/big/60000", end=True), headers(3, path="/test.Echo/Call"), data(3, b"x" * 100))
        peer.send(headers(5, path="/big/20000", end=True), headers(7), data(7, b"y"))
        assert sum(len(sent.payload) for sent in peer.ping() if sent.kind == frames.DATA) == 65_535
        peer.send(frames.window_update(0, 100_000))
        peer.ping()
        ended = {sent.stream for sent in peer.frames if sent.flags & frames.END_STREAM and sent.kind < 2}
        assert ended == {1, 3, 5, 7}
        assert sum(len(sent.payload) for sent in peer.frames if sent.kind == frames.DATA) == 80_101


def test_a_body_larger_than_the_windows_is_let_in(peer: Peer) -> None:
    body = b"z" * (4 << 20)
    peer.send(frames.window_update(0, 1 << 30), headers(1), frames.window_update(1, 8 << 20))
    credit = {0: 16 << 20, 1: 1 << 20}
    for at in range(0, len(body), 16384):
        while credit[1] < 16384:
            update = peer.expect(frames.WINDOW_UPDATE)
            credit[update.stream] += int.from_bytes(update.payload, "big")
        peer.send(data(1, body[at : at + 16384], end=at + 16384 == len(body)))
        credit[1] -= 16384
    assert peer.reply(1).body == body


def test_more_than_a_streams_window_is_refused(server: Running) -> None:
    """A caller whose answer waits is given no more credit for the rest of its body."""
    with server.peer(_4=0) as peer:
        peer.send(headers(1, path="/deny"))
        peer.expect(frames.HEADERS)
        peer.send(data(1, b"x" * (1 << 20), end=False))
        assert not [sent for sent in peer.ping() if sent.kind in (frames.WINDOW_UPDATE, frames.RST_STREAM)]
        peer.send(data(1, b"x", end=False))
        assert peer.reply(1).reset == FLOW


def test_bodies_that_are_dropped_use_up_no_window_of_the_connection(server: Running) -> None:
    with server.peer(_4=0) as peer:
        peer.send(*(headers(stream, path="/deny") for stream in range(1, 41, 2)))
        for stream in range(1, 41, 2):
            peer.send(data(stream, b"x" * (1 << 20), end=False))
        updates = [sent for sent in peer.ping() if sent.kind == frames.WINDOW_UPDATE and not sent.stream]
        assert sum(int.from_bytes(sent.payload, "big") for sent in updates) >= 20 << 20  # read, so it may send as much again


# --- the application's answers before the body, and callers that leave ------------------------------------------------


def test_an_early_answer_lets_a_small_body_pass_and_cuts_a_large_one(server: Running, peer: Peer) -> None:
    peer.send(headers(1, path="/deny"))
    assert peer.reply(1).body == b"denied"
    peer.send(data(1, b"x" * 100_000))
    peer.send(headers(3, path="/deny"), data(3, b"x" * (1 << 20), end=False))
    seen = peer.ping()
    assert [(sent.stream, sent.code) for sent in seen if sent.kind == frames.RST_STREAM] == [(3, NONE)]
    peer.send(headers(5), data(5, b"ok"))
    assert peer.reply(5).body == b"ok"


def test_a_body_that_grows_too_large(server: Running) -> None:
    with running(limit=50_000, most_growth=30_000) as server, server.peer() as peer:
        peer.send(headers(1, (b"content-length", b"60000")), data(1, b"x" * 60_000))
        assert peer.reply(1).status == 413
        peer.send(headers(3), data(3, b"x" * 49_000))
        assert peer.reply(3).status == 503
        peer.send(headers(5), data(5, b"x" * 20_000))
        assert peer.reply(5).body == b"x" * 20_000
        assert server.app.events == ["too_large", "grow"]
        assert server.app.held == 0


def test_headers_too_large_are_431(peer: Peer) -> None:
    large = [(b"x-%d" % number, b"v" * 4000) for number in range(9)]
    whole = block(*large)
    peer.send(frame(frames.HEADERS, frames.END_STREAM, 1, whole[:16384]), frame(frames.CONTINUATION, 0, 1, whole[16384:32768]))
    peer.send(frame(frames.CONTINUATION, frames.END_HEADERS, 1, whole[32768:]))
    assert peer.reply(1).status == 431
    peer.send(headers(3, *[(b"x", b"")] * 97, end=True), headers(5, *[(b"x", b"")] * 96, end=True))
    assert peer.reply(3).status == 431
    assert peer.reply(5).status == 200


def test_a_caller_that_leaves_frees_its_places(server: Running) -> None:
    app = server.app
    app.events.clear()
    with server.peer() as peer:
        peer.send(headers(1, path="/later", end=True), headers(3), data(3, b"half", end=False))
        peer.ping()
        assert app.held == 2
        peer.send(frames.reset(1, frames.CANCEL), frames.reset(3, frames.CANCEL))
        peer.ping()
        assert sorted(app.events) == ["cancel", "leave"]
        peer.send(headers(5, path="/later", end=True), headers(7))
        peer.ping()
    server.wait(lambda: app.held == 0, "places given back")
    assert sorted(app.events) == ["cancel", "cancel", "leave", "leave"]
    app.waiting.clear()


def test_answers_come_in_the_order_in_which_they_are_made(server: Running, peer: Peer) -> None:
    server.app.waiting.clear()
    peer.send(headers(1, path="/later", end=True), headers(3, path="/later", end=True))
    server.wait(lambda: len(server.app.waiting) == 2, "both requests")
    second, first = server.app.waiting.pop(), server.app.waiting.pop()
    server.call(lambda: second(Answer(200, b"second")))
    assert peer.reply(3).body == b"second"
    server.call(lambda: first(Answer(200, b"first")))
    assert peer.reply(1).body == b"first"
    server.app.held -= 2


def test_more_streams_than_we_said_are_refused() -> None:
    with running(WireConfig(streams=2)) as server, server.peer() as peer:
        peer.send(*(headers(stream, path="/later", end=True) for stream in (1, 3, 5)))
        assert peer.reply(5).reset == REFUSED
        peer.send(frames.reset(1, frames.CANCEL), headers(7, end=True))
        assert peer.reply(7).status == 200


def test_streams_are_refused_while_too_many_answers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WAITING_BYTES", 100_000)
    with running() as server, server.peer() as peer:
        peer.send(headers(1, path="/big/200000", end=True), headers(3, end=True))
        assert peer.reply(3).reset == REFUSED
        peer.send(frames.window_update(1, 200_000), frames.window_update(0, 200_000))
        assert peer.reply(1).ended
        assert sum(len(sent.payload) for sent in peer.frames if sent.kind == frames.DATA) == 200_000
        peer.send(headers(5, end=True))
        assert peer.reply(5).status == 200


# --- floods -----------------------------------------------------------------------------------------------------------

FLOODS = {
    "rapid reset": lambda n: headers(2 * n + 1, path="/later", end=True) + frames.reset(2 * n + 1, frames.CANCEL),
    "reset by us": lambda n: headers(2 * n + 1, (b"te", b"gzip"), end=True),
    "pings": lambda n: frame(frames.PING, 0, 0, bytes(8)),
    "settings": lambda n: frames.settings({}),
    "empty data": lambda n: (b"" if n else headers(1)) + frame(frames.DATA, 0, 1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_the_connection(server: Running, name: str) -> None:
    with server.peer() as peer:
        with suppress(ConnectionError):
            for start in range(0, 5000, 100):
                peer.send(*(FLOODS[name](number) for number in range(start, start + 100)))
        assert peer.expect(frames.GOAWAY).code == CALM
        assert peer.closed()
    server.wait(lambda: server.app.held == 0, "places given back")


def test_a_window_opened_by_a_byte_at_a_time_ends_the_connection(server: Running) -> None:
    with server.peer(_4=0) as peer:
        peer.send(headers(1, path="/big/100000", end=True))
        with suppress(ConnectionError):
            for _ in range(50):
                peer.send(frames.window_update(1, 1) * 100)
        assert peer.expect(frames.GOAWAY).code == CALM


def test_header_blocks_without_end(server: Running) -> None:
    for piece, count in ((b"", 40), (b"\x82" * 16384, 8)):
        with server.peer() as peer:
            peer.send(frame(frames.HEADERS, 0, 1, b"\x82"))
            peer.send(*[frame(frames.CONTINUATION, 0, 1, piece)] * count)
            assert peer.expect(frames.GOAWAY).code == CALM


def test_callers_who_take_their_answers_may_ping_and_give_up_now_and_then(peer: Peer) -> None:
    for stream in range(1, 3001, 2):
        peer.send(frame(frames.PING, 0, 0, bytes(8)) * 2, headers(stream, end=True))
        if stream % 10 == 1:
            peer.send(frames.reset(stream, frames.CANCEL))
        if stream % 100 == 1:
            peer.ping()
    peer.send(headers(9001, end=True))
    assert peer.reply(9001).status == 200


def test_deadlines_that_pass_are_no_flood(quick: None) -> None:
    with running() as server, server.peer() as peer:
        for start in range(1, 4001, 200):
            ids = range(start, start + 200, 2)
            peer.send(*(headers(stream, path="/later", end=True) for stream in ids))
            peer.ping()
            begun = server.listener.connections.now
            server.wait(lambda begun=begun: server.listener.connections.now > begun, "a sweep")
            peer.send(*(frames.reset(stream, frames.CANCEL) for stream in ids))
        peer.send(headers(9001, end=True))
        assert peer.reply(9001).status == 200
        assert server.app.held == 0


# --- slow callers, drains ---------------------------------------------------------------------------------------------


def test_a_body_that_does_not_come_in_time(quick: None) -> None:
    with running(WireConfig(request_seconds=0.3)) as server, server.peer() as peer:
        peer.send(headers(1), data(1, b"half", end=False), headers(3, path="/deny"), headers(5, path="/later", end=True))
        assert peer.reply(1).status == 408
        resets = [peer.expect(frames.RST_STREAM), peer.expect(frames.RST_STREAM)]
        assert {(sent.stream, sent.code) for sent in resets} == {(1, NONE), (3, NONE)}
        assert server.app.events == ["too_slow"]
        peer.send(data(1, b"late"), headers(7, end=True))
        assert peer.reply(7).status == 200  # and 5, which is the application's to answer, is still there
        assert server.app.held == 1


@pytest.mark.parametrize(
    "sent",
    [b"PRI * HTT", frames.PREFACE, frames.PREFACE + frames.settings({}) + b"\0\0", frames.PREFACE + frames.settings({})
     + frame(frames.HEADERS, 0, 1, b"\x82")],
    ids=["preface", "settings", "frame", "block"],
)  # fmt: skip
def test_the_rest_of_something_does_not_come(quick: None, sent: bytes) -> None:
    with running(WireConfig(request_seconds=0.2)) as server:
        peer = Peer(server.port)
        with peer.socket:
            peer.send(sent)
            assert peer.closed()
        server.wait(lambda: not server.listener.connections, "the connection gone")


def test_a_frame_in_two_pieces_after_a_long_silence(quick: None) -> None:
    with running(WireConfig(request_seconds=0.2)) as server, server.peer() as peer:
        peer.ping()
        begun = server.listener.connections.now
        server.wait(lambda: server.listener.connections.now > begun + 0.4, "a silence")
        request = headers(1, end=True)
        peer.send(request[:5])
        swept = server.listener.connections.now
        server.wait(lambda: server.listener.connections.now > swept + 0.05, "some sweeps")
        peer.send(request[5:])
        assert peer.reply(1).status == 200


def test_a_caller_that_never_opens_its_window(quick: None) -> None:
    with running(WireConfig(write_seconds=0.3)) as server, server.peer(_4=100) as peer:
        peer.send(headers(1, path="/big/100000", end=True))
        assert peer.reply(1).reset == frames.CANCEL
        peer.send(headers(3), data(3, b"ok"))
        assert peer.reply(3).body == b"ok"


def test_a_caller_that_does_not_read_is_cut_and_held_for_little(quick: None) -> None:
    with running(WireConfig(write_seconds=0.3)) as server, server.peer(_4=1 << 30) as peer:
        peer.send(frames.window_update(0, 1 << 30))
        peer.send(*(headers(stream, path="/big/8000000", end=True) for stream in range(1, 21, 2)))
        server.wait(lambda: not server.listener.connections, "the connection gone")
        assert server.app.held == 0


def test_a_caller_that_asks_without_reading_is_answered_at_its_own_pace(quick: None) -> None:
    """No answers pile up here, not even to the requests that one read brings, and no requests while nothing is answered."""
    asked = 4000
    indexes = b"\x83\x86\xbe"  # POST, http, and the newest of the table
    with running() as server, server.peer(_4=1 << 30) as peer:
        first = frame(frames.HEADERS, 5, 1, b"\x83\x86\x44\x0a/big/16000")
        others = (frame(frames.HEADERS, 5, stream, indexes) for stream in range(3, 2 * asked, 2))
        peer.send(frames.window_update(0, 1 << 30), first, *others)
        begun = server.listener.connections.now
        server.wait(lambda: server.listener.connections.now > begun + 0.2, "some sweeps")
        assert server.listener.connections.requests < asked
        peer.socket.settimeout(0.2)
        unknown, sent = frame(0xBE, 0, 0, bytes(16384)), 0
        with suppress(TimeoutError):
            while sent < 64 << 20:
                sent += peer.socket.send(unknown[sent % len(unknown) :])
        assert sent < 64 << 20
        peer.socket.settimeout(10)
        ended = 0
        while ended < asked:
            ended += bool(peer.expect(frames.DATA).flags & frames.END_STREAM)


def test_an_idle_connection_is_closed_in_good_order(quick: None) -> None:
    with running(WireConfig(idle_seconds=0.3)) as server, server.peer() as peer:
        peer.send(headers(1, end=True))
        assert peer.reply(1).status == 200
        goaway = peer.expect(frames.GOAWAY)
        assert (goaway.code, goaway.payload[:4]) == (NONE, bytes([0, 0, 0, 1]))
        assert peer.closed()


def test_shutdown_answers_what_was_under_way_and_refuses_what_comes_after() -> None:
    with running() as server, server.peer() as peer:
        peer.send(headers(1, path="/later", end=True))
        peer.ping()
        connection = next(iter(server.listener.connections))
        server.call(connection.shutdown)
        assert peer.expect(frames.GOAWAY).payload[:4] == b"\x7f\xff\xff\xff"
        farewell = peer.expect(frames.PING)
        peer.send(headers(3), data(3, b"was under way"))
        assert peer.reply(3).body == b"was under way"
        peer.send(frame(frames.PING, frames.ACK, 0, farewell.payload), headers(5, end=True))
        assert peer.expect(frames.GOAWAY).payload[:4] == bytes([0, 0, 0, 3])
        assert peer.reply(5).reset == REFUSED
        assert not server.call(lambda: connection.idle)
        server.call(lambda: server.app.waiting.pop()(Answer(200, b"last")))
        assert peer.reply(1).body == b"last"
        assert peer.closed()


def test_drain_leaves_nobody_waiting() -> None:
    with running() as server, server.peer() as peer:
        peer.send(headers(1, end=True))
        assert peer.reply(1).status == 200
        assert server.drain(5.0) == 0
        assert peer.closed()


def test_an_answer_may_close_the_connection(peer: Peer) -> None:
    peer.send(headers(1, path="/close"), data(1, b"bye"))
    assert peer.reply(1).body == b"bye"
    farewell = peer.expect(frames.PING)
    peer.send(frame(frames.PING, frames.ACK, 0, farewell.payload))
    assert peer.expect(frames.GOAWAY).code == NONE
    assert peer.closed()


# --- any bytes --------------------------------------------------------------------------------------------------------

STREAM_IDS = st.sampled_from([0, 1, 1, 3, 5, 2, (1 << 31) - 1])
RANDOM_FRAMES = st.builds(frame, st.integers(0, 10), st.integers(0, 255), STREAM_IDS, st.binary(max_size=40))
LIKELY_FRAMES = st.one_of(
    st.builds(headers, st.sampled_from([1, 3, 5]), end=st.booleans(), path=st.sampled_from(["/echo", "/later", "/deny"])),
    st.builds(data, st.sampled_from([1, 3, 5]), st.binary(max_size=30), end=st.booleans()),
    st.builds(frames.window_update, STREAM_IDS, st.integers(0, (1 << 31) - 1)),
    st.builds(frames.settings, st.dictionaries(st.integers(0, 8), st.integers(0, (1 << 32) - 1), max_size=3)),
    st.builds(frames.reset, st.sampled_from([1, 3, 5]), st.integers(0, 20)),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RANDOM_FRAMES | LIKELY_FRAMES | st.binary(max_size=20), max_size=12))
def test_any_frames_leave_nothing_behind(server: Running, sent: list[bytes]) -> None:
    with server.peer() as peer, suppress(ConnectionError):
        peer.send(*sent)
    server.wait(lambda: not server.listener.connections and server.app.held == 0, "connection and places gone")
    server.app.waiting.clear()


# --- clients that nobody here wrote -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        yield channel


@pytest.mark.parametrize("size", [0, 10, 20_000, 5_000_000])
def test_grpc_messages_of_all_sizes(channel: grpc.Channel, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert channel.unary_unary("/test.Echo/Call")(message, timeout=20) == message


def test_many_grpc_calls_at_once(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test.Echo/Call")
    calls = {number: call.future(b"%d" % number, timeout=20) for number in range(300)}
    assert {number: future.result() for number, future in calls.items()} == {number: b"%d" % number for number in range(300)}


def test_a_grpc_error_without_a_message_body(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/error/100")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_grpc_deadline_and_a_cancellation_reach_the_application(server: Running, channel: grpc.Channel) -> None:
    server.app.events.clear()
    call = channel.unary_unary("/later")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait(lambda: server.app.events == ["cancel"], "the deadline's cancellation")
    future = call.future(b"", timeout=20)
    server.wait(lambda: server.app.held == 1, "the call")
    future.cancel()
    server.wait(lambda: server.app.events == ["cancel", "cancel"] and server.app.held == 0, "the cancellation")
    server.app.waiting.clear()


def test_a_large_grpc_message_that_is_denied(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/deny")(bytes(5_000_000), timeout=10)
    assert "429" in str(caught.value.details())
    assert channel.unary_unary("/test.Echo/Call")(b"and on", timeout=10) == b"and on"


@pytest.mark.parametrize(("path", "size", "told"), [("echo", 3_000_000, None), ("deny", 500_000, b"denied")])
def test_curl(server: Running, tmp_path: Path, path: str, size: int, told: bytes | None) -> None:
    debian.ensure({"curl": ("curl",)})
    body = tmp_path / "body"
    body.write_bytes(bytes(size))
    answered = subprocess.run(
        ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", f"@{body}", f"http://127.0.0.1:{server.port}/{path}"],
        capture_output=True, check=True, timeout=20,
    )  # fmt: skip
    assert answered.stdout == (told or bytes(size))
