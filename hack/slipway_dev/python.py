"""Python environments and package trees, made with uv from hashed requirement files."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from slipway_dev import debian
from slipway_dev.cache import content_key, entry, lock
from slipway_dev.console import CommandError, say, step
from slipway_dev.paths import HACK, architecture, cache_folder
from slipway_dev.processes import run

REQUIREMENTS = HACK / "requirements.txt"
IMAGE_PYTHON = "3.11"
# Debian 12, the images' base, has glibc 2.36: wheels for it and for older ones will do.
IMAGE_PLATFORM = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}
COMPLETE = ".complete"


def venv(requirements: Path = REQUIREMENTS) -> Path:
    """Return the environment with a requirement file in it: hack/requirements.txt unless another is named.

    An environment holds its own path, so it is made in its place; a file says that it is whole.
    """
    folder = cache_folder() / "venv" / content_key([requirements, sys.version])
    if not (folder / COMPLETE).exists():
        with lock(cache_folder() / "locks" / "venv"):
            if not (folder / COMPLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)
                with step(f"creating the Python environment of {requirements.parent.name}/{requirements.name}"):
                    create_venv(folder)
                    _uv(["pip", "install", "--python", folder / "bin" / "python", "-r", requirements])
                (folder / COMPLETE).touch()
    return folder


def install(requirements: Path, target: Path) -> None:
    """Unpack the wheels of a requirement file into a folder, as this machine's Python would."""
    _uv(["pip", "install", "--target", target, "--no-deps", "--python", sys.executable, "-r", requirements])


def image_packages(requirements: Path) -> Path:
    """Return the folder with the packages of a requirement file, for the images' Python and this architecture."""
    arch = architecture()
    if arch not in IMAGE_PLATFORM:
        raise CommandError(f"images are built on {' and '.join(IMAGE_PLATFORM)}, not on {arch}")
    platform = IMAGE_PLATFORM[arch]

    def build(folder: Path) -> None:
        python = ["--python", sys.executable, "--python-version", IMAGE_PYTHON, "--python-platform", platform]
        with step(f"fetching the packages of {requirements.parent.name}/{requirements.name}"):
            _uv(["pip", "install", "--target", folder, "--no-deps", *python, "-r", requirements])
        shutil.rmtree(folder / "bin", ignore_errors=True)
        (folder / ".lock").unlink(missing_ok=True)

    return entry("packages", content_key([requirements, IMAGE_PYTHON, platform]), build)


def create_venv(folder: Path) -> None:
    """Create an environment with pip; on Debian its package python3-venv may be missing."""
    command = [sys.executable, "-m", "venv", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 and "ensurepip" in result.stdout + result.stderr and debian.is_debian():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        debian.install([f"python{version}-venv"])
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CommandError(f"{' '.join(command)} failed: {(result.stdout + result.stderr).strip()}")


def _uv(arguments: list[str | Path]) -> None:
    extra = ["--require-hashes", "--only-binary", ":all:", "--quiet", "--no-progress"]
    command = [str(word) for word in (uv(), *arguments, *extra)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=_uv_environment())
    if result.returncode != 0:
        raise CommandError(f"{' '.join(command)}\n{(result.stderr or result.stdout).strip()}")


@cache
def uv() -> Path:
    """Return uv: the one on PATH, else the pinned one in a small environment of its own."""
    found = shutil.which("uv")
    if found:
        return Path(found)
    pinned = _pinned_uv(REQUIREMENTS.read_text())
    folder = cache_folder() / "uv" / content_key([pinned, sys.version])
    if not (folder / COMPLETE).exists():
        with lock(cache_folder() / "locks" / "uv"), step("fetching uv"):
            if not (folder / COMPLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)
                create_venv(folder)
                requirement = folder / "uv.txt"
                requirement.write_text(pinned)
                run([folder / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", requirement])
                (folder / COMPLETE).touch()
    return folder / "bin" / "uv"


def _pinned_uv(requirements: str) -> str:
    """Return the lines that pin uv, with their hashes."""
    lines = requirements.splitlines(keepends=True)
    begin = next((number for number, line in enumerate(lines) if line.startswith("uv==")), None)
    if begin is None:
        raise CommandError(f"{REQUIREMENTS} does not pin uv: run hack/compile-requirements")
    end = begin
    while lines[end].rstrip().endswith("\\"):
        end += 1
    return "".join(lines[begin : end + 1])


def _uv_environment() -> dict[str, str]:
    """Give uv the settings that this machine's pip has: index, folders of wheels, certificates."""
    environment = dict(os.environ)
    settings = pip_settings(_pip_config())
    for setting, variable in (
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("find-links", "UV_FIND_LINKS"),
        ("cert", "SSL_CERT_FILE"),
    ):
        if setting in settings:
            environment.setdefault(variable, settings[setting])
    return environment


@cache
def _pip_config() -> str:
    result = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        say("this Python has no pip: its settings, if any, are not known")
    return result.stdout


def pip_settings(config_list: str) -> dict[str, str]:
    """Return the settings in the output of `pip config list`; the environment's override the files'."""
    settings: dict[str, str] = {}
    for line in sorted(config_list.splitlines(), key=lambda line: line.startswith(":env:")):
        name, separator, value = line.partition("=")
        if separator:
            settings[name.rpartition(".")[2]] = " ".join(value.strip("'\"").split("\\n")).strip()
    return settings
