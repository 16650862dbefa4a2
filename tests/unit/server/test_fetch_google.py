"""`fetch` from a server of Google's protocol (fake-gcs-server), over TLS with a certificate of an authority of one's own."""

import http.client
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.server.support import CONTENT, Outcome, fetched, nothing_fetched, wait_until

from slipway_dev import pki, tools
from slipway_dev.local import free_ports


@dataclass
class Google:
    """The store, which holds the bucket `models`, and its authority's certificate."""

    port: int
    authority: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    folder = tmp_path_factory.mktemp("google")
    pki.create(folder / "pki", [pki.Holder("store", "store", names=("IP:127.0.0.1",))])
    (folder / "data/models/churn/3/part").mkdir(parents=True)
    (folder / "data/models/churn/3/model.onnx").write_bytes(CONTENT)
    (folder / "data/models/churn/3/part/words.txt").write_bytes(b"words")
    (port,) = free_ports(1)
    found = Google(port, folder / "pki/ca.crt")
    where = ["-scheme", "https", "-host", "127.0.0.1", "-port", str(found.port), "-public-host", f"127.0.0.1:{found.port}"]
    keys = ["-cert-location", str(folder / "pki/store.crt"), "-private-key-location", str(folder / "pki/store.key")]
    command = [
        tools.ensure(["fake-gcs-server"])["fake-gcs-server"],
        *where,
        *keys,
        "-backend",
        "memory",
        "-data",
        folder / "data",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: answers(found), "the store answers")
            yield found
        finally:
            process.kill()


def answers(google: Google) -> bool:
    context = ssl.create_default_context(cafile=google.authority)
    connection = http.client.HTTPSConnection("127.0.0.1", google.port, context=context)
    try:
        connection.request("GET", "/storage/v1/b/models")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def trusting(google: Google, tmp_path: Path) -> tuple[str, str | Path]:
    """Flags for a Secret that holds the authority."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/ca.crt").write_bytes(google.authority.read_bytes())
    return "--credentials-dir", tmp_path / "secret"


def test_a_file(fetch: Callable[..., Outcome], google: Google, trusting: tuple[str, Path], tmp_path: Path) -> None:
    outcome = fetch("gs://models/churn/3/model.onnx", "--endpoint", google.url, *trusting)
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == CONTENT


def test_a_folder(fetch: Callable[..., Outcome], google: Google, trusting: tuple[str, Path], tmp_path: Path) -> None:
    outcome = fetch("gs://models/churn/3/", "--endpoint", google.url, *trusting)
    assert outcome.code == 0, outcome.termination
    model = tmp_path / "models/model"
    assert {str(file.relative_to(model)) for file in model.rglob("*.*")} == {"model.onnx", "part/words.txt"}


@pytest.mark.parametrize("uri", ["gs://models/absent.onnx", "gs://absent/model.onnx", "gs://models/absent/"])
def test_what_is_not_there(fetch: Callable[..., Outcome], google: Google, trusting: tuple[str, Path], uri: str) -> None:
    outcome = fetch(uri, "--endpoint", google.url, *trusting)
    assert (outcome.code, outcome.reason) == (1, "ModelNotFound"), outcome.termination


def test_the_web_with_an_authority_of_ones_own(
    fetch: Callable[..., Outcome], google: Google, trusting: tuple[str, Path], tmp_path: Path
) -> None:
    outcome = fetch(f"{google.url}/models/churn/3/model.onnx", *trusting)
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == CONTENT


@pytest.mark.parametrize("uri", ["gs://models/churn/3/model.onnx", "{}/models/churn/3/model.onnx"])
def test_a_certificate_that_is_not_trusted(fetch: Callable[..., Outcome], google: Google, tmp_path: Path, uri: str) -> None:
    outcome = fetch(uri.format(google.url), *(("--endpoint", google.url) if uri.startswith("gs") else ()))
    assert (outcome.code, outcome.reason) == (1, "DownloadFailed"), outcome.termination
    assert "certificate is not trusted" in outcome.termination
    assert "give yours as the key ca.crt of storage.secretName" in outcome.termination
    assert nothing_fetched(tmp_path)


def test_an_authority_that_is_none(fetch: Callable[..., Outcome], google: Google, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("hunter2")
    outcome = fetch("gs://models/churn/3/model.onnx", "--endpoint", google.url, "--credentials-dir", tmp_path)
    assert (outcome.code, outcome.reason) == (1, "ModelUnreadable")
    assert "key ca.crt of the credentials holds no certificates in PEM" in outcome.termination
    assert "hunter2" not in outcome.output
