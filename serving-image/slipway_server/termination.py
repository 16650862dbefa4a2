"""Why the process ended: the contract with the operator, which repeats the line in the resource's status.

A failure is one line, `Reason: message`, on stderr and in the container's termination message (at most 4096 bytes, read
by the kubelet into the pod's status), and exit code 1. The message says what, where, and the cure.
"""

import contextlib
import os
import sys
from enum import StrEnum
from pathlib import Path

ENV = "SLIPWAY_TERMINATION_LOG"
DEFAULT_PATH = "/dev/termination-log"
EXIT_CODE = 1
MAX_BYTES = 4096  # the kubelet keeps no more of a termination message


class Reason(StrEnum):
    """The closed set of words that a termination message begins with."""

    # fetch and serve
    INVALID_ARGUMENTS = "InvalidArguments"
    """A flag is missing or has a value that cannot be: the operator and the image disagree."""
    INTERNAL_ERROR = "InternalError"
    """A defect of this image: the message names the exception."""
    UNSUPPORTED_MODEL = "UnsupportedModel"
    """The format, an operator, or a tensor type of the model is not one that this image serves."""
    MODEL_NOT_FOUND = "ModelNotFound"
    """Nothing at the URI (or, for serve, in the model folder)."""
    MODEL_UNREADABLE = "ModelUnreadable"
    """It is there but may not be read: permissions, or credentials missing or refused."""

    UNTRUSTED_MODEL = "UntrustedModel"
    """Loading the format runs code of the file's author (pickle, joblib), and the resource does not say `trust: Unsafe`."""

    # fetch
    INVALID_URI = "InvalidURI"
    """The URI cannot be parsed, has a scheme that is not served, or leaves its folder."""
    MODEL_TOO_LARGE = "ModelTooLarge"
    """Larger than --max-bytes."""
    ADDRESS_REFUSED = "AddressRefused"
    """The URI, or a redirect, leads to an address or by a scheme that this cluster's settings do not allow."""
    ARCHIVE_REFUSED = "ArchiveRefused"
    """An archive or folder holds more than regular files and folders, leaves its folder, or unpacks to too much."""
    DIGEST_MISMATCH = "DigestMismatch"
    """The bytes are not those of the given sha256."""
    DOWNLOAD_FAILED = "DownloadFailed"
    """The other side could not be reached, cut the connection, or answered an error, after every retry."""
    STORAGE_FAILED = "StorageFailed"
    """The destination cannot be written: full, or not writable."""

    # serve
    MODEL_CORRUPT = "ModelCorrupt"
    """The runtime refuses the file, or the model fails its first run."""
    MODEL_LOAD_CRASHED = "ModelLoadCrashed"
    """Loading it killed its process."""
    MODEL_LOAD_TIMEOUT = "ModelLoadTimeout"
    """Loading it took longer than --load-timeout."""
    MODEL_RUN_CRASHED = "ModelRunCrashed"
    """Requests killed worker after worker."""
    OUT_OF_MEMORY = "OutOfMemory"
    """Loading it needs more memory than the container has."""
    PORT_UNAVAILABLE = "PortUnavailable"
    """The port cannot be bound."""


class TerminalError(Exception):
    """Ends the process with a termination message: `reason`, and a plain-English `message` of one line."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = " ".join(message.split())  # one line, whatever a library put into it

    def line(self) -> str:
        """The termination message, at most MAX_BYTES when encoded."""
        line = f"{self.reason}: {self.message}"
        encoded = line.encode()
        return line if len(encoded) <= MAX_BYTES else encoded[: MAX_BYTES - 3].decode(errors="ignore") + "..."


def report(error: TerminalError) -> int:
    """Writes the line to stderr and to the termination log (where there is one); returns the exit code."""
    line = error.line()
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
    tell(line)
    return EXIT_CODE


def tell(line: str) -> None:
    """Writes a line to the termination log (where there is one): a failure, or `Fetched: ...`, which the operator repeats."""
    with contextlib.suppress(OSError):  # outside a pod there is no such file, and no right to make it
        Path(os.environ.get(ENV) or DEFAULT_PATH).write_text(line, encoding="utf-8")
