"""Clusters: one a revision, its endpoints by DNS; and those by which copies of requests are sent."""

from functools import lru_cache
from typing import Any

from slipway.core.routing import RouterState, mirror_names
from slipway.manifests.comparer import PORT as COMPARER_PORT
from slipway.manifests.comparer import comparer_name
from slipway.manifests.envoy.common import TYPE, resources, to_json
from slipway.manifests.envoy.hold import HOLD_PORT
from slipway.settings import Settings


def build_clusters(state: RouterState, namespace: str, settings: Settings) -> str:
    """Answer the clusters file: one cluster a revision, its endpoints from its headless Service's DNS name; more for copies."""
    domain = settings.cluster_domain
    held = {revision for route in state.routes.values() if route.wanted.hold for revision in route.wanted.ports}
    clusters = [
        _cluster_json(revision, port, namespace, domain, revision in held) for revision, port in sorted(state.clusters.items())
    ]
    for name, route in sorted(state.routes.items()):
        steering = route.wanted.steering
        if steering.mirror and steering.revision in route.wanted.ports:
            port = route.wanted.ports[steering.revision]
            http, grpc = mirror_names(steering.revision)
            clusters.append(to_json(_copies_cluster(http, steering.revision, port, namespace, domain)))
            clusters.append(to_json(_copies_cluster(grpc, steering.revision, port, namespace, domain, grpc=True)))
        if steering.compare:
            compare = comparer_name(name)
            clusters.append(to_json(_copies_cluster(compare, compare, COMPARER_PORT, namespace, domain)))
    return resources(state.version, clusters)


@lru_cache(maxsize=4096)  # most of what a namespace's routers are told does not change from one time to the next
def _cluster_json(revision: str, port: int, namespace: str, domain: str, held: bool) -> str:
    cluster = _cluster(revision, port, namespace, domain)
    return to_json(_with_hold(cluster) if held else cluster)


def _with_hold(cluster: dict[str, Any]) -> dict[str, Any]:
    """Answer the cluster with a last endpoint: where requests wait while there is no pod.

    It is degraded, so that no router counts it as one of the revision's. Any pod that is well takes all requests, whatever
    others of the revision do: by default, some would go on to the next priority as soon as a quarter is not well.
    """
    assignment = cluster["load_assignment"]
    address = {"address": "127.0.0.1", "port_value": HOLD_PORT}
    hold = {"endpoint": {"address": {"socket_address": address}}, "health_status": "DEGRADED"}
    assignment = assignment | {
        "endpoints": [*assignment["endpoints"], {"priority": 1, "lb_endpoints": [hold]}],
        "policy": {"overprovisioning_factor": 100_000},
    }
    # That endpoint counts among those of which no more than this may be ejected: less than half of one pod and it is none.
    outliers = cluster["outlier_detection"] | {"max_ejection_percent": 49}
    return cluster | {"load_assignment": assignment, "outlier_detection": outliers}


def _cluster(revision: str, port: int, namespace: str, domain: str) -> dict[str, Any]:
    address = {"address": f"{revision}.{namespace}.svc.{domain}.", "port_value": port}
    limits = {"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192, "max_retries": 64}
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": revision,
        "cluster_type": {
            "name": "envoy.clusters.dns",
            "typed_config": {
                "@type": f"{TYPE}.extensions.clusters.dns.v3.DnsCluster",
                "dns_refresh_rate": "1s",
                "respect_dns_ttl": True,
                "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "1s"},
                "dns_lookup_family": "V4_PREFERRED",
            },
        },
        "connect_timeout": "0.5s",
        "lb_policy": "LEAST_REQUEST",
        # A pod that has just come is the least busy, and would get most: it gets a tenth of its share, and all of it 5 s later.
        "least_request_lb_config": {"slow_start_config": {"slow_start_window": "5s", "min_weight_percent": {"value": 10}}},
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
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": revision,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }


# Copies of requests under way to one revision or comparer: more are not sent.
_COPIES_MAX = 32


def _copies_cluster(name: str, service: str, port: int, namespace: str, domain: str, *, grpc: bool = False) -> dict[str, Any]:
    """Answer a cluster for copies of requests: whatever it does, no caller waits for it.

    A request's body is read no faster than all its copies are sent: a copy must find a connection at once, or fail at once. So
    requests are limited, connections are not (a copy that waited for one would hold its caller up).
    """
    protocol = "http2_protocol_options" if grpc else "http_protocol_options"
    options = {"explicit_http_config": {protocol: {}}}
    limits = {"max_connections": 1024, "max_pending_requests": _COPIES_MAX, "max_requests": _COPIES_MAX, "max_retries": 0}
    cluster = _cluster(service, port, namespace, domain)
    (kind,) = cluster["typed_extension_protocol_options"]
    return cluster | {
        "name": name,
        "connect_timeout": "0.1s",
        "per_connection_buffer_limit_bytes": 4 * 1024 * 1024,
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {kind: {"@type": f"{TYPE}.{kind.removeprefix('envoy.')}", **options}},
        "load_assignment": cluster["load_assignment"] | {"cluster_name": name},
    }
