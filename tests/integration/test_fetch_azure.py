"""`fetch` from Azurite, Microsoft's own emulator of Azure Blob Storage."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.stores import ACCESS, ACCOUNT_KEY, BlobStore, account_signature, blob_store
from tests.unit.server.support import CONTENT, SHA256, Outcome, fetched, nothing_fetched, run

WRONG = base64.b64encode(b"the key of another").decode()
LARGE = b"".join(bytes([number]) * (1 << 20) for number in range(20))
TREE = {"model.py": b"class Model: ...", "weights/a.bin": bytes(1000), "weights/empty": b""}
REFUSED = "refused the credentials: check them (AuthorizationFailure)"
ANONYMOUS = "wants credentials: give a Secret, or make it public"
BY_KEY, BY_SIGNATURE = {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}, {"AZURE_STORAGE_SAS_TOKEN": f"?{account_signature()}"}
READS_ONLY = {"AZURE_STORAGE_SAS_TOKEN": account_signature(rights="r")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobStore]:
    with blob_store(tmp_path_factory.mktemp("azure")) as running:
        running.put("m.onnx", CONTENT)
        running.put("a b/ü#1.onnx", CONTENT)
        running.put("large.onnx", LARGE)
        for path, content in TREE.items():
            running.put(f"tree/{path}", content)
        running.put("tree-b/other", b"x")
        yield running


@pytest.fixture
def fetch(store: BlobStore, tmp_path: Path) -> Callable[..., Outcome]:
    def fetch(uri: str, keys: dict[str, str], *flags: object) -> Outcome:
        secret = tmp_path / "secret"
        secret.mkdir(exist_ok=True)
        for old in secret.iterdir():
            old.unlink()
        for name, value in {"AZURE_STORAGE_ACCOUNT_NAME": ACCESS, **keys}.items():
            (secret / name).write_text(f"{value}\n")
        given: list[object] = ["fetch", "--uri", uri, "--dest", tmp_path / "models", "--endpoint", store.url]
        return run(tmp_path, *given, "--credentials-dir", secret, "--allow-networks", "127.0.0.0/8", *flags)

    return fetch


@pytest.mark.parametrize("keys", [BY_KEY, BY_SIGNATURE], ids=["key", "signature"])
def test_object(fetch: Callable[..., Outcome], tmp_path: Path, keys: dict[str, str]) -> None:
    outcome = fetch("az://models/a%20b/%C3%BC%231.onnx", keys, "--sha256", SHA256)
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == CONTENT
    assert not [value for value in keys.values() if value in outcome.output]


def test_an_object_in_ranges(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = fetch("az://models/large.onnx", BY_KEY)
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == LARGE


@pytest.mark.parametrize("keys", [BY_KEY, BY_SIGNATURE], ids=["key", "signature"])
def test_folder(fetch: Callable[..., Outcome], tmp_path: Path, keys: dict[str, str]) -> None:
    outcome = fetch("az://models/tree/", keys, "--format", "Python")
    assert outcome.code == 0, outcome.termination
    model = tmp_path / "models/model"
    assert {each.relative_to(model).as_posix(): each.read_bytes() for each in model.rglob("*") if each.is_file()} == TREE
    assert json.loads((tmp_path / "models/fetched.json").read_text())["size"] == sum(map(len, TREE.values()))


@pytest.mark.parametrize(
    ("uri", "keys", "reason", "message"),
    [
        ("az://models/none.onnx", BY_KEY, "ModelNotFound", "no such object"),
        ("az://models/tree", BY_KEY, "ModelNotFound", "no such object"),
        ("az://models/none/", BY_KEY, "ModelNotFound", "holds no files"),
        ("az://nobucket/m.onnx", BY_KEY, "ModelNotFound", "there is no nobucket"),
        ("az://nobucket/folder/", BY_KEY, "ModelNotFound", "there is no nobucket"),
        ("az://models/m.onnx", {"AZURE_STORAGE_ACCOUNT_KEY": WRONG}, "ModelUnreadable", REFUSED),
        ("az://models/tree/", {"AZURE_STORAGE_ACCOUNT_KEY": WRONG}, "ModelUnreadable", REFUSED),
        ("az://models/m.onnx", {"AZURE_STORAGE_SAS_TOKEN": account_signature(WRONG)}, "ModelUnreadable", REFUSED),
        ("az://models/tree/", READS_ONLY, "ModelUnreadable", "credentials: check them (AuthorizationPermissionMismatch)"),
        ("az://models/m.onnx", {**BY_KEY, "AZURE_STORAGE_ACCOUNT_NAME": "another"}, "ModelUnreadable", "refused the credentials"),
        ("az://models/m.onnx", {}, "ModelUnreadable", ANONYMOUS),
        ("az://models/tree/", {}, "ModelUnreadable", ANONYMOUS),
    ],
)
def test_failures(
    fetch: Callable[..., Outcome], tmp_path: Path, uri: str, keys: dict[str, str], reason: str, message: str
) -> None:
    outcome = fetch(uri, keys)
    assert (outcome.code, outcome.reason) == (1, reason), outcome.termination
    assert message in outcome.termination
    assert not [each for each in (ACCOUNT_KEY, WRONG, "sig=") if each in outcome.output]
    assert nothing_fetched(tmp_path)
