"""`fetch` as the init container runs it, from files and mounted volumes; and URIs that it refuses."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.server.support import CONTENT, SHA256, Outcome, environment, fetched, nothing_fetched

from slipway_server.sources.uri import parse
from slipway_server.termination import TerminalError


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
    assert (outcome.code, outcome.termination) == (0, "")
    assert fetched(tmp_path) == CONTENT
    receipt = json.loads((tmp_path / "models/fetched.json").read_text())
    assert receipt == {"uri": f"file://{tmp_path}/a.ONNX", "sha256": SHA256, "size": len(CONTENT), "file": "model.onnx"}


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


@pytest.mark.parametrize(
    "uri",
    [
        "", " ", "model.onnx", "/mnt/model.onnx", "file:/x", "file://x", "file:///", "file://host/x", "file:////x",
        "file:///a/./b", "file:///a//b", "file:///a/", "file:///a\nb", "file:///a b", "file:///\u00e9",
        "pvc://", "pvc://claim", "pvc://claim/", "pvc:///x", "pvc://user@claim/x", "pvc://claim:80/x", "pvc://claim/x?y",
        "pvc://claim/x#y", "pvc://claim/..", "pvc://claim/a/../b", "configmap://", "configmap://name", "configmap:///key",
        "configmap://name/a/b", "configmap://name/%2e%2e", "configmap://name/a\tb",
        "http://", "http:///x", "https://user@/x", "http://host:port/x", "http://host:99999/x", "http://[::1/x",
        "ftp://host/x", "s4://bucket/key", "javascript://x", "data:,x", "file:///" + "a" * 2100,
    ],
)  # fmt: skip
def test_bad_uris(uri: str) -> None:
    with pytest.raises(TerminalError, match=r".+: .+") as caught:
        parse(uri)
    assert caught.value.reason == "InvalidURI"
    assert len(caught.value.line()) < 400


def test_labels_hide_credentials() -> None:
    uri = parse("https://user:hunter2@host:8443/a/m.onnx?X-Signature=hunter3")
    assert uri.label == "https://host:8443/a/m.onnx"
    assert (uri.suffix, uri.path) == (".onnx", "/a/m.onnx?X-Signature=hunter3")
