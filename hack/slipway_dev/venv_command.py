"""hack/venv: the Python environment of tests, lint and examples."""

import argparse
from collections.abc import Sequence

from slipway_dev.python import venv

DESCRIPTION = """\
Create the Python environment with everything in hack/requirements.txt, once, in the cache folder, and print its path:
"$(hack/venv)/bin/pytest" runs its pytest.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the environment's path."""
    argparse.ArgumentParser(prog="hack/venv", description=DESCRIPTION).parse_args(arguments)
    print(venv())
