"""The bootstrap: listeners (models, statistics, held requests), the admin interface on loopback only, overload limits."""

from typing import Any

from slipway.manifests.envoy.common import TYPE, header, to_json
from slipway.manifests.envoy.hold import HOLD_BUFFER_BYTES, HOLD_PORT, forget_headers, hold_clusters, hold_manager

CONFIG_DIR = "/etc/slipway"
HTTP_PORT = 8080
STATS_PORT = 9901
_ADMIN = {"socket_address": {"address": "127.0.0.1", "port_value": 9900}}
ROUTES = "models"
LIMITS = "limits"


def build_bootstrap(heap_bytes: int | None, activator: str = "") -> str:
    """Answer the bootstrap: listeners (models, statistics, held requests), the admin interface on loopback only, overload limits.

    `activator` is where it is asked, HOST:PORT; empty where there is none, and then nothing is held.
    """
    listeners, clusters = [_models_listener(), _stats_listener()], [_admin_cluster()]
    if activator:
        listeners.append(_hold_listener())
        clusters += hold_clusters(activator)
    return to_json(
        {
            "node": {"id": "slipway-router", "cluster": "slipway"},
            "admin": {"address": _ADMIN},
            "dynamic_resources": {"cds_config": _file("clusters.json")},
            "static_resources": {"listeners": listeners, "clusters": clusters},
            "overload_manager": _overload(heap_bytes),
            "layered_runtime": {
                "layers": [{"name": LIMITS, "rtds_layer": {"name": LIMITS, "rtds_config": _file("limits.json")}}]
            },
            # Histograms are put together at every flush, counters at once: the meter's latencies lag its counts by this much.
            "stats_flush_interval": "1s",
        }
    )


def _models_listener() -> dict[str, Any]:
    log = (
        "%START_TIME% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% host=%REQ(:AUTHORITY)% "
        "revision=%UPSTREAM_CLUSTER% endpoint=%UPSTREAM_HOST% ms=%DURATION% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"
    )
    manager = {
        "stat_prefix": "models",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "normalize_path": True,
        # Who begins a request and never ends its headers holds a connection no longer than this.
        "request_headers_timeout": "10s",
        "strip_any_host_port": True,
        "strip_trailing_host_dot": True,
        "server_header_transformation": "PASS_THROUGH",
        # Neither paths nor headers nor bodies are logged: they may carry secrets.
        "access_log": [
            {
                "name": "envoy.access_loggers.stdout",
                "filter": {
                    "status_code_filter": {
                        "comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "slipway.log"}}
                    }
                },
                "typed_config": {
                    "@type": f"{TYPE}.extensions.access_loggers.stream.v3.StdoutAccessLog",
                    "log_format": {"text_format_source": {"inline_string": log}},
                },
            }
        ],
        # What the router itself refuses is JSON, and an overload is 429 with Retry-After rather than 503.
        "local_reply_config": {
            "mappers": [*_refusals(), _NOT_FOR_CALLERS],
            "body_format": {
                "json_format": {"error": "%LOCAL_REPLY_BODY%"},
                "content_type": "application/json",
            },
        },
        "http_filters": [_private_paths(), forget_headers(), _grpc_statistics(), _router_filter()],
        "rds": {"route_config_name": ROUTES, "config_source": _file("routes.json")},
    }
    return _listener("models", HTTP_PORT, manager)


# Of gRPC a refusal has the status RESOURCE_EXHAUSTED, which is 429's: UNAVAILABLE, the default, is an error of the server.
_RESOURCE_EXHAUSTED = "8"
_REFUSED = (
    ("UO", "the model has as many requests under way as it can answer in time: try again later"),
    ("OM", "the router has no memory left for another request: try again later"),
)


