"""The few requests that starting a cluster makes to its API server."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway_dev.console import CommandError

Object = dict[str, Any]


@dataclass(frozen=True)
class Api:
    """An API server and the administrator's certificate for it."""

    host: str
    port: int
    pki: Path

    def request(self, method: str, path: str, body: Object | None = None) -> tuple[int, bytes]:
        """Send one request; return the status and the body. An object is sent as server-side apply."""
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connection = http.client.HTTPSConnection(self.host, self.port, context=context, timeout=5)
        try:
            headers = {"Content-Type": "application/apply-patch+yaml"} if body else {}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Tell whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> Object | None:
        """Return an object, None when there is none or the server does not answer."""
        try:
            status, body = self.request("GET", path)
        except (OSError, http.client.HTTPException):
            return None
        return json.loads(body) if status == 200 else None

    def apply(self, path: str, body: Object) -> None:
        """Create or update an object."""
        status, answer = self.request("PATCH", f"{path}?fieldManager=slipway-hack&force=true", body)
        if status not in (200, 201):
            raise CommandError(f"apply {path}: HTTP status {status}: {answer.decode(errors='replace')}")

    def node_ready(self, name: str) -> bool:
        """Tell whether a node's condition Ready is true."""
        return _condition(self.get(f"/api/v1/nodes/{name}"), "Ready")

    def deployment_available(self, namespace: str, name: str) -> bool:
        """Tell whether a Deployment's condition Available is true."""
        return _condition(self.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"), "Available")


def _condition(found: Object | None, kind: str) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)
