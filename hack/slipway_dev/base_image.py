"""The image that the others build on: the registry's Python image, else a small Debian made here by debootstrap."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from slipway_dev import debian
from slipway_dev.cache import content_key, entry
from slipway_dev.console import CommandError, say, step
from slipway_dev.engine import Engine
from slipway_dev.paths import architecture, cache_folder
from slipway_dev.processes import run
from slipway_dev.store import REGISTRY

REGISTRY_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
BASE = "base"  # the name of the image made here
REGISTRY_PROBE = "https://registry-1.docker.io/v2/"
PROBE_TIMEOUT_SECONDS = 3.0
SUITE = "bookworm"
PACKAGES = "python3,ca-certificates"
# Files keep no times, so that bytecode must not be compared with its source by them: Python would compile it at each start.
COMPILE = (
    "python3",
    "-m",
    "compileall",
    "-q",
    "-f",
    "--invalidation-mode",
    "unchecked-hash",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
)
TRIMMED = (
    "var/cache/apt",
    "var/cache/ldconfig",  # holds inodes and times: no two runs would give the same image
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
)


def base(builder: Engine) -> tuple[str, str]:
    """Return (reference, identity) of the base image. What is at hand already is taken, so that keys stay as they are."""
    archive = _debootstrap_entry()
    if not archive.exists():
        identity = builder.image_id(REGISTRY_IMAGE)
        if identity is None and _registry_answers() and builder.pull(REGISTRY_IMAGE):
            identity = builder.image_id(REGISTRY_IMAGE)
        if identity is not None:
            return REGISTRY_IMAGE, identity
        say(f"{REGISTRY_IMAGE} cannot be pulled here: making a base image with debootstrap")
        _debootstrap()
    reference = f"{REGISTRY}/{BASE}:{archive.parent.name}"
    if builder.image_id(reference) is None:
        with step("importing the base image"):
            builder.import_root(archive, reference)
    return reference, archive.parent.name


def base_identity() -> str | None:
    """Return the identity of the debootstrap base when it is made, so that a key needs no engine."""
    archive = _debootstrap_entry()
    return archive.parent.name if archive.exists() else None


def _registry_answers() -> bool:
    try:
        urllib.request.urlopen(REGISTRY_PROBE, timeout=PROBE_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:  # it wants a login: it answers
        return True
    except OSError:
        return False
    return True


def _debootstrap_entry() -> Path:
    key = content_key([SUITE, PACKAGES, *COMPILE, *TRIMMED, architecture()])
    return cache_folder() / "base" / key / "root.tar"


def _debootstrap() -> Path:
    target = _debootstrap_entry()
    if os.geteuid() != 0:
        raise CommandError("debootstrap needs root: run hack/images with sudo, or start a Docker engine that can pull images")
    debian.ensure({"debootstrap": ("debootstrap",), "debian-archive-keyring": (_KEYRING,)})

    def build(folder: Path) -> None:
        root = folder / "root"
        with step(f"debootstrap {SUITE} ({PACKAGES})"):
            run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", f"--keyring={_KEYRING}", SUITE, root, *_mirror()])
            run(["chroot", root, *COMPILE])
        for name in TRIMMED:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True)
        shutil.rmtree(root / "dev")
        (root / "dev").mkdir()
        run(["tar", "--create", "--numeric-owner", "--sort=name", "--file", folder / "root.tar", "--directory", root, "."])
        shutil.rmtree(root)

    return entry("base", target.parent.name, build)


_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _mirror() -> list[str]:
    """Return the mirror that this machine's apt uses for the suite, nothing (debootstrap's own default) when it uses none."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in result.stdout.splitlines():
        if line.startswith(f"{SUITE} main "):
            return [line.split()[2]]
    return []
