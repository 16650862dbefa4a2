"""The API server, as the commands need it: ModelDeployments read, followed and asked of, in plain dicts; its errors in words."""

import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

Object = dict[str, Any]
_KIND: dict[str, Any] = {"group": "slipway.dev", "version": "v1alpha1", "plural": "modeldeployments"}
_MODELS = "modeldeployments.slipway.dev"
_FIELD_MANAGER = "kubectl-slipway"
_ROUTERS = "app.kubernetes.io/name=slipway-router,app.kubernetes.io/component=router"
_STATISTICS_PORT = 9901
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Seconds to connect, and to wait for an answer.
_TIMEOUT = (5.0, 30.0)
# A watch ends by itself after this long, and is begun again.
_WATCH_SECONDS = 240.0


class ClusterError(Exception):
    """What keeps a command from the cluster or from what it asks for, in words for its user."""


class ChangedError(Exception):
    """The ModelDeployment has changed since it was read."""


class Cluster:
    """One API server, as the user of a kubeconfig, or as the ServiceAccount of the pod that this runs in.

    Every method raises ClusterError where the cluster cannot be reached or refuses.
    """

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        settings = client.Configuration()
        try:
            self.namespace = _configure(settings, kubeconfig, context)
        except (ConfigException, OSError, ValueError) as error:
            raise ClusterError(f"no cluster is configured: {error}") from None
        settings.retries = False
        self.server = settings.host
        api = client.ApiClient(settings)
        self._custom: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)
        self._api: Any = api
        self._apps: Any = client.AppsV1Api(api)
        self._authentication: Any = client.AuthenticationV1Api(api)

    def get(self, namespace: str, name: str) -> Object:
        """Answer a ModelDeployment, which must exist."""
        try:
            with self._in_words(f"get {_MODELS}", namespace):
                return self._custom.get_namespaced_custom_object(
                    **_KIND, namespace=namespace, name=name, _request_timeout=_TIMEOUT
                )
        except _NoneError:
            there_are = ", ".join(each["metadata"]["name"] for each in self.list(namespace))
            others = f"there are: {there_are}" if there_are else "there is none at all"
            raise ClusterError(f"no ModelDeployment {name} in namespace {namespace}; {others}") from None

    def list(self, namespace: str) -> list[Object]:
        """Answer the ModelDeployments of a namespace; with an empty one, of all."""
        try:
            with self._in_words(f"list {_MODELS}", namespace):
                if namespace:
                    found = self._custom.list_namespaced_custom_object(**_KIND, namespace=namespace, _request_timeout=_TIMEOUT)
                else:
                    found = self._custom.list_cluster_custom_object(**_KIND, _request_timeout=_TIMEOUT)
                return found["items"]
        except _NoneError:
            raise ClusterError(f"the cluster at {self.server} knows no ModelDeployments: is Slipway installed?") from None

    def follow(self, namespace: str, name: str, seconds: float = float("inf")) -> Iterator[Object]:
        """Yield a ModelDeployment as it is, then each time that it changes, for so long."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(namespace, name)
            yield found
            left = min(deadline - time.monotonic(), _WATCH_SECONDS)
            if left <= 0:
                return
            yield from self._changes(found, max(round(left), 1))

    def _changes(self, found: Object, seconds: int) -> Iterator[Object]:
        """Yield what a ModelDeployment becomes, until the watch ends: after so long, or broken off."""
        namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
        watcher: Any = watch.Watch()
        events = watcher.stream(
            self._custom.list_namespaced_custom_object,
            **_KIND,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            resource_version=found["metadata"]["resourceVersion"],
            timeout_seconds=seconds,
            _request_timeout=(_TIMEOUT[0], seconds + _TIMEOUT[1]),
        )
        try:
            for event in events:
                if event["type"] == "DELETED":
                    raise ClusterError(f"ModelDeployment {name} was deleted")
                yield event["object"]
        except HTTPError:
            return
        except ApiException as error:
            if error.status != 410:  # too old a version to watch from
                raise ClusterError(_refusal(error, f"watch {_MODELS}", namespace)) from None

    def request(self, found: Object, request: Object) -> None:
        """Write a request into the status of a ModelDeployment.

        Raises ChangedError where it is no longer as it was found.
        """
        metadata = found["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"request": request}}
        with self._in_words(f"patch {_MODELS}/status", metadata["namespace"]):
            self._custom.patch_namespaced_custom_object_status(
                **_KIND,
                namespace=metadata["namespace"],
                name=metadata["name"],
                body=body,
                field_manager=_FIELD_MANAGER,
                _content_type="application/merge-patch+json",
                _request_timeout=_TIMEOUT,
            )

    def who(self) -> str:
        """Answer the name of the user that this is, as `kubectl auth whoami` does."""
        body: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        with self._in_words("create selfsubjectreviews.authentication.k8s.io", ""):
            return self._authentication.create_self_subject_review(body, _request_timeout=_TIMEOUT).status.user_info.username

    def kept(self, found: Object) -> set[str] | None:
        """Answer the revisions that are kept of a ModelDeployment; None where the user may not list them."""
        namespace, uid = found["metadata"]["namespace"], found["metadata"]["uid"]
        selector = f"slipway.dev/model-deployment={found['metadata']['name']}"
        try:
            with self._in_words("list controllerrevisions.apps", namespace):
                listed = self._apps.list_namespaced_controller_revision(
                    namespace, label_selector=selector, _request_timeout=_TIMEOUT
                )
        except ForbiddenError:
            return None
        return {each.metadata.name for each in listed.items if uid in [ref.uid for ref in each.metadata.owner_references or ()]}

    def routers(self, namespace: str) -> tuple[str, ...]:
        """Answer the names of a namespace's router pods."""
        with self._in_words("list pods", namespace):
            found = self._core.list_namespaced_pod(namespace, label_selector=_ROUTERS, _request_timeout=_TIMEOUT)
        return tuple(pod.metadata.name for pod in found.items)

    def statistics(self, namespace: str, router: str, pattern: str) -> str | None:
        """Answer the statistics of a router that match a regular expression, through the API server; None where it is away."""
        path = f"/api/v1/namespaces/{namespace}/pods/{router}:{_STATISTICS_PORT}/proxy/stats"
        query = [("usedonly", ""), ("filter", pattern)]
        method, url, headers, *_ = self._api.param_serialize("GET", path, query_params=query, auth_settings=["BearerToken"])
        try:
            with self._in_words("get pods/proxy", namespace):
                answer = self._api.call_api(method, url, headers, _request_timeout=_TIMEOUT)
                body = answer.read().decode()
                if answer.status in (404, 500, 502, 503, 504):
                    return None
                if answer.status >= 400:
                    raise ApiException(status=answer.status, reason=answer.reason, body=body)
                return body
        except _NoneError:
            return None

    @contextmanager
    def _in_words(self, right: str, namespace: str) -> Generator[None]:
        """Say in words why the API server did not do what needs a right: a verb and a resource."""
        try:
            yield
        except ApiException as error:
            if error.status == 404:
                raise _NoneError from None
            if error.status == 409:
                raise ChangedError from None
            kind = ForbiddenError if error.status == 403 else ClusterError
            raise kind(_refusal(error, right, namespace)) from None
        except HTTPError as error:
            raise ClusterError(f"the cluster at {self.server} cannot be reached: {_cause(error)}") from None


