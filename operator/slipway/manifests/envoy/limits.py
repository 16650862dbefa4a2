"""Limits: how many requests each revision may have under way in one router, as values of Envoy's runtime.

They override the circuit breakers of clusters. A cluster that changed would be made anew, and its connections with it; a value
of the runtime is read at every request.
"""

from slipway.core.routing import RouterState
from slipway.manifests.envoy.bootstrap import LIMITS
from slipway.manifests.envoy.common import resources, to_json


def build_limits(state: RouterState) -> str:
    """Answer the limits file. A revision without a limit has that of its cluster."""
    # "default" is the priority of routes, not of endpoints: requests that a cluster's endpoints of priority 1 hold count too.
    values = {
        f"circuit_breakers.{revision}.default.max_requests": most
        for _, route in sorted(state.routes.items())
        for revision, most in sorted(route.wanted.limits.items())
    }
    return resources(
        state.version,
        [to_json({"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": LIMITS, "layer": values})],
    )
