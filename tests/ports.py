"""Ports for servers that tests start: none is given twice, and none is one that outgoing connections get."""

import itertools
import os
import socket

_FIRST, _COUNT = 10_000, 20_000
# Each process begins elsewhere.
_NUMBERS = itertools.count(os.getpid() * 101)


def free_port() -> int:
    """Answer a port of 127.0.0.1 at which nobody listens."""
    for number in _NUMBERS:
        port = _FIRST + number % _COUNT
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("numbers have no end")
