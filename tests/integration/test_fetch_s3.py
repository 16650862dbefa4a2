"""`fetch` from a real S3 store."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.stores import ACCESS, SECRET, ObjectStore, Proxy, object_store
from tests.unit.server.support import CONTENT, SHA256, Outcome, environment, fetched, nothing_fetched, run, wait_until

LARGE = b"".join(bytes([number]) * (1 << 20) for number in range(70))
LARGE_SHA256 = hashlib.sha256(LARGE).hexdigest()
TREE = {"model.py": b"class Model: ...", "weights/a.bin": bytes(1000), "weights/empty": b""}
TREE_SHA256 = hashlib.sha256(
    "".join(f"{hashlib.sha256(TREE[path]).hexdigest()}  {path}\n" for path in sorted(TREE)).encode()
).hexdigest()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3")) as running:
        running.put("m.onnx", CONTENT)
        running.put("a b/ü#1.onnx", CONTENT)
        running.put("large.onnx", LARGE)
        for path, content in TREE.items():
            running.put(f"tree/{path}", content)
        running.put("tree-b/other", b"x")
        yield running


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[Proxy]:
    running = Proxy(store.port)
    yield running
    running.close()


def secret(folder: Path, access: str = ACCESS, key: str = SECRET) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "AWS_ACCESS_KEY_ID").write_text(access)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(key + "\n")
    return folder


def arguments(tmp_path: Path, uri: str, endpoint: str) -> list[object]:
    flags = ["fetch", "--uri", uri, "--dest", tmp_path / "models", "--endpoint", endpoint, "--path-style"]
    return [*flags, "--credentials-dir", tmp_path / "secret", "--allow-networks", "127.0.0.0/8,::1/128"]


@pytest.fixture
def fetch(store: ObjectStore, tmp_path: Path) -> Callable[..., Outcome]:
    def fetch(uri: str, *flags: object, endpoint: str = store.url, **env: str) -> Outcome:
        return run(tmp_path, *arguments(tmp_path, uri, endpoint), *flags, **env)

    secret(tmp_path / "secret")
    return fetch


def test_object(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    for uri in ("s3://models/m.onnx", "s3://models/a%20b/%C3%BC%231.onnx"):
        outcome = fetch(uri, "--sha256", SHA256, "--region", "us-east-1")
        assert outcome.code == 0, outcome.termination
        assert re.fullmatch(rf"Fetched: 1048576 bytes (in \d+\.\d s|were here already), sha256 {SHA256}", outcome.termination)
        assert fetched(tmp_path) == CONTENT
        assert SECRET not in outcome.output


def test_folder(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = fetch("s3://models/tree/", "--sha256", TREE_SHA256, "--format", "Python")
    assert outcome.code == 0, outcome.termination
    model = tmp_path / "models/model"
    assert {each.relative_to(model).as_posix(): each.read_bytes() for each in model.rglob("*") if each.is_file()} == TREE
    receipt = json.loads((tmp_path / "models/fetched.json").read_text())
    assert (receipt["sha256"], receipt["file"], receipt["size"]) == (TREE_SHA256, "model", sum(map(len, TREE.values())))


def test_environment(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    env = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    assert fetch("s3://models/m.onnx", "--credentials-dir", tmp_path / "none", **env).code == 0


@pytest.mark.parametrize(
    ("uri", "account", "flags", "reason", "message"),
    [
        ("s3://models/none.onnx", None, (), "ModelNotFound", "no such object"),
        ("s3://models/tree", None, (), "ModelNotFound", "no such object"),
        ("s3://models/none/", None, (), "ModelNotFound", "holds no files"),
        ("s3://nobucket/m.onnx", None, (), "ModelNotFound", "there is no nobucket"),
        ("s3://nobucket/folder/", None, (), "ModelNotFound", "there is no nobucket"),
        (
            "s3://models/m.onnx",
            (ACCESS, "wrong"),
            (),
            "ModelUnreadable",
            "refused the credentials: check them (SignatureDoesNotMatch)",
        ),
        ("s3://models/m.onnx", ("wrong", SECRET), (), "ModelUnreadable", "refused the credentials"),
        ("s3://models/tree/", (ACCESS, "wrong"), (), "ModelUnreadable", "refused the credentials"),
        (
            "s3://models/m.onnx",
            ("", ""),
            (),
            "ModelUnreadable",
            "wants credentials: give a Secret, or make it public (AccessDenied)",
        ),
        ("s3://models/m.onnx", None, ("--sha256", "0" * 64), "DigestMismatch", SHA256),
        ("s3://models/tree/", None, ("--sha256", "0" * 64), "DigestMismatch", TREE_SHA256),
        ("s3://models/large.onnx", None, ("--max-bytes", 1000), "ModelTooLarge", f"{len(LARGE)} bytes, the limit is 1000"),
        ("s3://models/tree/", None, ("--max-bytes", 1000), "ModelTooLarge", "1016 bytes"),
        ("s3://models/m.onnx", None, ("--allow-networks", ""), "AddressRefused", "127.0.0.1"),
        ("s3://models/m.onnx", None, ("--endpoint", "http://127.0.0.1:9"), "DownloadFailed", "after 5 attempts"),
    ],
)
def test_failures(
    fetch: Callable[..., Outcome], tmp_path: Path, uri: str, account: tuple[str, str] | None, flags: tuple[object, ...],
    reason: str, message: str,
) -> None:  # fmt: skip
    if account:
        secret(tmp_path / "secret", *account)
    outcome = fetch(uri, *flags)
    assert (outcome.code, outcome.reason) == (1, reason), outcome.termination
    assert message in outcome.termination
    assert SECRET not in outcome.output
    assert nothing_fetched(tmp_path)


def test_a_large_object_comes_in_ranges_that_may_be_cut(fetch: Callable[..., Outcome], proxy: Proxy, tmp_path: Path) -> None:
    proxy.cuts = [3 << 20] * 5
    outcome = fetch("s3://models/large.onnx", "--sha256", LARGE_SHA256, endpoint=proxy.url)
    assert outcome.code == 0, outcome.termination
    assert not proxy.cuts
    assert outcome.output.count("download interrupted") >= 4
    assert fetched(tmp_path) == LARGE


def test_a_store_that_always_cuts(fetch: Callable[..., Outcome], proxy: Proxy) -> None:
    proxy.cuts = [0] * 100
    outcome = fetch("s3://models/m.onnx", endpoint=proxy.url)
    assert outcome.reason == "DownloadFailed"
    assert "after 5 attempts" in outcome.termination


def test_a_killed_fetch_is_taken_up(fetch: Callable[..., Outcome], proxy: Proxy, tmp_path: Path) -> None:
    proxy.stall_after = 45 << 20  # more than what can be on its way
    flags = [str(each) for each in arguments(tmp_path, "s3://models/large.onnx", proxy.url)]
    process = subprocess.Popen([sys.executable, "-m", "slipway_server", *flags], env=environment(), stdout=subprocess.DEVNULL)
    part = tmp_path / "models/.fetch/part0"
    assert proxy.stalled.wait(20)
    wait_until(lambda: part.exists() and part.stat().st_size >= 8 << 20, "a range is on disk")
    process.send_signal(signal.SIGKILL)
    process.wait()
    proxy.stall_after = None
    kept = part.stat().st_size
    outcome = fetch("s3://models/large.onnx", endpoint=proxy.url)
    assert outcome.code == 0, outcome.termination
    assert f"going on file=large.onnx received={kept}" in outcome.output
    assert fetched(tmp_path) == LARGE


def test_an_object_that_changes_is_begun_anew(store: ObjectStore, proxy: Proxy, tmp_path: Path) -> None:
    store.put("changing.onnx", LARGE)
    proxy.stall_after = 45 << 20
    secret(tmp_path / "secret")

    def change() -> None:
        assert proxy.stalled.wait(20)
        store.put("changing.onnx", LARGE[::-1])
        proxy.stall_after = None
        proxy.over.set()

    changer = threading.Thread(target=change)
    changer.start()
    outcome = run(tmp_path, *arguments(tmp_path, "s3://models/changing.onnx", proxy.url))
    changer.join()
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == LARGE[::-1]


def test_an_object_that_changed_is_begun_anew(
    fetch: Callable[..., Outcome], store: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    store.put("changing.onnx", LARGE)
    proxy.stall_after = 45 << 20  # more than what can be on its way
    flags = [str(each) for each in arguments(tmp_path, "s3://models/changing.onnx", proxy.url)]
    process = subprocess.Popen([sys.executable, "-m", "slipway_server", *flags], env=environment(), stdout=subprocess.DEVNULL)
    try:
        part = tmp_path / "models/.fetch/part0"
        assert proxy.stalled.wait(20)
        wait_until(lambda: part.exists() and part.stat().st_size >= 8 << 20, "a range is on disk")
    finally:
        process.kill()
        process.wait()
    store.put("changing.onnx", LARGE[::-1])
    outcome = fetch("s3://models/changing.onnx")
    assert outcome.code == 0, outcome.termination
    assert fetched(tmp_path) == LARGE[::-1]
