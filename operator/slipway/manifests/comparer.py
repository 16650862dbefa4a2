"""The comparer of a rollout: one pod that has both revisions answer copies of live requests, and the name routers know it by."""

from dataclasses import dataclass
from typing import Any

from slipway.core.agreement import Rule
from slipway.manifests import labels
from slipway.manifests.model import HTTP_PORT
from slipway.settings import Settings

COMPONENT = "compare"
PORT = 8080
METRICS_PORT = 9901
_FINISH_SECONDS = 10


def comparer_name(model: str) -> str:
    """Answer the name of the comparer's Deployment and Service, and of its cluster in the routers."""
    return f"{model}-compare"


def comparer_labels(model: str) -> dict[str, str]:
    """Answer the labels of a comparer, which are those of its ModelDeployment's children but for what it is."""
    return labels.model_labels(model) | {labels.COMPONENT: COMPONENT}


@dataclass(frozen=True)
class Comparing:
    """What is compared: two revisions, the port of stable's pods, the host that leads to the candidate alone, and how."""

    stable: str
    stable_port: int
    candidate: str
    candidate_host: str
    rule: Rule
    timeout_seconds: float = 30.0


def build_deployment(name: str, namespace: str, uid: str, asked: Comparing, settings: Settings) -> dict[str, Any]:
    """Answer the comparer's Deployment. Another pair of revisions is another pod: its counts are of one pair."""
    domain = settings.cluster_domain
    # Stable without the routers, which would take it for callers' requests; the candidate through them, for they measure it.
    args = [
        "compare",
        f"--stable=http://{asked.stable}.{namespace}.svc.{domain}.:{asked.stable_port}",
        f"--stable-revision={asked.stable}",
        f"--candidate=http://{name}.{namespace}.svc.{domain}.:{HTTP_PORT}",
        f"--candidate-host={asked.candidate_host}",
        f"--candidate-revision={asked.candidate}",
        "--labels" if asked.rule.labels else f"--tolerance={asked.rule.tolerance!r}",
        f"--timeout-seconds={asked.timeout_seconds:g}",
        f"--log-format={settings.log_format}",
    ]
    probe = {"httpGet": {"path": "/healthz", "port": "metrics"}, "timeoutSeconds": 5}
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": labels.POD_SECURITY | {"runAsUser": labels.USER, "runAsGroup": labels.USER},
        "terminationGracePeriodSeconds": _FINISH_SECONDS,
        "containers": [
            {
                "name": "compare",
                "image": settings.operator_image,
                "imagePullPolicy": settings.image_pull_policy,
                "args": args,
                "ports": [
                    {"name": "http", "containerPort": PORT, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                ],
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": labels.CONTAINER_SECURITY,
                "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
                "readinessProbe": {**probe, "httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 2},
                "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
            }
        ],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(name, namespace, uid),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": {labels.MODEL_LABEL: name, labels.COMPONENT: COMPONENT}},
            # One at a time: the copies that are missed meanwhile are missed by nobody.
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": comparer_labels(name)}, "spec": pod},
        },
    }


def build_service(name: str, namespace: str, uid: str) -> dict[str, Any]:
    """Answer the headless Service whose DNS name leads the routers' copies to the comparer."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(name, namespace, uid),
        "spec": {
            "clusterIP": "None",
            "selector": {labels.MODEL_LABEL: name, labels.COMPONENT: COMPONENT},
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http"}],
        },
    }


def _metadata(name: str, namespace: str, uid: str) -> dict[str, Any]:
    metadata = labels.model_metadata(comparer_name(name), namespace, name, uid)
    return metadata | {"labels": comparer_labels(name)}
