"""`fetch` from a hub, and from a registry that wants tokens: small servers of the tests' own that answer as the real ones do.

A real registry is in tests/integration/test_fetch_oci.py; no real hub can be had without the Internet.
"""

import base64
import hashlib
import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.support import CONTENT, SHA256, Outcome, fetched, nothing_fetched
from tests.unit.server.webserver import Handler, Web, answer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "onnx/model.onnx": CONTENT, "onnx/sub/vocab.txt": b"words", ".gitattributes": b"*.onnx lfs"}
LFS = "onnx/model.onnx"


def tree_digest(files: dict[str, bytes]) -> str:
    lines = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files, key=str.encode))
    return hashlib.sha256(lines.encode()).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    running = Web()
    yield running
    running.close()


class Hub:
    """A repository of a hub: its listing, its files, and large ones behind a redirect to another server."""

    def __init__(self, web: Web, store: Web) -> None:
        self.web = web
        self.store = store
        self.files = dict(FILES)
        self.sha256 = SHA256
        self.token = ""
        web.script = [self.answer]
        store.script = [self.blob]

    def answer(self, handler: Handler) -> None:
        path, _, query = handler.path.partition("?")
        if self.token and handler.headers["Authorization"] != f"Bearer {self.token}":
            answer(401, b"")(handler)
        elif (
            path in (f"/api/models/o/r/revision/{name}" for name in ("main", "v1.0", "refs%2Fpr%2F1", COMMIT))
            and query == "blobs=true"
        ):
            answer(200, json.dumps({"id": "o/r", "sha": COMMIT, "siblings": self.siblings()}).encode())(handler)
        elif path.startswith(f"/o/r/resolve/{COMMIT}/"):
            name = urllib.parse.unquote(path.removeprefix(f"/o/r/resolve/{COMMIT}/"))
            if name == LFS:
                answer(302, b"", Location=f"{self.store.url}/blob?signature=x", X_Linked_ETag=f'"{self.sha256}"')(handler)
            else:
                answer(200, self.files[name], ETag='"git"')(handler)
        else:
            answer(404, b"")(handler)

    def blob(self, handler: Handler) -> None:
        answer(200, self.files[LFS], ETag='"s3"')(handler)

    def siblings(self) -> list[dict[str, Any]]:
        listing: list[dict[str, Any]] = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
        for each in listing:
            if each["rfilename"] == LFS:
                each["lfs"] = {"sha256": self.sha256, "size": each["size"], "pointerSize": 130}
        return listing


@pytest.fixture
def hub(web: Web) -> Iterator[Hub]:
    store = Web()
    yield Hub(web, store)
    store.close()


def test_hub_file(fetch: Callable[..., Outcome], hub: Hub, tmp_path: Path) -> None:
    for revision in ("main", "v1.0", "refs/pr/1", COMMIT):
        outcome = fetch(f"hf://o/r/onnx/model.onnx@{revision}", "--endpoint", hub.web.url)
        assert outcome.code == 0, outcome.termination
        assert outcome.termination.endswith(f"sha256 {SHA256}, revision {COMMIT}")
        assert fetched(tmp_path) == CONTENT
    assert json.loads((tmp_path / "models/fetched.json").read_text())["revision"] == f"revision {COMMIT}"
    before = len(hub.web.requests)
    assert "already there" in fetch(f"hf://o/r/onnx/model.onnx@{COMMIT}", "--endpoint", hub.web.url).output
    assert len(hub.web.requests) == before


@pytest.mark.parametrize(("path", "prefix"), [("", ""), ("/onnx", "onnx/"), ("/onnx/", "onnx/")])
def test_hub_folder(fetch: Callable[..., Outcome], hub: Hub, tmp_path: Path, path: str, prefix: str) -> None:
    expected = {name.removeprefix(prefix): content for name, content in FILES.items() if name.startswith(prefix)}
    outcome = fetch(f"hf://o/r{path}@main", "--endpoint", hub.web.url, "--sha256", tree_digest(expected))
    assert outcome.code == 0, outcome.termination
    model = tmp_path / "models/model"
    assert {each.relative_to(model).as_posix(): each.read_bytes() for each in model.rglob("*") if each.is_file()} == expected
    assert sorted(each.name for each in (tmp_path / "models").iterdir()) == ["fetched.json", "model"]
    again = fetch(f"hf://o/r{path}@main", "--endpoint", hub.web.url, "--sha256", tree_digest(expected))
    assert "already there" in again.output


