"""`python -m slipway`: run the operator; `activator`: hold requests; `compare`: two revisions; `simulate`: the scaling policy."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for until it is told to stop. Answers the exit code."""
    words = sys.argv[1:] if argv is None else argv
    # Each imports what it needs alone: the comparer is small beside the operator.
    if words[:1] == ["compare"]:
        from slipway.probe import command

        return command.main(words[1:])
    if words[:1] == ["activator"]:
        from slipway.activator import command as activator

        return activator.main(words[1:])
    if words[:1] == ["simulate"]:
        return _simulate(words[1:])
    return _operate(words)


def _simulate(words: Sequence[str]) -> int:
    try:
        from slipway.simulate import command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("slipway"):
            raise
        print(f"slipway simulate needs {error.name}: pip install 'slipway[simulate]'", file=sys.stderr)  # noqa: T201
        return 2
    return command.main(words)


def _operate(words: Sequence[str]) -> int:
    import uvloop

    from slipway import logs, settings
    from slipway.app import App
    from slipway.kube.api import Api, NoClusterError

    async def run() -> int:
        return await App(await Api.connect(), chosen).run()

    chosen = settings.parse(words)
    logs.configure(chosen.log_format, chosen.log_level)
    try:
        return uvloop.run(run())
    except NoClusterError as error:
        print(f"slipway: {error}", file=sys.stderr)  # noqa: T201 - a command line's answer
        return 2


if __name__ == "__main__":
    sys.exit(main())
