"""The host's side of a local cluster's network.

A bridge and the control plane live in one network namespace of their own (the plane), each node in another; one link leads
from the host into the plane. So traffic between nodes, pods and the API server never meets the host's firewall.
"""

from slipway_dev.addresses import AddressRange, choose, parse_routes
from slipway_dev.console import CommandError
from slipway_dev.processes import run

LAST_RESORT_METRIC = 9999


def choose_range() -> AddressRange:
    """Return an address range that no route of this host overlaps. The caller holds the lock of all clusters."""
    return choose(parse_routes(run(["ip", "-4", "route", "show", "table", "all"])))


def ip_in(pid: int, commands: list[str]) -> None:
    """Run ip commands in the network namespace of a process."""
    run(["nsenter", "--target", str(pid), "--net", "ip", "-batch", "-"], stdin="\n".join(commands) + "\n")


def connect_host(addresses: AddressRange, plane_pid: int, nodes: int) -> None:
    """Join the host to the plane, and let Services and pods be reached from the host."""
    link = addresses.link
    commands = [
        f"link add {link} type veth peer name host netns {plane_pid}",
        f"address add {addresses.host}/{addresses.nodes.prefixlen} dev {link}",
        f"link set {link} up",
        # While a node is away its packets must not follow the default route out of the machine.
        f"route add blackhole {addresses.services} metric {LAST_RESORT_METRIC}",
        f"route add blackhole {addresses.pods} metric {LAST_RESORT_METRIC}",
    ]
    run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    ip_in(
        plane_pid,
        [
            "link set lo up",
            "link add br0 type bridge",
            "link set host master br0",
            "link set host up",
            f"address add {addresses.control_plane}/{addresses.nodes.prefixlen} dev br0",
            "link set br0 up",
            *_cluster_routes(addresses, nodes),
        ],
    )
    run(["ip", "-batch", "-"], stdin="\n".join(_cluster_routes(addresses, nodes)) + "\n")


def connect_node(addresses: AddressRange, plane_pid: int, node_pid: int, number: int, nodes: int) -> None:
    """Join a node to the bridge. It has no way out but to the other nodes, the control plane and the host."""
    ip_in(
        plane_pid,
        [
            f"link add node{number} type veth peer name eth0 netns {node_pid}",
            f"link set node{number} master br0",
            f"link set node{number} up",
        ],
    )
    others = [other for other in range(1, nodes + 1) if other != number]
    ip_in(
        node_pid,
        [
            "link set lo up",
            f"address add {addresses.node(number)}/{addresses.nodes.prefixlen} dev eth0",
            "link set eth0 up",
            "route add unreachable default",
            # A process of the node itself needs a route before kube-proxy's rules see its packet.
            f"route add {addresses.services} dev eth0",
            *(f"route add {addresses.node_pods(other)} via {addresses.node(other)}" for other in others),
        ],
    )


def disconnect_host(addresses: AddressRange) -> None:
    """Remove the link (its routes go with it) and the last-resort routes."""
    for command in (
        ["link", "delete", addresses.link],
        ["route", "delete", "blackhole", str(addresses.services), "metric", str(LAST_RESORT_METRIC)],
        ["route", "delete", "blackhole", str(addresses.pods), "metric", str(LAST_RESORT_METRIC)],
    ):
        try:
            run(["ip", *command])
        except CommandError as error:
            if "Cannot find device" not in str(error) and "No such process" not in str(error):
                raise


def _cluster_routes(addresses: AddressRange, nodes: int) -> list[str]:
    return [
        f"route add {addresses.services} via {addresses.node(1)}",
        *(f"route add {addresses.node_pods(number)} via {addresses.node(number)}" for number in range(1, nodes + 1)),
    ]
