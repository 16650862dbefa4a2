"""Fixtures of the tests beside this file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.server.support import Outcome, run


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., Outcome]:
    def fetch(uri: str, *flags: object, **env: str) -> Outcome:
        arguments = ("--uri", uri, "--dest", tmp_path / "models", "--source-dir", tmp_path / "source")
        return run(tmp_path, "fetch", *arguments, "--allow-networks", "127.0.0.0/8", *flags, **env)

    (tmp_path / "source").mkdir()
    return fetch
