"""The socket that a server listens on. Imports no event loop: the supervisor makes the socket, and stays small."""

import socket

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket (host "": every address, IPv6 too where there is IPv6). Raises OSError."""
    listening = socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET,
        dualstack_ipv6=not host and socket.has_dualstack_ipv6(),
        backlog=BACKLOG,
    )
    listening.setblocking(False)
    return listening
