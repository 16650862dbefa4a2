"""hack/: keys by content, entries that appear whole, digests, versions and settings read from text."""

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway_dev import go, images, python, scratch, tools
from slipway_dev.cache import content_key, entry, lock, prune
from slipway_dev.catalog import TOOLS, fill, tools_named, version_in
from slipway_dev.console import CommandError
from slipway_dev.download import checksum_for
from slipway_dev.images import PRODUCTS, custom
from slipway_dev.paths import NPM_PACKAGES
from slipway_dev.store import find


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slipway"


def test_a_key_follows_content_names_and_modes(tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    file = folder / "a.py"
    file.write_text("1")
    keys = [content_key([folder])]
    file.write_text("2")
    keys.append(content_key([folder]))
    file.chmod(0o755)
    keys.append(content_key([folder]))
    file.rename(folder / "b.py")
    keys.append(content_key([folder]))
    assert len(set(keys)) == len(keys)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "b.cpython-311.pyc").write_text("x")
    assert content_key([folder]) == keys[-1]


def test_parts_of_a_key_do_not_run_together() -> None:
    assert content_key(["ab", "c"]) != content_key(["a", "bc"])


def test_an_entry_is_built_once(cache_folder: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("whole")

    for _ in range(2):
        assert (entry("kind", "key", build) / "file").read_text() == "whole"
    assert len(built) == 1
    assert sorted(path.name for path in (cache_folder / "kind").iterdir()) == ["key"]


def test_an_entry_that_fails_leaves_nothing(cache_folder: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("")
        raise CommandError("no")

    with pytest.raises(CommandError):
        entry("kind", "key", build)
    assert list((cache_folder / "kind").iterdir()) == []


def image_used(cache_folder: Path, key: str, uses_ago: int) -> Path:
    """Make an image's entry that was used last so many steps before what was used lately."""
    folder = cache_folder / "images" / key
    folder.mkdir(parents=True)
    (folder / "image.tar").write_text(key)
    used = time.time() - images.RECENT_SECONDS - 60 * (1 + uses_ago)
    os.utime(folder, (used, used))
    return folder


def left(cache_folder: Path) -> set[str]:
    return {folder.name for folder in (cache_folder / "images").iterdir()}


def test_of_each_name_the_entries_used_last_are_kept(cache_folder: Path) -> None:
    for name in ("operator", "server-gpu"):
        for number in range(4):
            image_used(cache_folder, f"{name}-{number}", number)
    image_used(cache_folder, "server-9", 9)
    find("slipway.local/operator:3")
    entry("images", "server-gpu-2", lambda folder: pytest.fail(f"{folder} is built again"))
    assert prune("images", 2, images.RECENT_SECONDS) == ["operator-1", "operator-2", "server-gpu-1", "server-gpu-3"]
    assert left(cache_folder) == {"operator-0", "operator-3", "server-gpu-0", "server-gpu-2", "server-9"}


def test_an_entry_in_use_is_not_removed(cache_folder: Path) -> None:
    image_used(cache_folder, "operator-held", 1)
    image_used(cache_folder, "operator-old", 2)
    os.utime(image_used(cache_folder, "operator-late", 0))
    with lock(cache_folder / "locks" / "images-operator-held"):
        assert prune("images", 0, images.RECENT_SECONDS) == ["operator-old"]
    assert left(cache_folder) == {"operator-held", "operator-late"}


def test_what_a_killed_process_left_unfinished_is_removed(cache_folder: Path) -> None:
    def build(folder: Path) -> None:
        (cache_folder / "images" / ".new-server-killed-x1y2z3_4").mkdir()
        assert prune("images", 4, images.RECENT_SECONDS) == []
        assert left(cache_folder) == {folder.name}, "what is being built stays, what nobody builds goes"

    entry("images", "server-1", build)
    assert left(cache_folder) == {"server-1"}


def test_the_engine_loses_the_images_without_an_archive(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = images.KEPT
    for number in range(kept + 1):
        image_used(cache_folder, f"operator-{number}", number)
    (cache_folder / "base" / "b1").mkdir(parents=True)
    asked: dict[str, bool] = {}

    class Engine:
        def prune(self, registry: str, wanted: Callable[[str], bool]) -> int:
            for each in (f"operator:{kept}", "operator:0", "operator:building", "base:b1", "base:b0"):
                asked[each] = wanted(f"{registry}/{each}")
            return 2

    monkeypatch.setattr(images, "engine", Engine)
    with lock(cache_folder / "locks" / "images-operator-building"):
        images.prune_old()
    assert asked == {f"operator:{kept}": False, "operator:0": True, "operator:building": True, "base:b1": True, "base:b0": False}
    assert "1 from the cache, 2 from the engine's store" in capsys.readouterr().err
    images.prune_old()
    assert not capsys.readouterr().err, "there is nothing old any more"


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_each_tool_is_pinned(tool: object) -> None:
    found = TOOLS[tool.name]  # type: ignore[attr-defined]
    assert (found.pins / ("package-lock.json" if found.npm else "go.mod")).exists()
    assert "{" not in fill(f"{found.release} {found.linker_values}" if found.version_of else "", found, "amd64")
    assert tools.tool_path(found) == tools.tool_path(found)


def test_npm_packages_are_pinned_by_digest_and_by_no_host() -> None:
    for file in NPM_PACKAGES.glob("*/package-lock.json"):
        packages = json.loads(file.read_text())["packages"]
        assert len(packages) > 1
        for name, package in packages.items():
            assert not name or "integrity" in package, name
            assert "resolved" not in package, f"{name}: pin anew as npm.build says"


def test_an_unknown_tool_is_named_with_the_known() -> None:
    with pytest.raises(CommandError, match=r"no tool named nope; there are: azurite, .*kubectl"):
        tools_named(["nope"])


@pytest.mark.parametrize(
    ("checksums", "expected"),
    [
        ("ABC\n", "abc"),
        ("1 other.tgz\n2  kind-linux-amd64\n", "2"),
        ("3 *kind-linux-amd64\n", "3"),
        ("4  ./release/kind-linux-amd64", "4"),
    ],
)
def test_published_checksums_are_read(checksums: str, expected: str) -> None:
    assert checksum_for("kind-linux-amd64", checksums) == expected


def test_a_checksum_that_is_not_published_is_an_error() -> None:
    with pytest.raises(CommandError, match="do not name"):
        checksum_for("kind-linux-amd64", "1 other\n2 another\n")


def test_versions_are_read() -> None:
    assert version_in("require (\n\tk8s.io/kubernetes v1.35.4 // indirect\n)", "k8s.io/kubernetes") == "v1.35.4"
    assert version_in("require sigs.k8s.io/kind v0.33.0", "sigs.k8s.io/kind") == "v0.33.0"
    assert go.parse_version("go1.26.8 linux/amd64") == (1, 26)
    assert go.parse_version("2:1.19~1") == (1, 19)
    assert go.parse_version("nothing") == (0, 0)


def test_pip_settings_are_read_with_the_environment_last() -> None:
    text = ":env:.find-links='/wheels'\nglobal.find-links='/other'\nglobal.extra-index-url='\\nhttps://a\\nhttps://b'\n"
    assert python.pip_settings(text) == {"find-links": "/wheels", "extra-index-url": "https://a https://b"}


def test_an_image_of_one_binary_is_a_docker_archive_and_the_same_each_time(tmp_path: Path) -> None:
    binary = tmp_path / "tool-0123" / "tool"
    binary.parent.mkdir()
    binary.write_bytes(b"binary")
    image = scratch.image_of(binary)
    with tarfile.open(image.archive) as archive:
        names = archive.getnames()
        manifest = json.loads(archive.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        layer = archive.extractfile(manifest["Layers"][0]).read()  # type: ignore[union-attr]
        config = json.loads(archive.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]
    assert manifest["RepoTags"] == [image.reference]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"] == {"Entrypoint": ["/tool"], "User": "65532"}
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        assert archive.getnames() == ["tool"]
    assert len(names) == 3


def test_each_product_has_its_dockerfile_and_hashed_requirements() -> None:
    for product in PRODUCTS.values():
        assert "ARG BASE=" in product.dockerfile.read_text()
        assert product.requirements is not None
        assert "--hash=sha256:" in product.requirements.read_text()


def test_an_image_of_ones_own_names_what_is_absent(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Dockerfile does not exist"):
        custom("own", tmp_path, tmp_path / "Dockerfile", None)
    (tmp_path / "Dockerfile").touch()
    with pytest.raises(CommandError, match="no image named client; there are: operator, server"):
        custom("own", tmp_path, tmp_path / "Dockerfile", None, base="client")
