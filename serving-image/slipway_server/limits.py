"""What the container may use: CPU and memory limits from cgroup v2 and v1."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC_CGROUP = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # cgroup v1 says "no limit" by a number near 2**63


def cpu_count() -> int:
    """Whole CPUs that this process may use: the cgroup's quota and the affinity mask, whichever is less, at least 1.

    A quota of 2500m is 2: one thread more than the quota feeds would spend its life being throttled.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    return max(1, min(allowed, math.floor(quota)) if quota else allowed)


def cpu_limit() -> int | None:
    """Whole CPUs of the cgroup's quota, at least 1; None without a quota."""
    quota = _cpu_quota()
    return max(1, math.floor(quota)) if quota else None


def physical_memory_bytes() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_headroom_bytes() -> int | None:
    """Bytes that the cgroup still grants beside what it uses now (page cache aside), or None without a limit."""
    for group in _groups("memory"):
        limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _UNLIMITED:
            return max(0, limit - used + _page_cache(group))
    return None


def _cpu_quota() -> float | None:
    for group in _groups("cpu"):
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota, period = str(_number(group / "cpu.cfs_quota_us")), str(_number(group / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(period):
            return int(quota) / int(period)
    return None


def _groups(controller: str) -> Iterator[Path]:
    """Folders that may hold this process's limits for a controller, the closest first (in a container: the root)."""
    try:
        lines = PROC_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "" or controller in names.split(","):
            yield CGROUP_ROOT / (controller if names else "") / path.lstrip("/")
    yield CGROUP_ROOT
    yield CGROUP_ROOT / controller


def _page_cache(group: Path) -> int:
    """Bytes of cached file pages in the cgroup's usage: the kernel gives them up before it kills anyone."""
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(stat.get("inactive_file", stat.get("total_inactive_file", 0)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
