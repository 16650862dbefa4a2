"""hack/tools: the pinned binaries that are not Python."""

import argparse
from collections.abc import Sequence

from slipway_dev import tools
from slipway_dev.catalog import TOOLS, tools_named
from slipway_dev.console import CommandError

DESCRIPTION = """\
Get the pinned tools. A released binary is downloaded where its host can be reached; else the tool is built once, from
the Go modules that hack/go/ pins or the npm packages that hack/npm/ pins, into the cache folder.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; print a path a line, in the order asked for."""
    known = ", ".join(sorted(TOOLS))
    parser = argparse.ArgumentParser(prog="hack/tools", description=DESCRIPTION, epilog=f"Tools: {known}.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    build = verbs.add_parser("build", help="make the tools that are not in the cache, and print their paths")
    build.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    path = verbs.add_parser("path", help="print where tools are; fails when one is not made yet")
    path.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args(arguments)
    if options.verb == "build":
        for made in tools.ensure(options.names).values():
            print(made)
        return
    for tool in tools_named(options.names):
        if not tools.tool_path(tool).exists():
            raise CommandError(f"{tool.name} is not made yet: hack/tools build {tool.name}")
        print(tools.tool_path(tool))
