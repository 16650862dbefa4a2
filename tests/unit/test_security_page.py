"""docs/security.md names tests: they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def files(name: str) -> list[Path]:
    """Answer the test files of that name, which may have a folder before it and hold `*`."""
    return [path for path in (ROOT / "tests").rglob(f"*{Path(name).name}") if path.match(f"*{name}")]


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:[\w/*]*/)?test_[\w*]+\.py)?(?:::(\w+))?`", PAGE)
    assert len(named) > 30
    last: list[Path] = []
    for file, test in named:
        if not (file or test):
            continue
        last = files(file) if file else last
        assert last, file
        assert not test or any(f"def {test}(" in path.read_text() for path in last), test
