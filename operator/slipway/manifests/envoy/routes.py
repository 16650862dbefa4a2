"""Routes: one virtual host a ModelDeployment, by weight or by what callers carry; and a candidate's own."""

import json
from typing import Any

from slipway.core import holding
from slipway.core.routing import Route, RouterState, Wanted, mirror_names, preview_name, service_names
from slipway.core.steering import Match, Steering
from slipway.manifests.comparer import comparer_name
from slipway.manifests.envoy.bootstrap import ROUTES
from slipway.manifests.envoy.common import TYPE, header, resources, to_json
from slipway.settings import Settings


def build_routes(state: RouterState, namespace: str, settings: Settings) -> str:
    """Answer the routes file: one virtual host a ModelDeployment."""
    hosts = [_virtual_host(name, route, namespace, settings.cluster_domain) for name, route in sorted(state.routes.items())]
    for name, route in sorted(state.routes.items()):
        # A ModelDeployment of the preview's name has the name: Envoy would refuse two of them, and all else with them.
        if route.wanted.steering.preview and preview_name(name) not in state.routes:
            hosts.append(_preview_host(name, route, namespace, settings.cluster_domain))
    configuration = {"@type": f"{TYPE}.config.route.v3.RouteConfiguration", "name": ROUTES, "virtual_hosts": hosts}
    return resources(state.version, [to_json(configuration)])


def _virtual_host(name: str, route: Route, namespace: str, domain: str) -> dict[str, Any]:
    names = service_names(name, namespace, domain)
    weights = _weights(route)
    match = {"prefix": "/"}
    if not weights:
        body = json.dumps({"error": f"{name} has no ready revision yet"})
        answer = {"direct_response": {"status": 503, "body": {"inline_string": body}}}
        retry_after = [header("retry-after", "5"), header("content-type", "application/json")]
        return {
            "name": name,
            "domains": [*names, *route.wanted.hosts],
            "routes": [{"match": match, **answer, "response_headers_to_add": retry_after}],
        }
    steering = route.wanted.steering
    timeout = {"timeout": f"{route.wanted.timeout_seconds:g}s"}
    clusters = [
        {"name": revision, "weight": weight, **_told(name, namespace, revision, route.wanted)} for revision, weight in weights
    ]
    everybody: dict[str, Any] = {"match": match, "route": {**timeout, "weighted_clusters": {"clusters": clusters}}}
    routes = _with_copies(name, steering, [everybody] if steering.sticky is None else _staying(everybody, steering))
    if steering.testers is not None:
        theirs = {**match, **_carries(steering.testers)}
        routes.insert(0, _only(theirs, timeout, steering.revision, _told(name, namespace, steering.revision, route.wanted)))
    retries = {"retry_policy": _retry_policy(route.wanted)}
    return {"name": name, "domains": [*names, *route.wanted.hosts], **retries, "routes": routes}


def _weights(route: Route) -> list[tuple[str, int]]:
    """Answer revisions and weights in the order in which the routers choose: where callers stay, that of their places."""
    sticky = route.wanted.steering.sticky
    return sorted(route.wanted.positive.items()) if sticky is None else sticky.places(route.wanted.positive)


# Of longer requests, and of those that do not say how long they are, no copies are made: a slow reader would hold callers up.
_COPY_BYTES_MAX = 1024 * 1024


