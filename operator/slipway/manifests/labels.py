"""Labels and the other metadata that all children share."""

from typing import Any, Protocol

from slipway.api import API_VERSION, GROUP, KIND

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "slipway"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
MODEL_LABEL = f"{GROUP}/model-deployment"
REVISION_LABEL = f"{GROUP}/revision"
COMPONENT = "app.kubernetes.io/component"
ROUTER = "slipway-router"
# The hash of what Slipway last applied: a field that is no longer wanted shows in it, though the rest still matches.
APPLIED = f"{GROUP}/applied"
CONFIG_VERSION = f"{GROUP}/config-version"


class Owner(Protocol):
    """The ModelDeployment whose children they are."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> str: ...  # noqa: D102


def model_labels(name: str, revision: str | None = None) -> dict[str, str]:
    """Answer the labels of a child of the ModelDeployment `name`."""
    labels = {
        "app.kubernetes.io/name": name,
        COMPONENT: "model",
        "app.kubernetes.io/part-of": MANAGER,
        MANAGED_BY: MANAGER,
        MODEL_LABEL: name,
    }
    return labels if revision is None else labels | {"app.kubernetes.io/instance": revision, REVISION_LABEL: revision}


def router_labels() -> dict[str, str]:
    """Answer the labels of a namespace's router objects."""
    return {
        "app.kubernetes.io/name": ROUTER,
        COMPONENT: "router",
        "app.kubernetes.io/part-of": MANAGER,
        MANAGED_BY: MANAGER,
    }


def router_selector() -> dict[str, str]:
    """Answer the labels by which Services and the Deployment find router pods."""
    return {"app.kubernetes.io/name": ROUTER, COMPONENT: "router", MANAGED_BY: MANAGER}


def owner(name: str, uid: str) -> dict[str, Any]:
    """Answer the controller reference to the ModelDeployment: its deletion deletes the child."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def model_metadata(name: str, namespace: str, model: str, uid: str, revision: str | None = None) -> dict[str, Any]:
    """Answer the metadata of a child of the ModelDeployment `model` with the uid `uid`."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": model_labels(model, revision),
        "ownerReferences": [owner(model, uid)],
    }


POD_SECURITY: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
# The user of all images that Slipway builds.
USER = 65532


def spread(labels: dict[str, str]) -> list[dict[str, Any]]:
    """Answer a spread over nodes that never keeps a pod from being scheduled."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
    ]
