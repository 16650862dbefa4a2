"""The kind provider: nodes are containers of a Docker engine."""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from slipway_dev import store, tools
from slipway_dev.console import say, step, wait_for
from slipway_dev.engine import docker_answers
from slipway_dev.processes import run
from slipway_dev.state import Cluster

# The node image that the pinned kind names, as its own source says (pkg/apis/config/defaults/image.go).
NODE_IMAGE = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
CAP_SYS_RESOURCE = 24
PULL_TIMEOUT_SECONDS = 600
# Without CAP_SYS_RESOURCE runc may not lower a process's OOM score, and no pod starts.
_RESTRICT_OOM_SCORE = '[plugins."io.containerd.grpc.v1.cri"]\n  restrict_oom_score_adj = true\n'


def usable(image: str | None) -> bool:
    """Tell whether a Docker engine answers and kind's node image is there or can be pulled."""
    if not docker_answers():
        return False
    wanted = image or NODE_IMAGE
    if _succeeds(["docker", "image", "inspect", wanted]):
        return True
    with step(f"docker pull {wanted}"):
        return _succeeds(["docker", "pull", "--quiet", wanted], PULL_TIMEOUT_SECONDS)


def configuration(nodes: int, restrict_oom_score: bool) -> dict[str, object]:
    """Return kind's configuration for a number of nodes that all take pods, the control plane's among them."""
    config: dict[str, object] = {
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "nodes": [{"role": "control-plane"}, *({"role": "worker"} for _ in range(nodes - 1))],
        "kubeadmConfigPatches": [
            "kind: InitConfiguration\nnodeRegistration:\n  taints: []\n",
            "kind: KubeletConfiguration\nfailCgroupV1: false\nsyncFrequency: 10s\n",
        ],
    }
    if restrict_oom_score:
        config["containerdConfigPatches"] = [_RESTRICT_OOM_SCORE]
    return config


def create_arguments(cluster: Cluster, image: str | None) -> list[str]:
    """Return the words after `kind` that create a cluster; its configuration is read from stdin."""
    return [
        *("create", "cluster", "--name", cluster.name, "--config", "-", "--kubeconfig", str(cluster.kubeconfig)),
        *("--wait", "180s", "--image", image or NODE_IMAGE),
    ]


def patched_corefile(corefile: str) -> str:
    """Return a Corefile whose answers live one second and are not cached, as the local provider's."""
    lines: list[str] = []
    depth_of_cache = 0
    for line in corefile.splitlines():
        word = line.split()[0] if line.split() else ""
        if depth_of_cache:
            depth_of_cache += line.count("{") - line.count("}")
        elif word == "cache":
            depth_of_cache = line.count("{") - line.count("}")
        elif word == "ttl":
            lines.append(line[: line.index("ttl")] + "ttl 1")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def up(cluster: Cluster, image: str | None, images: Sequence[str]) -> None:
    """Create a cluster and wait for what kind does not wait for."""
    begin = time.monotonic()
    cluster.save()
    config = json.dumps(configuration(cluster.nodes, not _may_lower_oom_scores()))
    with step("kind create cluster"):
        run([_kind(), *create_arguments(cluster, image)], stdin=config)
    with step("cluster DNS and the default ServiceAccount"):
        _patch_dns(cluster)
        wait_for("the default ServiceAccount", lambda: _kubectl_succeeds(cluster, "get", "sa", "default"), 60, 0.3)
        _kubectl(cluster, "rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=120s")
    load(cluster, images)
    cluster.ready = True
    cluster.save()
    say(f"cluster {cluster.name} is ready: {time.monotonic() - begin:.1f} s")


def down(cluster: Cluster) -> None:
    """Delete a cluster; kind itself treats one that is gone as deleted."""
    run([_kind(), "delete", "cluster", "--name", cluster.name, "--kubeconfig", cluster.kubeconfig])
    shutil.rmtree(cluster.folder)


def running(cluster: Cluster) -> bool:
    """Tell whether the cluster came up and its API server answers."""
    return cluster.ready and _kubectl_succeeds(cluster, "get", "--raw", "/readyz")


def load(cluster: Cluster, images: Sequence[str]) -> None:
    """Load the images that a node lacks."""
    found = [store.find(image) for image in images]
    nodes = run([_kind(), "get", "nodes", "--name", cluster.name]).split()
    for image in found:
        lacking = [node for node in nodes if image.reference not in _present(node)]
        if not lacking:
            say(f"all nodes have {image.reference}")
            continue
        with step(f"loading {image.reference} into {', '.join(lacking)}"):
            archive = str(image.archive)
            run([_kind(), "load", "image-archive", archive, "--name", cluster.name, "--nodes", ",".join(lacking)])


def _present(node: str) -> list[str]:
    return run(["docker", "exec", node, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"]).split()


def _patch_dns(cluster: Cluster) -> None:
    where = ["--namespace=kube-system", "configmap/coredns"]
    found = json.loads(_kubectl(cluster, "get", *where, "--output=json"))
    patch = {"data": {"Corefile": patched_corefile(found["data"]["Corefile"])}}
    _kubectl(cluster, "patch", *where, "--type=merge", f"--patch={json.dumps(patch)}")
    _kubectl(cluster, "rollout", "restart", "--namespace=kube-system", "deployment/coredns")


@cache
def _kind() -> Path:
    return tools.ensure(["kind"])["kind"]


@cache
def _kubectl_path() -> Path:
    return tools.ensure(["kubectl"])["kubectl"]


def _kubectl(cluster: Cluster, *arguments: str) -> str:
    return run([_kubectl_path(), "--kubeconfig", cluster.kubeconfig, *arguments])


def _kubectl_succeeds(cluster: Cluster, *arguments: str) -> bool:
    return _succeeds([str(_kubectl_path()), "--kubeconfig", str(cluster.kubeconfig), *arguments])


def _succeeds(command: list[str], timeout_seconds: float = 60) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=timeout_seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _may_lower_oom_scores() -> bool:
    """Tell whether this machine gives CAP_SYS_RESOURCE; where there is no /proc the engine has a machine of its own."""
    status = Path("/proc/self/status")
    if not status.exists():
        return True
    bounding = next(line for line in status.read_text().splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
