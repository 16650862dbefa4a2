"""Images that hold one static binary and nothing else: pause and coredns, for the local cluster itself."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from slipway_dev.cache import content_key, entry
from slipway_dev.paths import architecture
from slipway_dev.store import REGISTRY, Image, archive_folder

LAYOUT = "1"  # part of the key: change it with what this module writes
USER = "65532"


def image_of(binary: Path) -> Image:
    """Return an image whose only file and entry point is a tool's binary. The tool's own key is the content's."""
    name = binary.name
    tag = content_key([LAYOUT, binary.parent.name])
    folder = entry("images", archive_folder(name, tag), lambda folder: _write(folder / "image.tar", binary, tag))
    return Image(f"{REGISTRY}/{name}:{tag}", folder / "image.tar")


def _write(target: Path, binary: Path, tag: str) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        data = binary.read_bytes()
        archive.addfile(_member(binary.name, data, 0o755), io.BytesIO(data))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": [f"/{binary.name}"], "User": USER},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    reference = f"{REGISTRY}/{binary.name}:{tag}"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(target, "w") as archive:
        for name, data in (
            (config_name, config),
            (f"{digest}.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            archive.addfile(_member(name, data, 0o644), io.BytesIO(data))


def _member(name: str, data: bytes, mode: int) -> tarfile.TarInfo:
    """Describe a file without time or owner, so that equal content gives an equal digest."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    return member
