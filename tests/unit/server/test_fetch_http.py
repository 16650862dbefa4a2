"""`fetch` from a web server that cuts, stalls, lies, redirects and refuses."""

import base64
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.server.support import CONTENT, SHA256, Outcome, fetched, nothing_fetched


class Web:
    """A web server whose next answers are given by `script`, one function a request; the last one repeats."""

    def __init__(self) -> None:
        self.script: list[Callable[[http.server.BaseHTTPRequestHandler], None]] = [plain]
        self.requests: list[dict[str, str]] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                step = web.script.pop(0) if len(web.script) > 1 else web.script[0]
                step(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    running = Web()
    yield running
    running.server.shutdown()
    running.server.server_close()


Handler = http.server.BaseHTTPRequestHandler


def answer(
    status: int = 200, body: bytes = CONTENT, cut: int | None = None, content: bytes = CONTENT, **headers: str
) -> Callable[[Handler], None]:
    """Answers with Content-Length for all of `body`, but ends the connection after `cut` bytes."""

    def step(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body if cut is None else body[:cut])
        handler.close_connection = cut is not None

    return step


plain = answer()


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
        (answer(401, b""), (), "ModelUnreadable", "answered 401: check the credentials"),
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
    other.server.shutdown()
    other.server.server_close()
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
