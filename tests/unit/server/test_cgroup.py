"""CPU and memory limits as cgroup v1 and v2 write them."""

import os
from pathlib import Path

import pytest

from slipway_server import limits


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/", {"cpu.max": "max 100000\n"}, 8),
        ("0::/", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/", {}, 8),
        ("0::/pod/a", {"pod/a/cpu.max": "300000 100000\n", "cpu.max": "max 100000\n"}, 3),
        ("4:cpu,cpuacct:/pod\n0::/", {"cpu/pod/cpu.cfs_quota_us": "200000", "cpu/pod/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu,cpuacct:/host/pod", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"}, 3),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("", {"cpu.max": "200000 100000\n"}, 2),
    ],
)
def test_cpu_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, files: dict[str, str], cpus: int) -> None:
    lay_out(tmp_path, {"proc": cgroup, **files})
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(limits, "PROC_CGROUP", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert limits.cpu_count() == cpus


@pytest.mark.parametrize(
    ("cgroup", "files", "headroom"),
    [
        ("0::/", {"memory.max": "1000", "memory.current": "300"}, 700),
        ("0::/", {"memory.max": "1000", "memory.current": "300", "memory.stat": "anon 200\ninactive_file 100\n"}, 800),
        ("0::/", {"memory.max": "max", "memory.current": "300"}, None),
        ("0::/", {}, None),
        ("3:memory:/p", {"memory/p/memory.limit_in_bytes": "1000", "memory/p/memory.usage_in_bytes": "1100"}, 0),
        ("3:memory:/p", {"memory/p/memory.limit_in_bytes": "9223372036854771712", "memory/p/memory.usage_in_bytes": "1"}, None),
    ],
)
def test_memory_headroom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, files: dict[str, str], headroom: int | None
) -> None:
    lay_out(tmp_path, {"proc": cgroup, **files})
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(limits, "PROC_CGROUP", tmp_path / "proc")
    assert limits.memory_headroom_bytes() == headroom
