"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler: their certificates and command lines."""

import json
from pathlib import Path

from slipway_dev import pki
from slipway_dev.console import CommandError, wait_for
from slipway_dev.processes import Process, spawn
from slipway_dev.state import Cluster

# All requests, without bodies, once each (when answered).
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
AUDIT_LOG_MEGABYTES = 10_000  # before it is rotated: whoever counts requests reads one file
DEFAULT_SERVICES = "10.96.0.0/20"  # of a control plane alone: nothing routes there


def create_pki(cluster: Cluster) -> None:
    """Create the cluster's certificates, and the kubeconfigs of its administrator and its parts."""
    api_service = "10.96.0.1" if cluster.range_index is None else cluster.addresses.api_service
    service_names = [f"DNS:kubernetes{end}" for end in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
    parts = {
        "admin": ("kubernetes-admin", "system:masters"),
        # With an account for each of its controllers it would spend its first 4 s, at its client's default rate, on
        # making them; so all act as this one administrator.
        "kube-controller-manager": ("system:kube-controller-manager", "system:masters"),
        "kube-scheduler": ("system:kube-scheduler", ""),
        "kube-proxy": ("system:kube-proxy", ""),
    }
    holders = [pki.Holder(file, name, organization) for file, (name, organization) in parts.items()]
    holders.append(pki.Holder("front-proxy", "front-proxy-client"))
    addresses = sorted({"IP:127.0.0.1", f"IP:{cluster.host}", f"IP:{api_service}"})
    holders.append(
        pki.Holder("apiserver", "kube-apiserver", names=("DNS:localhost", *service_names, *addresses)),
    )
    for number, node in enumerate(cluster.node_names(), 1):
        address = cluster.addresses.node(number)
        names = (f"DNS:{node}", f"IP:{address}")
        holders.append(pki.Holder(node, f"system:node:{node}", "system:nodes", names))
    pki.create(cluster.pki, holders)
    for part in (*parts, *cluster.node_names()):
        target = cluster.kubeconfig if part == "admin" else cluster.pki / f"{part}.kubeconfig"
        pki.write_kubeconfig(target, cluster.name, cluster.server, cluster.pki, part)


def etcd_arguments(cluster: Cluster, client_port: int, peer_port: int) -> list[str]:
    """Return etcd's command line. Durability is given up for speed: the data leave with the cluster."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        "--name=etcd",
        f"--data-dir={cluster.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=etcd={peer}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]


def apiserver_arguments(cluster: Cluster, etcd_port: int) -> list[str]:
    """Return the API server's command line.

    Admission is the default (PodSecurity among it), NodeRestriction, and what some distributions add: who blocks an owner's
    deletion needs a right on that owner.
    """
    folder = cluster.pki
    services = DEFAULT_SERVICES if cluster.range_index is None else str(cluster.addresses.services)
    arguments = [
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--bind-address={cluster.host}",
        f"--advertise-address={cluster.host}",
        f"--secure-port={cluster.port}",
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        f"--client-ca-file={folder / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        f"--service-cluster-ip-range={services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={folder / 'ca.crt'}",
        f"--kubelet-client-certificate={folder / 'admin.crt'}",
        f"--kubelet-client-key={folder / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        # The aggregation layer (metrics-server, say).
        f"--requestheader-client-ca-file={folder / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={folder / 'front-proxy.crt'}",
        f"--proxy-client-key-file={folder / 'front-proxy.key'}",
    ]
    if cluster.audit:
        policy = cluster.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        arguments += [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={cluster.audit_log}",
            f"--audit-log-maxsize={AUDIT_LOG_MEGABYTES}",
        ]
    return arguments


def controller_manager_arguments(cluster: Cluster) -> list[str]:
    """Return the controller manager's command line."""
    return [
        f"--kubeconfig={cluster.pki / 'kube-controller-manager.kubeconfig'}",
        f"--service-account-private-key-file={cluster.pki / 'sa.key'}",
        f"--root-ca-file={cluster.pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={cluster.pki / 'ca.crt'}",
        f"--cluster-signing-key-file={cluster.pki / 'ca.key'}",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def scheduler_arguments(cluster: Cluster) -> list[str]:
    """Return the scheduler's command line."""
    return [
        f"--kubeconfig={cluster.pki / 'kube-scheduler.kubeconfig'}",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def start_api(cluster: Cluster, binaries: dict[str, Path], prefix: list[str], ports: tuple[int, int]) -> None:
    """Start etcd and the API server, each after the words of prefix (such as nsenter's)."""
    start_part(cluster, "etcd", [*prefix, str(binaries["etcd"]), *etcd_arguments(cluster, *ports)])
    server = [*prefix, str(binaries["kube-apiserver"]), *apiserver_arguments(cluster, ports[0])]
    start_part(cluster, "kube-apiserver", server)


def start_controllers(cluster: Cluster, binaries: dict[str, Path], prefix: list[str]) -> None:
    """Start the controller manager, and where there are nodes the scheduler."""
    name = "kube-controller-manager"
    start_part(cluster, name, [*prefix, str(binaries[name]), *controller_manager_arguments(cluster)])
    if not cluster.control_plane_only:
        name = "kube-scheduler"
        start_part(cluster, name, [*prefix, str(binaries[name]), *scheduler_arguments(cluster)])


def start_part(cluster: Cluster, name: str, arguments: list[str]) -> Process:
    """Start one process of the cluster and note it in the state."""
    process = spawn(arguments, cluster.folder / "log" / f"{name}.log")
    cluster.processes[name] = process
    cluster.save()
    return process


def wait_until_ready(cluster: Cluster, timeout_seconds: float = 60.0) -> None:
    """Wait until the API server is ready; tell at once when it or etcd has ended."""

    def ready() -> bool:
        for name in ("etcd", "kube-apiserver"):
            if not cluster.processes[name].alive():
                log = cluster.folder / "log" / f"{name}.log"
                raise CommandError(f"{name} ended: {log} ends with\n{log.read_text(errors='replace')[-1500:]}")
        return cluster.api.ready()

    wait_for("the API server ready", ready, timeout_seconds)
