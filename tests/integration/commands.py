"""The repository's own commands, as the tests run them."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, env: dict[str, str] | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; the caller looks at how it ended."""
    return subprocess.run(
        [str(word) for word in command], input=stdin, env=env, capture_output=True, text=True, check=False, timeout=900
    )


def must(*command: str | Path, env: dict[str, str] | None = None, stdin: str | None = None) -> str:
    """Run a command that must succeed, and answer what it printed."""
    ended = run(*command, env=env, stdin=stdin)
    assert ended.returncode == 0, f"{' '.join(map(str, command))}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@functools.cache
def tool(name: str) -> str:
    """Answer the path of a pinned tool, made where it is not yet."""
    return must(ROOT / "hack" / "tools", "build", name).strip().splitlines()[-1]