def test_hub_token(fetch: Callable[..., Outcome], hub: Hub, tmp_path: Path) -> None:
    hub.token = "hunter2"  # noqa: S105
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/HF_TOKEN").write_text("hunter2\n")
    flags = ("--endpoint", hub.web.url, "--credentials-dir", tmp_path / "secret")
    assert fetch("hf://o/r/onnx/model.onnx@main", *flags).code == 0
    assert all("authorization" not in request for request in hub.store.requests)
    (tmp_path / "secret/HF_TOKEN").write_text("hunter3")
    outcome = fetch("hf://o/r/onnx/model.onnx@v1.0", *flags)
    assert (outcome.reason, "hunter" in outcome.output) == ("ModelUnreadable", False)


def other_commit(hub: Hub) -> None:
    hub.web.script = [answer(200, json.dumps({"sha": "f" * 40, "siblings": [{"rfilename": "x"}]}).encode())]


def answering(body: bytes) -> Callable[[Hub], None]:
    return lambda hub: setattr(hub.web, "script", [answer(200, body)])


def with_sibling(name: str) -> Callable[[Hub], None]:
    return lambda hub: hub.files.update({name: b"x"})


@pytest.mark.parametrize(
    ("change", "uri", "flags", "reason", "message"),
    [
        (lambda hub: None, "hf://o/r/none@main", (), "ModelNotFound", "has no none; it has .gitattributes, config.json"),
        (lambda hub: None, "hf://o/none@main", (), "ModelNotFound", "answered 404"),
        (lambda hub: None, "hf://o/r@branch", (), "ModelNotFound", "answered 404"),
        (lambda hub: setattr(hub, "sha256", "0" * 64), "hf://o/r/onnx/model.onnx@main", (), "DigestMismatch", "promises 0000"),
        (lambda hub: None, "hf://o/r/onnx/model.onnx@main", ("--sha256", "0" * 64), "DigestMismatch", "is asked for"),
        (lambda hub: None, "hf://o/r@main", ("--sha256", SHA256), "DigestMismatch", "is asked for"),
        (other_commit, f"hf://o/r@{COMMIT}", (), "DigestMismatch", "answers commit ffff"),
        (lambda hub: None, "hf://o/r@main", ("--max-bytes", 1000), "ModelTooLarge", "the limit is 1000"),
        (with_sibling("../x"), "hf://o/r@main", (), "ArchiveRefused", "'..'"),
        (with_sibling("/x"), "hf://o/r@main", (), "ArchiveRefused", "absolute"),
        (with_sibling("CONFIG.json"), "hf://o/r@main", (), "ArchiveRefused", "one place"),
        (lambda hub: hub.files.update({LFS: CONTENT[:-1]}), "hf://o/r/onnx/model.onnx@main", (), "DigestMismatch", "promises"),
        (answering(b"<html>"), "hf://o/r@main", (), "DownloadFailed", "not JSON"),
        (answering(b"[" * 100_000), "hf://o/r@main", (), "DownloadFailed", "not JSON"),
        (answering(b'{"sha": 1}'), "hf://o/r@main", (), "DownloadFailed", "as a Hugging Face"),
        (answering(b"[1]"), "hf://o/r@main", (), "DownloadFailed", "as a Hugging Face"),
    ],
)  # fmt: skip
def test_hub_failures(
    fetch: Callable[..., Outcome], hub: Hub, tmp_path: Path, change: Callable[[Hub], None], uri: str, flags: tuple[object, ...],
    reason: str, message: str,
) -> None:  # fmt: skip
    change(hub)
    outcome = fetch(uri, "--endpoint", hub.web.url, *flags)
    assert (outcome.code, outcome.reason) == (1, reason), outcome.termination
    assert message in outcome.termination
    assert nothing_fetched(tmp_path)


def test_hub_at_a_private_address(fetch: Callable[..., Outcome], hub: Hub) -> None:
    assert fetch("hf://o/r@main", "--endpoint", hub.web.url, "--allow-networks", "").reason == "AddressRefused"


# --- a registry with tokens -------------------------------------------------------------------------------------------

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "layers": [
            {
                "mediaType": "application/octet-stream", "size": len(CONTENT), "digest": f"sha256:{SHA256}",
                "annotations": {"org.opencontainers.image.title": "m.onnx"},
            }
        ],
    }
).encode()  # fmt: skip


class TokenRegistry:
    """A registry that sends everyone for a token, and a token server that wants user and password."""

    def __init__(self, web: Web, tokens: Web) -> None:
        self.web = web
        self.tokens = tokens
        self.realm = f"{tokens.url}/token"
        self.given = 0
        self.digest = ""
        web.script = [self.answer]
        tokens.script = [self.token]

    def answer(self, handler: Handler) -> None:
        if handler.headers["Authorization"] != f"Bearer token{self.given}" or not self.given:
            challenge = f'Bearer realm="{self.realm}",service="registry",scope="repository:a/b:pull"'
            answer(401, b"", WWW_Authenticate=challenge)(handler)
        elif handler.path.startswith("/v2/a/b/manifests/"):
            answer(200, MANIFEST, Docker_Content_Digest=self.digest)(handler)
        else:
            answer(200, CONTENT)(handler)

    def token(self, handler: Handler) -> None:
        expected = "Basic " + base64.b64encode(b"user:hunter2").decode()
        if (
            handler.headers["Authorization"] != expected
            or handler.path != "/token?service=registry&scope=repository%3Aa%2Fb%3Apull"
        ):
            answer(401, b"")(handler)
            return
        self.given += 1
        answer(200, json.dumps({"token": f"token{self.given}", "expires_in": 60}).encode())(handler)


