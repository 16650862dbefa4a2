"""`fetch` from a real OCI registry."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.stores import Proxy, Registry, registry
from tests.unit.server.support import CONTENT, SHA256, Outcome, fetched, nothing_fetched, run

REPOSITORY = "team/models"
TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
HTPASSWD = "user:$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n"  # bcrypt of hunter2


def packed(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"models/{name}")
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("oci") / "registry") as running:
        yield running


@pytest.fixture
def fetch(store: Registry, tmp_path: Path) -> Callable[..., Outcome]:
    def fetch(reference: str, *flags: object, endpoint: str = store.url) -> Outcome:
        arguments = ["fetch", "--uri", f"oci://registry.example/{REPOSITORY}{reference}", "--dest", tmp_path / "models"]
        return run(tmp_path, *arguments, "--endpoint", endpoint, "--allow-networks", "127.0.0.0/8", *flags)

    return fetch


def files_of(tmp_path: Path) -> dict[str, bytes]:
    model = tmp_path / "models/model"
    return {each.relative_to(model).as_posix(): each.read_bytes() for each in model.rglob("*") if each.is_file()}


def test_one_file(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    digest = store.artifact(REPOSITORY, "file", store.file(REPOSITORY, "iris.onnx", CONTENT))
    for reference in (":file", f"@{digest}", f":other@{digest}"):
        outcome = fetch(reference, "--sha256", SHA256)
        assert outcome.code == 0, outcome.termination
        assert outcome.termination.endswith(f"sha256 {SHA256}, manifest {digest}")
        assert fetched(tmp_path) == CONTENT
    (tmp_path / "models/fetched.json").unlink()
    assert fetch(f"@{digest}").code == 0
    again = fetch(f"@{digest}", endpoint="http://127.0.0.1:9")
    assert (again.code, "were here already" in again.termination) == (0, True)


def test_files(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    layers = [store.file(REPOSITORY, name, content) for name, content in (("model.py", b"class Model"), ("data/w.bin", b"12"))]
    store.artifact(REPOSITORY, "files", *layers)
    assert fetch(":files", "--format", "Python").code == 0
    assert files_of(tmp_path) == {"model.py": b"class Model", "data/w.bin": b"12"}


def test_tar_layers(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    one, two = (packed(**{name: content}) for name, content in (("a.onnx", CONTENT), ("b.txt", b"labels")))
    store.artifact(REPOSITORY, "tar", store.blob(REPOSITORY, one) | {"mediaType": TAR_GZIP})
    outcome = fetch(":tar", "--sha256", hashlib.sha256(one).hexdigest())
    assert outcome.code == 0, outcome.termination
    assert files_of(tmp_path) == {"models/a.onnx": CONTENT}
    store.artifact(REPOSITORY, "tars", *(store.blob(REPOSITORY, each) | {"mediaType": TAR_GZIP} for each in (one, two)))
    outcome = fetch(":tars")
    assert outcome.code == 0, outcome.termination
    assert files_of(tmp_path) == {"models/a.onnx": CONTENT, "models/b.txt": b"labels"}


def test_an_archive_as_a_file(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    store.artifact(REPOSITORY, "archive", store.file(REPOSITORY, "m.tar.gz", packed(x=b"1")))
    assert fetch(":archive", "--format", "Custom").code == 0
    assert files_of(tmp_path) == {"models/x": b"1"}


def test_index(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    digest = store.artifact(REPOSITORY, "inner", store.file(REPOSITORY, "iris.onnx", CONTENT))
    size = len(json.dumps({}))
    descriptor = {"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": "s390x"}}
    kind = "application/vnd.oci.image.index.v1+json"
    store.manifest(REPOSITORY, "index", {"schemaVersion": 2, "mediaType": kind, "manifests": [descriptor]})
    outcome = fetch(":index")
    assert outcome.code == 0, outcome.termination
    assert outcome.termination.endswith(f"manifest {digest}")
    assert fetched(tmp_path) == CONTENT


def test_a_cut_blob_is_resumed(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    content = CONTENT * 8
    store.artifact(REPOSITORY, "cut", store.file(REPOSITORY, "iris.onnx", content))
    proxy = Proxy(store.port)
    proxy.cuts = [1 << 40, 3 << 20, 3 << 20]
    outcome = fetch(":cut", endpoint=proxy.url)
    proxy.close()
    assert outcome.code == 0, outcome.termination
    assert proxy.connections == 4  # the manifest, and three times the blob: each goes on where the last was cut
    assert fetched(tmp_path) == content


def no_layers(store: Registry) -> None:
    store.artifact(REPOSITORY, "bad")


def of_kind(kind: str) -> Callable[[Registry], Any]:
    return lambda store: store.artifact(REPOSITORY, "bad", store.blob(REPOSITORY, b"x") | {"mediaType": kind})


def named(*names: str) -> Callable[[Registry], Any]:
    return lambda store: store.artifact(REPOSITORY, "bad", *(store.file(REPOSITORY, name, name.encode()) for name in names))


def link(store: Registry) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        entry = tarfile.TarInfo("bin/sh")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/bin/busybox"
        made.addfile(entry)
    store.artifact(
        REPOSITORY, "bad", store.blob(REPOSITORY, buffer.getvalue()) | {"mediaType": "application/vnd.oci.image.layer.v1.tar"}
    )


@pytest.mark.parametrize(
    ("push", "reference", "flags", "reason", "message"),
    [
        (None, ":none", (), "ModelNotFound", "answered 404"),
        (None, f"@sha256:{'0' * 64}", (), "ModelNotFound", "answered 404"),
        (named("iris.onnx"), ":bad", ("--sha256", "0" * 64), "DigestMismatch", "is asked for"),
        (named("iris.onnx"), ":bad", ("--max-bytes", 3), "ModelTooLarge", "9 bytes, the limit is 3"),
        (no_layers, ":bad", (), "ModelNotFound", "no files"),
        (of_kind("application/octet-stream"), ":bad", (), "UnsupportedModel", "has no name: push files with their names"),
        (of_kind("application/vnd.oci.image.layer.v1.tar+zstd"), ":bad", (), "UnsupportedModel", "tar or tar+gzip"),
        (of_kind(TAR_GZIP), ":bad", (), "ArchiveRefused", "cut"),
        (named("a", "../b"), ":bad", (), "ArchiveRefused", "'..'"),
        (named("a", "/etc/b"), ":bad", (), "ArchiveRefused", "absolute"),
        (named("a", "A"), ":bad", (), "ArchiveRefused", "one place"),
        (link, ":bad", (), "ArchiveRefused", "'bin/sh', a symbolic link"),
    ],
)
def test_failures(
    fetch: Callable[..., Outcome], store: Registry, tmp_path: Path, push: Callable[[Registry], Any] | None, reference: str,
    flags: tuple[object, ...], reason: str, message: str,
) -> None:  # fmt: skip
    if push:
        push(store)
    outcome = fetch(reference, *flags)
    assert (outcome.code, outcome.reason) == (1, reason), outcome.termination
    assert message in outcome.termination
    assert nothing_fetched(tmp_path)


def test_a_blob_that_is_another(fetch: Callable[..., Outcome], store: Registry, tmp_path: Path) -> None:
    content = b"what was pushed, and then changed on the registry's disk"
    digest = hashlib.sha256(content).hexdigest()
    store.artifact(REPOSITORY, "changed", store.file(REPOSITORY, "iris.onnx", content))
    [data] = list(store.folder.glob(f"**/blobs/sha256/{digest[:2]}/{digest}/data"))
    data.write_bytes(content.swapcase())
    outcome = fetch(":changed")
    assert outcome.reason == "DigestMismatch", outcome.termination
    assert digest in outcome.termination
    assert nothing_fetched(tmp_path)


def test_basic_authorization(tmp_path: Path) -> None:
    authorization = "Basic " + base64.b64encode(b"user:hunter2").decode()
    with registry(tmp_path / "registry", HTPASSWD, authorization) as closed:
        closed.artifact(REPOSITORY, "file", closed.file(REPOSITORY, "iris.onnx", CONTENT))
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{closed.url}/v2/{REPOSITORY}/manifests/file")
        flags = ("--dest", tmp_path / "models", "--endpoint", closed.url, "--allow-networks", "127.0.0.0/8")

        def fetch(**keys: str) -> Outcome:
            secret = tmp_path / "secret"
            secret.mkdir(exist_ok=True)
            for old in secret.iterdir():
                old.unlink()
            for key, value in keys.items():
                (secret / key.replace("dockerconfigjson", ".dockerconfigjson")).write_text(value)
            uri = f"oci://127.0.0.1:{closed.port}/{REPOSITORY}:file"
            return run(tmp_path, "fetch", "--uri", uri, *flags, "--credentials-dir", secret)

        assert "wants credentials" in fetch().termination
        outcome = fetch(username="user", password="hunter3")  # noqa: S106
        assert (outcome.reason, "hunter" in outcome.output) == ("ModelUnreadable", False)
        assert fetch(username="user", password="hunter2").code == 0  # noqa: S106
        auth = base64.b64encode(b"user:hunter2").decode()
        docker = json.dumps({"auths": {f"127.0.0.1:{closed.port}": {"auth": auth}}})
        (tmp_path / "models/fetched.json").unlink()
        assert fetch(dockerconfigjson=docker).code == 0
        assert fetched(tmp_path) == CONTENT
