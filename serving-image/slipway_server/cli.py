"""The command line: parses flags, runs one command, turns every failure into a termination message."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from slipway_server import __version__
from slipway_server.termination import Reason, TerminalError, report

MIB = 1 << 20


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TerminalError(Reason.INVALID_ARGUMENTS, f"{self.prog}: {message}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return value


def _sha256(text: str) -> str | None:
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("not a sha256 of 64 hexadecimal digits")
    return text.lower() or None


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise argparse.ArgumentTypeError("only printable ASCII without spaces")
    return text


def build_parser() -> argparse.ArgumentParser:
    """The parser of both commands; `--help` of each is the reference of its flags."""
    parser = _Parser(prog="slipway_server", description="Slipway's model server.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="fetch|serve")

    fetch = commands.add_parser(
        "fetch",
        help="bring a model into a folder, verified (the init container)",
        description="Brings the file at URI into the folder DEST as model.<extension>, atomically and verified.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fetch.add_argument("--uri", required=True, help="file:///PATH | pvc://CLAIM/PATH | configmap://NAME/KEY | http(s)://...")
    fetch.add_argument("--format", default="ONNX", help="the model's format: ONNX")
    fetch.add_argument("--sha256", type=_sha256, default=None, help="hexadecimal; anything else is refused unparsed")
    fetch.add_argument("--dest", type=Path, default=Path("/mnt/models"), help="folder to write to")
    fetch.add_argument(
        "--source-dir",
        type=Path,
        default=Path("/mnt/source"),
        help="where the ConfigMap or the volume claim is mounted",
    )
    fetch.add_argument("--max-bytes", type=_positive, default=None, help="refuse a larger file (default: no limit)")
    fetch.add_argument("--timeout", type=_seconds, default=30.0, help="seconds without a byte before a connection is cut")

    serve = commands.add_parser(
        "serve",
        help="serve the model in a folder",
        description="Serves the model in a folder over the Open Inference Protocol V2.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    serve.add_argument("--model-dir", type=Path, default=Path("/mnt/models"), help="folder that fetch wrote")
    serve.add_argument("--name", required=True, help="the model's name in paths")
    serve.add_argument("--version", type=str, default="1", help="the user's label: model_version in answers")
    serve.add_argument("--revision", type=_header_value, default="", help="value of the x-slipway-revision header")
    serve.add_argument("--format", default="ONNX", help="the model's format: ONNX")
    serve.add_argument("--host", default="", help="address to listen on (default: all)")
    serve.add_argument("--port", type=_port, default=8080, help="port to listen on (0: any free one, logged)")
    serve.add_argument("--max-body", type=_positive, default=16 * MIB, help="bytes of a request's body")
    serve.add_argument("--max-concurrency", type=_positive, default=512, help="requests held at once; more get a 429")
    serve.add_argument("--request-timeout", type=_seconds, default=60.0, help="seconds to read a request, and to answer it")
    serve.add_argument("--threads", type=_positive, default=None, help="threads of the runtime (default: the CPU limit)")
    serve.add_argument("--load-timeout", type=_seconds, default=300.0, help="seconds to load the model and run it once")
    serve.add_argument(
        "--load-memory",
        type=_positive,
        default=None,
        help="bytes that loading may take (default: what the container has left)",
    )
    serve.add_argument("--drain-timeout", type=_seconds, default=20.0, help="seconds to answer what is accepted, on SIGTERM")
    return parser


def run(argv: list[str]) -> int:
    """Runs one command; returns the exit code, with the termination message written when it is not 0."""
    try:
        options = build_parser().parse_args(argv)
        if options.command == "fetch":  # each command imports only what it needs: start-up time is latency here
            from slipway_server.fetch import fetch

            return fetch(options)
        from slipway_server.serve import serve

        return serve(options)
    except TerminalError as error:
        return report(error)
    except Exception as error:
        return report(TerminalError(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}: report this as a defect"))


def main() -> NoReturn:
    """Entry point of the image."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: a run that hangs in a worker thread must not hold the pod
