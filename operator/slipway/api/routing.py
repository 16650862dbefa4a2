"""How callers reach a model: its hosts, how long a request may take, and the ways in from outside the cluster."""

from typing import Annotated

from pydantic import Field

from slipway.api.base import DnsName, Rule, Type, duration, text
from slipway.api.pod import Annotations

_HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_SAYS_HOST = "must be a host name in lower case without scheme, port or path, such as churn.example.com or *.example.com"
_A_REQUEST = "duration(self) >= duration('1ms') && duration(self) <= duration('1h')"


class Gateway(Type):
    """The Gateway (Gateway API) that an HTTPRoute of Slipway's is attached to. Slipway makes no Gateway."""

    name: DnsName = Field(description="The Gateway's name.")
    namespace: DnsName | None = Field(
        default=None, description="The Gateway's namespace, which its listeners must let routes in from; by default the model's."
    )
    section_name: DnsName | None = Field(
        default=None, description="One listener of the Gateway; by default all that have a host."
    )


class Ingress(Type):
    """An Ingress of Slipway's, for an ingress controller to take."""

    class_name: DnsName | None = Field(default=None, description="The IngressClass; by default the cluster's default.")
    tls_secret_name: DnsName | None = Field(
        default=None, description="A Secret with a certificate for all hosts, in the same namespace; without it plain HTTP."
    )
    annotations: Annotations | None = Field(default=None, description="Settings of the ingress controller, or of cert-manager.")

    rules = (
        Rule(
            "!has(self.annotations) || self.annotations.all(k, !k.startsWith('slipway.dev/'))",
            "annotations that begin with slipway.dev/ are set by Slipway: use another name",
            ".annotations",
        ),
    )


class Routing(Type):
    """How callers reach the model."""

    hosts: Annotated[list[Annotated[str, text(_HOST, _SAYS_HOST, 253)]], Field(max_length=16)] | None = Field(
        default=None,
        description="Host names that the router answers to beside the Service's own, for an Ingress or Gateway in front.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    timeout: Annotated[str, duration(_A_REQUEST, " between 1ms and 1h")] = Field(
        default="30s", description="How long a request may take; 504 afterwards."
    )
    gateway: Gateway | None = Field(
        default=None, description="Makes an HTTPRoute for the hosts on this Gateway; the condition Exposed tells what came of it."
    )
    ingress: Ingress | None = Field(
        default=None, description="Makes an Ingress for the hosts; the condition Exposed tells what came of it."
    )

    rules = (
        Rule(
            "!has(self.gateway) || (has(self.hosts) && size(self.hosts) > 0)",
            "routing.gateway needs routing.hosts: the host names by which callers outside the cluster reach the model",
            ".gateway",
        ),
        Rule(
            "!has(self.ingress) || (has(self.hosts) && size(self.hosts) > 0)",
            "routing.ingress needs routing.hosts: the host names by which callers outside the cluster reach the model",
            ".ingress",
        ),
    )
