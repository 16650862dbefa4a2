"""What Slipway's processes have in common: the flags of their metrics and log, and how they are told to end."""

import argparse
import asyncio
import signal


def add_flags(parser: argparse.ArgumentParser, metrics_port: int) -> None:
    """Add --metrics-port and --log-format."""
    parser.add_argument("--metrics-port", type=int, default=metrics_port,
                        help="port of /healthz, /readyz and /metrics (default: %(default)s)")  # fmt: skip
    parser.add_argument("--log-format", choices=("json", "text"), default="json", help="how a log line looks (default: json)")


def end_on_signals(stop: asyncio.Event) -> None:
    """Set the event when the process is asked to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
