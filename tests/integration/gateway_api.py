"""The Gateway API's own definitions, of its standard channel, at the version that Envoy Gateway is built with."""

import yaml
from tests.integration.client import Client, Object, wait_for

from slipway_dev import go

GROUP = "/apis/gateway.networking.k8s.io/v1"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _definitions() -> dict[str, Object]:
    folder = go.source("envoy-gateway", "sigs.k8s.io/gateway-api") / "config/crd/standard"
    files = (folder / f"gateway.networking.k8s.io_{plural}.yaml" for plural in ("gateways", "httproutes"))
    return {crd["metadata"]["name"]: crd for crd in (yaml.safe_load(file.read_text()) for file in files)}


def install(client: Client) -> None:
    """Apply the definitions, and wait until they are served."""
    for name, crd in _definitions().items():
        client.apply(f"{_DEFINITIONS}/{name}", crd)
        plural = crd["spec"]["names"]["plural"]
        wait_for(f"{plural} are served", lambda plural=plural: client.found(f"{GROUP}/{plural}"))


def remove(client: Client) -> None:
    """Delete the definitions, and with them all their objects, and wait until they are gone."""
    for name, crd in _definitions().items():
        client.delete(f"{_DEFINITIONS}/{name}")
        plural = crd["spec"]["names"]["plural"]
        wait_for(f"{plural} are gone", lambda plural=plural: not client.found(f"{GROUP}/{plural}"))


def http_route(namespace: str, name: str) -> str:
    """Answer the path of an HTTPRoute."""
    return f"{GROUP}/namespaces/{namespace}/httproutes/{name}"


def say(client: Client, path: str, kind: str, status: str, reason: str, message: str = "") -> None:
    """Say of an HTTPRoute, as a Gateway's controller would, that all is well but for one condition."""
    route = client.get(path)

    def condition(type_: str) -> Object:
        said = (status, reason, message) if type_ == kind else ("True", type_, "")
        return {
            "type": type_,
            **dict(zip(("status", "reason", "message"), said, strict=True)),
            "observedGeneration": route["metadata"]["generation"],
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }

    conditions = [condition(type_) for type_ in ("Accepted", "ResolvedRefs")]
    parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "example.com/gateway", "conditions": conditions}
    client.merge(f"{path}/status", {"status": {"parents": [parent]}})
