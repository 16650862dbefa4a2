"""Where things live: the repository, the user's cache folder, the user's state folder."""

import os
import platform
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HACK = REPOSITORY / "hack"
GO_MODULES = HACK / "go"
NPM_PACKAGES = HACK / "npm"


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / default


def cache_folder() -> Path:
    """What can be made again: binaries, images, wheels. Safe to delete while no cluster runs."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "slipway"


def state_folder() -> Path:
    """What describes the clusters that run."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "slipway"


def architecture() -> str:
    """Return this machine's architecture in Go's and Kubernetes' words."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine, machine)
