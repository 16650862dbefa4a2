"""Envoy's configuration: bootstrap (fixed), clusters and limits (by revision) and routes (one virtual host a ModelDeployment).

Envoy watches the files. Clusters and routes are swapped in no particular order, so the rollout policy lets a route name only
a revision that every router already sees.
"""

from slipway.manifests.envoy.bootstrap import CONFIG_DIR, HTTP_PORT, ROUTES, STATS_PORT, build_bootstrap
from slipway.manifests.envoy.clusters import build_clusters
from slipway.manifests.envoy.hold import HOLD_CLUSTERS, HOLD_PORT
from slipway.manifests.envoy.limits import build_limits
from slipway.manifests.envoy.routes import build_routes

__all__ = (
    "CONFIG_DIR",
    "HOLD_CLUSTERS",
    "HOLD_PORT",
    "HTTP_PORT",
    "ROUTES",
    "STATS_PORT",
    "build_bootstrap",
    "build_clusters",
    "build_limits",
    "build_routes",
)
