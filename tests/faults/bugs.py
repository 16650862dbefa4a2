"""Seeded bugs: each diff in bugs/ breaks one rule, and its case must find it. A harness that catches none of them proves nothing.

A diff begins with what is wrong, in words; then `Breaks: ` and the invariants of which at least one must be violated, then
`Case: ` and the words for tests/faults/run. A new one is made by `git diff` of the operator's source.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

BUGS = Path(__file__).parent / "bugs"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bug:
    """One bug: its diff, what it breaks, and the case that shows it."""

    diff: Path
    breaks: frozenset[str]
    case: tuple[str, ...]

    @classmethod
    def read(cls, diff: Path) -> "Bug":
        """Read a diff. Raises ValueError where its head is not as it should be."""
        head = dict(line.split(": ", 1) for line in diff.read_text().partition("\n--- ")[0].splitlines() if ": " in line)
        if not {"Breaks", "Case"} <= head.keys():
            raise ValueError(f"{diff.name}: its head has no `Breaks: ` and `Case: `")
        return cls(diff, frozenset(head["Breaks"].split()), tuple(head["Case"].split()))

    @property
    def name(self) -> str:
        """Answer its name."""
        return self.diff.stem

    def plant(self, tree: Path) -> None:
        """Apply the diff to a copy of the repository, which has the folder operator. Raises RuntimeError where it is stale."""
        _git(tree, "apply", str(self.diff))

    def check(self) -> None:
        """Raise RuntimeError where the diff does not fit the source any more."""
        _git(ROOT, "apply", "--check", str(self.diff))

    def caught(self, violations: list[str]) -> bool:
        """Tell whether what it breaks is among the violations."""
        return bool(self.breaks & {said.partition(":")[0] for said in violations})


def every() -> list[Bug]:
    """Answer all bugs."""
    return [Bug.read(diff) for diff in sorted(BUGS.glob("*.diff"))]


def _git(folder: Path, *words: str) -> None:
    ended = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"git {' '.join(words)}: {ended.stderr}")