def _refusals() -> list[dict[str, Any]]:
    """Answer what callers are told whom the router refuses: by what is at its limit, of gRPC first."""
    grpc = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
    told: list[dict[str, Any]] = []
    for flag, body in _REFUSED:
        refused = {"response_flag_filter": {"flags": [flag]}}
        answer = {"status_code": 429, "body": {"inline_string": body}}
        headers = [header("retry-after", "1")]
        by_grpc = [*headers, header("grpc-status", _RESOURCE_EXHAUSTED)]
        told += [
            {"filter": {"and_filter": {"filters": [refused, grpc]}}, **answer, "headers_to_add": by_grpc},
            {"filter": refused, **answer, "headers_to_add": headers},
        ]
    return told


def _stats_listener() -> dict[str, Any]:
    def only(path: str) -> dict[str, Any]:
        get = [{"name": ":method", "string_match": {"exact": "GET"}}]
        return {"match": {"path": path, "headers": get}, "route": {"cluster": "admin"}}

    routes = [only("/stats"), only("/stats/prometheus"), only("/ready")]
    manager = {
        "stat_prefix": "stats",
        "http_filters": [_router_filter()],
        "route_config": {"virtual_hosts": [{"name": "stats", "domains": ["*"], "routes": routes}]},
    }
    # Asked by the kubelet too: callers who hold all connections must not have the router restarted.
    return _listener("stats", STATS_PORT, manager) | {"ignore_global_conn_limit": True}


def _hold_listener() -> dict[str, Any]:
    listener = _listener("hold", HOLD_PORT, hold_manager(_router_filter()), "127.0.0.1")
    # The connections to it are of callers who have one already.
    return listener | {"per_connection_buffer_limit_bytes": HOLD_BUFFER_BYTES, "ignore_global_conn_limit": True}


def _listener(name: str, port: int, manager: dict[str, Any], address: str = "0.0.0.0") -> dict[str, Any]:  # noqa: S104 - a pod's own
    typed = {"@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager}
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}]}],
    }


# The router itself answers 403 to what `_private_paths` refuses, and to nothing else.
_NOT_FOR_CALLERS = {
    "filter": {
        "status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 403, "runtime_key": "slipway.private"}}}
    },
    "status_code": 404,
    "body": {"inline_string": "a model's own metrics are not for its callers: they are asked of its pods"},
}


def _private_paths() -> dict[str, Any]:
    """Keep what a server tells of itself from its callers: who may see it asks its pods."""
    path = {"url_path": {"path": {"exact": "/metrics"}}}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"private": {"permissions": [path], "principals": [{"any": True}]}}},
        },
    }


def _grpc_statistics() -> dict[str, Any]:
    """Count gRPC answers by their status, without names of services or methods: an error of gRPC is 200 to HTTP."""
    return {
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.grpc_stats.v3.FilterConfig",
            "stats_for_all_methods": False,
        },
    }


def _router_filter() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
    }


def _admin_cluster() -> dict[str, Any]:
    return {
        "name": "admin",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _ADMIN}}]}],
        },
    }


def _overload(heap_bytes: int | None) -> dict[str, Any]:
    monitors: list[dict[str, Any]] = [
        {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": f"{TYPE}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 20000,
            },
        }
    ]
    actions: list[dict[str, Any]] = []
    if heap_bytes is not None:
        heap = "envoy.resource_monitors.fixed_heap"
        monitors.append(
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{TYPE}.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": heap_bytes,
                },
            }
        )
        for action, at in (("shrink_heap", 0.85), ("stop_accepting_requests", 0.95)):
            trigger = {"name": heap, "threshold": {"value": at}}
            actions.append({"name": f"envoy.overload_actions.{action}", "triggers": [trigger]})
    return {"refresh_interval": "0.25s", "resource_monitors": monitors, "actions": actions}


def _file(name: str) -> dict[str, Any]:
    source = {"path": f"{CONFIG_DIR}/{name}", "watched_directory": {"path": CONFIG_DIR}}
    return {"path_config_source": source, "resource_api_version": "V3"}
