"""What stands in for nodes and routers where there are none: pods are ready at once, Jobs succeed, routers do as told."""

import secrets
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.integration.client import Client, Object, Refused

from slipway.core import routing
from slipway.manifests import envoy, labels, router

_LOOK_SECONDS = 0.05
_JOB = "batch.kubernetes.io/job-name"


class Nodes:
    """The pods of one namespace. While `held`, its routers learn of revisions and stay with the weights that they have."""

    def __init__(self, cluster: Client, namespace: str) -> None:
        self._client, self._namespace = Client(cluster.kubeconfig), namespace
        self.address = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 2}"
        self._ended, self.held = threading.Event(), threading.Event()
        self._says = ""
        self._version = 0
        self._thread = threading.Thread(target=self._run)
        nodes = self

        class Router(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = nodes._says.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((self.address, envoy.STATS_PORT), Router)
        self._serving = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Nodes":
        self._thread.start()
        self._serving.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._serving.join()
        self._client.close()

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            pods = self._client.get(f"/api/v1/namespaces/{self._namespace}/pods?labelSelector={labels.SELECTOR}")["items"]
            for pod in pods:
                if pod["status"]["phase"] == "Pending":
                    self._start(pod)
            self._speak(pods)

    def _start(self, pod: Object) -> None:
        job = _JOB in pod["metadata"]["labels"]
        status: Object = {"phase": "Succeeded" if job else "Running", "podIP": self.address, "podIPs": [{"ip": self.address}]}
        status["conditions"] = [{"type": "Ready", "status": "False" if job else "True"}]
        try:
            self._client.merge(f"/api/v1/namespaces/{self._namespace}/pods/{pod['metadata']['name']}/status", {"status": status})
        except Refused as refused:
            if refused.code not in (404, 409):  # gone meanwhile
                raise

    def _speak(self, pods: list[Object]) -> None:
        """Say what a router would: the version of its routes, and how many pods of each revision it sees."""
        try:
            config = self._client.get(f"/api/v1/namespaces/{self._namespace}/configmaps/{router.NAME}")
        except Refused as refused:
            if refused.code != 404:
                raise
            return
        state = routing.load(config.get("data", {}).get(router.STATE_KEY, ""))
        taken = [route.known for route in state.routes.values()] if self.held.is_set() else [state.version]
        self._version = max([self._version, *taken])
        running = Counter(pod["metadata"]["labels"].get(labels.REVISION_LABEL) for pod in pods if pod["status"].get("podIP"))
        lines = [f'http.models.rds.{envoy.ROUTES}.version_text: "{self._version}"', "server.uptime: 60"]
        lines += [f"cluster.{revision}.membership_healthy: {running[revision]}" for revision in state.clusters]
        self._says = "\n".join(lines) + "\n"
