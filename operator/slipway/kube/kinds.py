"""The kinds that Slipway reads or writes."""

from dataclasses import dataclass

from slipway.api import API_VERSION, KIND, PLURAL


@dataclass(frozen=True)
class Kind:
    """A resource type of the API server."""

    api_version: str
    kind: str
    plural: str
    optional: bool = False
    """Whether the API server may not have it, or not let us see it: what needs it then says so, and the rest goes on."""

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Answer the URL path of the collection or of one object."""
        base = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        if namespace is not None:
            base += f"/namespaces/{namespace}"
        return f"{base}/{self.plural}" + (f"/{name}" if name is not None else "")


MODEL_DEPLOYMENT = Kind(API_VERSION, KIND, PLURAL)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CONTROLLER_REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
HTTP_ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", optional=True)
INGRESS = Kind("networking.k8s.io/v1", "Ingress", "ingresses", optional=True)
JOB = Kind("batch/v1", "Job", "jobs", optional=True)
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Kind("v1", "Event", "events")
POD_METRICS = Kind("metrics.k8s.io/v1beta1", "PodMetrics", "pods")

# What Slipway makes and therefore watches, by label. Pods are made by Deployments and carry the same label.
WATCHED = (
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    SERVICE,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INGRESS,
    JOB,
    POD,
)
_BY_NAME = {(kind.api_version, kind.kind): kind for kind in (MODEL_DEPLOYMENT, LEASE, EVENT, *WATCHED)}


def kind_of(obj: dict[str, object]) -> Kind:
    """Answer the kind of an object that carries its apiVersion and kind."""
    return _BY_NAME[str(obj["apiVersion"]), str(obj["kind"])]