@pytest.fixture
def registry(web: Web) -> Iterator[TokenRegistry]:
    tokens = Web()
    yield TokenRegistry(web, tokens)
    tokens.close()


def docker_config(folder: Path, **account: str) -> Path:
    folder.mkdir()
    (folder / ".dockerconfigjson").write_text(
        json.dumps({"auths": {"other": {"auth": "eDp5"}, "https://registry.example/v1/": account}})
    )
    return folder


def test_registry_token(fetch: Callable[..., Outcome], registry: TokenRegistry, tmp_path: Path) -> None:
    secret = docker_config(tmp_path / "secret", auth=base64.b64encode(b"user:hunter2").decode())
    flags = ("--endpoint", registry.web.url, "--credentials-dir", secret)
    outcome = fetch("oci://registry.example/a/b:v1", *flags)
    assert outcome.code == 0, outcome.output
    assert fetched(tmp_path) == CONTENT
    assert registry.given == 1
    assert "hunter2" not in outcome.output


def test_a_manifest_of_another_digest(fetch: Callable[..., Outcome], registry: TokenRegistry, tmp_path: Path) -> None:
    secret = docker_config(tmp_path / "secret", username="user", password="hunter2")  # noqa: S106
    flags = ("--endpoint", registry.web.url, "--credentials-dir", secret)
    outcome = fetch(f"oci://registry.example/a/b@sha256:{'0' * 64}", *flags)
    assert (outcome.reason, f"not sha256:{'0' * 64}" in outcome.termination) == ("DigestMismatch", True)
    registry.digest = f"sha256:{'1' * 64}"
    assert fetch("oci://registry.example/a/b:v1", *flags).reason == "DigestMismatch"
    assert nothing_fetched(tmp_path)


def test_a_token_that_ran_out_is_renewed(fetch: Callable[..., Outcome], registry: TokenRegistry, tmp_path: Path) -> None:
    secret = docker_config(tmp_path / "secret", username="user", password="hunter2")  # noqa: S106

    def then_void(handler: Handler) -> None:
        registry.answer(handler)
        registry.given += 1  # the token given so far is void from now on

    registry.web.script = [registry.answer, then_void, registry.answer]
    outcome = fetch("oci://registry.example/a/b:v1", "--endpoint", registry.web.url, "--credentials-dir", secret)
    assert outcome.code == 0, outcome.output
    assert registry.given == 3
    assert fetched(tmp_path) == CONTENT


def test_registry_token_refused(fetch: Callable[..., Outcome], registry: TokenRegistry, tmp_path: Path) -> None:
    flags = ("--endpoint", registry.web.url)
    assert fetch("oci://registry.example/a/b:v1", *flags).reason == "ModelUnreadable"  # no credentials
    secret = docker_config(tmp_path / "secret", auth=base64.b64encode(b"user:hunter3").decode())
    outcome = fetch("oci://registry.example/a/b:v1", *flags, "--credentials-dir", secret)
    assert outcome.reason == "ModelUnreadable"
    assert "refused the given credentials" in outcome.termination
    (secret / ".dockerconfigjson").write_text('{"auths": {"registry.example": {"auth": "hunter3"}}}')
    outcome = fetch("oci://registry.example/a/b:v1", *flags, "--credentials-dir", secret)
    assert (outcome.reason, "hunter3" in outcome.output) == ("ModelUnreadable", False)


@pytest.mark.parametrize(
    ("realm", "reason", "message"),
    [
        ("http://169.254.169.254/token", "AddressRefused", "169.254.169.254"),
        ("http://2130706433/token", "DownloadFailed", "malformed"),
        ("file:///etc/passwd", "DownloadFailed", "not https"),
        ("", "DownloadFailed", "not https"),
    ],
)
def test_where_a_registry_sends_for_a_token(
    fetch: Callable[..., Outcome], registry: TokenRegistry, realm: str, reason: str, message: str
) -> None:
    registry.realm = realm
    outcome = fetch("oci://registry.example/a/b:v1", "--endpoint", registry.web.url)
    assert (outcome.reason, message in outcome.termination) == (reason, True), outcome.termination
