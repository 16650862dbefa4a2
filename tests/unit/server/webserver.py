"""A web server whose answers a test writes."""

import http.server
import threading
from collections.abc import Callable

from tests.unit.server.support import CONTENT

Handler = http.server.BaseHTTPRequestHandler


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
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


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
