"""hack/: address ranges, process identities, the control plane's and kind's arguments."""

import os
import subprocess
import sys
from dataclasses import asdict
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest

from slipway_dev import addons, controlplane, kind, local, node, state
from slipway_dev.addresses import RANGES, AddressRange, choose, parse_routes
from slipway_dev.cluster_command import parser
from slipway_dev.console import CommandError
from slipway_dev.processes import Process, child_of, identify


def test_ranges_never_overlap() -> None:
    for one, other in combinations([AddressRange(index) for index in range(RANGES)], 2):
        for network in one.networks():
            assert not any(network.overlaps(another) for another in other.networks())


def test_a_range_holds_its_own_addresses() -> None:
    addresses = AddressRange(3)
    assert addresses.api_service == "10.96.48.1"
    assert addresses.dns_service == "10.96.48.10"
    assert all(addresses.node_pods(number).subnet_of(addresses.pods) for number in (1, 14))
    assert addresses.pods == IPv4Network("10.244.48.0/20")


@pytest.mark.parametrize(
    ("routes", "index"),
    [
        ("default via 192.0.2.1 dev eth0\n192.0.2.0/24 dev eth0 scope link", 0),
        ("10.89.0.0/24 dev slipway0", 1),
        ("blackhole 10.244.0.0/20 metric 9999\n10.96.16.0/20 via 10.89.1.1 dev slipway1", 2),
        ("10.0.0.0/8 dev tun0", 0),  # wide: the cluster's own routes are more specific
        ("local 10.89.0.7 dev eth1 table local", 1),
        ("10.96.0.0/16 dev other", None),
    ],
)
def test_the_first_free_range_is_chosen(routes: str, index: int | None) -> None:
    if index is None:
        with pytest.raises(CommandError, match="take a cluster down"):
            choose(parse_routes(routes))
    else:
        assert choose(parse_routes(routes)).index == index


def test_a_process_is_known_by_its_start_not_only_by_its_id() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = identify(child.pid)
        assert process is not None
        assert process.alive()
        assert child_of(os.getpid()) is not None
        for impostor in (
            Process(process.pid, process.start_ticks - 1, process.boot),
            Process(process.pid, process.start_ticks, "another boot"),
        ):
            assert not impostor.alive()
            impostor.kill()
        assert child.poll() is None, "a process that only shares the id was killed"
        process.kill()
        assert not process.alive()  # a zombie until it is waited for: not alive
    process.kill()  # gone: nothing to do


def cluster(**changes: object) -> state.Cluster:
    values = {"name": "one", "provider": "local", "nodes": 2, "range_index": 1, "host": "10.89.1.254"}
    return state.Cluster(**{**values, **changes})  # type: ignore[arg-type]


def test_the_state_survives_a_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    saved = cluster(processes={"etcd": Process(1, 2, "boot")})
    saved.save()
    loaded = state.load("one")
    assert loaded is not None
    assert asdict(loaded) == asdict(saved)
    assert state.names() == ["one"]
    assert state.load("other") is None


def test_api_server_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    plain = controlplane.apiserver_arguments(cluster(), 2379)
    assert "--service-cluster-ip-range=10.96.16.0/20" in plain
    assert not any("audit" in argument or "disable-admission" in argument for argument in plain)
    audited = cluster(audit=True)
    audited.save()
    assert f"--audit-log-path={audited.audit_log}" in controlplane.apiserver_arguments(audited, 2379)


def test_a_control_plane_alone_gets_ports_of_its_own() -> None:
    assert len(set(local.free_ports(3))) == 3


def test_node_configuration_is_the_nodes_own() -> None:
    configuration = node.kubelet_configuration(cluster(), "one-2")
    assert configuration["cgroupRoot"] == "/slipway/one/one-2"
    assert configuration["clusterDNS"] == ["10.96.16.10"]


def test_dns_answers_live_a_second_and_stay_at_home() -> None:
    assert "ttl 1" in addons.COREFILE
    assert "cache" not in addons.COREFILE
    assert "forward" not in addons.COREFILE


def test_kinds_corefile_is_patched() -> None:
    corefile = (
        ".:53 {\n    kubernetes cluster.local in-addr.arpa {\n       pods insecure\n       ttl 30\n    }\n"
        "    cache 30 {\n       disable success cluster.local\n       disable denial cluster.local\n    }\n    loop\n}\n"
    )
    assert kind.patched_corefile(corefile) == (
        ".:53 {\n    kubernetes cluster.local in-addr.arpa {\n       pods insecure\n       ttl 1\n    }\n    loop\n}\n"
    )
    assert kind.patched_corefile(".:53 {\n    cache 30\n    loop\n}\n") == ".:53 {\n    loop\n}\n"


def test_kinds_nodes_all_take_pods() -> None:
    configuration = kind.configuration(3, restrict_oom_score=False)
    assert configuration["nodes"] == [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}]
    assert "taints: []" in str(configuration["kubeadmConfigPatches"])
    assert "containerdConfigPatches" not in configuration
    assert "restrict_oom_score_adj = true" in str(kind.configuration(1, restrict_oom_score=True))


def test_kind_is_created_from_stdin_with_a_kubeconfig_of_its_own() -> None:
    arguments = kind.create_arguments(cluster(provider="kind"), None)
    assert arguments[:6] == ["create", "cluster", "--name", "one", "--config", "-"]
    assert arguments[-1] == kind.NODE_IMAGE
    assert kind.create_arguments(cluster(), "kindest/node:v1")[-1] == "kindest/node:v1"


@pytest.mark.parametrize("name", ["Upper", "-a", "a_b", "a" * 31, "a/b", ""])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["up", "--name", name])


def test_python_is_new_enough_for_what_hack_uses() -> None:
    assert sys.version_info >= (3, 11)
