"""The command line: parses flags, runs one command, turns every failure into a termination message."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from slipway_server import __version__
from slipway_server.termination import Reason, TerminalError, report

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    # argparse has no public name for what add_subparsers answers.
    Commands = argparse._SubParsersAction["_Parser"]  # pyright: ignore[reportPrivateUsage]

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


def _delay(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 10")
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


def _endpoint(text: str) -> str:
    from slipway_server.sources.uri import split_url  # serve has no use for it

    try:
        parts = split_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not an http(s) URL: {error}") from None
    if parts.username is not None or parts.query or "#" in text:
        raise argparse.ArgumentTypeError("a URL without user name, query and fragment")
    return text.rstrip("/")


def _schemes(text: str) -> frozenset[str]:
    from slipway_server.sources.uri import SCHEMES

    names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
    if unknown := names - set(SCHEMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there are {', '.join(SCHEMES)}")
    return names


def _networks(text: str) -> "tuple[IPv4Network | IPv6Network, ...]":
    from ipaddress import ip_network

    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not networks such as 10.0.0.0/8: {error}") from None


def build_parser() -> argparse.ArgumentParser:
    """The parser of both commands; `--help` of each is the reference of its flags."""
    parser = _Parser(prog="slipway_server", description="Slipway's model server.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="fetch|serve")

    _add_fetch(commands)
    _add_serve(commands)
    return parser


def _add_fetch(commands: "Commands") -> None:
    fetch = commands.add_parser(
        "fetch",
        help="bring a model into a folder, verified (the init container)",
        description="Brings the file at URI into the folder DEST as model.<extension>, or what an archive or a folder holds as "
        "the folder DEST/model: verified, then put in place at once. A fetch that was cut goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fetch.add_argument(
        "--uri",
        required=True,
        help="file:///PATH | pvc://CLAIM/PATH | configmap://NAME/KEY | http(s)://HOST/PATH | s3://BUCKET/KEY | gs://BUCKET/KEY | "
        "az://CONTAINER/PATH | hf://OWNER/REPO[/PATH]@REVISION | oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]; a last / is a folder",
    )
    fetch.add_argument("--format", default="ONNX", help="the model's format")
    fetch.add_argument(
        "--trust", choices=("Safe", "Unsafe"), default="Safe", help="Unsafe: also formats that run their author's code"
    )
    fetch.add_argument("--sha256", type=_sha256, default=None, help="hexadecimal; anything else is refused unparsed")
    fetch.add_argument("--dest", type=Path, default=Path("/mnt/models"), help="folder to write to")
    fetch.add_argument(
        "--source-dir",
        type=Path,
        default=Path("/mnt/source"),
        help="where the ConfigMap or the volume claim is mounted",
    )
    fetch.add_argument(
        "--credentials-dir", type=Path, default=Path("/mnt/credentials"), help="where the Secret with credentials is mounted"
    )
    fetch.add_argument("--max-bytes", type=_positive, default=None, help="refuse a larger model (default: no limit)")
    fetch.add_argument("--timeout", type=_seconds, default=30.0, help="seconds without a byte before a connection is cut")
    fetch.add_argument("--endpoint", type=_endpoint, default=None, help="URL of the object store, hub or registry")
    fetch.add_argument("--region", type=_header_value, default=None, help="region of an s3 bucket (default: us-east-1)")
    fetch.add_argument("--path-style", action="store_true", help="name an s3 bucket in the path, not in the host")
    fetch.add_argument(
        "--allow-schemes", type=_schemes, default=None, metavar="A,B", help="schemes of URIs and redirects (default: all)"
    )
    fetch.add_argument(
        "--allow-networks",
        type=_networks,
        default=(),
        metavar="CIDR,CIDR",
        help="private or reserved networks that may be connected to (default: public addresses only)",
    )


def _add_serve(commands: "Commands") -> None:
    serve = commands.add_parser(
        "serve",
        help="serve the model in a folder",
        description="Serves the model in a folder over the Open Inference Protocol V2 (REST and gRPC) and KServe's V1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model = serve.add_argument_group("model")
    model.add_argument("--model-dir", type=Path, default=Path("/mnt/models"), help="folder that fetch wrote")
    model.add_argument("--name", required=True, help="the model's name in paths")
    model.add_argument("--version", type=str, default="1", help="the user's label: model_version in answers")
    model.add_argument("--revision", type=_header_value, default="", help="value of the x-slipway-revision header")
    model.add_argument("--format", default="ONNX", help="the model's format")
    model.add_argument("--trust", choices=("Safe", "Unsafe"), default="Safe", help="Unsafe: formats that run their author's code")
    model.add_argument("--load-timeout", type=_seconds, default=300.0, help="seconds to load the model and run it once")
    model.add_argument(
        "--load-memory",
        type=_positive,
        default=None,
        help="bytes that loading may take (default: what the container has left)",
    )
    wire = serve.add_argument_group("network")
    wire.add_argument("--host", default="", help="address to listen on (default: all)")
    wire.add_argument("--port", type=_port, default=8080, help="port to listen on (0: any free one, logged)")
    wire.add_argument("--drain-timeout", type=_seconds, default=20.0, help="seconds to answer what is accepted, on SIGTERM")
    one = serve.add_argument_group("limits of one request")
    one.add_argument("--max-header", type=_positive, default=32 << 10, help="bytes of a request's line and headers")
    one.add_argument("--max-body", type=_positive, default=16 * MIB, help="bytes of a request's body, unpacked too")
    one.add_argument("--max-depth", type=_positive, default=64, help="levels of nested JSON")
    one.add_argument("--max-elements", type=_positive, default=16_777_216, help="elements of a request's tensors together")
    one.add_argument("--request-timeout", type=_seconds, default=60.0, help="seconds to read a request, and to answer it")
    together = serve.add_argument_group("limits of all requests together")
    together.add_argument(
        "--max-connections", type=_positive, default=4096, help="open connections; one more ends an idle one, or gets a 503"
    )
    together.add_argument("--max-concurrency", type=_positive, default=512, help="requests held at once; more get a 429")
    together.add_argument(
        "--max-buffered",
        type=_positive,
        default=None,
        help="bytes of bodies and of answers not taken; more get a 429 (default: a quarter of the memory left, at least 64 MiB)",
    )
    runs = serve.add_argument_group("processes, threads, batching")
    runs.add_argument(
        "--workers",
        type=_positive,
        default=None,
        help="processes, each with a copy of the model (default: the CPU limit as far as memory allows; 1 without a limit)",
    )
    runs.add_argument(
        "--threads", type=_positive, default=None, help="threads of the runtime in each worker (default: the CPUs, divided)"
    )
    runs.add_argument("--batch-max-size", type=_positive, default=64, help="rows that may share a run; 1: no batching")
    runs.add_argument(
        "--batch-max-delay", type=_delay, default=0.0, help="seconds that a batch which is not full waits for more requests"
    )


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
