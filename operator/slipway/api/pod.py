"""What a user may merge over the pods that Slipway builds."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from slipway.api.base import DnsName, LabelValue, Rule, Type, text

_ANY_OBJECT: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
_LABEL_KEY = r"^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"


def _named(key: str, *rules: Rule, objects: tuple[str, ...] = ()) -> dict[str, Any]:
    """Answer the schema of a part of a Pod of which only the key, and the `objects` that rules name, are known here.

    The API server checks the rest in the Pod.
    """
    known: dict[str, Any] = {key: {"type": "string", "minLength": 1, "maxLength": 4096}}
    known |= {name: {"type": "object", **_ANY_OBJECT} for name in objects}
    checked = {"x-kubernetes-validations": [rule.schema() for rule in rules]} if rules else {}
    return {"type": "object", **_ANY_OBJECT, "required": [key], "properties": known, **checked}


def _typed(key: str, objects: tuple[str, ...] = ()) -> AfterValidator:
    """Answer the check of the types in `_named`'s schema: what an older CRD let in is a wrong spec, and no failure of ours."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get(key), str):
            raise ValueError(f"{key} must be a text")
        for name in objects:
            if not isinstance(value.get(name, {}), dict):
                raise ValueError(f"{name} must be an object")
        return value

    return AfterValidator(check)


def _by(key: str) -> dict[str, Any]:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def _keys(what: str) -> dict[str, Any]:
    says = f"a {what}'s name must be [DOMAIN/]NAME of letters, digits, '-', '_' and '.', such as team or example.com/team"
    return {"x-kubernetes-validations": [Rule(f"self.all(k, k.matches(r'{_LABEL_KEY}'))", says).schema()]}


# The volumes of the standard `restricted`: all others are the node's own files, or whatever an address in the pod leads to.
_VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret")

Object = Annotated[dict[str, Any], Field(json_schema_extra=_ANY_OBJECT)]
Named = Annotated[dict[str, Any], _typed("name"), Field(json_schema_extra=_named("name"))]
Volume = Annotated[
    dict[str, Any],
    _typed("name", _VOLUMES),
    Field(
        json_schema_extra=_named(
            "name",
            Rule(
                "!(self.name in ['tmp', 'model', 'source', 'credentials'])",
                "the volumes tmp, model, source and credentials are Slipway's: use another name",
                ".name",
            ),
            Rule(
                " || ".join(f"has(self.{kind})" for kind in _VOLUMES),
                f"a volume is one of {', '.join(_VOLUMES)}: a hostPath is refused, and storage such as nfs is reached by a "
                "PersistentVolumeClaim",
            ),
            objects=_VOLUMES,
        )
    ),
]
VolumeMount = Annotated[
    dict[str, Any],
    _typed("mountPath"),
    Field(
        json_schema_extra=_named(
            "mountPath",
            Rule(
                "!self.mountPath.matches('^/+(tmp|mnt/+models)/*$')",
                "/tmp and /mnt/models are mounted by Slipway: use another path",  # noqa: S108 - a message
                ".mountPath",
            ),
        )
    ),
]
EnvVar = Annotated[
    dict[str, Any],
    _typed("name"),
    Field(
        json_schema_extra=_named(
            "name",
            Rule("!self.name.startsWith('SLIPWAY_')", "SLIPWAY_ variables are set by Slipway: use another name", ".name"),
        )
    ),
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64, json_schema_extra=_keys("annotation"))
]
Labels = Annotated[dict[str, LabelValue], Field(max_length=64, json_schema_extra=_keys("label"))]


class PodMetadata(Type):
    """Labels and annotations added to the model's pods."""

    labels: Labels | None = None
    annotations: Annotations | None = None

    rules = (
        Rule(
            "!has(self.labels) || self.labels.all(k, !k.matches('(^|[.])slipway[.]dev/') && !k.startsWith('app.kubernetes.io/'))",
            "podTemplate.metadata.labels: slipway.dev/ and app.kubernetes.io/ labels are set by Slipway; use other names",
            ".labels",
        ),
        Rule(
            "!has(self.annotations) || self.annotations.all(k, !k.matches('(^|[.])slipway[.]dev/'))",
            "podTemplate.metadata.annotations: slipway.dev/ annotations are set by Slipway; use other names",
            ".annotations",
        ),
    )


class ContainerOverlay(Type):
    """What is added to the server's container. Image, resources, port and readiness are fields of `server`."""

    name: Annotated[str, text("^server$", "must be server: the pod has no other container to add to", 63)] = Field(
        default="server", description="Always `server`."
    )
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=64)] | None = Field(
        default=None, description="Arguments, for a `server.image` of your own."
    )
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=_by("name"))] | None = Field(
        default=None, description="As in a Pod."
    )
    env_from: Annotated[list[Object], Field(max_length=16)] | None = Field(default=None, description="As in a Pod.")
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16, json_schema_extra=_by("mountPath"))] | None = Field(
        default=None, description="As in a Pod."
    )


class PodOverlay(Type):
    """What is merged over the pod that Slipway builds. What is not listed here may not be overridden."""

    node_selector: Labels | None = Field(default=None, description="As in a Pod.")
    tolerations: Annotated[list[Object], Field(max_length=32)] | None = Field(default=None, description="As in a Pod.")
    affinity: Object | None = Field(default=None, description="As in a Pod.")
    topology_spread_constraints: Annotated[list[Object], Field(max_length=8)] | None = Field(
        default=None, description="As in a Pod. Replaces the spread over nodes that Slipway sets."
    )
    priority_class_name: DnsName | None = Field(default=None, description="As in a Pod.")
    runtime_class_name: DnsName | None = Field(default=None, description="As in a Pod.")
    scheduler_name: DnsName | None = Field(default=None, description="As in a Pod.")
    service_account_name: DnsName | None = Field(default=None, description="As in a Pod. Its token is not mounted.")
    image_pull_secrets: Annotated[list[Named], Field(max_length=8, json_schema_extra=_by("name"))] | None = Field(
        default=None, description="As in a Pod."
    )
    termination_grace_period_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86400,
        description="How long a pod may take to finish its requests once the routers send it no more, in seconds.",
    )
    volumes: Annotated[list[Volume], Field(max_length=16, json_schema_extra=_by("name"))] | None = Field(
        default=None, description="As in a Pod."
    )
    containers: Annotated[list[ContainerOverlay], Field(max_length=1)] | None = Field(
        default=None,
        description="At most one entry, for the container `server`.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class PodTemplate(Type):
    """A partial pod template, merged over what Slipway builds."""

    metadata: PodMetadata | None = None
    spec: PodOverlay | None = None
