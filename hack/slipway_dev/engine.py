"""What builds images: docker where an engine answers, else buildah with a store of its own in the cache folder."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from pathlib import Path

from slipway_dev import debian
from slipway_dev.cache import lock
from slipway_dev.console import CommandError
from slipway_dev.paths import cache_folder
from slipway_dev.processes import run

# When an image was made and its files changed, as it says itself: 1980-01-01, the oldest that a zip archive can tell. So the same
# content is the same image, whenever it is built.
EPOCH_SECONDS = 315532800


class Engine(ABC):
    """The few things that building needs of an engine."""

    @abstractmethod
    def image_id(self, reference: str) -> str | None:
        """Return the id of an image that the engine holds, None for none."""

    @abstractmethod
    def pull(self, reference: str) -> bool:
        """Try to pull an image; tell whether it is there now."""

    @abstractmethod
    def import_root(self, archive: Path, reference: str) -> None:
        """Make an image of one layer from an archive of a root file system."""

    @abstractmethod
    def load(self, archive: Path) -> None:
        """Take the image of a docker archive."""

    @abstractmethod
    def build(self, context: Path, dockerfile: Path, base: str, reference: str) -> None:
        """Build an image."""

    @abstractmethod
    def save(self, reference: str, archive: Path) -> None:
        """Write an image into a docker archive."""

    @abstractmethod
    def prune(self, registry: str, wanted: Callable[[str], bool]) -> int:
        """Remove a registry's images but those whose references are wanted; answer how many they were."""


class Docker(Engine):
    """A Docker engine."""

    def image_id(self, reference: str) -> str | None:
        """See Engine."""
        return _output_or_none(["docker", "image", "inspect", "--format", "{{.Id}}", reference])

    def pull(self, reference: str) -> bool:
        """See Engine."""
        return _output_or_none(["docker", "pull", "--quiet", reference]) is not None

    def import_root(self, archive: Path, reference: str) -> None:
        """See Engine."""
        run(["docker", "import", archive, reference])

    def load(self, archive: Path) -> None:
        """See Engine."""
        run(["docker", "load", "--quiet", "--input", archive])

    def build(self, context: Path, dockerfile: Path, base: str, reference: str) -> None:
        """See Engine."""
        run(["docker", "build", "--build-arg", f"BASE={base}", "--file", dockerfile, "--tag", reference, context])

    def save(self, reference: str, archive: Path) -> None:
        """See Engine."""
        run(["docker", "save", "--output", archive, reference])

    def prune(self, registry: str, wanted: Callable[[str], bool]) -> int:
        """See Engine. What other images leave dangling is not ours to remove."""
        command = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={registry}/*"]
        unwanted = [reference for reference in run(command).split() if not wanted(reference)]
        return sum(_output_or_none(["docker", "image", "rm", reference]) is not None for reference in unwanted)


class Buildah(Engine):
    """Buildah. One user at a time: its store is shared by all who build with this cache folder."""

    def __init__(self) -> None:
        """Take the store in the cache folder."""
        store = cache_folder() / "buildah"
        self._command = ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run")]
        self._command += ["--storage-driver", "overlay"]
        self._lock = cache_folder() / "locks" / "buildah"

    def _run(self, *arguments: str | Path) -> str:
        with lock(self._lock):
            return run([*self._command, *arguments])

    def image_id(self, reference: str) -> str | None:
        """See Engine."""
        with lock(self._lock):
            return _output_or_none([*self._command, "inspect", "--type", "image", "--format", "{{.FromImageID}}", reference])

    def pull(self, reference: str) -> bool:
        """See Engine."""
        with lock(self._lock):
            return _output_or_none([*self._command, "pull", "--quiet", reference]) is not None

    def import_root(self, archive: Path, reference: str) -> None:
        """See Engine."""
        with lock(self._lock):
            container = run([*self._command, "from", "scratch"]).strip()
            try:
                run([*self._command, "add", "--quiet", container, archive, "/"])
                run([*self._command, "commit", "--quiet", f"--timestamp={EPOCH_SECONDS}", container, reference])
            finally:
                run([*self._command, "rm", container])

    def load(self, archive: Path) -> None:
        """See Engine."""
        self._run("pull", "--quiet", f"docker-archive:{archive}")

    def build(self, context: Path, dockerfile: Path, base: str, reference: str) -> None:
        """See Engine."""
        options = ["--isolation", "chroot", "--layers", "--pull-never", "--quiet", "--format", "docker"]
        options += [f"--timestamp={EPOCH_SECONDS}"]
        self._run("build", *options, "--build-arg", f"BASE={base}", "--file", dockerfile, "--tag", reference, context)

    def save(self, reference: str, archive: Path) -> None:
        """See Engine."""
        self._run("push", "--quiet", reference, f"docker-archive:{archive}:{reference}")

    def prune(self, registry: str, wanted: Callable[[str], bool]) -> int:
        """See Engine. Also removes what nothing names: layers that no image rests on, containers of builds that were killed."""
        with lock(self._lock):
            run([*self._command, "rm", "--all"])
            command = [*self._command, "images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference={registry}/*"]
            unwanted = [reference for reference in run(command).split() if not wanted(reference)]
            if unwanted:
                run([*self._command, "rmi", *unwanted])
            run([*self._command, "rmi", "--prune"])
            return len(unwanted)


@cache
def engine() -> Engine:
    """Return the engine to build with, installing buildah when there is none."""
    if docker_answers():
        return Docker()
    if not shutil.which("buildah") and not debian.is_debian():
        raise CommandError("images are built with docker or buildah: start a Docker engine or install buildah")
    debian.ensure({"buildah": ("buildah",)})
    return Buildah()


@cache
def docker_answers() -> bool:
    """Tell whether a Docker engine answers."""
    if not shutil.which("docker"):
        return False
    try:
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _output_or_none(command: list[str]) -> str | None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
