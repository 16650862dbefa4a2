"""Envoy's configuration: bootstrap (fixed), clusters (one a revision) and routes (one virtual host a ModelDeployment).

Envoy watches the files. Clusters and routes are swapped in no particular order, so the rollout policy lets a route name only
a revision that every router already sees.
"""

import json
from functools import lru_cache
from typing import Any

from slipway.core.routing import Route, RouterState, service_names
from slipway.settings import Settings

CONFIG_DIR = "/etc/slipway"
HTTP_PORT = 8080
STATS_PORT = 9901
_ADMIN = {"socket_address": {"address": "127.0.0.1", "port_value": 9900}}
_TYPE = "type.googleapis.com/envoy"
ROUTES = "models"


def build_bootstrap(heap_bytes: int | None) -> str:
    """Answer the bootstrap: two listeners (models, statistics), the admin interface on loopback only, overload limits."""
    return _json(
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


def build_clusters(state: RouterState, namespace: str, settings: Settings) -> str:
    """Answer the clusters file: one cluster a revision, its endpoints from its headless Service's DNS name."""
    clusters = sorted(state.clusters.items())
    return _resources(
        state.version, [_cluster_json(revision, port, namespace, settings.cluster_domain) for revision, port in clusters]
    )


def build_routes(state: RouterState, namespace: str, settings: Settings) -> str:
    """Answer the routes file: one virtual host a ModelDeployment."""
    hosts = [_virtual_host(name, route, namespace, settings.cluster_domain) for name, route in sorted(state.routes.items())]
    configuration = {"@type": f"{_TYPE}.config.route.v3.RouteConfiguration", "name": ROUTES, "virtual_hosts": hosts}
    return _resources(state.version, [_json(configuration)])


@lru_cache(maxsize=4096)  # most of what a namespace's routers are told does not change from one time to the next
def _cluster_json(revision: str, port: int, namespace: str, domain: str) -> str:
    return _json(_cluster(revision, port, namespace, domain))


def _cluster(revision: str, port: int, namespace: str, domain: str) -> dict[str, Any]:
    address = {"address": f"{revision}.{namespace}.svc.{domain}.", "port_value": port}
    limits = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192, "max_retries": 64}
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": revision,
        "cluster_type": {
            "name": "envoy.clusters.dns",
            "typed_config": {
                "@type": f"{_TYPE}.extensions.clusters.dns.v3.DnsCluster",
                "dns_refresh_rate": "1s",
                "respect_dns_ttl": True,
                "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "1s"},
                "dns_lookup_family": "V4_PREFERRED",
            },
        },
        "connect_timeout": "0.5s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [limits]},
        # Only what never reached a server counts against an endpoint: a model's own 5xx is the caller's to see.
        "outlier_detection": {
            "consecutive_local_origin_failure": 2,
            "split_external_local_origin_errors": True,
            "interval": "1s",
            "base_ejection_time": "2s",
            # Half at most: a lone endpoint is never ejected, so a model that times out is slow, not gone.
            "max_ejection_percent": 50,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
        },
        # HTTP/1.1 callers reach the server by HTTP/1.1, HTTP/2 callers (gRPC) by HTTP/2.
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": revision,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }


def _virtual_host(name: str, route: Route, namespace: str, domain: str) -> dict[str, Any]:
    names = service_names(name, namespace, domain)
    weights = sorted(route.wanted.positive.items())
    match = {"prefix": "/"}
    if not weights:
        body = json.dumps({"error": f"{name} has no ready revision yet"})
        answer = {"direct_response": {"status": 503, "body": {"inline_string": body}}}
        retry_after = [_header("retry-after", "5"), _header("content-type", "application/json")]
        return {
            "name": name,
            "domains": [*names, *route.wanted.hosts],
            "routes": [{"match": match, **answer, "response_headers_to_add": retry_after}],
        }
    clusters = [
        {"name": revision, "weight": weight, "response_headers_to_add": [_header("x-slipway-revision", revision)]}
        for revision, weight in weights
    ]
    return {
        "name": name,
        "domains": [*names, *route.wanted.hosts],
        # What is retried has not reached a server: no request runs twice.
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 3,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": f"{_TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 3,
        },
        "routes": [
            {
                "match": match,
                "route": {
                    "timeout": f"{route.wanted.timeout_seconds:g}s",
                    "weighted_clusters": {"clusters": clusters},
                },
            }
        ],
    }


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


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
                    "@type": f"{_TYPE}.extensions.access_loggers.stream.v3.StdoutAccessLog",
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
                    "headers_to_add": [_header("retry-after", "1")],
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
    typed = {"@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager}
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
            "@type": f"{_TYPE}.extensions.filters.http.grpc_stats.v3.FilterConfig",
            "stats_for_all_methods": False,
        },
    }


def _router_filter() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
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
                "@type": f"{_TYPE}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
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
                    "@type": f"{_TYPE}.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
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


def _resources(version: int, resources: list[str]) -> str:
    return f'{{"version_info":"{version}","resources":[{",".join(resources)}]}}'


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))
