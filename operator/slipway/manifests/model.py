"""The children of a ModelDeployment: revisions, their Deployments and Services, and the Service that callers use."""

from typing import Any

from slipway.api.spec import Spec
from slipway.core import revision as revisions
from slipway.manifests import labels
from slipway.manifests.pod import build_pod_template
from slipway.settings import Settings

HTTP_PORT = 80
# The same, for those who ask a Service which protocol to speak: a Gateway, which is to reach the router by HTTP/2.
H2C_PORT = 81


def build_revision(
    name: str, namespace: str, uid: str, target: revisions.Target, number: int, spec: Spec, settings: Settings
) -> dict[str, Any]:
    """Answer the ControllerRevision that keeps what decides the revision's pods, rendered."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": labels.model_metadata(target.revision, namespace, name, uid, target.revision),
        "revision": number,
        "data": {
            **revisions.snapshot(spec),
            "port": spec.server.port,
            "template": build_pod_template(name, target.revision, spec, settings),
        },
    }


def build_deployment(
    name: str, namespace: str, uid: str, revision: str, template: dict[str, Any], replicas: int
) -> dict[str, Any]:
    """Answer the Deployment of a revision: its ControllerRevision's template, verbatim."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels.model_metadata(revision, namespace, name, uid, revision),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {labels.REVISION_LABEL: revision}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": template,
        },
    }


def build_endpoints_service(name: str, namespace: str, uid: str, revision: str, port: int) -> dict[str, Any]:
    """Answer the headless Service whose DNS name lists the revision's ready pods: the routers ask for it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.model_metadata(revision, namespace, name, uid, revision),
        "spec": {
            "clusterIP": "None",
            "selector": {labels.REVISION_LABEL: revision},
            "ports": [{"name": "http", "port": port, "protocol": "TCP", "targetPort": "http"}],
        },
    }


def build_service(name: str, namespace: str, model: str, uid: str, *, h2c: bool = False) -> dict[str, Any]:
    """Answer a Service that callers of the model use. It selects the routers: they split by weight, for every caller.

    `h2c`: with a second port, by which a Gateway takes gRPC to them.
    """
    ports = [{"name": "http", "port": HTTP_PORT, "protocol": "TCP", "targetPort": "http"}]
    if h2c:
        port = {"name": "h2c", "port": H2C_PORT, "protocol": "TCP", "targetPort": "http", "appProtocol": "kubernetes.io/h2c"}
        ports.append(port)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.model_metadata(name, namespace, model, uid),
        "spec": {
            "type": "ClusterIP",
            "selector": labels.router_selector(),
            "ports": ports,
        },
    }


def build_disruption_budget(name: str, namespace: str, uid: str, replicas: int) -> dict[str, Any] | None:
    """Answer the budget that lets a node drain take one pod at a time; None where one pod is all there is."""
    if replicas < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": labels.model_metadata(name, namespace, name, uid),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {labels.MODEL_LABEL: name, labels.COMPONENT: "model"}},
        },
    }
