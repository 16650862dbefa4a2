"""`python -m slipway`: run the operator."""

import sys

import uvloop

from slipway import logs, settings
from slipway.app import App
from slipway.kube.api import Api, NoClusterError


async def _main(chosen: settings.Settings) -> int:
    return await App(await Api.connect(), chosen).run()


def main() -> int:
    """Run the operator until it is told to stop. Answers the exit code."""
    chosen = settings.parse()
    logs.configure(chosen.log_format, chosen.log_level)
    try:
        return uvloop.run(_main(chosen))
    except NoClusterError as error:
        print(f"slipway: {error}", file=sys.stderr)  # noqa: T201 - a command line's answer
        return 2


if __name__ == "__main__":
    sys.exit(main())
