"""How often and how long a cut or refused download is tried again."""

import random
import time

from slipway_server import logs
from slipway_server.termination import Reason, TerminalError

MAX_ATTEMPTS = 12
MAX_FRUITLESS_ATTEMPTS = 5
"""Attempts in a row that brought no byte: then the other side is down, not flaky."""
BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0


class RetryableError(Exception):
    """Worth another attempt; the text says what happened, without the URL."""


class Retries:
    """Counts the failed attempts at one file or range."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._attempts = 0
        self._fruitless = 0

    def failed(self, error: RetryableError, received: int, progress: bool) -> None:
        """Sleeps before the next attempt; raises TerminalError(DownloadFailed) when there should be none.

        `received` bytes are here in all; `progress`: the failed attempt brought some of them.
        """
        self._attempts += 1
        self._fruitless = 0 if progress else self._fruitless + 1
        if self._fruitless == MAX_FRUITLESS_ATTEMPTS or self._attempts == MAX_ATTEMPTS:
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{self._label}: {error} (after {self._attempts} attempts, {received} bytes received): "
                "check that the server is reachable from the pod and serves the whole file",
            ) from None
        longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**self._fruitless)
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        logs.warning("download interrupted", cause=str(error), received=received, retry_in=f"{pause:.1f}s")
        time.sleep(pause)
