"""A real cluster with Slipway installed, for journeys with real pods, routers and callers.

SLIPWAY_KEEP=1 leaves the cluster running, for the next run and for a look at what is in it; SLIPWAY_TEST_CLUSTER=NAME gives
two runs on one machine a cluster each. Several processes (`-n 2 -m "not alone"`) share one; what is marked `alone` would disturb
the others.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from tests.e2e.cluster import Cluster, Namespace
from tests.e2e.installation import Operator
from tests.e2e.traffic import REPORTS, Report
from tests.integration.commands import ROOT, must

from slipway_dev.cache import lock
from slipway_dev.paths import cache_folder

_CLUSTER = os.environ.get("SLIPWAY_TEST_CLUSTER", "slipway-test")
_LOCK = cache_folder() / "locks" / f"e2e-{_CLUSTER}"
_KEEP = os.environ.get("SLIPWAY_KEEP") == "1"
_LOAD = "load"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Answer a cluster of two nodes that have the images."""
    command = ROOT / "hack" / "cluster"
    with lock(_LOCK):
        built = must(ROOT / "hack" / "images", "build").split()
        images = dict(zip(built[::2], built[1::2], strict=True))
        must(command, "up", "--name", _CLUSTER, "--nodes", "2", "--load", *images.values())
    yield Cluster(_CLUSTER, images)
    if not _KEEP:
        must(command, "down", "--name", _CLUSTER)


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Operator:
    """Answer Slipway, installed from its chart."""
    operator = Operator(cluster)
    with lock(_LOCK):
        operator.install()
    return operator


def _namespace(cluster: Cluster, stem: str) -> Iterator[Namespace]:
    namespace = cluster.make_namespace(re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:24].strip("-"))
    yield namespace
    cluster.client.delete(f"/api/v1/namespaces/{namespace.name}")


@pytest.fixture
def namespace(cluster: Cluster, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Answer a namespace of the journey's own."""
    yield from _namespace(cluster, request.node.originalname.removeprefix("test_"))


@pytest.fixture(scope="module")
def shared_namespace(cluster: Cluster, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Answer a namespace that the module's journeys share."""
    yield from _namespace(cluster, request.path.stem.removeprefix("test_"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show, beside a failure, what the cluster held; keep what its loads counted."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for fixture in ("namespace", "shared_namespace"):
            if isinstance(found := item.funcargs.get(fixture), Namespace):
                report.sections.append((f"namespace {found.name}", found.describe()))
        if isinstance(found := item.funcargs.get("operator"), Operator):
            report.sections.append(("operator", found.logs()))
    while REPORTS:
        where, load = REPORTS.pop(0)
        report.user_properties.append((_LOAD, (where, asdict(load))))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each load counted."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    loads = [load for report in reports for name, load in report.user_properties if name == _LOAD]
    if loads:
        terminalreporter.section("loads")
        terminalreporter.write_line(f"{'requests':>9} {'failed':>7} {'seconds':>8} {'req/s':>7} {'p50 ms':>7} {'p99 ms':>7}")
    for where, counted in loads:
        load = Report(**counted)
        figures = f"{load.requests:9} {load.failed:7} {load.seconds:8} {load.per_second:7} {load.p50_ms:7} {load.p99_ms:7}"
        terminalreporter.write_line(f"{figures}  {where}")
