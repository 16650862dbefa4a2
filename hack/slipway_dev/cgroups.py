"""A cgroup for each node: two kubelets under one root would delete each other's pods' cgroups."""

import time
from pathlib import Path

from slipway_dev.console import CommandError

ROOT = Path("/sys/fs/cgroup")


def path_of(cluster: str, node: str) -> str:
    """Return a node's cgroup as the kubelet's cgroupRoot names it."""
    return f"/slipway/{cluster}/{node}"


def create(cluster: str, node: str) -> None:
    """Create a node's cgroup in every hierarchy (version 1) or in the one (version 2)."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in Path(path_of(cluster, node).strip("/")).parts:
            _delegate(folder)
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1: a new cpuset is empty and takes no process
                source = parent / setting
                if source.exists() and not (parent / "cgroup.controllers").exists():
                    (folder / setting).write_text(source.read_text())
        _delegate(folder)


def remove(cluster: str, timeout_seconds: float = 10.0) -> None:
    """Remove the cluster's cgroups, and the common one when it was the last. Its processes are already gone."""
    for hierarchy in _hierarchies():
        deadline = time.monotonic() + timeout_seconds
        root = hierarchy / "slipway" / cluster
        while root.exists() and not _remove_tree(root):
            if time.monotonic() > deadline:
                raise CommandError(f"{root} still holds processes: end them (cat {root}/**/cgroup.procs), then try again")
            time.sleep(0.05)
        _remove(root.parent)


def _hierarchies() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink()]


def _delegate(folder: Path) -> None:
    """Version 2: let the cgroups below use every controller that can be had; one that cannot is left out."""
    controllers = folder / "cgroup.controllers"
    if not controllers.exists():
        return
    for controller in controllers.read_text().split():
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue


def _remove_tree(root: Path) -> bool:
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        _remove(folder)
    return _remove(root)


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
