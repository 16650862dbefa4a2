"""An image's bill of materials (SBOM): what its own files say is in it, as CycloneDX 1.6."""

import hashlib
import json
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from slipway_dev.console import CommandError

DPKG_STATUS = "var/lib/dpkg/status"
_METADATA, _RECORD = ".dist-info/METADATA", ".dist-info/RECORD"
Component = dict[str, Any]


def sbom(archive: Path, reference: str) -> dict[str, Any]:
    """Answer the SBOM of the image in a docker archive: Debian's packages and Python's distributions.

    The same image has the same: it holds no time, and its serial number is made from what it lists.
    """
    files = _files(archive)
    if DPKG_STATUS not in files:
        raise CommandError(f"{reference} has no {DPKG_STATUS}: its base is no Debian")
    components = [*_debian(files[DPKG_STATUS].decode()), *_python(files)]
    listed = json.dumps([reference, components]).encode()
    name, _, tag = reference.rpartition("/")[2].partition(":")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(listed).digest()[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": reference, "name": name, "version": tag}},
        "components": components,
    }


def _files(archive: Path) -> dict[str, bytes]:
    """Answer the files of the image that say what is in it, by path: of each the topmost layer's."""
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as image:
        for layer in json.loads(_read(image, "manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=image.extractfile(layer)) as files:
                for member in files:
                    path = member.name.removeprefix("./")
                    if "/.wh." in path:
                        found.pop(path.replace("/.wh.", "/"), None)
                    elif member.isfile() and (path == DPKG_STATUS or path.endswith((_METADATA, _RECORD))):
                        found[path] = _read(files, member)
    return found


def _read(archive: tarfile.TarFile, member: str | tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(member)
    assert opened is not None  # noqa: S101 - it is a file
    return opened.read()


def _debian(status: str) -> Iterator[Component]:
    for entry in status.split("\n\n"):
        told = HeaderParser().parsestr(entry)
        if told.get("Status", "").endswith(" installed"):
            name, version = told["Package"], told["Version"]
            purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={told['Architecture']}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _python(files: dict[str, bytes]) -> Iterator[Component]:
    """Yield Python's distributions. RECORD holds the digest of each of their files, so its own digest stands for all of them."""
    for path in sorted(path for path in files if path.endswith(_METADATA)):
        told = HeaderParser().parsestr(files[path].decode())
        name, version = told["Name"], told["Version"]
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}"
        component: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        licence = told.get("License-Expression")
        record = files.get(path.replace(_METADATA, _RECORD))
        yield {
            **component,
            **({"licenses": [{"expression": licence}]} if licence else {}),
            "properties": list(_properties(path, record)),
        }


def _properties(path: str, record: bytes | None) -> Iterable[dict[str, str]]:
    yield {"name": "slipway:path", "value": f"/{path.removesuffix('/METADATA')}"}
    if record is not None:
        yield {"name": "slipway:record:sha256", "value": hashlib.sha256(record).hexdigest()}
