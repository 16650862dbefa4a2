"""The plugin as its users have it: a kubeconfig, `kubectl` and `kubectl-slipway` on the PATH."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.integration.client import Client
from tests.integration.commands import ROOT, tool


def kubeconfig(cluster: Client, path: Path, token: str, namespace: str = "default", server: str = "") -> Path:
    """Write the kubeconfig of whoever has the token."""
    authority = path.with_suffix(".crt")
    authority.write_text(cluster.authority)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": server or cluster.server, "certificate-authority": str(authority)}}],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": namespace}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path


def token(cluster: Client, namespace: str, account: str) -> str:
    """Make a ServiceAccount and answer a token of it."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
    cluster.apply(f"{path}/{account}", body)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return cluster.create(f"{path}/{account}/token", request)["status"]["token"]


class Plugin:
    """`kubectl slipway` of one user."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        """Install the console script that pyproject.toml names into the folder."""
        entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["kubectl-slipway"]
        module, _, function = entry.partition(":")
        script = folder / "kubectl-slipway"
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        script.chmod(0o755)
        path = os.pathsep.join((str(folder), str(Path(tool("kubectl")).parent), os.environ["PATH"]))
        self.env = {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT / "operator")}

    def kubectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run kubectl itself as that user; the caller looks at how it ended."""
        return subprocess.run([tool("kubectl"), *words], env=self.env, capture_output=True, text=True, check=False, timeout=120)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command; the caller looks at how it ended."""
        return self.kubectl("slipway", *words)

    def must(self, *words: str) -> str:
        """Run one command that must succeed, and answer what it printed."""
        ended = self.run(*words)
        assert ended.returncode == 0, f"kubectl slipway {' '.join(words)}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start one command, and answer it. It obeys Ctrl-C even where the tests themselves run in the background of a shell."""
        command = ["env", "--default-signal=INT", tool("kubectl"), "slipway", *words]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
