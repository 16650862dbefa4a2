"""A node of a local cluster: containerd, kubelet and kube-proxy in namespaces of their own under one process."""

import json
from pathlib import Path

from slipway_dev import cgroups, network, store
from slipway_dev.console import CommandError, wait_for
from slipway_dev.controlplane import start_part
from slipway_dev.processes import child_of
from slipway_dev.state import Cluster

INIT = Path(__file__).with_name("node-init.sh")
PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
PLUGINS = ("ptp", "host-local", "portmap", "loopback")
MAX_PODS = 240  # of the 254 addresses of a node


def plugin_folder() -> Path | None:
    """Return where the CNI plugins are installed."""
    return next((folder for folder in PLUGIN_FOLDERS if all((folder / name).exists() for name in PLUGINS)), None)


def cni_configuration(pods: str) -> dict[str, object]:
    """Return the pods' network: a routed link each, so that kube-proxy's rules see all traffic, as in kind."""
    ranges = {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "1.0.0",
        "name": "slipway",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ranges},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet_configuration(cluster: Cluster, node: str) -> dict[str, object]:
    """Return the kubelet's configuration. Paths are those that the node sees."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": "/run/slipway/node/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/run/slipway/node/node.crt",
        "tlsPrivateKeyFile": "/run/slipway/node/node.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.path_of(cluster.name, node),
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "clusterDNS": [cluster.addresses.dns_service],
        "clusterDomain": "cluster.local",
        "resolvConf": "/run/slipway/node/resolv.conf",
        "maxPods": MAX_PODS,
        "serializeImagePulls": False,
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "syncFrequency": "10s",
        # The disk is the machine's, shared with everything else on it: only real need evicts, images are never collected.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }


def start(cluster: Cluster, number: int, plane_pid: int, binaries: dict[str, Path], template: Path) -> None:
    """Start a node; its kubelet waits for api_is_ready()."""
    node = cluster.node_names()[number - 1]
    folder = cluster.node_folder(node)
    plugins = plugin_folder()
    if plugins is None:
        raise CommandError("no CNI plugins: install the package containernetworking-plugins")
    for part in ("cni", "var-lib", "var-log"):
        (folder / part).mkdir(parents=True)
    store.seed(template, folder / "var-lib" / "containerd")
    cgroups.create(cluster.name, node)
    (folder / "cni" / "10-slipway.conflist").write_text(json.dumps(cni_configuration(str(cluster.addresses.node_pods(number)))))
    (folder / "kubelet.json").write_text(json.dumps(kubelet_configuration(cluster, node), indent=1))
    (folder / "resolv.conf").write_text("")
    for source, target in (
        (cluster.pki / "ca.crt", "ca.crt"),
        (cluster.pki / f"{node}.crt", "node.crt"),
        (cluster.pki / f"{node}.key", "node.key"),
        (cluster.pki / f"{node}.kubeconfig", "kubeconfig"),
        (cluster.pki / "kube-proxy.kubeconfig", "kube-proxy.kubeconfig"),
    ):
        (folder / target).write_bytes(source.read_bytes())
        (folder / target).chmod(0o600)
    sandbox = (template / "pause").read_text()
    (folder / "containerd.toml").write_text(
        store.containerd_configuration("/var/lib/containerd", "/run/containerd", sandbox, plugins)
    )
    process = start_part(
        cluster,
        node,
        [
            *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"),
            *("bash", str(INIT), str(folder), node, str(binaries["kubelet"]), str(binaries["kube-proxy"])),
            "--kubeconfig=/run/slipway/node/kube-proxy.kubeconfig",
            "--proxy-mode=iptables",
            f"--cluster-cidr={cluster.addresses.pods}",
            f"--hostname-override={node}",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
        ],
    )
    wait_for(f"process 1 of {node}", lambda: child_of(process.pid) is not None, 5)
    inside = child_of(process.pid)
    if inside is None:
        raise CommandError(f"node {node} ended at once: see {cluster.folder / 'log' / node}.log")
    network.connect_node(cluster.addresses, plane_pid, inside, number, cluster.nodes)
    (folder / "network-ready").write_text(cluster.addresses.node(number))


def api_is_ready(cluster: Cluster) -> None:
    """Let the kubelets go: before the API server answers they would only back off."""
    for node in cluster.node_names():
        (cluster.node_folder(node) / "api-ready").touch()


def enter(cluster: Cluster, node: str) -> list[str]:
    """Return the words that run a command inside a node."""
    inside = child_of(cluster.processes[node].pid)
    if inside is None:
        raise CommandError(f"node {node} is down: hack/cluster down --name {cluster.name}, then up")
    return ["nsenter", "--target", str(inside), "--mount", "--net", "--pid", "--uts", "--ipc", "--"]
