"""Pinned tools: downloaded where their releases can be reached, else built once, of Go or npm packages, into the cache."""

import subprocess
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from slipway_dev import go, npm
from slipway_dev.cache import content_key, lock
from slipway_dev.catalog import Tool, fill, tools_named
from slipway_dev.console import HEARTBEAT_SECONDS, CommandError, say
from slipway_dev.download import UnavailableError, download
from slipway_dev.paths import architecture, cache_folder

BUILD_FLAGS = ("-trimpath", "-buildvcs=false")
LINKER_FLAGS = "-s -w"
MODULES_AT_ONCE = 2  # linking is single-threaded and takes gigabytes: two modules keep two cores busy


def ensure(names: Iterable[str]) -> dict[str, Path]:
    """Return the path of each named tool, making the missing ones: modules side by side, a module's tools together."""
    tools = tools_named(list(names))
    paths = {tool.name: tool_path(tool) for tool in tools}
    missing = sorted((tool for tool in tools if not paths[tool.name].exists()), key=lambda tool: tool.module)
    groups = [list(group) for _, group in groupby(missing, key=lambda tool: tool.module)]
    if groups:
        groups.sort(key=len, reverse=True)  # the longest first
        with ThreadPoolExecutor(MODULES_AT_ONCE) as pool:
            for future in [pool.submit(_make, group) for group in groups]:
                future.result()
    return paths


def tool_path(tool: Tool) -> Path:
    """Return where a tool is or will be: keyed by what decides it, and by nothing of this machine but its kind."""
    decisive = [npm.REQUIREMENTS] if tool.npm else [tool.package, *_build_flags(tool)]
    key = content_key([tool.pins, *decisive, architecture()])
    return cache_folder() / "tools" / f"{tool.name}-{key}" / tool.name


def _build_flags(tool: Tool) -> list[str]:
    values = [f"-X {fill(value, tool, architecture())}" for value in tool.linker_values]
    tags = ["-tags", ",".join(tool.tags)] if tool.tags else []
    return [*BUILD_FLAGS, *tags, "-ldflags", " ".join([LINKER_FLAGS, *values])]


def _make(tools: list[Tool]) -> None:
    """Make the tools of one module. The lock is the module's: two processes never build the same thing."""
    module = tools[0].module
    with lock(cache_folder() / "locks" / f"tools-{module}"):
        tools = [tool for tool in tools if not tool_path(tool).exists()]
        root = cache_folder() / "tools"
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=root) as folder:
            left = [tool for tool in tools if not _downloaded(tool, Path(folder))]
            for packages in (tool for tool in left if tool.npm):
                npm.build(packages.pins, Path(folder) / packages.name)
            for _, group in groupby((tool for tool in left if not tool.npm), key=_build_flags):
                _go_build(module, list(group), Path(folder))
            for tool in tools:
                _publish(Path(folder) / tool.name, tool_path(tool))


def _downloaded(tool: Tool, folder: Path) -> bool:
    try:
        download(tool, folder)
    except UnavailableError:
        return False
    return True


def _go_build(module: str, tools: list[Tool], folder: Path) -> None:
    names = ", ".join(tool.name for tool in tools)
    toolchain = go.go()
    say(f"building {names} from hack/go/{module} ({go.version(toolchain).removeprefix('go version ')})")
    begin = time.monotonic()
    # A package's binary is named after its folder; v3 and . are no names: such packages are built one by one.
    named = [tool for tool in tools if tool.package.rpartition("/")[2] == tool.name]
    runs = [(folder, named)] if named else []
    runs += [(folder / tool.name, [tool]) for tool in tools if tool not in named]
    for output, group in runs:
        target = f"{output}/" if output.is_dir() else str(output)
        build = subprocess.Popen(
            [toolchain, "build", *_build_flags(group[0]), "-o", target, *(tool.package for tool in group)],
            cwd=tools[0].pins,
            env=go.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while True:
            try:
                output_text, _ = build.communicate(timeout=HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                ready = [tool.name for tool in tools if (folder / tool.name).exists()]
                progress = f"; linked: {', '.join(ready)}" if ready else ""
                say(f"building {names} ... {time.monotonic() - begin:.0f} s so far{progress}")
        if build.returncode != 0:
            raise CommandError(f"go build of {names} in hack/go/{module} failed:\n{output_text[-4000:]}")
    say(f"built {names}: {time.monotonic() - begin:.1f} s")


def _publish(binary: Path, target: Path) -> None:
    """Move a finished binary to its place in the cache; the rename is what makes it appear."""
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent.parent))
    staging.chmod(0o755)
    binary.rename(staging / target.name)
    staging.rename(target.parent)
