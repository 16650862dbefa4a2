"""Bills of materials: what an image's own files say is in it, topmost layer first, and the same each time."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from slipway_dev.console import CommandError
from slipway_dev.sbom import sbom

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

"""


def tar(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def image(folder: Path, *layers: dict[str, str]) -> Path:
    """Write a docker archive of these layers."""
    path = folder / "image.tar"
    files = {f"{number}.tar": tar(layer) for number, layer in enumerate(layers)}
    with tarfile.open(path, "w") as archive:
        for name, data in {**files, "manifest.json": json.dumps([{"Layers": list(files)}]).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def wheel(name: str, version: str, record: str = "") -> dict[str, str]:
    folder = f"packages/{name}-{version}.dist-info"
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n\nText: no\n",
        f"{folder}/RECORD": record,
    }


def test_it_lists_what_the_topmost_layers_hold(tmp_path: Path) -> None:
    base = {"./var/lib/dpkg/status": DPKG, **wheel("old", "1.0"), "etc/passwd": "root"}
    archive = image(tmp_path, base, {**wheel("Some_Thing", "2.0+cpu"), "packages/old-1.0.dist-info/.wh.METADATA": ""})
    told = sbom(archive, "slipway.local/operator:abc")
    assert [(each["purl"], each["version"]) for each in told["components"]] == [
        ("pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64", "2.36-9+deb12u10"),
        ("pkg:pypi/some-thing@2.0%2Bcpu", "2.0+cpu"),
    ]
    assert told["components"][1]["licenses"] == [{"expression": "MIT"}]
    assert told["metadata"]["component"]["name"] == "operator"
    assert told == sbom(archive, "slipway.local/operator:abc")


def test_another_content_shows(tmp_path: Path) -> None:
    status = {"var/lib/dpkg/status": DPKG}
    first, second = (
        sbom(image(tmp_path, {**status, **wheel("a", "1", record)}), "a:1")
        for record in ("a.py,sha256=x,1\n", "a.py,sha256=y,1\n")
    )
    assert first["components"][1]["properties"] != second["components"][1]["properties"]
    assert first["serialNumber"] != second["serialNumber"]


def test_an_image_of_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no Debian"):
        sbom(image(tmp_path, wheel("a", "1")), "a:1")
