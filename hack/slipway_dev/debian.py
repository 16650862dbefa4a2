"""Debian packages, installed only when something is missing, and said aloud."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from slipway_dev.cache import lock
from slipway_dev.console import CommandError, say, step


def is_debian() -> bool:
    """Tell whether packages are installed with apt-get here."""
    return shutil.which("apt-get") is not None


def candidate_version(package: str) -> tuple[int, int]:
    """Return (major, minor) of the version that apt would install, (0, 0) for none."""
    result = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False)
    found = re.search(r"Candidate: (?:\d+:)?(\d+)\.(\d+)", result.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def ensure(files: Mapping[str, tuple[str, ...]]) -> None:
    """Install each package none of whose files (commands, or absolute paths) is present."""

    def present(name: str) -> bool:
        return Path(name).exists() if name.startswith("/") else shutil.which(name) is not None

    missing = [package for package, names in files.items() if not any(present(name) for name in names)]
    if missing:
        install(missing)


def install(packages: list[str]) -> None:
    """Install packages, or raise a CommandError that names them."""
    wanted = " ".join(packages)
    if not is_debian():
        raise CommandError(f"missing: {wanted} (Debian's names): install them with this system's package manager")
    if os.geteuid() != 0:
        raise CommandError(f"missing Debian packages, and only root may install them: sudo apt-get install {wanted}")
    say(f"installing Debian packages: {wanted}")
    with lock(Path("/run/lock/slipway-apt.lock")), step(f"apt-get install {wanted}"):
        install_command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        if _apt(install_command).returncode != 0:  # the usual cause: lists that are absent or stale
            _apt(["apt-get", "update"])
            result = _apt(install_command)
            if result.returncode != 0:
                raise CommandError(f"{' '.join(install_command)} failed:\n{result.stdout[-2000:]}")


def _apt(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment)
