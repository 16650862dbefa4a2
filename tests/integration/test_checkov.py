"""checkov, on the chart with all its values and on what the operator makes: it finds what is accepted here, and no more."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from tests.integration.chart import Helm
from tests.integration.commands import ROOT, run
from tests.integration.test_chart_values import COMBINATIONS

from slipway.api.spec import Spec
from slipway.core.agreement import Rule
from slipway.manifests import comparer, model, router
from slipway.manifests.labels import USER
from slipway.manifests.pod import build_pod_template
from slipway.settings import Settings
from slipway_dev.python import venv

SETTINGS = Settings(server_image="server:1", router_image="router:1", operator_image="operator:1")
OPERATOR, ACTIVATOR, SEEDED = "the operator", "the activator", "what is seeded"
ROUTER, MODEL, FETCHED, COMPARER = "routers", "models", "models with a fetched file", "comparers"
OURS = {OPERATOR, ACTIVATOR}
THEIRS = {ROUTER, MODEL, FETCHED, COMPARER}
# What checkov says of whom, and why that is so.
ACCEPTED: dict[str, tuple[set[str], str]] = {
    "CKV_K8S_11": (
        OURS | THEIRS,
        "no limit of CPU: it would throttle a pod that is asked much, and a request is a fair share already",
    ),
    "CKV_K8S_43": (OURS | THEIRS, "images are named by the platform, which may name digests (images.*.ref), and by users"),
    "CKV_K8S_15": (
        OURS | THEIRS,
        "imagePullPolicy is a value of the chart; Always keeps pods from starting while the registry is away",
    ),
    "CKV_K8S_38": (OURS, "they talk to the API server, and they alone"),
    "CKV_K8S_40": (
        OURS | {MODEL},
        f"no user is named, so that OpenShift may choose one and an image of somebody's own may have its own: {USER} in ours",
    ),
    "CKV_K8S_13": (
        {MODEL, FETCHED},
        "what a model may use is for its author to say (server.resources); quotas and LimitRanges bound it",
    ),
    "CKV_K8S_22": ({MODEL}, "an image of somebody's own may write to its file system"),
    "CKV_K8S_8": ({MODEL}, "when an image of somebody's own is to be restarted nobody else knows"),
    "CKV2_K8S_6": (THEIRS, "who may call a model, and whom it may call, is for its namespace to say (docs/security.md)"),
}
SUBJECTS = {
    "slipway": OPERATOR,
    "slipway-activator": ACTIVATOR,
    "slipway-router": ROUTER,
    "m-a": MODEL,
    "m-b": FETCHED,
    "m-compare": COMPARER,
    "seeded": SEEDED,
}


def made() -> list[dict[str, Any]]:
    """Answer the workloads that the operator makes, of its own image and of somebody else's."""
    own = Spec.model_validate({"model": {"format": "Custom"}, "server": {"image": "own:1"}})
    fetched = Spec.model_validate({"model": {"uri": "https://models.example.com/m.onnx", "format": "ONNX"}})
    compared = comparer.Comparing("m-a", 8080, "m-b", "m-preview.shop", Rule(0.001))
    return [
        router.build_deployment("shop", SETTINGS),
        router.build_service_account("shop"),
        model.build_deployment("m", "shop", "u", "m-a", build_pod_template("m", "m-a", own, SETTINGS), 2),
        model.build_deployment("m", "shop", "u", "m-b", build_pod_template("m", "m-b", fetched, SETTINGS), 2),
        comparer.build_deployment("m", "shop", "u", compared, SETTINGS),
    ]


def seeded() -> dict[str, Any]:
    """Answer a workload that is not right: it shares its node's network."""
    deployment = router.build_deployment("shop", SETTINGS)
    deployment["metadata"]["name"] = "seeded"
    deployment["spec"]["template"]["spec"]["hostNetwork"] = True
    return deployment


def checked(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Run checkov on a folder; answer how many checks passed, and those that failed."""
    command = venv(ROOT / "hack" / "checkov-requirements.txt") / "bin" / "checkov"
    words = ("--framework", "kubernetes", "--skip-download", "--compact", "--output", "json", "--directory", folder)
    ended = run(command, *words)
    said = json.loads(ended.stdout)
    return said["summary"]["passed"], said["results"]["failed_checks"]


def test_checkov_finds_nothing_but_what_is_accepted(tmp_path: Path) -> None:
    helm = Helm(tmp_path / "helm")
    folder = tmp_path / "objects"
    folder.mkdir()
    variants = {name: helm.template(values) for name, values in COMBINATIONS.items()}
    for name, objects in {**variants, "made": made(), "seeded": [seeded()]}.items():
        workloads = [obj for obj in objects if obj["kind"] != "CustomResourceDefinition"]
        (folder / f"{re.sub(r'[^a-z]+', '-', name)}.yaml").write_text(yaml.safe_dump_all(workloads))
    passed, failed = checked(folder)
    found: dict[str, set[str]] = {}
    for check in failed:
        found.setdefault(check["check_id"], set()).add(SUBJECTS.get(check["resource"].split(".")[2], check["resource"]))
    told = "\n".join(
        f"{check['check_id']} {check['check_name']}: {check['resource']} in {check['file_path']}" for check in failed
    )
    assert SEEDED in found.pop("CKV_K8S_19"), "it finds what is wrong"
    assert {check: where - {SEEDED} for check, where in found.items()} == {check: who for check, (who, _) in ACCEPTED.items()}, (
        told
    )
    assert passed > 500, "it has looked at all of them"
