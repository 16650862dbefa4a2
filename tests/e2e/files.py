"""A web server of files, for models to be fetched from. Runs in a pod; standard library only.

Below /slow/ a file comes byte by byte until somebody asks for /release. It is a hub, too, as far as fetches need one: the
files are those of the repository team/churn, in its folder `all`, for whoever has the token HF_TOKEN.

usage: python3 files.py PORT FOLDER
"""

import functools
import hashlib
import json
import os
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_released = threading.Event()
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPOSITORY = f"/team/churn/resolve/{_COMMIT}/all/"


class Handler(SimpleHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """Answer a file; slowly, if asked for that way."""
        if self.path == "/release":
            _released.set()
            self._json({})
        elif self.path == "/api/models/team/churn/revision/main?blobs=true":
            if self.headers["Authorization"] == f"Bearer {os.environ['HF_TOKEN']}":
                self._json({"sha": _COMMIT, "siblings": [self._sibling(path) for path in Path(self.directory).glob("[!.]*")]})
            else:
                self.send_error(401)
        elif self.path.startswith(_REPOSITORY):
            self.send_response(302)  # large files are behind a redirect
            self.send_header("Location", f"/{self.path.removeprefix(_REPOSITORY)}")
            self.end_headers()
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

    def _json(self, value: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    @staticmethod
    def _sibling(path: Path) -> dict[str, object]:
        content = path.read_bytes()
        lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return {"rfilename": f"all/{path.name}", "size": len(content), "lfs": lfs}


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), functools.partial(Handler, directory=sys.argv[2])).serve_forever()
