"""A webhook in a pod: it refuses version `refused`, and tells what it was asked. python3 gate.py PORT."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

asked: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """POST judges, GET tells."""

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(told)
        refused = told["version"] == "refused"
        self._answer({"passed": not refused, "message": "41 of 100 rows agree" if refused else "all rows agree"})

    def do_GET(self) -> None:
        self._answer(asked)

    def _answer(self, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
