"""The local provider: a real control plane and real nodes on this machine, with no Docker and no registry."""

import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slipway_dev import addons, catalog, cgroups, controlplane, debian, network, node, scratch, store, tools
from slipway_dev.cache import lock
from slipway_dev.console import CommandError, say, step, wait_for
from slipway_dev.processes import child_of, run
from slipway_dev.state import Cluster

PLANE = "plane"  # the process that holds the control plane's namespaces
NETWORK_LOCK = Path("/run/lock/slipway-network.lock")
CONTROL_PLANE_PACKAGES = {"openssl": ("openssl",)}
NODE_PACKAGES = {
    **CONTROL_PLANE_PACKAGES,
    "containerd": ("containerd",),
    "runc": ("runc",),
    "containernetworking-plugins": tuple(str(folder / "ptp") for folder in node.PLUGIN_FOLDERS),
    "iptables": ("iptables",),
    "iproute2": ("ip",),
}


def up(cluster: Cluster, images: Sequence[str]) -> None:
    """Start a cluster of which nothing runs."""
    require_this_machine(cluster)
    begin = time.monotonic()
    if cluster.control_plane_only:
        _up_control_plane(cluster)
    else:
        _up_nodes(cluster, images)
    cluster.ready = True
    cluster.save()
    say(f"cluster {cluster.name} is ready: {time.monotonic() - begin:.1f} s")


def require_this_machine(cluster: Cluster) -> None:
    """Refuse, in one line, where the local provider cannot work."""
    if platform.system() != "Linux":
        raise CommandError("a local cluster needs Linux: install Docker and use --provider kind here")
    if not cluster.control_plane_only and os.geteuid() != 0:
        raise CommandError("a local cluster with nodes needs root: run it with sudo, or add --control-plane-only")


def _up_control_plane(cluster: Cluster) -> None:
    debian.ensure(CONTROL_PLANE_PACKAGES)
    binaries = tools.ensure(catalog.CONTROL_PLANE)
    cluster.host = "127.0.0.1"
    cluster.port, etcd_client, etcd_peer = free_ports(3)
    cluster.save()
    with step("certificates"):
        controlplane.create_pki(cluster)
    with step("etcd and API server"):
        controlplane.start_api(cluster, binaries, [], (etcd_client, etcd_peer))
        controlplane.wait_until_ready(cluster)
    controlplane.start_controllers(cluster, binaries, [])
    with step("the default ServiceAccount"):
        _wait_for_default_account(cluster)


def _up_nodes(cluster: Cluster, images: Sequence[str]) -> None:
    debian.ensure(NODE_PACKAGES)
    binaries = tools.ensure(catalog.CLUSTER)
    pause, coredns = scratch.image_of(binaries["pause"]), scratch.image_of(binaries["coredns"])
    template = store.template(pause, [coredns, *(store.find(image) for image in images)])
    with step("network"):
        _create_plane(cluster)
    with step("certificates"):
        controlplane.create_pki(cluster)
    plane_pid = _plane_pid(cluster)
    prefix = ["nsenter", "--target", str(plane_pid), "--net", "--pid", "--"]
    with step("etcd, API server and node processes"):
        controlplane.start_api(cluster, binaries, prefix, (2379, 2380))
        with ThreadPoolExecutor(cluster.nodes) as pool:
            starts = [
                pool.submit(node.start, cluster, number, plane_pid, binaries, template) for number in range(1, cluster.nodes + 1)
            ]
            controlplane.wait_until_ready(cluster)
            for start in starts:
                start.result()
        node.api_is_ready(cluster)
    with step("cluster DNS applied"):
        controlplane.start_controllers(cluster, binaries, prefix)
        addons.apply_dns(cluster.api, coredns.reference, cluster.addresses.dns_service, min(cluster.nodes, 2))
    for name in cluster.node_names():
        with step(f"node {name} ready"):
            _wait_while_alive(cluster, name, f"node {name} ready", lambda name=name: cluster.api.node_ready(name))
    with step("cluster DNS ready"):
        wait_for("coredns available", lambda: cluster.api.deployment_available("kube-system", "coredns"), 60)
        _wait_for_default_account(cluster)


def _create_plane(cluster: Cluster) -> None:
    """Take an address range and hold it by a link and routes that the next cluster will see."""
    with lock(NETWORK_LOCK):
        addresses = network.choose_range()
        cluster.range_index, cluster.host = addresses.index, addresses.control_plane
        holder = ["unshare", "--net", "--pid", "--fork", "--kill-child", "sleep", "infinity"]
        process = controlplane.start_part(cluster, PLANE, holder)
        wait_for("the control plane's namespaces", lambda: child_of(process.pid) is not None, 5)
        network.connect_host(addresses, _plane_pid(cluster), cluster.nodes)


def _plane_pid(cluster: Cluster) -> int:
    pid = child_of(cluster.processes[PLANE].pid)
    if pid is None:
        raise CommandError(f"the control plane's namespaces are gone: hack/cluster down --name {cluster.name}, then up")
    return pid


def _wait_for_default_account(cluster: Cluster) -> None:
    path = "/api/v1/namespaces/default/serviceaccounts/default"
    wait_for("the default ServiceAccount", lambda: cluster.api.get(path) is not None, 30)


def _wait_while_alive(cluster: Cluster, part: str, what: str, check: Callable[[], bool]) -> None:
    def checked() -> bool:
        if not cluster.processes[part].alive():
            raise CommandError(f"{part} ended: see {cluster.folder / 'log' / part}.log and {cluster.node_folder(part)}/var-log")
        return check()

    wait_for(what, checked, 60)


def free_ports(count: int) -> list[int]:
    """Return distinct ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def down(cluster: Cluster) -> None:
    """End everything of a cluster, whatever of it is left."""
    for process in cluster.processes.values():  # the holder of the plane first: what it holds ends with it
        process.kill()
    if cluster.range_index is not None and not cluster.control_plane_only:
        with lock(NETWORK_LOCK):
            network.disconnect_host(cluster.addresses)
        cgroups.remove(cluster.name)
    _unmount_below(cluster.folder)
    shutil.rmtree(cluster.folder)


def _unmount_below(folder: Path) -> None:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        run(["umount", point])


def running(cluster: Cluster) -> bool:
    """Tell whether the cluster came up and all its processes still run."""
    return cluster.ready and bool(cluster.processes) and all(p.alive() for p in cluster.processes.values())


def load(cluster: Cluster, images: Sequence[str]) -> None:
    """Import the images that a node lacks, on all nodes at once."""
    if cluster.control_plane_only:
        raise CommandError(f"cluster {cluster.name} has no nodes to load images into")
    found = [store.find(image) for image in images]
    with ThreadPoolExecutor(cluster.nodes) as pool:
        for result in [pool.submit(_load_node, cluster, name, found) for name in cluster.node_names()]:
            result.result()


def _load_node(cluster: Cluster, name: str, images: list[store.Image]) -> None:
    ctr = [*node.enter(cluster, name), "ctr"]
    present = store.known(ctr)
    for image in images:
        if image.reference in present:
            say(f"{name} has {image.reference}")
            continue
        with step(f"loading {image.reference} into {name}"):
            store.import_image(ctr, image)
    wanted = {image.reference for image in images}
    wait_for(f"images known to {name}", lambda: store.known(ctr) >= wanted, 30)
