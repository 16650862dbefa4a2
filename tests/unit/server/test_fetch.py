"""`fetch` as the init container runs it, from files and mounted volumes; and URIs that it refuses."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.server.support import CONTENT, SHA256, Outcome, environment, fetched, nothing_fetched


def configmap_volume(folder: Path, **keys: bytes) -> None:
    """As the kubelet lays one out: each key a link through ..data to a folder with a time stamp."""
    version = folder / "..2026_01_01_00_00_00.1"
    version.mkdir(parents=True)
    (folder / "..data").symlink_to(version.name)
    for key, value in keys.items():
        (version / key).write_bytes(value)
        (folder / key).symlink_to(f"..data/{key}")


def test_file(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "a.ONNX").write_bytes(CONTENT)
    outcome = fetch(f"file://{tmp_path}/a.ONNX", "--sha256", SHA256.upper())
    assert outcome.code == 0
    assert re.fullmatch(rf"Fetched: {len(CONTENT)} bytes in \d+\.\d s, sha256 {SHA256}", outcome.termination)
    assert fetched(tmp_path) == CONTENT
    receipt = json.loads((tmp_path / "models/fetched.json").read_text())
    assert receipt == {
        "uri": f"file://{tmp_path}/a.ONNX", "sha256": SHA256, "size": len(CONTENT), "file": "model.onnx", "revision": "",
        "tree": "",
    }  # fmt: skip


def test_configmap(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    configmap_volume(tmp_path / "source", **{"v1.onnx": CONTENT})
    assert fetch("configmap://digits/v1.onnx").code == 0
    assert fetched(tmp_path) == CONTENT


def test_claim(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "source/a/b").mkdir(parents=True)
    (tmp_path / "source/a/b/m.ort").write_bytes(CONTENT)
    (tmp_path / "source/a/link").symlink_to("b/m.ort")
    assert fetch("pvc://models/a/b/m.ort", "--max-bytes", len(CONTENT)).code == 0
    assert fetched(tmp_path, "model.ort") == CONTENT
    assert fetch("pvc://models/a/link").code == 0  # another file, another extension: the old one goes
    assert fetched(tmp_path) == CONTENT


def test_a_second_run_changes_nothing(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "source/m.onnx").write_bytes(CONTENT)
    assert fetch("pvc://models/m.onnx", "--sha256", SHA256).code == 0
    (tmp_path / "source/m.onnx").unlink()
    again = fetch("pvc://models/m.onnx", "--sha256", SHA256)
    assert again.code == 0
    assert "already there" in again.output
    (tmp_path / "models/model.onnx").write_bytes(b"changed")
    assert fetch("pvc://models/m.onnx", "--sha256", SHA256).reason == "ModelNotFound"


def test_logs_as_json(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "source/m.onnx").write_bytes(CONTENT)
    lines = fetch("pvc://models/m.onnx", SLIPWAY_LOG_FORMAT="json").output.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["fetching", "fetched"]
    assert json.loads(lines[-1])["sha256"] == SHA256


@pytest.mark.parametrize(
    ("uri", "flags", "reason", "message"),
    [
        ("pvc://models/none.onnx", (), "ModelNotFound", "claim models has no none.onnx"),
        ("pvc://models/file/x", (), "ModelNotFound", "has no file/x"),
        ("pvc://models/folder", (), "ModelNotFound", "is a folder: name the model file in it"),
        ("pvc://models/empty", (), "ModelNotFound", "0 bytes"),
        ("pvc://models/pipe", (), "ModelUnreadable", "not a regular file"),
        ("pvc://models/out", (), "InvalidURI", "leads out of its volume"),
        ("pvc://models/outer/secret", (), "InvalidURI", "leads out of its volume"),
        ("pvc://models/sly/secret", (), "InvalidURI", "leads out of its volume"),
        ("pvc://models/circle", (), "ModelUnreadable|ModelNotFound|InvalidURI", "circle"),
        ("pvc://models/../secret", (), "InvalidURI", "'..' part"),
        ("pvc://models/folder/../../secret", (), "InvalidURI", "'..' part"),
        ("pvc://models//etc/passwd", (), "InvalidURI", "empty"),
        ("configmap://digits/..data", (), "ModelNotFound|InvalidURI", "."),
        ("configmap://digits/nokey", (), "ModelNotFound", "has no key nokey; its keys: big, circle, empty, file"),
        ("file:///none/x.onnx", (), "ModelNotFound", "is not in the image"),
        ("file:///proc/self/environ", (), "InvalidURI", "not a file of the image"),
        ("file:///etc/../proc/self/environ", (), "InvalidURI", "'..' part"),
        ("pvc://models/file", ("--sha256", "0" * 64), "DigestMismatch", f"{hashlib.sha256(b'x').hexdigest()}.*{'0' * 64}"),
        ("pvc://models/big", ("--max-bytes", "1000"), "ModelTooLarge", "1048576 bytes, the limit is 1000"),
        ("pvc://models/file", ("--format", "Pickle"), "UnsupportedModel", "format Pickle is not served"),
        ("pvc://models/file", ("--sha256", "abc"), "InvalidArguments", "64 hexadecimal"),
        ("pvc://models/file", ("--max-bytes", "0"), "InvalidArguments", "--max-bytes"),
        ("pvc://models/file", ("--unknown",), "InvalidArguments", "--unknown"),
        ("pvc://models/file", ("--dest", "/proc/none"), "StorageFailed", "/proc/none cannot be written"),
    ],
)
def test_failures(
    fetch: Callable[..., Outcome], tmp_path: Path, uri: str, flags: tuple[str, ...], reason: str, message: str
) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir()
    (source / "file").write_bytes(b"x")
    (source / "big").write_bytes(CONTENT)
    (source / "empty").touch()
    os.mkfifo(source / "pipe")
    (tmp_path / "secret").write_bytes(b"secret")
    (source / "out").symlink_to("../secret")
    (source / "outer").symlink_to(tmp_path)
    (source / "sly").symlink_to("folder/../..")
    (source / "circle").symlink_to("circle")
    outcome = fetch(uri, *flags)
    assert outcome.code == 1
    assert re.fullmatch(reason, outcome.reason), outcome.termination
    assert re.search(message, outcome.termination), outcome.termination
    assert nothing_fetched(tmp_path)


def packed(suffix: str, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(buffer, "w") as made:
            for name, content in files.items():
                made.writestr(f"top/{name}", content)
    else:
        with tarfile.open(fileobj=buffer, mode="w" if suffix == ".tar" else "w:gz") as made:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"top/{name}")
                entry.size = len(content)
                made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".zip"])
def test_archive(fetch: Callable[..., Outcome], tmp_path: Path, suffix: str) -> None:
    data = packed(suffix, **{"a.onnx": CONTENT, "labels.txt": b"one"})
    (tmp_path / f"source/m{suffix}").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    for words in ("fetched", "already there"):
        outcome = fetch(f"pvc://models/m{suffix}", "--sha256", sha256)
        assert outcome.code == 0, outcome.termination
        assert words in outcome.output
    top = tmp_path / "models/model/top"
    assert {each.name: each.read_bytes() for each in top.iterdir()} == {"a.onnx": CONTENT, "labels.txt": b"one"}
    assert fetch(f"pvc://models/m{suffix}", "--sha256", "0" * 64).reason == "DigestMismatch"
    (top / "labels.txt").write_bytes(b"two")
    assert "already there" not in fetch(f"pvc://models/m{suffix}", "--sha256", sha256).output
    assert (top / "labels.txt").read_bytes() == b"one"
    (tmp_path / "source/m.onnx").write_bytes(CONTENT)
    assert fetch("pvc://models/m.onnx").code == 0  # no archive any more: the folder goes
    assert fetched(tmp_path) == CONTENT


def test_folder(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "source/team/m/weights").mkdir(parents=True)
    (tmp_path / "source/team/m/model.py").write_bytes(b"class Model: ...")
    (tmp_path / "source/team/m/weights/w.bin").write_bytes(CONTENT)
    outcome = fetch("pvc://models/team/m/", "--format", "Python")
    assert outcome.code == 0, outcome.termination
    assert (tmp_path / "models/model/weights/w.bin").read_bytes() == CONTENT
    assert (tmp_path / "models/model/model.py").stat().st_mode & 0o777 == 0o644
    (tmp_path / "source/team/m/link").symlink_to("model.py")
    outcome = fetch("pvc://models/team/m/", "--format", "Python")
    assert (outcome.reason, "'link', which is no regular file" in outcome.termination) == ("ArchiveRefused", True)
    assert fetch("pvc://models/team/none/").reason == "ModelNotFound"


def test_a_file_for_an_image_of_the_users_own(fetch: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "source/m.GGUF").write_bytes(CONTENT)
    assert fetch("pvc://models/m.GGUF", "--format", "Custom").code == 0
    assert fetched(tmp_path, "model.gguf") == CONTENT


@pytest.mark.parametrize(
    ("name", "content", "flags", "reason", "message"),
    [
        ("m.tgz", packed(".tgz", **{"../../x": b"1"}), (), "ArchiveRefused", "'..'"),
        ("m.zip", b"no zip", (), "ArchiveRefused", "no zip"),
        ("m.tar.zst", b"x", (), "ArchiveRefused", "use one of .tar"),
        ("m.tgz", packed(".tgz", **{"a.onnx": CONTENT}), ("--max-bytes", 10_000), "ModelTooLarge", "unpacks to more than 10000"),
        ("m.tgz", packed(".tgz", readme=b"no model"), (), "ModelNotFound", ""),
        ("m.pkl", b"x", ("--format", "SKLearn"), "UntrustedModel", ""),
    ],
)
def test_failures_of_archives(
    fetch: Callable[..., Outcome], tmp_path: Path, name: str, content: bytes, flags: tuple[object, ...], reason: str, message: str
) -> None:
    (tmp_path / f"source/{name}").write_bytes(content)
    for _ in range(2):  # and again after a restart
        outcome = fetch(f"pvc://models/{name}", "--sha256", hashlib.sha256(content).hexdigest(), *flags)
        assert (outcome.code, outcome.reason) == (1, reason), outcome.termination
        assert message in outcome.termination
    assert reason in ("ModelNotFound", "UntrustedModel") or nothing_fetched(tmp_path)


def test_no_configmap(fetch: Callable[..., Outcome]) -> None:
    outcome = fetch("configmap://digits/v1.onnx")  # an optional volume of a ConfigMap that is not there is an empty folder
    assert outcome.termination == (
        "ModelNotFound: configmap://digits/v1.onnx: ConfigMap digits does not exist in this namespace or is empty: create it"
    )


AS_NOBODY = """
import gettext, locale, os, shutil, sys  # all that is imported late, from where nobody may read
from slipway_server import cli, fetch
from slipway_server.sources import local
if os.getuid() == 0:
    os.setuid(65532)
cli.main()
"""


def test_permissions(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a folder that only root may enter
        folder = Path(name)
        folder.chmod(0o755)
        for inner in ("source", "models", "closed"):
            (folder / inner).mkdir()
            (folder / inner).chmod(0o777)
        (folder / "source/m.onnx").write_bytes(CONTENT)
        (folder / "closed").chmod(0o555)

        def fetch_as_nobody(dest: str) -> str:
            command = [sys.executable, "-c", AS_NOBODY, "fetch", "--uri", "pvc://models/m.onnx"]
            flags = ["--source-dir", folder / "source", "--dest", folder / dest]
            return subprocess.run([*command, *flags], env=environment(), capture_output=True, text=True, check=False).stderr

        assert fetch_as_nobody("models") == ""
        assert "StorageFailed" in fetch_as_nobody("closed")
        assert "make it writable for user" in fetch_as_nobody("closed")
        (folder / "source/m.onnx").chmod(0)
        assert fetch_as_nobody("models").startswith("ModelUnreadable: user ")
