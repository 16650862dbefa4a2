"""A namespace's router: the Envoy pods that every caller of a model goes through, and their configuration."""

import hashlib
from typing import Any

from slipway.core import quantity
from slipway.core.observation import Symptom
from slipway.core.routing import RouterState
from slipway.manifests import envoy, labels
from slipway.settings import Settings

NAME = labels.ROUTER
STATE_KEY = "state.json"
# A ConfigMap holds 1 MiB; the rest is left for its metadata.
CONFIG_BYTES_MAX = 1024 * 1024 - 16 * 1024
_GRACE_SECONDS = 60
# A router leaves by draining: it waits until no caller is sent to it any more (1.5 s), then lets Envoy answer with
# "Connection: close" (5 s), then until the last request is answered.
_DRAIN = """
say='%s HTTP/1.1\\r\\nHost: admin\\r\\nConnection: close\\r\\n\\r\\n'
ask() { exec 3<>/dev/tcp/127.0.0.1/9900; printf "$say" "$1" >&3; cat <&3; exec 3>&-; }
sleep 1.5; ask 'POST /drain_listeners?graceful&skip_exit' >/dev/null; sleep 5
for _ in $(seq 45); do
  ask 'GET /stats?filter=^http.models.downstream_rq_active$' | grep -q 'active: [1-9]' || exit 0
  sleep 1
done
"""


def _metadata(namespace: str) -> dict[str, Any]:
    return {"name": NAME, "namespace": namespace, "labels": labels.router_labels()}


def _heap_bytes(settings: Settings) -> int | None:
    limit = settings.router_resources.get("limits", {}).get("memory")
    return int(quantity.parse(str(limit)) * 8 // 10) if limit is not None else None


def build_config(namespace: str, state: RouterState, settings: Settings) -> dict[str, Any]:
    """Answer the ConfigMap that router pods mount: Envoy's files, and the state that they were made from."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(namespace),
        "data": {
            "bootstrap.json": envoy.build_bootstrap(_heap_bytes(settings), settings.activator),
            "clusters.json": envoy.build_clusters(state, namespace, settings),
            "routes.json": envoy.build_routes(state, namespace, settings),
            "limits.json": envoy.build_limits(state),
            STATE_KEY: state.dump(),
        },
    }


def config_error(config: dict[str, Any]) -> Symptom | None:
    """Answer why the ConfigMap cannot be written, None where it can."""
    size = sum(len(text.encode()) for text in config["data"].values())
    if size <= CONFIG_BYTES_MAX:
        return None
    models = config["data"]["routes.json"].count('"domains":')
    return Symptom(
        "RouterConfigFull",
        f"the router configuration of {models} ModelDeployments needs {size} bytes and a ConfigMap holds {CONFIG_BYTES_MAX}: "
        "what serves goes on serving as it is; move ModelDeployments to another namespace",
    )


def build_service_account(namespace: str) -> dict[str, Any]:
    """Answer the router's ServiceAccount. It has no rights and no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(namespace),
        "automountServiceAccountToken": False,
    }


def build_disruption_budget(namespace: str, settings: Settings) -> dict[str, Any] | None:
    """Answer the budget that keeps routers up while nodes drain; None where there is one router only."""
    if settings.router_replicas < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(namespace),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels.router_selector()}},
    }


def build_deployment(namespace: str, settings: Settings) -> dict[str, Any]:
    """Answer the router's Deployment. A change of the bootstrap restarts it, pod by pod, drained."""
    bootstrap = envoy.build_bootstrap(_heap_bytes(settings), settings.activator)
    selector = labels.router_selector()
    pod: dict[str, Any] = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": labels.POD_SECURITY | {"runAsUser": labels.USER, "runAsGroup": labels.USER},
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "topologySpreadConstraints": labels.spread(selector),
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
        "containers": [
            {
                "name": "envoy",
                "image": settings.router_image,
                "imagePullPolicy": settings.image_pull_policy,
                "command": ["envoy"],
                "args": [
                    "-c", f"{envoy.CONFIG_DIR}/bootstrap.json",
                    "--concurrency", "1",
                    "--disable-hot-restart",
                    "--log-level", "warning",
                    "--drain-time-s", "5",
                    "--drain-strategy", "immediate",
                ],
                "ports": [
                    {"name": "http", "containerPort": envoy.HTTP_PORT, "protocol": "TCP"},
                    {"name": "stats", "containerPort": envoy.STATS_PORT, "protocol": "TCP"},
                ],
                "resources": settings.router_resources,
                "securityContext": labels.CONTAINER_SECURITY,
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "stats"}, "periodSeconds": 1, "timeoutSeconds": 2},
                "livenessProbe": {
                    "httpGet": {"path": "/ready", "port": "stats"},
                    "initialDelaySeconds": 30,
                    "periodSeconds": 10,
                    "failureThreshold": 6,
                    "timeoutSeconds": 5,
                },
                "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", _DRAIN]}}},
                "volumeMounts": [{"name": "config", "mountPath": envoy.CONFIG_DIR, "readOnly": True}],
            }
        ],
    }  # fmt: skip
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(namespace),
        "spec": {
            "replicas": settings.router_replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": labels.router_labels(),
                    "annotations": {
                        "slipway.dev/bootstrap": hashlib.sha256(bootstrap.encode()).hexdigest()[:12],
                    },
                },
                "spec": pod,
            },
        },
    }
