"""Envoy configurations for the router's image, when it plays a server or a caller that speaks HTTP/2."""

from typing import Any

Object = dict[str, Any]
_TYPE = "type.googleapis.com/envoy.extensions"
_PORT = 8080


def answering() -> Object:
    """Answer a server that tells in `x-asked-by` by which protocol it was asked."""
    by = {"header": {"key": "x-asked-by", "value": "%PROTOCOL%"}}
    return _listening({"direct_response": {"status": 200, "body": {"inline_string": "ok"}}, "response_headers_to_add": [by]}, [])


def asking(host: str) -> Object:
    """Answer a server that passes every request on to `host`, by HTTP/2."""
    http2 = {"@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}
    address = {"address": host, "port_value": 80}
    cluster = {
        "name": "other",
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": "other",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }
    return _listening({"route": {"cluster": "other", "host_rewrite_literal": host}}, [cluster])


def _listening(route: Object, clusters: list[Object]) -> Object:
    last = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_filters": [last],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]},
    }
    listener = {
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": _PORT}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}
