"""A plain client of a cluster's API server for tests: JSON in, JSON out, as the administrator or as someone else."""

import base64
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

Object = dict[str, Any]
MODEL = "model: {uri: 'configmap://digits/model.onnx', format: ONNX}"


class Refused(Exception):  # noqa: N818 - an answer, expected as often as not
    """The API server refused: its status code, machine-readable reason and message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class Client:
    """Requests to one API server. `warnings` collects what the server warned of."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.warnings: list[str] = []
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:  # ssl reads a key from a file only
            pair.write(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
        self.server: str = cluster["server"]
        self.authority = authority
        self._http = httpx.Client(base_url=self.server, verify=context, timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, body: Object | None = None, headers: dict[str, str] | None = None) -> Object:
        """Send one request. Raises Refused where the answer is an error."""
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", **(headers or {})}
        answer = self._http.request(method, path, content=content, headers=headers)
        for _ in range(20):  # 429: busy, or the CRD is so new that its storage is still being made
            if answer.status_code != 429:
                break
            time.sleep(float(answer.headers.get("Retry-After", "1")))
            answer = self._http.request(method, path, content=content, headers=headers)
        self.warnings += answer.headers.get_list("Warning")
        if answer.is_error:
            try:
                said = answer.json()
            except ValueError:
                said = {"message": answer.text}
            raise Refused(answer.status_code, said.get("reason", ""), said.get("message", ""))
        return answer.json()

    def get(self, path: str, **headers: str) -> Object:
        """Read one object or list."""
        return self.request("GET", path, headers=headers)

    def create(self, path: str, body: Object) -> Object:
        """Create as `kubectl apply` does: unknown and doubled fields are refused."""
        return self.request("POST", f"{path}?fieldValidation=Strict", body)

    def apply(self, path: str, body: Object, manager: str = "test") -> Object:
        """Apply server-side, with force."""
        query = f"fieldManager={manager}&force=true&fieldValidation=Strict"
        return self.request("PATCH", f"{path}?{query}", body, {"Content-Type": "application/apply-patch+yaml"})

    def merge(self, path: str, body: Object) -> Object:
        """Change some fields."""
        return self.request("PATCH", f"{path}?fieldValidation=Strict", body, {"Content-Type": "application/merge-patch+json"})

    def delete(self, path: str) -> None:
        """Delete one object. Gone already is fine."""
        try:
            self.request("DELETE", path)
        except Refused as refused:
            if refused.code != 404:
                raise

    def found(self, path: str) -> bool:
        """Tell whether the object exists."""
        try:
            self.get(path)
        except Refused as refused:
            if refused.code == 404:
                return False
            raise
        return True

    def watch(self, path: str, name: str, version: str) -> Iterator[Object]:
        """Yield each state of an object of the collection after that resourceVersion, until it is deleted."""
        asked = {"watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        with self._http.stream("GET", path, params=asked, timeout=None) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                obj = event["object"]
                if event["type"] == "ERROR":
                    raise Refused(obj["code"], obj["reason"], obj["message"])
                if event["type"] == "DELETED":
                    return
                yield obj

    def make_namespace(self, name: str) -> str:
        """Make a namespace that enforces restricted pod security, unless it is there, and answer its name."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.apply(f"/api/v1/namespaces/{name}", body)
        return name


def models(namespace: str, name: str = "") -> str:
    """Answer the path of a namespace's ModelDeployments, or of one."""
    return f"/apis/slipway.dev/v1alpha1/namespaces/{namespace}/modeldeployments" + (f"/{name}" if name else "")


def model(name: str, spec: Any) -> Object:
    """Answer a ModelDeployment."""
    return {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec}


def spec_of(text: str) -> Any:
    """Answer the spec that a text of YAML is, with a good model where it has none."""
    return yaml.safe_load(text if text.startswith(("model:", "{")) else f"{{{MODEL}, {text}}}")


def wait_for(what: str, holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds, and answer what it answered."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return found
