"""hack/clean: everything that hack/ made on this machine."""

import argparse
import shutil
from collections.abc import Sequence

from slipway_dev import cluster_command, state
from slipway_dev.console import say
from slipway_dev.paths import cache_folder, state_folder

DESCRIPTION = "Take all clusters down and remove their state; with --caches also all that was built or fetched."


def main(arguments: Sequence[str] | None = None) -> None:
    """Take down and remove."""
    parser = argparse.ArgumentParser(prog="hack/clean", description=DESCRIPTION)
    parser.add_argument("--caches", action="store_true", help=f"remove {cache_folder()} as well")
    options = parser.parse_args(arguments)
    for name in state.names():
        cluster_command.main(["down", "--name", name])
    shutil.rmtree(state_folder(), ignore_errors=True)
    if options.caches:
        say(f"removing {cache_folder()}")
        shutil.rmtree(cache_folder(), ignore_errors=True)
