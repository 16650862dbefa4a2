"""A real API server for the integration tests: a control plane without nodes, from hack/cluster.

One that runs already is used as it is. SLIPWAY_KEEP=1 leaves it running, for the next run and for a look at what is in it;
SLIPWAY_TEST_CLUSTER=NAME gives two runs on one machine a control plane each.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.integration.client import Client, wait_for
from tests.integration.commands import ROOT, must

_CLUSTER = os.environ.get("SLIPWAY_TEST_CLUSTER", "slipway-test")


@contextmanager
def control_plane(name: str, *flags: str) -> Iterator[Client]:
    """Start a control plane, and end it."""
    command = ROOT / "hack" / "cluster"
    must(command, "up", "--control-plane-only", "--name", name, *flags)
    client = Client(Path(must(command, "kubeconfig", "--name", name).strip()))
    yield client
    client.close()
    if os.environ.get("SLIPWAY_KEEP") != "1":
        must(command, "down", "--name", name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Client]:
    """Answer an API server that has the CRD."""
    with control_plane(f"{_CLUSTER}-api") as client:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            crd = yaml.safe_load(path.read_text())
            at = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
            client.apply(at, crd)
            group, version = crd["spec"]["group"], crd["spec"]["versions"][0]["name"]
            wait_for("the CRD is served", lambda at=f"/apis/{group}/{version}/{crd['spec']['names']['plural']}": client.found(at))
        yield client


@pytest.fixture(scope="session")
def chart_cluster() -> Iterator[Client]:
    """Answer an API server without the CRD: the chart brings it. It keeps an audit log."""
    with control_plane(f"{_CLUSTER}-chart", "--audit-log") as client:
        yield client


@pytest.fixture(scope="module")
def namespace(cluster: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """Answer a namespace of the test module's own."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.path.stem.lower()).strip("-")
    name = cluster.make_namespace(f"{stem}-{secrets.token_hex(3)}")
    yield name
    cluster.delete(f"/api/v1/namespaces/{name}")
