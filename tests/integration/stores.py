"""Real servers to fetch models from, built by hack/tools: S3 (versitygw), Azure's Blob service (Azurite), an OCI registry."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.store import AzureStore, S3Store
from tests.ports import free_port
from tests.unit.server.support import wait_until

from slipway_dev.tools import ensure

ACCESS, SECRET = "slipway", "hunter2hunter2"
ACCOUNT_KEY = base64.b64encode(SECRET.encode()).decode()
AZURITE_FLAGS = ["--inMemoryPersistence", "--disableTelemetry", "--silent"]


@contextmanager
def process(command: list[object], port: int, log: Path, **env: str) -> Iterator[None]:
    """Run a server until the end of the block, from when it listens on the port."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, env={"PATH": os.environ["PATH"], **env}
        )

    def listening() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listening, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(10)


class ObjectStore:
    """A running versitygw with one bucket, `models`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.store = S3Store(
            "models",
            config={"endpoint": self.url, "access_key_id": ACCESS, "secret_access_key": SECRET, "region": "us-east-1"},
            client_options={"allow_http": True},
        )

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.store, key, content)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """versitygw on a folder, its metadata in another: not every file system has extended attributes."""
    (folder / "data/models").mkdir(parents=True)
    (folder / "meta").mkdir()
    port = free_port()
    command = [
        ensure(["versitygw"])["versitygw"],
        "--access",
        ACCESS,
        "--secret",
        SECRET,
        "--port",
        f"127.0.0.1:{port}",
        "--quiet",
    ]
    command += ["posix", "--sidecar", folder / "meta", folder / "data"]
    with process(command, port, folder / "log"):
        yield ObjectStore(port)


def account_signature(key: str = ACCOUNT_KEY, rights: str = "rlc") -> str:
    """Answer a shared access signature for all containers of the account, formed as Azure's reference of account SAS says."""
    given = {"sp": rights, "ss": "b", "srt": "sco", "st": "", "se": "2099-01-01T00:00:00Z"}
    fields = {**given, "sip": "", "spr": "", "sv": "2022-11-02", "ses": ""}
    signed = "".join(f"{value}\n" for value in (ACCESS, *fields.values()))
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), signed.encode(), "sha256")).decode()
    return urllib.parse.urlencode({name: value for name, value in {**fields, "sig": signature}.items() if value})


class BlobStore:
    """A running Azurite with the account `slipway`, which its paths name, and in it a new container, `models`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/{ACCESS}"
        container = f"{self.url}/models?restype=container&{account_signature()}"
        urllib.request.urlopen(urllib.request.Request(container, b"", method="PUT")).close()
        self.store = AzureStore(
            "models",
            config={"endpoint": self.url, "account_name": ACCESS, "account_key": ACCOUNT_KEY},
            client_options={"allow_http": True},
        )

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.store, key, content)


@contextmanager
def blob_store(folder: Path) -> Iterator[BlobStore]:
    """Azurite; what it holds is in its memory."""
    port = free_port()
    command = [ensure(["azurite"])["azurite"], *AZURITE_FLAGS, "--blobPort", port]
    with process(command, port, folder / "log", AZURITE_ACCOUNTS=f"{ACCESS}:{ACCOUNT_KEY}"):
        yield BlobStore(port)


class Registry:
    """A running distribution registry, and the pushes of a test."""

    def __init__(self, port: int, folder: Path, authorization: str | None) -> None:
        self.port = port
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self._authorization = authorization

    def _send(self, method: str, url: str, body: bytes = b"", **headers: str) -> Mapping[str, str]:
        if self._authorization:
            headers["Authorization"] = self._authorization
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(urllib.parse.urljoin(self.url, url), body, names, method=method)
        with urllib.request.urlopen(request) as response:
            return dict(response.headers)

    def blob(self, repository: str, content: bytes) -> dict[str, Any]:
        """Pushes a blob; answers the beginning of its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = self._send("POST", f"/v2/{repository}/blobs/uploads/")["Location"]
        mark = "&" if "?" in place else "?"
        self._send("PUT", f"{place}{mark}digest={digest}", content, Content_Type="application/octet-stream")
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    def file(self, repository: str, name: str, content: bytes) -> dict[str, Any]:
        """Pushes a blob as a named file; answers its descriptor."""
        return {**self.blob(repository, content), "annotations": {"org.opencontainers.image.title": name}}

    def artifact(self, repository: str, tag: str, *layers: dict[str, Any], **more: Any) -> str:
        """Pushes a manifest under a tag; answers its digest."""
        empty = self.blob(repository, b"{}") | {"mediaType": "application/vnd.oci.empty.v1+json"}
        kind = "application/vnd.oci.image.manifest.v1+json"
        return self.manifest(
            repository, tag, {"schemaVersion": 2, "mediaType": kind, "config": empty, "layers": [*layers], **more}
        )

    def manifest(self, repository: str, tag: str, manifest: dict[str, Any]) -> str:
        body = json.dumps(manifest).encode()
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", body, Content_Type=manifest["mediaType"])
        return f"sha256:{hashlib.sha256(body).hexdigest()}"


@contextmanager
def registry(folder: Path, htpasswd: str = "", authorization: str | None = None) -> Iterator[Registry]:
    """distribution's registry on a folder; `htpasswd`, lines of user:bcrypt, switches basic authorization on."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command: list[object] = [ensure(["registry"])["registry"], "serve", folder / "config.yaml"]
    with process(command, port, folder / "log", OTEL_TRACES_EXPORTER="none"):
        yield Registry(port, folder, authorization)


class Proxy:
    """Forwards connections to a port of 127.0.0.1.

    `cuts` says after how many bytes of answer each of the next ones is cut; after `stall_after` bytes of all of them, they are
    silent until `over` is set, then cut.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts: list[int] = []
        self.stall_after: int | None = None
        self.stalled = threading.Event()
        self.over = threading.Event()
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            cut = self.cuts.pop(0) if self.cuts else None
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(client, server, cut), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _down(self, client: socket.socket, server: socket.socket, cut: int | None) -> None:
        left = cut if cut is not None else 1 << 60
        try:
            while left and (data := server.recv(min(left, 65536))):
                if self.stall_after is not None:
                    self.stall_after -= len(data)
                    if self.stall_after < 0:
                        self.stalled.set()
                        self.over.wait(30)  # the connection stays open, and silent
                        break
                client.sendall(data)
                left -= len(data)
        except OSError:
            pass
        for connection in (client, server):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # close alone would wait for the thread that reads
            connection.close()
