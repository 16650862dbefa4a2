"""Which addresses a fetch may reach, and whose certificates it trusts.

The check is on the address that is connected to, so no name can be rebound.
"""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from slipway_server.termination import Reason, TerminalError

Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network

# IANA's special-purpose registries (RFC 6890 and its updates) and multicast: nothing there is a public server.
_SPECIAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_V6 = IPv6Network("2000::/3")  # all else is loopback, link-local, unique local, multicast, mapped or unassigned
_SPECIAL_V6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")

UNTRUSTED_CURE = "serve it with one of a public authority, or give yours as the key ca.crt of storage.secretName"
"""What to do about a certificate that is not trusted."""


@dataclass(frozen=True)
class Network:
    """Public addresses, and the private or reserved networks that are allowed; and who is trusted to say who answers there."""

    allowed: tuple[AddressRange, ...] = ()
    authorities: str | None = None
    """Certificates in PEM, trusted beside the image's."""

    def permits(self, text: str) -> bool:
        """Whether an address (as a resolver writes it) is public, or inside an allowed network."""
        address = _embedded(ip_address(text))
        return any(address in network for network in self.allowed) or _is_public(address)

    def resolve(self, host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """The addresses of a host that may be connected to, in the resolver's order.

        Raises TerminalError(AddressRefused) if there is none among those that it has, OSError if it has none.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [(info[0], (str(info[4][0]), port)) for info in found]
        permitted = [each for each in addresses if self.permits(each[1][0])]
        if not permitted:
            raise TerminalError(
                Reason.ADDRESS_REFUSED,
                f"{host} has address {addresses[0][1][0]}, which is private or reserved and not among the networks that this "
                "cluster allows: use a public server, or have the cluster's administrator allow its network (--allow-networks)",
            )
        return permitted

    def connect(self, address: tuple[str, int], timeout: float | None = None, *_: object) -> socket.socket:
        """As socket.create_connection, to permitted addresses only."""
        failure: OSError | None = None
        for family, target in self.resolve(*address):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(target)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        assert failure is not None  # noqa: S101 - resolve never answers an empty list
        raise failure


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to (mapped, or by NAT64), else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)
