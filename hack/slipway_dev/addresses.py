"""Address ranges: each local cluster has a range number of its own, from which all its addresses follow."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

from slipway_dev.console import CommandError

RANGES = 16
NODES = 14
# A wider route (a VPN's 10.0.0.0/8, say) does not exclude a range: the cluster's own routes are more specific and win.
WIDEST_ROUTE = 15


@dataclass(frozen=True)
class AddressRange:
    """The addresses of local cluster number `index`."""

    index: int

    @property
    def link(self) -> str:
        """The host's network interface into the cluster."""
        return f"slipway{self.index}"

    @property
    def host(self) -> str:
        """The host's own address on the nodes' network."""
        return f"10.89.{self.index}.253"

    @property
    def control_plane(self) -> str:
        """Where the API server listens."""
        return f"10.89.{self.index}.254"

    @property
    def nodes(self) -> IPv4Network:
        """The nodes' network."""
        return IPv4Network(f"10.89.{self.index}.0/24")

    @property
    def pods(self) -> IPv4Network:
        """All pods of all nodes."""
        return IPv4Network(f"10.244.{16 * self.index}.0/20")

    @property
    def services(self) -> IPv4Network:
        """All Services."""
        return IPv4Network(f"10.96.{16 * self.index}.0/20")

    @property
    def api_service(self) -> str:
        """The Service `kubernetes`: the first of the range, as the API server takes it."""
        return str(self.services[1])

    @property
    def dns_service(self) -> str:
        """The Service `kube-dns`."""
        return str(self.services[10])

    def node(self, number: int) -> str:
        """Return the address of a node; nodes count from 1."""
        return f"10.89.{self.index}.{number}"

    def node_pods(self, number: int) -> IPv4Network:
        """Return the pods' network of a node."""
        return IPv4Network(f"10.244.{16 * self.index + number}.0/24")

    def networks(self) -> tuple[IPv4Network, ...]:
        """Return all that the host has a route to while the cluster runs."""
        return (self.nodes, self.pods, self.services)


def choose(routes: Iterable[IPv4Network]) -> AddressRange:
    """Return the first range that overlaps none of the networks in use."""
    used = [route for route in routes if route.prefixlen > WIDEST_ROUTE]
    for candidate in (AddressRange(index) for index in range(RANGES)):
        if not any(network.overlaps(route) for network in candidate.networks() for route in used):
            return candidate
    raise CommandError(f"all {RANGES} address ranges overlap routes of this host (`ip route`): take a cluster down first")


def parse_routes(ip_route_output: str) -> list[IPv4Network]:
    """Return the networks of `ip -4 route show table all`."""
    networks: list[IPv4Network] = []
    for line in ip_route_output.splitlines():
        words = line.split()
        kinds = ("blackhole", "unreachable", "prohibit", "broadcast", "local", "throw", "anycast", "multicast")
        if words and words[0] in kinds:
            words = words[1:]
        if words and words[0][0].isdigit():
            networks.append(IPv4Network(words[0], strict=False))
    return networks
