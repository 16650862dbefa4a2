"""The bootstrap: two listeners (models, statistics), the admin interface on loopback only, overload limits."""

from typing import Any

from slipway.manifests.envoy.common import TYPE, header, to_json

CONFIG_DIR = "/etc/slipway"
HTTP_PORT = 8080
STATS_PORT = 9901
_ADMIN = {"socket_address": {"address": "127.0.0.1", "port_value": 9900}}
ROUTES = "models"


def build_bootstrap(heap_bytes: int | None) -> str:
    """Answer the bootstrap: two listeners (models, statistics), the admin interface on loopback only, overload limits."""
    return to_json(
        {
            "node": {"id": "slipway-router", "cluster": "slipway"},
            "admin": {"address": _ADMIN},
            "dynamic_resources": {"cds_config": _file("clusters.json")},
            "static_resources": {"listeners": [_models_listener(), _stats_listener()], "clusters": [_admin_cluster()]},
            "overload_manager": _overload(heap_bytes),
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
            "mappers": [
                {
                    "filter": {"response_flag_filter": {"flags": ["UO", "OM"]}},
                    "status_code": 429,
                    "headers_to_add": [header("retry-after", "1")],
                }
            ],
            "body_format": {
                "json_format": {"error": "%LOCAL_REPLY_BODY%"},
                "content_type": "application/json",
            },
        },
        "http_filters": [_grpc_statistics(), _router_filter()],
        "rds": {"route_config_name": ROUTES, "config_source": _file("routes.json")},
    }
    return _listener("models", HTTP_PORT, manager)


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
    return _listener("stats", STATS_PORT, manager)


def _listener(name: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    typed = {"@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager}
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},  # noqa: S104 - a pod's own address
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": typed}]}],
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