def _with_copies(name: str, steering: Steering, routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer the routes with what copies requests: those of gRPC by HTTP/2, short ones by HTTP/1.1, no others."""
    if not steering.mirror and not steering.compare:
        return routes
    http, grpc = mirror_names(steering.revision)
    short = {"name": "content-length", "range_match": {"start": 0, "end": _COPY_BYTES_MAX + 1}}
    copied: list[dict[str, Any]] = []
    for route in routes:
        headers = route["match"].get("headers", [])
        by_grpc = [_copy(grpc, steering.mirror)] if steering.mirror else []
        by_http = [_copy(http, steering.mirror)] if steering.mirror else []
        by_http += [_copy(comparer_name(name), steering.compare)] if steering.compare else []
        for match, copies in (({"grpc": {}}, by_grpc), ({"headers": [*headers, short]}, by_http)):
            mirrored = {**route["route"], "request_mirror_policies": copies} if copies else route["route"]
            copied.append({**route, "match": {**route["match"], **match}, "route": mirrored})
        copied.append(route)
    return copied


def _copy(cluster: str, percent: int) -> dict[str, Any]:
    share = {"default_value": {"numerator": percent, "denominator": "HUNDRED"}}
    return {"cluster": cluster, "runtime_fraction": share, "disable_shadow_host_suffix_append": True}


def _staying(route: dict[str, Any], steering: Steering) -> list[dict[str, Any]]:
    """Answer the routes by which callers stay with one revision: it is chosen by a hash of what they carry, not by chance.

    The hash is salted by the test: who had the candidate in one test has it in another by chance. Callers without the cookie
    get one with the identity of their request, by which they are assigned at once: the same value hashes alike in a header.
    """
    sticky = steering.sticky
    assert sticky is not None  # noqa: S101 - the caller checked it
    split = {**route["route"]["weighted_clusters"], "use_hash_policy": True}

    def by(policy: dict[str, Any]) -> dict[str, Any]:
        return {**route["route"], "weighted_clusters": split, "hash_policy": [policy]}

    if not sticky.cookie:
        salted = {"pattern": {"regex": "^.*$"}, "substitution": f"{sticky.salt}/\\0"}
        return [{**route, "route": by({"header": {"header_name": sticky.name, "regex_rewrite": salted}})}]
    cookie = f"{sticky.name}-{sticky.salt}"
    given = f"{cookie}=%REQ(x-request-id)%; Path=/; Max-Age={sticky.ttl_seconds:.0f}; HttpOnly; SameSite=Lax"
    some = {"cookies": [{"name": cookie, "string_match": {"safe_regex": {"regex": ".+"}}}]}
    giving = {"header": {"key": "set-cookie", "value": given}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}
    return [
        {**route, "match": {**route["match"], **some}, "route": by({"cookie": {"name": cookie}})},
        {**route, "route": by({"header": {"header_name": "x-request-id"}}), "response_headers_to_add": [giving]},
    ]


# What is retried has not reached a server: no request runs twice.
_RETRY_POLICY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"{TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 3,
}


def _retry_policy(wanted: Wanted) -> dict[str, Any]:
    """Answer the retries. Where requests may wait, the third attempt does so: the last pod may have gone this very moment."""
    if not wanted.hold:
        return _RETRY_POLICY
    typed = {"@type": f"{TYPE}.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", "update_frequency": 2}
    return {
        **_RETRY_POLICY,
        "retry_priority": {"name": "envoy.retry_priorities.previous_priorities", "typed_config": typed},
    }


def _preview_host(name: str, route: Route, namespace: str, domain: str) -> dict[str, Any]:
    """Answer the virtual host under which a candidate answers alone."""
    preview = preview_name(name)
    revision = route.wanted.steering.revision
    timeout = {"timeout": f"{route.wanted.timeout_seconds:g}s"}
    only = _only({"prefix": "/"}, timeout, revision, _told(name, namespace, revision, route.wanted))
    domains = service_names(preview, namespace, domain)
    return {"name": preview, "domains": domains, "retry_policy": _retry_policy(route.wanted), "routes": [only]}


def _only(match: dict[str, Any], more: dict[str, Any], revision: str, told: dict[str, Any]) -> dict[str, Any]:
    return {"match": match, "route": {**more, "cluster": revision}, **told}


def _told(name: str, namespace: str, revision: str, wanted: Wanted) -> dict[str, Any]:
    """Answer what the router adds: to the answer, who gave it; to a request that may have to wait, for whom."""
    told = {"response_headers_to_add": [header("x-slipway-revision", revision)]}
    if not wanted.hold or revision not in wanted.ports:
        return told
    held = holding.write(namespace, name, revision, wanted.ports[revision], wanted.timeout_seconds)
    return {**told, "request_headers_to_add": [header(holding.HELD, held)]}


def _carries(match: Match) -> dict[str, Any]:
    """Answer the match of requests that carry a header or a cookie of that value."""
    kind = "cookies" if match.cookie else "headers"
    return {kind: [{"name": match.name, "string_match": {"exact": match.value}}]}
