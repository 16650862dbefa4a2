"""Images in containerd: made once into a template of its folder, which nodes share by hard links."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway_dev.cache import content_key, entry, lock, prune
from slipway_dev.console import CommandError, step, wait_for
from slipway_dev.paths import cache_folder
from slipway_dev.processes import run, spawn

REGISTRY = "slipway.local"
TEMPLATES_KEPT = 4
TEMPLATE_RECENT_SECONDS = 60.0  # a node is given its files within that time
MANAGED = "io.cri-containerd.image=managed"  # the label by which containerd's CRI plugin says that it knows an image


@dataclass(frozen=True)
class Image:
    """An image's reference and the archive that holds it. The tag is a hash of the content."""

    reference: str
    archive: Path

    @property
    def name(self) -> str:
        """The short name."""
        return self.reference.rpartition("/")[2].partition(":")[0]


def archive_folder(name: str, tag: str) -> str:
    """Return the key under which the cache keeps an image's archive."""
    return f"{name}-{tag}"


def find(image: str) -> Image:
    """Find an image by its reference (as hack/images prints it) or by the path of an archive."""
    if Path(image).is_file():
        with tarfile.open(image) as archive:
            manifest = archive.extractfile("manifest.json")
            if manifest is None:
                raise CommandError(f"{image} is no docker archive: it holds no manifest.json")
            return Image(json.load(manifest)[0]["RepoTags"][0], Path(image).resolve())
    name, _, tag = image.removeprefix(f"{REGISTRY}/").partition(":")
    archive = cache_folder() / "images" / archive_folder(name, tag) / "image.tar"
    if not archive.exists():
        raise CommandError(f"no image {image} in the cache: `hack/images build` prints the references, a path works too")
    os.utime(archive.parent)  # the least recently used one goes first
    return Image(f"{REGISTRY}/{name}:{tag}", archive)


def containerd_configuration(root: str, state: str, sandbox: str, plugins: Path) -> str:
    """Return containerd's configuration."""
    return f"""\
version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  # Without CAP_SYS_RESOURCE (in many containers and small machines) runc may not lower a process's OOM score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "/run/slipway/node/cni"
"""


def template(pause: Image, images: Sequence[Image]) -> Path:
    """Return the cache's folder with containerd's own folder in it that holds these images, unpacked.

    It starts from the template that shares most with it, so that one changed image costs one import.
    """
    wanted = {image.reference: image for image in (pause, *images)}
    version = run(["containerd", "--version"])

    def build(folder: Path) -> None:
        (folder / "pause").write_text(pause.reference)
        (folder / "images.json").write_text(json.dumps(sorted(wanted)))
        names = ", ".join(image.name for image in wanted.values())
        with lock(cache_folder() / "locks" / "nodes"), step(f"unpacking {names} for the nodes"):
            nearest = max(_templates(), key=lambda other: len(wanted.keys() & held_by(other)), default=None)
            if nearest is not None:
                seed(nearest, folder / "containerd")
            _import_offline(folder / "containerd", wanted)
            prune("nodes", TEMPLATES_KEPT, TEMPLATE_RECENT_SECONDS)

    return entry("nodes", content_key([version, *sorted(wanted)]), build)


def _templates() -> list[Path]:
    """Return the templates in the cache."""
    return list((cache_folder() / "nodes").glob("[!.]*"))


def held_by(template_folder: Path) -> set[str]:
    """Return the references of a template's images."""
    return set(json.loads((template_folder / "images.json").read_text()))


def _import_offline(root: Path, wanted: Mapping[str, Image]) -> None:
    """Make a containerd folder hold exactly these images, with a containerd that runs only for this."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as temporary:
        state = Path(temporary)
        configuration = state / "config.toml"
        configuration.write_text(containerd_configuration(str(root), str(state / "run"), "none", state))
        containerd = spawn(["containerd", "--config", configuration], state / "log")
        try:
            ctr = ["ctr", "--address", str(state / "run" / "containerd.sock")]
            wait_for("containerd ready", lambda: _succeeds([*ctr, "version"]), 20)
            present = known(ctr)
            for reference, image in wanted.items():
                if reference not in present:
                    import_image(ctr, image)
            wait_for("images known to the CRI plugin", lambda: known(ctr) >= wanted.keys(), 30)
            surplus = sorted(present - wanted.keys() - _identities(ctr, wanted.keys()))
            if surplus:
                run([*ctr, "--namespace", "k8s.io", "images", "remove", "--sync", *surplus])
        finally:
            containerd.kill()


def seed(template_folder: Path, root: Path) -> None:
    """Give a node a containerd folder: the template's files by hard link, its databases by copy.

    Content and unpacked layers never change in place (containerd writes new files and renames), databases do.
    """
    source = template_folder / "containerd"
    linked = subprocess.run(["cp", "-al", source, root], capture_output=True, check=False)
    if linked.returncode != 0:  # another file system than the cache's, or one without hard links
        shutil.rmtree(root, ignore_errors=True)
        run(["cp", "-a", source, root])
        return
    for database in source.glob("*/*.db"):
        target = root / database.relative_to(source)
        target.unlink()
        shutil.copy2(database, target)


def _identities(ctr: list[str], references: Collection[str]) -> set[str]:
    """Return the names by identity (sha256:...) that the CRI plugin gave to these images."""
    lines = [line.split() for line in run([*ctr, "--namespace", "k8s.io", "images", "list"]).splitlines()[1:]]
    targets = {words[2] for words in lines if words[0] in references}
    return {words[0] for words in lines if words[2] in targets}


def known(ctr: list[str]) -> set[str]:
    """Return the references of the images that the CRI plugin knows."""
    lines = run([*ctr, "--namespace", "k8s.io", "images", "list"]).splitlines()[1:]
    return {line.split()[0] for line in lines if MANAGED in line}


def import_image(ctr: list[str], image: Image) -> None:
    """Import an archive, read by this process's side: the node need not see the file."""
    with image.archive.open("rb") as archive:
        result = subprocess.run(
            [*ctr, "--namespace", "k8s.io", "images", "import", "-"],
            stdin=archive,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        raise CommandError(f"import of {image.reference} failed: {result.stderr.strip()}")


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
