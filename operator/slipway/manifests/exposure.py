"""The ways in from outside the cluster: the HTTPRoute and the Ingress of a ModelDeployment.

Both end at its Service, so at the routers: those split by weight, whatever is in front of them.
"""

import math
from collections.abc import Sequence
from typing import Any

from slipway.api.base import duration_seconds
from slipway.api.routing import Gateway, Ingress, Routing
from slipway.manifests import labels
from slipway.manifests.model import H2C_PORT, HTTP_PORT

Object = dict[str, Any]
# How much longer than the router a Gateway waits: the 504 is the router's, whose figures judge a candidate.
_GATEWAY_GRACE_MS = 1000
# By this, and not by the version of HTTP that a caller speaks to the Gateway, gRPC is told from all else.
_GRPC = ("application/grpc", "application/grpc+proto")


def build_http_route(
    name: str, namespace: str, uid: str, gateway: Gateway, hosts: Sequence[str], timeout_seconds: float
) -> Object:
    """Answer the HTTPRoute on the user's Gateway.

    gRPC needs HTTP/2 up to the router, and all else comes as HTTP/1.1, which any server speaks: the router hands requests on as
    they come. A GRPCRoute would do for gRPC alone, but no host may have both.
    """
    parent: Object = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name}
    if gateway.namespace:
        parent["namespace"] = gateway.namespace
    if gateway.section_name:
        parent["sectionName"] = gateway.section_name
    timeouts = {"request": _gateway_duration(timeout_seconds)}
    path = {"type": "PathPrefix", "value": "/"}
    by_type = [{"type": "Exact", "name": "content-type", "value": value} for value in _GRPC]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": labels.model_metadata(name, namespace, name, uid),
        "spec": {
            "parentRefs": [parent],
            "hostnames": list(hosts),
            "rules": [
                {
                    "matches": [{"path": path, "headers": [header]} for header in by_type],
                    "timeouts": timeouts,
                    "backendRefs": [_backend(name, H2C_PORT)],
                },
                {"matches": [{"path": path}], "timeouts": timeouts, "backendRefs": [_backend(name, HTTP_PORT)]},
            ],
        },
    }


def build_ingress(name: str, namespace: str, uid: str, ingress: Ingress, hosts: Sequence[str]) -> Object:
    """Answer the Ingress."""
    metadata = labels.model_metadata(name, namespace, name, uid)
    if ingress.annotations:
        metadata["annotations"] = dict(ingress.annotations)
    backend = {"service": {"name": name, "port": {"number": HTTP_PORT}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec: Object = {"rules": [{"host": host, "http": {"paths": paths}} for host in hosts]}
    if ingress.class_name:
        spec["ingressClassName"] = ingress.class_name
    if ingress.tls_secret_name:
        spec["tls"] = [{"hosts": list(hosts), "secretName": ingress.tls_secret_name}]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def build(name: str, namespace: str, uid: str, routing: Routing, hosts: Sequence[str]) -> list[Object]:
    """Answer all that is asked for; nothing without a host, for a route without one takes every host."""
    if not hosts:
        return []
    found: list[Object] = []
    if routing.gateway is not None:
        timeout = duration_seconds(routing.timeout)
        found.append(build_http_route(name, namespace, uid, routing.gateway, hosts, timeout))
    if routing.ingress is not None:
        found.append(build_ingress(name, namespace, uid, routing.ingress, hosts))
    return found


def _backend(name: str, port: int) -> Object:
    return {"group": "", "kind": "Service", "name": name, "port": port, "weight": 1}


def _gateway_duration(seconds: float) -> str:
    """Write a duration as the Gateway API wants it: whole numbers of at most five digits."""
    whole, rest = divmod(math.ceil(seconds * 1000) + _GATEWAY_GRACE_MS, 1000)
    return f"{whole}s{rest}ms" if rest else f"{whole}s"
