"""Where requests wait for a first pod: a listener on the router's own loopback, last among a revision's endpoints.

It asks the activator by the request's headers alone, while the body waits under Envoy's flow control. The answer names a ready
pod, and the request goes there.
"""

from typing import Any

from slipway.core.holding import ENDPOINT, HELD, LEAVING, REFUSED
from slipway.manifests.envoy.common import TYPE, header

HOLD_PORT = 9902
_ACTIVATOR, _RELEASED = "activator", "released"
# Clusters that are no revision's.
HOLD_CLUSTERS = (_ACTIVATOR, _RELEASED)
# Of each request so much is read before it may go on: a waiting crowd takes little memory.
HOLD_BUFFER_BYTES = 64 * 1024
# Requests that wait in one router: for each of them one of the activator has a connection.
_HELD_MAX = 4096
# The one status that ext_authz can be told to ask again for.
_RETRIED = {409: "retriable-4xx"}
# A pod that has just begun is given so many requests at a time by each router; others wait in order, for what it answers.
_WINDOW = 64


def forget_headers() -> dict[str, Any]:
    """Answer the filter that takes from callers what only routers and the activator may say."""
    typed = {"@type": f"{TYPE}.extensions.filters.http.header_mutation.v3.HeaderMutation"}
    removed = [{"remove": name} for name in (HELD, ENDPOINT)]
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {**typed, "mutations": {"request_mutations": removed}},
    }


def hold_manager(router_filter: dict[str, Any]) -> dict[str, Any]:
    """Answer the connection manager of the listener: what it passes on is as it came."""
    return {
        "stat_prefix": "hold",
        "codec_type": "AUTO",
        "skip_xff_append": True,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1024 * 1024,
        },
        # What the activator says is text: callers get it as whatever else a router refuses. Of its statuses 5xx would be errors.
        "local_reply_config": {
            "mappers": [
                {"filter": _status(REFUSED), "status_code": 503},
                {
                    "filter": {"response_flag_filter": {"flags": ["UAEX"]}},
                    "body": {"inline_string": "the model has no pod, and nobody to hold requests for it: try again later"},
                    "headers_to_add": [header("retry-after", "5")],
                },
            ],
            "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"},
        },
        "http_filters": [_ask(), router_filter],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "held",
                    "domains": ["*"],
                    # The timeout is that of the route by which the request came here.
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": _RELEASED, "timeout": "0s"}}],
                }
            ]
        },
    }


def _status(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": "slipway.hold"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _ask() -> dict[str, Any]:
    """Answer the filter that asks the activator, and waits for its answer: another one where the first one ends meanwhile."""
    exact = {"patterns": [{"exact": HELD, "ignore_case": True}]}
    secret = {"patterns": [{"exact": "authorization", "ignore_case": True}]}
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "http_service": {
                "server_uri": {"uri": "http://activator", "cluster": _ACTIVATOR, "timeout": "3600s"},
                # Envoy takes the longest interval for the longest that one attempt may last, too.
                "retry_policy": {
                    "retry_on": f"connect-failure,reset,{_RETRIED[LEAVING]}",
                    "num_retries": 8,
                    "retry_back_off": {"base_interval": "0.05s", "max_interval": "3600s"},
                },
                "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": ENDPOINT}]}},
            },
            "allowed_headers": exact,
            "disallowed_headers": secret,
            "status_on_error": {"code": "ServiceUnavailable"},
        },
    }


def hold_clusters(activator: str) -> list[dict[str, Any]]:
    """Answer the clusters of the listener: the activator at HOST:PORT, and the pods that it names."""
    host, _, port = activator.rpartition(":")
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _HELD_MAX)
    asked = {
        "name": _ACTIVATOR,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "0.5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": _ACTIVATOR,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}]}
            ],
        },
    }
    kind = "upstreams.http.v3.HttpProtocolOptions"
    options = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
    released = {
        "name": _RELEASED,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ENDPOINT},
        "connect_timeout": "0.5s",
        "circuit_breakers": {
            "thresholds": [limits | {"max_connections": 8192}],
            "per_host_thresholds": [{"max_connections": _WINDOW}],
        },
        "typed_extension_protocol_options": {f"envoy.extensions.{kind}": {"@type": f"{TYPE}.extensions.{kind}", **options}},
    }
    return [asked, released]
