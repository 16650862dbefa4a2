"""The chart, as helm renders and installs it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from tests.integration.client import Client
from tests.integration.commands import ROOT, run, tool

CHART = ROOT / "charts" / "slipway"
RELEASE = "slipway"
NAMESPACE = "slipway-system"


class Helm:
    """helm, with folders of its own; with a cluster where there is one."""

    def __init__(self, home: Path, cluster: Client | None = None) -> None:
        folders = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self._env = {**os.environ, **folders, "KUBECONFIG": str(cluster.kubeconfig) if cluster else os.devnull}

    def run(self, *words: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run one command; the caller looks at how it ended."""
        given = () if values is None else ("--values", "-")
        return run(tool("helm"), *words, *given, env=self._env, stdin=None if values is None else json.dumps(values))

    def must(self, *words: str | Path, values: dict[str, Any] | None = None) -> str:
        """Run one command that must succeed, and answer what it printed."""
        ended = self.run(*words, values=values)
        assert ended.returncode == 0, f"helm {' '.join(map(str, words))}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def install(self, values: dict[str, Any], *words: str, chart: Path = CHART, release: str = RELEASE) -> str:
        """Install the chart, or upgrade it: all values are as given here."""
        return self.must(
            "upgrade", "--install", release, chart, "-n", NAMESPACE, "--create-namespace", "--reset-values", *words, values=values
        )

    def template(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Answer the chart's objects."""
        text = self.must("template", RELEASE, CHART, "-n", NAMESPACE, values=values)
        return [document for document in yaml.safe_load_all(text) if document]