class ForbiddenError(ClusterError):
    """The user lacks a right."""


class _NoneError(Exception):
    """There is no such object, or no such kind."""


def _configure(settings: client.Configuration, kubeconfig: str | None, context: str | None) -> str:
    """Read where the API server is and who asks, as kubectl does, and answer the namespace that is meant where none is named."""
    given = kubeconfig or os.environ.get("KUBECONFIG") or context
    if not given and not Path("~/.kube/config").expanduser().exists() and _POD_NAMESPACE.exists():
        config.load_incluster_config(client_configuration=settings)
        return _POD_NAMESPACE.read_text().strip()
    config.load_kube_config(kubeconfig, context, client_configuration=settings, persist_config=False)
    listed: Any = config.list_kube_config_contexts(kubeconfig)
    contexts, active = listed
    chosen: Object = next((each for each in contexts if each["name"] == context), active)
    return chosen["context"].get("namespace") or "default"


def _refusal(error: ApiException, right: str, namespace: str) -> str:
    """Say why the API server refused; of a right that is missing, what gives it."""
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        said = f"{error.status} {error.reason}"
    if error.status == 401:
        return f"the cluster does not know you: {said}"
    if error.status != 403:
        return f"the cluster refused to {right}: {said}"
    verb, resource = right.split()
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    role = "slipway-rollouts" if verb == "patch" else "slipway-rollouts or slipway-view"
    cure = f". The ClusterRole {role} of Slipway's chart gives this right" if resource.startswith(_MODELS) else ""
    return f"you may not {verb} {resource} {where}: {said}{cure}"


def _cause(error: BaseException) -> str:
    """Answer the innermost reason of a failed connection, without the pools and retries around it."""
    inner = getattr(error, "reason", None) or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else str(error).rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1]
