"""The pod template of a revision: fetch the model, then serve it."""

import math
from typing import Any
from urllib.parse import urlsplit

from slipway.api.base import duration_seconds
from slipway.api.model import Format
from slipway.api.pod import PodOverlay
from slipway.api.server import Protocol
from slipway.api.spec import Spec
from slipway.core import quantity
from slipway.manifests.labels import CONTAINER_SECURITY, POD_SECURITY, REVISION_LABEL, USER, model_labels, spread
from slipway.settings import Settings

MODEL_DIR = "/mnt/models"
SOURCE_DIR = "/mnt/source"
CREDENTIALS_DIR = "/mnt/credentials"
GPU = "nvidia.com/gpu"
_DEFAULT_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
# A pod answers for `dns_stale_seconds` after its deletion, then finishes what it has.
_FINISH_SECONDS = 30


def build_pod_template(name: str, revision: str, spec: Spec, settings: Settings) -> dict[str, Any]:
    """Answer the pod template of a revision of the ModelDeployment `name`, restricted pod security kept.

    It is rendered once, when the revision is made, and kept in its ControllerRevision: an upgrade of the operator
    therefore restarts no model.
    """
    image = spec.server.image or _bundled_image(spec, settings)
    fetched = spec.model.uri is not None
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if fetched:
        volumes.append({"name": "model", "emptyDir": {}})
        volumes += _source_volume(spec.model.uri or "")
        volumes += _credentials_volume(spec)
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


def _credentials_volume(spec: Spec) -> list[dict[str, Any]]:
    storage = spec.model.storage
    if storage is None or storage.secret_name is None:
        return []
    # Optional, for the same reason; readable for the pod's group alone.
    return [{"name": "credentials", "secret": {"secretName": storage.secret_name, "optional": True, "defaultMode": 0o440}}]


def _bundled_image(spec: Spec, settings: Settings) -> str:
    limits = (spec.server.resources and spec.server.resources.limits) or {}
    wants_gpu = quantity.parse(str(limits.get(GPU, 0))) > 0
    return settings.server_gpu_image if wants_gpu and settings.server_gpu_image else settings.server_image


def _fetcher(spec: Spec, settings: Settings) -> dict[str, Any]:
    uri = spec.model.uri or ""
    args = ["fetch", "--uri", uri, "--format", spec.model.format.value, "--trust", spec.model.trust.value]
    args += ["--dest", MODEL_DIR, "--source-dir", SOURCE_DIR, "--credentials-dir", CREDENTIALS_DIR]
    if spec.model.sha256:
        args += ["--sha256", spec.model.sha256]
    if spec.model.max_size is not None:
        args += ["--max-bytes", _bytes(spec.model.max_size)]
    if storage := spec.model.storage:
        args += ["--endpoint", storage.endpoint] if storage.endpoint else []
        args += ["--region", storage.region] if storage.region else []
        args += ["--path-style"] if storage.path_style or (storage.path_style is None and storage.endpoint) else []
    if settings.model_schemes:
        args += ["--allow-schemes", ",".join(settings.model_schemes)]
    if settings.model_networks:
        args += ["--allow-networks", ",".join(settings.model_networks)]
    mounts: list[dict[str, Any]] = [{"name": "model", "mountPath": MODEL_DIR}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - an emptyDir
    if _source_volume(uri):
        mounts.append({"name": "source", "mountPath": SOURCE_DIR, "readOnly": True})
    if _credentials_volume(spec):
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": True})
    # file:///PATH is a path in the server's image; what is fetched otherwise is fetched by the bundled one.
    image = spec.server.image if uri.startswith("file:") else None
    return {
        "name": "fetch",
        "image": image or settings.server_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": args,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY | {"runAsUser": USER, "runAsGroup": USER},
        "volumeMounts": mounts,
    }


def _server(name: str, revision: str, spec: Spec, image: str, settings: Settings) -> dict[str, Any]:
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
    if spec.model.format != Format.CUSTOM:
        container["args"] = _server_args(name, revision, spec)
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


def _server_args(name: str, revision: str, spec: Spec) -> list[str]:
    """Answer the arguments of Slipway's server. What is not set is left to the server's own defaults (`serve --help`)."""
    args = ["serve", "--model-dir", MODEL_DIR, "--name", name, "--revision", revision]
    args += ["--version", spec.model.version or revision, "--port", str(spec.server.port)]
    args += ["--format", spec.model.format.value, "--trust", spec.model.trust.value]
    if spec.server.workers is not None:
        args += ["--workers", str(spec.server.workers)]
    if batching := spec.server.batching:
        args += ["--batch-max-size", str(batching.max_size), "--batch-max-delay", f"{duration_seconds(batching.max_delay):g}"]
    if limits := spec.server.limits:
        chosen = {
            "--max-body": None if limits.body_size is None else _bytes(limits.body_size),
            "--max-header": None if limits.header_size is None else _bytes(limits.header_size),
            "--max-depth": limits.json_depth,
            "--max-elements": limits.tensor_elements,
            "--max-concurrency": limits.concurrency,
            "--request-timeout": None if limits.request_timeout is None else f"{duration_seconds(limits.request_timeout):g}",
        }
        args += [str(part) for flag, value in chosen.items() if value is not None for part in (flag, value)]
    return args


def _bytes(amount: int | str) -> str:
    """Answer whole bytes, rounded up as Kubernetes does: 500m is one."""
    return str(math.ceil(quantity.parse(str(amount))))


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
