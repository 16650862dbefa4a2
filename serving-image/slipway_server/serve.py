"""`serve`: what is to be served and by how many workers. Imports neither numpy nor an event loop: the workers do."""

import argparse
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from slipway_server import formats, limits, logs
from slipway_server.metrics import Table
from slipway_server.termination import Reason, TerminalError
from slipway_server.wire.sockets import bind
from slipway_server.workers import supervise

if TYPE_CHECKING:
    import socket

MIB = 1 << 20
SPARE_FILES = 64
"""Open files beside the connections."""


@dataclass(frozen=True)
class Server:
    """What all workers have in common. Made before they are forked."""

    options: argparse.Namespace
    path: Path
    workers: int
    threads: int
    """Of the runtime, for each worker."""
    buffered_bytes: int
    """Of requests being read and answered, for all workers together."""
    listening: "socket.socket"
    table: Table

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.listening.getsockname()[1]

    def share(self, total: int) -> int:
        """A worker's part of what all may take together."""
        return max(1, total // self.workers)


def serve(options: argparse.Namespace) -> int:
    """Runs the command until SIGTERM or SIGINT; returns the exit code. Raises TerminalError."""
    logs.setup()
    # As process 1 of a container the kernel drops signals that have no handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, exit_at_once)
    path = formats.find(options.model_dir, options.format, options.trust)
    headroom = limits.memory_headroom_bytes()
    workers = options.workers or _default_workers(path, headroom)
    threads = options.threads or max(1, limits.cpu_count() // workers)
    buffered = options.max_buffered or max(64 * MIB, (headroom or limits.physical_memory_bytes()) // 4)
    _allow_files(options.max_connections + SPARE_FILES)
    try:
        listening = bind(options.host, options.port)
    except OSError as error:
        message = f"port {options.port} cannot be bound ({os.strerror(error.errno or 0)}): free it, or choose another --port"
        raise TerminalError(Reason.PORT_UNAVAILABLE, message) from None
    server = Server(options, path, workers, threads, buffered, listening, Table(workers))
    logs.info("listening", port=server.port, model=options.name, version=options.version, revision=options.revision)
    return supervise(server)


def _default_workers(path: Path, headroom: int | None) -> int:
    """One for each whole CPU of the limit, as far as the memory limit allows for a copy of the model in each.

    Without a CPU limit one: a pod must not take a whole node unasked.
    """
    cpus = limits.cpu_limit()
    if cpus is None or cpus < 2:
        return 1
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else (path,)))
    return cpus if headroom is None else max(1, min(cpus, headroom // (2 * size + 64 * MIB)))


def _allow_files(count: int) -> None:
    """Raises the limit of open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard))


def exit_at_once(number: int, frame: FrameType | None) -> None:
    """Until somebody takes the signals over there is nothing to finish."""
    os._exit(0)
