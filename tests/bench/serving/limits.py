"""What no server here can pass: the library's call alone, nginx's static answer, grpcio's echo."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.processes import Process
from tests.bench.serving.cases import Case
from tests.bench.serving.servers import KINDS, Ports, Target, free_ports, pinned, server_environment

_HERE = Path(__file__).parent
_START_SECONDS = 10.0

NGINX_MISSING = "nginx is not installed (apt-get install nginx-light): no static answer is measured."

# One process, no log, no file looked up: the answer is in the configuration.
_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body_temp;
  proxy_temp_path {folder}/proxy_temp;
  fastcgi_temp_path {folder}/fastcgi_temp;
  uwsgi_temp_path {folder}/uwsgi_temp;
  scgi_temp_path {folder}/scgi_temp;
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location / {{ return 200 '{body}'; }}
  }}
}}
"""


def has_nginx() -> bool:
    """Answer whether nginx is installed."""
    return _nginx_path() is not None


def _nginx_path() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def nginx(folder: Path, answer_bytes: int) -> Target:
    """Start nginx on the servers' core, with a static answer of this size."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port, body="x" * answer_bytes))
    command = pinned(_nginx_path() or "nginx", "-p", folder, "-c", configuration, "-e", folder / "nginx.log")
    return _listening(Target("nginx, static answer", Process(command, folder / "log"), Ports(port, 0, 0)), port)


def echo(folder: Path) -> Target:
    """Start the echo server on the servers' core."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = pinned(sys.executable, "-m", "tests.bench.serving.echo", str(port))
    return _listening(Target("grpcio, echo", Process(command, folder / "log"), Ports(0, port, 0)), port)


def _listening(target: Target, port: int) -> Target:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return target
        except OSError:
            target.process.require()
            if time.monotonic() > deadline:
                target.end()
                raise
            time.sleep(0.01)


def bare_calls(case: Case, seconds: float) -> float:
    """Answer how often a second the library answers the case's request by itself, on the servers' core."""
    array = case.file.parent / "array.npy"
    words = (_HERE / "bare.py", case.runtime, case.peer_file, case.input, array, str(seconds))
    command = [str(word) for word in pinned(KINDS["slipway"].python, *words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=server_environment())
    return float(done.stdout)
