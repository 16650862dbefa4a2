"""What runs has nothing to break out with: looked at from inside the containers, and by the API server's own check of pods."""

import re

from tests.e2e.cluster import OURS, Namespace
from tests.e2e.installation import NAMESPACE, Operator
from tests.integration.client import Client

# What the standard `restricted` makes of a process: nothing to gain, no capability, the runtime's filter of system calls.
CONFINED = {"NoNewPrivs": "1", "CapEff": "0" * 16, "CapBnd": "0" * 16, "Seccomp": "2"}
LOOK = "cat /proc/self/status; ls /var/run/secrets 2>/dev/null; touch /written 2>/dev/null && echo WRITTEN; true"


def test_processes_are_confined_and_hold_no_token(namespace: Namespace) -> None:
    namespace.serve()
    pods = [
        (pod["metadata"]["name"], container["name"])
        for pod in namespace.all("pods", OURS)
        for container in pod["spec"]["containers"]
    ]
    assert {container for _, container in pods} == {"server", "envoy"}
    for pod, container in pods:
        said = namespace.cluster.kubectl("-n", namespace.name, "exec", pod, "-c", container, "--", "bash", "-c", LOOK)
        status = dict(re.findall(r"^(\w+):\t(.*)$", said, re.MULTILINE))
        assert {key: status[key] for key in CONFINED} == CONFINED, pod
        assert "0" not in status["Uid"].split(), pod
        assert "kubernetes.io" not in said, "a token"
        assert "WRITTEN" not in said, "its root file system"


def test_the_operators_own_namespace_may_be_restricted(operator: Operator) -> None:
    """Asked whether a namespace might enforce a standard, the API server warns of each pod there that is not within it."""
    client = Client(operator.cluster.kubeconfig)
    body = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    headers = {"Content-Type": "application/merge-patch+json"}
    client.request("PATCH", f"/api/v1/namespaces/{NAMESPACE}?dryRun=All", body, headers)
    assert operator.pods()
    assert client.warnings == []
    client.close()
