"""A server of somebody's own, for `server.image`: any path is answered with a stream of chunks. Standard library only."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNKS = 50


class Handler(BaseHTTPRequestHandler):
    """Answers GET and POST."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a body of unknown length, piece by piece."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Model", os.environ["SLIPWAY_MODEL_NAME"])
        self.end_headers()
        for number in range(CHUNKS):
            piece = f"{number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self) -> None:
        """Read the body, then answer as to GET."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
