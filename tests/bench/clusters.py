"""Clusters of a benchmark's own, by hack/cluster: fresh at its start, gone at its end."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.table import say

from slipway_dev import state

_HACK = Path(__file__).resolve().parents[2] / "hack"


@contextmanager
def cluster(name: str, *flags: str) -> Iterator[state.Cluster]:
    """Start a cluster, answer what is known of it, and end it."""
    _hack("cluster", "down", "--name", name)
    _hack("cluster", "up", "--provider", "local", "--name", name, *flags)
    try:
        found = state.load(name)
        assert found is not None, f"cluster {name} is not running"
        yield found
    finally:
        _hack("cluster", "down", "--name", name)


@contextmanager
def scratch(what: str) -> Iterator[Path]:
    """Answer a folder for logs. It is kept, and told, where the benchmark fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"slipway-bench-{what}-"))
    try:
        yield folder
    except BaseException:
        say(f"the logs of the processes are in {folder}")
        raise
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def build_image(name: str) -> str:
    """Answer the reference of an image of the repository, built where it is not in the cache."""
    return _hack("images", "build", name).split()[-1]


def _hack(command: str, *arguments: str) -> str:
    ended = subprocess.run([_HACK / command, *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"hack/{command} {' '.join(arguments)} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout
