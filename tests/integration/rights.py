"""The chart installed in one mode, what it grants, and the operator and the activator run with that and nothing else."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.chart import NAMESPACE, RELEASE, Helm
from tests.integration.client import Client, Object, models, wait_for
from tests.integration.commands import ROOT

OPERATOR, ACTIVATOR = "slipway", "slipway-activator"
ACCOUNT, ACTIVATOR_ACCOUNT = (f"system:serviceaccount:{NAMESPACE}:{name}" for name in (OPERATOR, ACTIVATOR))
SERVED, OTHER = (f"{stem}-{secrets.token_hex(3)}" for stem in ("served", "other"))
MODES: dict[str, dict[str, Any]] = {"cluster-wide": {}, "namespaced": {"watchNamespaces": [SERVED]}}
ANY = ""
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Installed:
    """The chart, installed in one mode."""

    mode: str
    cluster: Client

    @property
    def role(self) -> str:
        """Answer the path of the role with the operator's rights in what it serves."""
        return self.role_of(OPERATOR)

    def role_of(self, name: str) -> str:
        """Answer the path of the role with the rights of a part of Slipway in what it serves."""
        return f"{RBAC}/clusterroles/{name}" if self.mode == "cluster-wide" else f"{RBAC}/namespaces/{SERVED}/roles/{name}"

    @property
    def leader_role(self) -> str:
        """Answer the path of the role with the operator's rights in its own namespace."""
        return f"{RBAC}/namespaces/{NAMESPACE}/roles/slipway-leader"

    def may(self, verb: str, group: str, resource: str, name: str = ANY, namespace: str = "", user: str = ACCOUNT) -> bool:
        """Ask the API server, as the user itself."""
        kind, _, sub = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": kind, "subresource": sub, "name": name, "namespace": namespace}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
        headers = {"Impersonate-User": user, "Impersonate-Group": "system:authenticated"}
        answer = self.cluster.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, headers)
        return answer["status"]["allowed"]


@contextmanager
def installed_in(mode: str, cluster: Client, folder: Path) -> Iterator[Installed]:
    """Install the chart in the mode, and uninstall it."""
    helm = Helm(folder, cluster)
    for name in (NAMESPACE, SERVED, OTHER):
        cluster.make_namespace(name)
    try:
        helm.install(MODES[mode])
        wait_for("ModelDeployments are served", lambda: cluster.found(models(SERVED)))
        answer = Installed(mode, cluster)
        # The authorizer learns of roles by a watch.
        wait_for("the rights are granted", lambda: answer.may("list", "slipway.dev", "modeldeployments", namespace=SERVED))
        yield answer
    finally:
        helm.must("uninstall", RELEASE, "-n", NAMESPACE)


def granted(rules: list[Object]) -> set[tuple[str, str, str, str]]:
    """Answer rules as single rights: group, resource, name, verb."""
    return {
        (group or "core", resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ("all",)
        for verb in rule["verbs"]
    }


def kubeconfig(cluster: Client, folder: Path, account: str) -> Path:
    """Write a kubeconfig of a ServiceAccount."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token", body)["status"]["token"]
    authority = folder / "ca.crt"
    authority.write_text(cluster.authority)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": cluster.server, "certificate-authority": str(authority)}}],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@contextmanager
def running(installed: Installed, folder: Path, name: str, *more: str) -> Iterator[Path]:
    """Run the operator or the activator as its ServiceAccount, with the arguments that the chart gives it. Answers its log."""
    at = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}"
    (container,) = installed.cluster.get(at)["spec"]["template"]["spec"]["containers"]
    own = {"$(POD_NAMESPACE)": NAMESPACE, "$(POD_NAME)": f"{name}-{installed.mode}"}
    args = [re.sub(r"\$\(\w+\)", lambda found: own[found[0]], word) for word in container["args"]]
    log = folder / f"{name}.log"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig(installed.cluster, folder, name))}
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "slipway", *args, *more], env=env, stdout=out, stderr=out)
    try:
        yield log
    finally:
        process.terminate()
        ended = process.wait(timeout=60)
    assert ended == 0, log.read_text()[-3000:]
