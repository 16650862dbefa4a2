"""Progress and errors. Everything here goes to stderr, so that stdout holds only what a caller wants to read."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 5.0
_started = time.monotonic()


class CommandError(Exception):
    """An error to show as one message, without a traceback. The message names the cure."""


def say(message: str) -> None:
    """Print one line of progress with the time since the command began."""
    print(f"[{time.monotonic() - _started:6.1f}s] {message}", file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Generator[None]:
    """Time a step; say that it still runs every few seconds, and how long it took at its end."""
    begin = time.monotonic()
    done = threading.Event()

    def heartbeat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            say(f"{title} ... {time.monotonic() - begin:.0f} s so far")

    thread = threading.Thread(target=heartbeat, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        say(f"{title}: failed after {time.monotonic() - begin:.1f} s")
        raise
    done.set()
    say(f"{title}: {time.monotonic() - begin:.1f} s")


def run_command(command: Callable[[], None]) -> None:
    """Run a command line's body; show a CommandError as one message and leave with status 1."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # a user's PATH may lack the system's tools
    try:
        command()
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def wait_for(what: str, check: Callable[[], bool], timeout_seconds: float, interval_seconds: float = 0.05) -> None:
    """Poll until check() is true, or raise a CommandError that names what did not happen."""
    deadline = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > deadline:
            raise CommandError(f"{what}: not so after {timeout_seconds:.0f} s")
        time.sleep(interval_seconds)
