"""Five verbs on the API server: get, list, watch, apply, delete. Objects are plain dicts."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import getproxies

from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from slipway.kube.kinds import Kind, kind_of

FIELD_MANAGER = "slipway"
PAGE = 250
_REQUEST_SECONDS = 30
_WATCH_SECONDS = 290
# No object ever has this resourceVersion: an apply that carries it creates, and conflicts where the object exists.
_NEVER = "1"

Object = dict[str, Any]
Query = list[tuple[str, str]]


class ApiError(Exception):
    """The API server refused. `status` is the HTTP status, `reason` the machine-readable word of its answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NoClusterError(Exception):
    """No API server is configured."""


class Api:
    """A connection to the API server, from inside a pod or by kubeconfig. Counts its requests by verb."""

    def __init__(self, api_client: client.ApiClient) -> None:
        self._client = api_client
        self.requests: dict[str, int] = {}

    @classmethod
    async def connect(cls) -> "Api":
        """Read the in-cluster configuration, else the kubeconfig, and open the connection pool."""
        configuration = client.Configuration()
        configuration.connection_pool_maxsize = 0
        # Of the environment only proxies are wanted: trusted, it has a netrc file looked for, in a thread, at each request.
        configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            try:
                await config.load_kube_config(client_configuration=configuration)
            except config.ConfigException as error:
                raise NoClusterError(f"not in a pod, and no usable kubeconfig: {error}") from None
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Answer the object, None where there is none."""
        try:
            return await self._request("get", "GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[list[Object], str]]:
        """Yield all objects in pages, with the resourceVersion of the list, the same each time. `namespace` None: all of them.

        `fields` selects by field: `metadata.name=NAME` reads one object with the right to list and without that to get.
        """
        query: Query = [("limit", str(PAGE)), ("labelSelector", selector), ("fieldSelector", fields)]
        token = ""
        while True:
            page = await self._request("list", "GET", kind.path(namespace), [*query, ("continue", token)])
            items = [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page["items"]]
            yield items, page["metadata"].get("resourceVersion", "")  # what is measured anew each time has none
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def watch(
        self, kind: Kind, namespace: str | None, selector: str, resource_version: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (ADDED | MODIFIED | DELETED | BOOKMARK, object) since the resourceVersion, until the server ends the watch.

        Raises ApiError with status 410 where that version is too old: list anew.
        """
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", selector),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", str(_WATCH_SECONDS)),
        ]
        answer = await self._send("watch", "GET", kind.path(namespace), query, timeout_seconds=_WATCH_SECONDS + 30)
        try:
            async for line in answer.response.content:
                event = json.loads(line)
                obj = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(obj.get("code", 500), obj.get("reason", ""), obj.get("message", ""))
                yield event["type"], obj
        finally:
            answer.response.close()

    async def apply(self, obj: Object, *, create: bool = False, status: bool = False, manager: str = FIELD_MANAGER) -> Object:
        """Apply the object server-side, with force, and answer it as stored.

        With `create`, an object of that name must not exist: ApiError 409 where it does, and it is untouched.
        With `metadata.resourceVersion` set, ApiError 409 where the object has changed since.
        """
        if create:
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": _NEVER}}
        metadata = obj["metadata"]
        path = kind_of(obj).path(metadata["namespace"], metadata["name"]) + ("/status" if status else "")
        query = [("fieldManager", manager), ("force", "true")]
        return await self._request("apply", "PATCH", path, query, obj, "application/apply-patch+yaml")

    async def delete(self, obj: Object) -> None:
        """Delete the object (its dependents by garbage collection) if it is still the same one. Gone already is fine."""
        metadata = obj["metadata"]
        body = {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}}
        try:
            await self._request("delete", "DELETE", kind_of(obj).path(metadata["namespace"], metadata["name"]), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        query: Query | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = await self._send(verb, method, path, query, body, content_type)
        return json.loads(await answer.read())

    async def _send(
        self,
        verb: str,
        method: str,
        path: str,
        query: Query | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = _REQUEST_SECONDS,
    ) -> Any:
        self.requests[verb] = self.requests.get(verb, 0) + 1
        # Only for the URL and the credentials: objects are plain dicts already, so the client need not walk them.
        method, url, headers, _, _ = await self._client.param_serialize(
            method,
            path,
            query_params=[(key, value) for key, value in query or [] if value],
            header_params={"Accept": "application/json", "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        try:
            answer = await self._client.call_api(method, url, headers, body, _request_timeout=timeout_seconds)
        except ApiException as error:
            raise _error(error.status, error.body) from None
        if answer.status >= 400:
            raise _error(answer.status, await answer.read())
        return answer


def _error(status: int | None, body: bytes | str | None) -> ApiError:
    try:
        said = json.loads(body or b"{}")
    except ValueError:
        said = {"message": str(body)[:200]}
    return ApiError(status or 0, said.get("reason", ""), said.get("message", ""))
