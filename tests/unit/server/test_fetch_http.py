"""`fetch` from a web server that cuts, stalls, lies, redirects and refuses."""

import base64
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.server.support import CONTENT, SHA256, Outcome, environment, fetched, nothing_fetched, wait_until
from tests.unit.server.webserver import Handler, Web, answer

from slipway_server.sources.network import Network
from slipway_server.termination import TerminalError


@pytest.fixture
def web() -> Iterator[Web]:
    running = Web()
    yield running
    running.close()


def ranged(cut: int | None = None, etag: str = '"1"') -> Callable[[Handler], None]:
    """Serves ranges as a good server does, cutting each answer after `cut` bytes."""

    def step(handler: Handler) -> None:
        start = 0
        if handler.headers["Range"] and handler.headers["If-Range"] == etag:
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        rest = CONTENT[start:]
        extra = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        answer(206 if start else 200, rest, cut, ETag=etag, **extra)(handler)

    return step


def chunked(cut: bool) -> Callable[[Handler], None]:
    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        half = len(CONTENT) // 2
        for piece in (CONTENT[:half],) if cut else (CONTENT[:half], CONTENT[half:]):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if not cut:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return step


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def test_http(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    assert fetch(f"{web.url}/a/m.onnx?v=1", "--sha256", SHA256).code == 0
    assert fetched(tmp_path) == CONTENT
    assert web.requests[0]["path"] == "/a/m.onnx?v=1"
    assert web.requests[0]["accept-encoding"] == "identity"


def test_a_cut_download_is_resumed(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    web.script = [ranged(cut=400_000), ranged(cut=400_000), ranged()]
    assert fetch(f"{web.url}/m.onnx", "--sha256", SHA256).code == 0
    assert fetched(tmp_path) == CONTENT
    assert [request.get("range") for request in web.requests] == [None, "bytes=400000-", "bytes=800000-"]
    assert {request.get("if-range") for request in web.requests[1:]} == {'"1"'}


SCRIPTS: dict[str, list[Callable[[Handler], None]]] = {
    "changed in between": [ranged(cut=400_000, etag='"0"'), ranged()],
    "no validator: from the start": [answer(cut=400_000), answer()],
    "weak validator: from the start": [answer(cut=400_000, ETag='W/"1"'), answer()],
    "a wrong range is not used": [
        ranged(cut=400_000),
        answer(206, CONTENT[1:], ETag='"1"', Content_Range=f"bytes 1-{len(CONTENT) - 1}/{len(CONTENT)}"),
        answer(),
    ],
    "a range without a place is not used": [ranged(cut=400_000), answer(206, CONTENT[400_000:], ETag='"1"'), answer()],
    "range not satisfiable": [ranged(cut=400_000), answer(416, b""), answer()],
    "busy, then there": [answer(503, b"busy"), answer(429, b""), answer()],
    "hangs up, then there": [hang_up, answer()],
    "chunked": [chunked(cut=False)],
    "chunked and cut": [chunked(cut=True), chunked(cut=False)],
    "redirected": [answer(302, b"", Location="/elsewhere"), answer()],
    "moved for good": [answer(308, b"", Location="/elsewhere"), answer()],
    "says more than it sends, once": [answer(body=CONTENT + b"x", cut=len(CONTENT)), answer()],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_http_comes_right(fetch: Callable[..., Outcome], web: Web, tmp_path: Path, name: str) -> None:
    web.script = list(SCRIPTS[name])
    outcome = fetch(f"{web.url}/m.onnx", "--sha256", SHA256)
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == CONTENT
    assert len(web.requests) == len(SCRIPTS[name])
    if "from the start" in name:
        assert "range" not in web.requests[1]


@pytest.mark.parametrize(
    ("step", "flags", "reason", "message"),
    [
        (answer(404, b""), (), "ModelNotFound", "answered 404: check the URI"),
        (answer(410, b""), (), "ModelNotFound", "answered 410"),
        (answer(401, b""), (), "ModelUnreadable", "answered 401 and wants credentials: check the credentials"),
        (answer(403, b""), (), "ModelUnreadable", "answered 403"),
        (answer(400, b""), (), "DownloadFailed", "answered 400"),
        (answer(503, b""), (), "DownloadFailed", r"answered 503 \(after 5 attempts"),
        (hang_up, (), "DownloadFailed", "after 5 attempts, 0 bytes received"),
        (answer(cut=0), (), "DownloadFailed", "cut at byte 0 of 1048576"),
        (answer(body=CONTENT + b"x", cut=len(CONTENT)), ("--max-bytes", len(CONTENT)), "ModelTooLarge", "1048577 bytes"),
        (answer(body=b""), (), "ModelNotFound", "0 bytes"),
        (answer(body=CONTENT[:-1]), (), "DigestMismatch", SHA256),
        (chunked(cut=False), ("--max-bytes", 1000), "ModelTooLarge", "more than 1000 bytes"),
        (answer(302, b"", Location="file:///etc/passwd"), (), "DownloadFailed", "redirects to file://, which is refused"),
        (answer(302, b"", Location="ftp://host/x"), (), "DownloadFailed", "redirects to ftp://"),
        (answer(302, b"", Location="data:,x"), (), "DownloadFailed", "redirects to data://"),
        (answer(302, b"", Location="/again"), (), "DownloadFailed", "302"),
        (answer(Content_Encoding="gzip"), (), "DownloadFailed", "compressed"),
    ],
)
def test_http_failures(
    fetch: Callable[..., Outcome], web: Web, tmp_path: Path, step: Callable[[Handler], None],
    flags: tuple[object, ...], reason: str, message: str,
) -> None:  # fmt: skip
    web.script = [step]
    outcome = fetch(f"{web.url}/m.onnx", "--sha256", SHA256, *flags)
    assert (outcome.code, outcome.reason) == (1, reason), outcome.termination
    assert re.search(message, outcome.termination), outcome.termination
    assert nothing_fetched(tmp_path)


def test_a_server_that_stalls(fetch: Callable[..., Outcome], web: Web) -> None:
    stall = threading.Event()

    def step(handler: Handler) -> None:
        answer(cut=0)(handler)
        handler.wfile.flush()
        stall.wait(20)

    web.script = [step, answer()]
    assert fetch(f"{web.url}/m.onnx", "--timeout", "0.5").code == 0
    stall.set()


def test_nobody_there(fetch: Callable[..., Outcome]) -> None:
    assert fetch("http://127.0.0.1:9/m.onnx").reason == "DownloadFailed"


def test_credentials_reach_their_server_and_nobody_else(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    other = Web()
    expected = "Basic " + base64.b64encode(b"user:hunter2/x").decode()
    web.script = [
        answer(302, b"", Location=f"{web.url}/same"),
        answer(302, b"", Location=f"{other.url}/other?token=hunter3"),
    ]
    with_credentials = web.url.replace("http://", "http://user:hunter2%2Fx@")
    outcome = fetch(f"{with_credentials}/m.onnx?key=hunter4", "--sha256", SHA256)
    other.close()
    assert outcome.code == 0
    assert [request.get("authorization") for request in web.requests] == [expected, expected]
    assert "authorization" not in other.requests[0]
    receipt = (tmp_path / "models/fetched.json").read_text()
    for text in (outcome.output, receipt):
        assert "hunter" not in text

    web.script = [answer(500, b"")]
    outcome = fetch(f"{with_credentials}/m.onnx?key=hunter4")
    assert outcome.reason == "DownloadFailed"
    assert "hunter" not in outcome.output + outcome.termination


def test_credentials_of_the_secret(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "username").write_text("user\n")
    (secret / "password").write_text("hunter2\n")
    assert fetch(f"{web.url}/m.onnx", "--credentials-dir", secret).code == 0
    (secret / "token").write_text("hunter3")
    assert fetch(f"{web.url}/m.onnx", "--credentials-dir", secret).code == 0
    basic = "Basic " + base64.b64encode(b"user:hunter2").decode()
    assert [request["authorization"] for request in web.requests] == [basic, "Bearer hunter3"]
    web.script = [answer(401, b"")]
    outcome = fetch(f"{web.url}/m.onnx", "--credentials-dir", secret)
    assert "refused the given credentials" in outcome.termination
    (secret / "token").write_text("hunter3\r\nX-Evil: 1")
    outcome = fetch(f"{web.url}/m.onnx", "--credentials-dir", secret)
    assert outcome.reason == "ModelUnreadable"
    assert "hunter" not in outcome.output


# --- interrupted, and taken up again ----------------------------------------------------------------------------------


def test_a_killed_fetch_is_taken_up(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    sent, over = threading.Event(), threading.Event()

    def stall(handler: Handler) -> None:
        ranged(cut=400_000)(handler)
        handler.wfile.flush()
        sent.set()
        over.wait(20)

    web.script = [stall, ranged()]
    command = [sys.executable, "-m", "slipway_server", "fetch", "--uri", f"{web.url}/m.onnx", "--dest", str(tmp_path / "models")]
    process = subprocess.Popen([*command, "--allow-networks", "127.0.0.0/8"], env=environment(), stdout=subprocess.DEVNULL)
    part = tmp_path / "models/.fetch/part0"
    wait_until(lambda: part.exists() and part.stat().st_size == 400_000, "the first part is on disk")
    process.send_signal(signal.SIGKILL)
    process.wait()
    over.set()
    assert sent.is_set()
    assert fetch(f"{web.url}/m.onnx", "--sha256", SHA256).code == 0
    assert fetched(tmp_path) == CONTENT
    assert [request.get("range") for request in web.requests] == [None, "bytes=400000-"]


def test_a_failed_fetch_is_taken_up_unless_the_file_changed(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    for etag in ('"1"', '"2"'):
        web.script = [ranged(cut=400_000), hang_up]
        web.requests.clear()
        assert fetch(f"{web.url}/m.onnx").reason == "DownloadFailed"
        web.script = [ranged(etag=etag)]
        assert fetch(f"{web.url}/m.onnx", "--sha256", SHA256).code == 0
        assert fetched(tmp_path) == CONTENT
        assert web.requests[-1]["range"] == "bytes=400000-"
        assert web.requests[-1]["if-range"] == '"1"'
        (tmp_path / "models/model.onnx").unlink()


def test_another_uri_is_not_taken_up(fetch: Callable[..., Outcome], web: Web) -> None:
    web.script = [ranged(cut=400_000), hang_up]
    assert fetch(f"{web.url}/m.onnx").reason == "DownloadFailed"
    web.script = [ranged()]
    assert fetch(f"{web.url}/other.onnx", "--sha256", SHA256).code == 0
    assert "range" not in web.requests[-1]


LARGE = CONTENT * 70  # more than ranges.LARGE_BYTES


def large(cut: int | None = None, etag: str = '"1"', body: bytes = LARGE) -> Callable[[Handler], None]:
    """Serves single ranges of a large file, cutting each answer after `cut` bytes."""

    def step(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers["Range"] or "")
        if not asked or handler.headers["If-Range"] != etag:
            answer(200, body, 1000, ETag=etag, Accept_Ranges="bytes")(handler)
            return
        start, end = int(asked[1]), int(asked[2] or len(body) - 1)
        place = f"bytes {start}-{end}/{len(body)}"
        answer(206, body[start : end + 1], cut, ETag=etag, Accept_Ranges="bytes", Content_Range=place)(handler)

    return step


def test_a_large_file_comes_in_ranges_that_may_be_cut(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    web.script = [large(), *[large(cut=3_000_000)] * 8, large()]
    outcome = fetch(f"{web.url}/m.onnx")
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == LARGE
    spans = [request["range"] for request in web.requests[1:]]
    assert spans.count("bytes=0-8388607") == 1
    assert "bytes=3000000-8388607" in spans


def test_a_large_file_that_changes_is_begun_anew(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    other = LARGE[::-1]
    web.script = [large(), large(), large(), *[large(etag='"2"', body=other)] * 40]
    outcome = fetch(f"{web.url}/m.onnx")
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == other


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "fe80::1", "fe80::1%lo",
        "fc00::1",
        "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001::1", "2001:db8::1",
        "2002:7f00:1::", "100::1",
        "fec0::1", "3fff::1", "4000::1",
    ],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not Network().permits(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses(address: str) -> None:
    assert Network().permits(address)


def test_a_private_address_is_refused(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    local = web.url.replace("127.0.0.1", "localhost")
    for flags in (("--allow-networks", ""), ("--allow-networks", "10.0.0.0/8,fd00::/8")):
        for url in (web.url, local):
            outcome = fetch(f"{url}/m.onnx", *flags)
            assert outcome.reason == "AddressRefused", outcome.termination
            assert "--allow-networks" in outcome.termination
    assert not web.requests
    assert nothing_fetched(tmp_path)
    assert fetch(f"{local}/m.onnx", "--allow-networks", "127.0.0.1/32,::1/128").code == 0


@pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:127.0.0.2]", "169.254.169.254", "[fe80::1]", "10.255.255.1"])
def test_a_redirect_to_a_private_address_is_refused(fetch: Callable[..., Outcome], web: Web, host: str) -> None:
    web.script = [answer(302, b"", Location=f"http://{host}/latest/meta-data")]
    outcome = fetch(f"{web.url}/m.onnx", "--allow-networks", "127.0.0.1/32")
    assert outcome.reason == "AddressRefused", outcome.termination


@pytest.mark.parametrize("location", ["http://2130706433/x", "http://0x7f.1/x", "//user@host/x", "http://host\\@other/x", ""])
def test_a_redirect_in_an_odd_form_is_refused(fetch: Callable[..., Outcome], web: Web, location: str) -> None:
    web.script = [answer(302, b"", Location=location)]
    outcome = fetch(f"{web.url}/m.onnx", "--allow-networks", "127.0.0.1/32")
    assert outcome.reason == "DownloadFailed"
    assert "malformed redirect" in outcome.termination


def test_a_redirect_never_leaves_https() -> None:
    from slipway_server.sources import web as client

    answered = SimpleNamespace(status=302, headers={"Location": "http://host.example/m.onnx"})
    with pytest.raises(TerminalError, match="redirects to http://, which is refused"):
        client.Web("label", Network(), 1.0)._target("https://host.example/m.onnx", answered)  # type: ignore[arg-type]
    answered.headers["Location"] = "//other.example/a b"
    target = client.Web("label", Network(), 1.0)._target("https://host.example/m.onnx", answered)  # type: ignore[arg-type]
    assert target == "https://other.example/a%20b"


def test_the_address_is_resolved_once(monkeypatch: pytest.MonkeyPatch, web: Web) -> None:
    asked: list[str] = []

    def rebinding(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    from ipaddress import ip_network

    connection = Network((ip_network("127.0.0.1"),)).connect(("name.example", web.server.server_address[1]), 5.0)
    with connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    assert asked == ["name.example"]


def test_schemes(fetch: Callable[..., Outcome], web: Web, tmp_path: Path) -> None:
    for uri in (f"{web.url}/m.onnx", "pvc://claim/m.onnx", "s3://bucket/m.onnx"):
        outcome = fetch(uri, "--allow-schemes", "https,configmap")
        assert outcome.reason == "AddressRefused"
        assert "use one of configmap, https" in outcome.termination
    assert fetch("pvc://claim/x", "--allow-schemes", "gopher").reason == "InvalidArguments"
    assert fetch("pvc://claim/x", "--allow-networks", "10.0.0.1/8").reason == "InvalidArguments"
    assert fetch("hf://o/r", "--endpoint", "ftp://host").reason == "InvalidArguments"
