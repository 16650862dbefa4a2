"""The command line of `kubectl slipway`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from slipway.api.base import duration_seconds
from slipway.api.status import Verb
from slipway.kubectl import commands
from slipway.kubectl.client import Cluster, ClusterError
from slipway.kubectl.show import Paint

_ENDS = """exit codes:
  0   done; with `wait`: promoted
  1   not done, for it makes no sense now; with `wait`: withdrawn or rolled back
  2   not within --timeout
  3   the cluster cannot be reached or refuses, or there is no such ModelDeployment
  64  the command line cannot be understood
"""
_VERBS = {
    Verb.PROMOTE: "let the candidate go on to its next step now, whatever is measured; with --full to all requests",
    Verb.ABORT: "withdraw all that is tried: it is refused until the spec changes, or `retry`",
    Verb.PAUSE: "keep the candidate at its step; if it fails its checks it is still withdrawn",
    Verb.RESUME: "let a rollout go on that is paused, or waits at a step's pause",
    Verb.RETRY: "try again what the spec asks for, though it failed, was aborted or was rolled back",
    Verb.ROLLBACK: "withdraw the candidate, or go back to the revision that served before or to one that is named",
    Verb.SET_WEIGHT: "give the candidate a percentage of the requests once it has pods enough, until `resume` or `promote`",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, with an exit code that no command has."""
        self.exit(commands.USAGE, f"{self.format_usage()}{message}\n")


def _seconds(text: str) -> float:
    """Read a duration, of bare seconds too."""
    try:
        return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else duration_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _percent(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}%?", text) or int(text.rstrip("%")) > 100:
        raise argparse.ArgumentTypeError("is a whole percentage from 0 to 100")
    return int(text.rstrip("%"))


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError("is true or false")
    return text == "true"


def parser() -> argparse.ArgumentParser:
    """Answer the parser of the command line."""
    where = _Parser(add_help=False)
    group = where.add_argument_group("where")
    group.add_argument("-n", "--namespace", help="the ModelDeployment's namespace; else that of the kubeconfig")
    group.add_argument("--context", help="the kubeconfig's context to use")
    group.add_argument("--kubeconfig", metavar="FILE", help="else $KUBECONFIG or ~/.kube/config; in a pod, its ServiceAccount")
    named = _Parser(add_help=False)
    named.add_argument("name", metavar="NAME", help="the ModelDeployment")

    top = _Parser(
        prog="kubectl slipway",
        description="See and steer ModelDeployments and their rollouts.",
        epilog=_ENDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    each = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(command: str, says: str, *parents: _Parser) -> argparse.ArgumentParser:
        return each.add_parser(
            command,
            parents=[*parents, where],
            help=says,
            description=f"{says[0].upper()}{says[1:]}.",
            epilog=_ENDS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def with_output(command: argparse.ArgumentParser, *choices: str) -> None:
        command.add_argument("-o", "--output", choices=choices, help="for machines, or wider")

    with_output(
        add("status", "show one ModelDeployment: who serves, who is tried, how far, and what is measured", named), "json", "yaml"
    )
    add("watch", "show it live until Ctrl-C; a line at each change where the output is no terminal", named)
    listing = add("list", "list ModelDeployments")
    listing.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    with_output(listing, "json", "yaml", "wide")
    with_output(add("history", "tell who served since when, how each rollout ended and why", named), "json", "yaml")
    waiting = add("wait", "wait until the rollout of the spec as it is now has ended, and tell each transition", named)
    waiting.add_argument("--timeout", type=_seconds, default=float("inf"), help="such as 10m; else for ever")
    export = add("export-traffic", "write a model's arrivals as CSV, for `slipway simulate --file`", named)
    lasts = "record so long, such as 1h, else until Ctrl-C; with --prometheus the latest TIME (default 24h)"
    export.add_argument("--for", dest="length", type=_seconds, default=float("inf"), metavar="TIME", help=lasts)
    export.add_argument(
        "--every", type=_seconds, metavar="TIME", help="a line for each TIME (default 10s; with --prometheus 60s)"
    )
    export.add_argument("--prometheus", metavar="URL", help="ask a Prometheus that scrapes Slipway: it has the past")
    export.add_argument("-o", "--output", metavar="FILE", help="else standard output")
    for verb, says in _VERBS.items():
        command = add("set-weight" if verb == Verb.SET_WEIGHT else verb.value.lower(), says, named)
        command.set_defaults(verb=verb.value, full=False, revision=None, weight=None)
        if verb == Verb.PROMOTE:
            command.add_argument(
                "revision", nargs="?", metavar="REVISION", help="of several arms of an A/B test the one to promote"
            )
            command.add_argument("--full", action="store_true", help="skip all steps that are left")
        if verb == Verb.ROLLBACK:
            command.add_argument("revision", nargs="?", metavar="REVISION", help="a kept one, see `history`")
        if verb == Verb.SET_WEIGHT:
            command.add_argument("weight", type=_percent, metavar="WEIGHT", help="percent of requests, 0 to 100")
        command.add_argument(
            "--wait", type=_bool, default=True, metavar="true|false", help="until Slipway has obeyed, and say what came of it"
        )
        command.add_argument("--timeout", type=_seconds, default=10.0, help="of that, such as 30s (default 10s)")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run one command, and answer its exit code."""
    args = parser().parse_args(words)
    args.terminal = sys.stdout.isatty()
    args.paint = Paint(args.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")
    try:
        cluster = Cluster(args.kubeconfig, args.context)
        args.namespace = args.namespace or cluster.namespace
        return commands.COMMANDS.get(args.command, commands.use)(cluster, args)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return commands.NO_CLUSTER
    except KeyboardInterrupt:
        return commands.DONE
    except BrokenPipeError:
        sys.stderr.close()
        return commands.DONE
