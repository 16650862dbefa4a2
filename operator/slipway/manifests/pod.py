"""The pod template of a revision: fetch the model, then serve it."""

from typing import Any
from urllib.parse import urlsplit

from slipway.api.pod import PodOverlay
from slipway.api.spec import Protocol, Spec
from slipway.manifests.labels import CONTAINER_SECURITY, POD_SECURITY, REVISION_LABEL, USER, model_labels, spread
from slipway.settings import Settings

MODEL_DIR = "/mnt/models"
SOURCE_DIR = "/mnt/source"
_DEFAULT_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
# A pod answers for `dns_stale_seconds` after its deletion, then finishes what it has.
_FINISH_SECONDS = 30


def build_pod_template(name: str, revision: str, spec: Spec, settings: Settings) -> dict[str, Any]:
    """Answer the pod template of a revision of the ModelDeployment `name`, restricted pod security kept.

    It is rendered once, when the revision is made, and kept in its ControllerRevision: an upgrade of the operator
    therefore restarts no model.
    """
    image = spec.server.image or settings.server_image
    fetched = spec.model.uri is not None
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if fetched:
        volumes.append({"name": "model", "emptyDir": {}})
        volumes += _source_volume(spec.model.uri or "")
    pod: dict[str, Any] = {
        "metadata": {"labels": model_labels(name, revision)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY | {"fsGroup": USER},
            "terminationGracePeriodSeconds": settings.dns_stale_seconds + _FINISH_SECONDS,
            "topologySpreadConstraints": spread({REVISION_LABEL: revision}),
            "volumes": volumes,
            "containers": [_server(name, revision, spec, image, settings)],
        },
    }
    if fetched:
        pod["spec"]["initContainers"] = [_fetcher(spec, settings)]
    if settings.image_pull_secrets:
        pod["spec"]["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    return _overlay(pod, spec, settings)


def _source_volume(uri: str) -> list[dict[str, Any]]:
    parts = urlsplit(uri)
    if parts.scheme == "configmap":
        # Optional, so that a missing ConfigMap is the fetcher's plain error and not a pod that hangs without one.
        return [{"name": "source", "configMap": {"name": parts.netloc, "optional": True}}]
    if parts.scheme == "pvc":
        return [{"name": "source", "persistentVolumeClaim": {"claimName": parts.netloc, "readOnly": True}}]
    return []


def _fetcher(spec: Spec, settings: Settings) -> dict[str, Any]:
    uri = spec.model.uri or ""
    args = ["fetch", "--uri", uri, "--format", spec.model.format.value, "--dest", MODEL_DIR, "--source-dir", SOURCE_DIR]
    if spec.model.sha256:
        args += ["--sha256", spec.model.sha256]
    mounts: list[dict[str, Any]] = [{"name": "model", "mountPath": MODEL_DIR}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - an emptyDir
    if _source_volume(uri):
        mounts.append({"name": "source", "mountPath": SOURCE_DIR, "readOnly": True})
    # file:///PATH is a path in the server's image; what is fetched otherwise is fetched by the bundled one.
    in_image = uri.startswith("file:") and spec.server.image
    return {
        "name": "fetch",
        "image": spec.server.image if in_image else settings.server_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": args,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY | ({} if in_image else {"runAsUser": USER, "runAsGroup": USER}),
        "volumeMounts": mounts,
    }


def _server(name: str, revision: str, spec: Spec, image: str, settings: Settings) -> dict[str, Any]:
    bundled = spec.server.image is None
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - an emptyDir
    if spec.model.uri is not None:
        mounts.append({"name": "model", "mountPath": MODEL_DIR, "readOnly": True})
    probe = _probe(spec)
    container: dict[str, Any] = {
        "name": "server",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "ports": [{"name": "http", "containerPort": spec.server.port, "protocol": "TCP"}],
        "resources": _resources(spec),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 2},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2, "timeoutSeconds": 2},
        # Routers learn of a pod's end by DNS: it goes on answering until the slowest of them has.
        "lifecycle": {"preStop": {"sleep": {"seconds": settings.dns_stale_seconds}}},
        "volumeMounts": mounts,
    }
    if bundled:
        container["args"] = ["serve", "--model-dir", MODEL_DIR, "--name", name, "--revision", revision]
        container["args"] += ["--version", spec.model.version or revision, "--port", str(spec.server.port)]
        container["args"] += ["--format", spec.model.format.value]
        container["livenessProbe"] = {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "failureThreshold": 6,
            "timeoutSeconds": 5,
        }
        container["securityContext"] = CONTAINER_SECURITY | {"runAsUser": USER, "runAsGroup": USER}
    else:
        # An image of the user's own runs as its own user and may write to its root file system.
        container["securityContext"] = CONTAINER_SECURITY | {"readOnlyRootFilesystem": False}
        container["env"] = [
            {"name": "SLIPWAY_MODEL_NAME", "value": name},
            {"name": "SLIPWAY_MODEL_DIR", "value": MODEL_DIR},
            {"name": "SLIPWAY_REVISION", "value": revision},
        ]
    return container


def _resources(spec: Spec) -> dict[str, Any]:
    """Answer the server's resources. A resource with a limit and no request is requested to its limit, as in any pod."""
    asked = spec.server.resources.model_dump(exclude_none=True) if spec.server.resources else {}
    limited = asked.get("limits", {})
    defaults = {name: amount for name, amount in _DEFAULT_REQUESTS.items() if name not in limited}
    as_limited = {name: limited[name] for name in _DEFAULT_REQUESTS if name in limited}
    return {**asked, "requests": {**defaults, **as_limited, **asked.get("requests", {})}}


def _probe(spec: Spec) -> dict[str, Any]:
    defaults = {Protocol.V2: "/v2/health/ready", Protocol.OPENAI: "/health", Protocol.HTTP: None}
    path = spec.server.readiness_path or defaults[spec.server.protocol]
    return {"httpGet": {"path": path, "port": "http"}} if path else {"tcpSocket": {"port": "http"}}


def _overlay(pod: dict[str, Any], spec: Spec, settings: Settings) -> dict[str, Any]:
    """Merge `server.podTemplate` over the pod. Lists of the container and of volumes are added to; other fields replace."""
    template = spec.server.pod_template
    if template is None:
        return pod
    metadata, over = template.metadata, template.spec or PodOverlay()
    pod["metadata"]["labels"] = {**((metadata and metadata.labels) or {}), **pod["metadata"]["labels"]}
    if metadata and metadata.annotations:
        pod["metadata"]["annotations"] = dict(metadata.annotations)
    grace = over.termination_grace_period_seconds
    fields = over.model_dump(by_alias=True, exclude_none=True, exclude={"containers", "volumes", "image_pull_secrets"})
    pod["spec"] |= fields
    if grace is not None:  # the time to finish requests begins when the routers have noticed
        pod["spec"]["terminationGracePeriodSeconds"] = grace + settings.dns_stale_seconds
    pod["spec"]["volumes"] += over.volumes or []
    secrets = [*pod["spec"].get("imagePullSecrets", []), *(over.image_pull_secrets or [])]
    if secrets:
        pod["spec"]["imagePullSecrets"] = secrets
    for overlay in over.containers or []:
        server = pod["spec"]["containers"][0]
        added = overlay.model_dump(by_alias=True, exclude_none=True, exclude={"name"})
        server["env"] = [*server.get("env", []), *added.pop("env", [])]
        server["volumeMounts"] = [*server["volumeMounts"], *added.pop("volumeMounts", [])]
        server |= added
    return pod
