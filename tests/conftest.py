"""What all tests share: how hypothesis looks for examples, and how cases are named.

The same examples at each run, so that a change that breaks nothing is never refused for what it did not touch;
`pytest --hypothesis-profile=explore` looks for new ones. No deadline: machines are slow at times.
"""

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a case of bytes by its number: archives and messages differ from one process to the next, and say nothing."""
    return argname if isinstance(val, bytes) else None
