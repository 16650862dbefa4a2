"""A web server of files, for models to be fetched from. Runs in a pod; standard library only.

Below /slow/ a file comes byte by byte until somebody asks for /release.

usage: python3 files.py PORT FOLDER
"""

import functools
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_released = threading.Event()


class Handler(SimpleHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """Answer a file; slowly, if asked for that way."""
        if self.path == "/release":
            _released.set()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")
        elif self.path.startswith("/slow/"):
            content = (Path(self.directory) / self.path.removeprefix("/slow/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            at = 0
            while at < len(content) - 1 and not _released.wait(0.5):
                self.wfile.write(content[at : at + 1])
                at += 1
            self.wfile.write(content[at:])
        else:
            super().do_GET()


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), functools.partial(Handler, directory=sys.argv[2])).serve_forever()
