"""A real cluster with Slipway installed, for journeys with real pods, routers and callers.

SLIPWAY_KEEP=1 leaves the cluster running, for the next run and for a look at what is in it; SLIPWAY_TEST_CLUSTER=NAME gives
two runs on one machine a cluster each.
"""

import os
import re
from collections.abc import Iterator

import pytest
from tests.e2e.cluster import Cluster, Namespace
from tests.e2e.installation import Operator
from tests.e2e.traffic import REPORTS
from tests.integration.commands import ROOT, must

_CLUSTER = os.environ.get("SLIPWAY_TEST_CLUSTER", "slipway-test")
_KEEP = os.environ.get("SLIPWAY_KEEP") == "1"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Answer a cluster of two nodes that have the images."""
    built = must(ROOT / "hack" / "images", "build").split()
    images = dict(zip(built[::2], built[1::2], strict=True))
    command = ROOT / "hack" / "cluster"
    must(command, "up", "--name", _CLUSTER, "--nodes", "2", "--load", *images.values())
    yield Cluster(_CLUSTER, images)
    if not _KEEP:
        must(command, "down", "--name", _CLUSTER)


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Operator:
    """Answer Slipway, installed from its chart."""
    operator = Operator(cluster)
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
    """Show, beside a failure, what the cluster held."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for fixture in ("namespace", "shared_namespace"):
            if isinstance(found := item.funcargs.get(fixture), Namespace):
                report.sections.append((f"namespace {found.name}", found.describe()))
        if isinstance(found := item.funcargs.get("operator"), Operator):
            report.sections.append(("operator", found.logs()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each load counted."""
    if REPORTS:
        terminalreporter.section("loads")
        terminalreporter.write_line(f"{'requests':>9} {'failed':>7} {'seconds':>8} {'req/s':>7} {'p50 ms':>7} {'p99 ms':>7}")
    for where, load in REPORTS:
        figures = f"{load.requests:9} {load.failed:7} {load.seconds:8} {load.per_second:7} {load.p50_ms:7} {load.p99_ms:7}"
        terminalreporter.write_line(f"{figures}  {where}")
