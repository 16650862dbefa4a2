"""What the operator is told at start: images, namespaces, the router's size. One frozen object, passed down."""

import argparse
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The operator's settings. Every field is a flag of `python -m slipway`; the chart sets them from its values."""

    server_image: str
    router_image: str
    server_gpu_image: str = ""
    operator_image: str = ""
    activator: str = ""
    model_schemes: tuple[str, ...] = ()
    model_networks: tuple[str, ...] = ()
    watch_namespaces: tuple[str, ...] = ()
    namespace: str = "slipway-system"
    identity: str = "slipway"
    router_replicas: int = 2
    router_resources: dict[str, Any] = field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    )
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    dns_stale_seconds: int = 35
    workers: int = 8
    sweep_seconds: float = 300.0
    prometheus_address: str = ""
    check_hosts: tuple[str, ...] = ()
    http_port: int = 8080
    log_format: str = "json"
    log_level: str = "info"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Read the settings from flags; each flag's default is the environment variable SLIPWAY_<FLAG>."""
    parser = argparse.ArgumentParser(
        prog="python -m slipway",
        description="The Slipway operator: serves ModelDeployments. Every flag may be given as SLIPWAY_<FLAG> instead.",
    )

    def flag(name: str, default: Any, help_text: str, kind: Any = str, choices: Sequence[str] | None = None) -> None:
        value = os.environ.get("SLIPWAY_" + name.upper().replace("-", "_"), default)
        shown = "" if default in (None, "", ()) else f" (default: {default})"
        parser.add_argument(
            f"--{name}", type=kind, default=value, required=value is None, choices=choices, help=help_text + shown
        )

    flag("server-image", None, "image of the bundled model server, also used to fetch models")
    flag("server-gpu-image", "", "image of the bundled model server's GPU build, for models with nvidia.com/gpu in their limits")
    flag("operator-image", "", "image of this operator, also of the comparer of a rollout's answers; empty: nothing is compared")
    flag("activator", "", "HOST:PORT at which routers ask the activator; empty: there is none, and scaling.min: 0 is refused")
    flag("model-schemes", "", "comma-separated schemes that model.uri may have; empty: all", _names)
    flag("model-networks", "", "comma-separated networks (CIDR) of private addresses that a model may be fetched from", _names)
    flag("router-image", None, "image of the router (Envoy, with bash)")
    flag("watch-namespaces", "", "comma-separated namespaces to serve; empty: all", _names)
    flag("namespace", "slipway-system", "the operator's own namespace, where its Lease lies")
    flag("identity", socket.gethostname(), "this replica's name in the Lease")
    flag("router-replicas", 2, "router pods in each namespace that has models", int)
    flag("router-resources", '{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"512Mi"}}',
         "compute resources of a router pod, as JSON", json.loads)  # fmt: skip
    flag("image-pull-policy", "IfNotPresent", "of all pods that Slipway makes", str, ("Always", "IfNotPresent", "Never"))
    flag("image-pull-secrets", "", "comma-separated Secrets, in each namespace, to pull Slipway's images with", _names)
    flag("cluster-domain", "cluster.local", "the cluster's DNS domain")
    flag("dns-stale-seconds", 35, "how long the cluster's DNS may answer with an endpoint that left: "
         "the TTL and cache of CoreDNS (30 s each by default) and a margin", int)  # fmt: skip
    flag("workers", 8, "reconciles that run side by side", int)
    flag("sweep-seconds", 300.0, "how often everything is listed to repair what watches missed", float)
    flag(
        "prometheus-address", "", "the Prometheus that checks ask which name none, such as http://prometheus.monitoring.svc:9090"
    )
    flag("check-hosts", "", "comma-separated hosts that checks may ask beside Services of their own namespace", _names)
    flag("http-port", 8080, "port of /healthz, /readyz and /metrics", int)
    flag("log-format", "json", "how a log line looks", str, ("json", "text"))
    flag("log-level", "info", "the least severe level logged", str, ("debug", "info", "warning", "error"))
    return Settings(**vars(parser.parse_args(argv)))
