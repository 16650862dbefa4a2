"""Where the journeys' models come from: a web server, a hub, object stores and a registry in a pod, and a volume of its node."""

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Namespace
from tests.e2e.traffic import HERE
from tests.e2e.waiting import await_, is_ready
from tests.integration.commands import ROOT, must, tool
from tests.integration.stores import ACCESS, ACCOUNT_KEY, AZURITE_FLAGS, SECRET, BlobStore, ObjectStore, Registry

NAME = "stores"
FILES, S3, GCS, AZURE, OCI = 8000, 7070, 4443, 10000, 5000
CLAIM = "models"
KEYS, ACCOUNT, HUB = "s3", "azure", "hub"
_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
_REGISTRY = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": "/data/oci"}}, "http": {"addr": f":{OCI}"}}
_GCS = [
    "-scheme",
    "http",
    "-host",
    "",
    "-port",
    str(GCS),
    "-public-host",
    f"{NAME}:{GCS}",
    "-backend",
    "memory",
    "-data",
    "/volume",
]
_S3 = f"mkdir -p /data/s3/models /data/meta && exec versitygw --port :{S3} --quiet posix --sidecar /data/meta /data/s3"
_AZURE = ["azurite", *AZURITE_FLAGS, "--blobHost", "0.0.0.0", "--blobPort", str(AZURE)]


def build_image(name: str, folder: Path, *words: str | Path) -> str:
    """Build an image of one's own and answer its reference."""
    return must(ROOT / "hack" / "images", "build", "--context", folder, "--name", name, *words).split()[1]


def build_stores_image(folder: Path) -> str:
    """Build the image of the stores, in a folder for its context."""
    for program in ("versitygw", "fake-gcs-server", "azurite", "registry"):
        (folder / program).hardlink_to(tool(program))
    return build_image("stores", folder, "--dockerfile", HERE / "images/stores/Dockerfile")


def _variables(secret: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """Answer variables of a container by the keys of a Secret that they take."""
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for name, key in keys.items()]


class Stores:
    """The pod and its Service, both named `stores`. All but S3's, Azure's and the registry hold `files`: the web server as they
    are, the others in a folder, or Google's store a bucket, `all`."""

    def __init__(self, namespace: Namespace, image: str, files: Mapping[str, bytes]) -> None:
        self.namespace, self.image, self.files = namespace, image, files
        self.volume = f"{namespace.name}-{CLAIM}"

    def start(self) -> None:
        """Start them and wait until they are ready."""
        namespace, kind = self.namespace, {"apiVersion": "v1"}
        held = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
        namespace.apply("configmaps", {**kind, "kind": "ConfigMap", "metadata": {"name": "trained"}, "binaryData": held})
        programs = {"files.py": (HERE / "files.py").read_text(), "registry.yaml": json.dumps(_REGISTRY)}
        namespace.apply("configmaps", {**kind, "kind": "ConfigMap", "metadata": {"name": NAME}, "data": programs})
        self.put_secret(KEYS, {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET})
        self.put_secret(ACCOUNT, {"AZURE_STORAGE_ACCOUNT_NAME": ACCESS, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY})
        self.put_secret(HUB, {"HF_TOKEN": secrets.token_hex()})
        ports = [{"name": f"p{port}", "port": port} for port in (FILES, S3, GCS, AZURE, OCI)]
        service = {"selector": {"role": NAME}, "ports": ports}
        namespace.apply("services", {**kind, "kind": "Service", "metadata": {"name": NAME}, "spec": service})
        namespace.apply("pods", self._pod())
        await_(lambda: is_ready(namespace.get("pods", NAME)), "the stores are ready")
        self._provide_volume()

    def put_secret(self, name: str, keys: Mapping[str, str]) -> None:
        """Apply a Secret."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys}
        self.namespace.apply("secrets", secret)

    def release(self) -> None:
        """Let the slow files come."""
        self.namespace.client.get(self.namespace.path("pods", f"{NAME}:{FILES}/proxy/release"))

    @contextmanager
    def object_store(self) -> Iterator[ObjectStore]:
        """Answer the S3 store, as reached from here."""
        with self.namespace.forward(f"pods/{NAME}", S3) as port:
            yield ObjectStore(port)

    @contextmanager
    def blob_store(self) -> Iterator[BlobStore]:
        """Answer Azure's store, as reached from here, its container made."""
        with self.namespace.forward(f"pods/{NAME}", AZURE) as port:
            yield BlobStore(port)

    @contextmanager
    def registry(self, folder: Path) -> Iterator[Registry]:
        """Answer the registry, as reached from here."""
        with self.namespace.forward(f"pods/{NAME}", OCI) as port:
            yield Registry(port, folder, None)

    def remove_volume(self) -> None:
        """Remove what no namespace holds."""
        self.namespace.client.delete(f"/api/v1/persistentvolumes/{self.volume}")

    def _provide_volume(self) -> None:
        """Make a volume and its claim of the pod's emptyDir: it lies on the pod's node, and leaves with the pod."""
        uid = self.namespace.get("pods", NAME)["metadata"]["uid"]
        on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.namespace.cluster.nodes[0]]}
        spec = {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/volume", "type": "Directory"},
            "claimRef": {"namespace": self.namespace.name, "name": CLAIM},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        }
        body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.volume}, "spec": spec}
        self.namespace.client.apply(f"/api/v1/persistentvolumes/{self.volume}", body)
        wanted: dict[str, Any] = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": self.volume}
        claim = {**wanted, "resources": {"requests": {"storage": "1Mi"}}}
        self.namespace.apply(
            "persistentvolumeclaims",
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
        )

    def _pod(self) -> dict[str, Any]:
        def container(name: str, image: str, command: list[str], port: int, **more: Any) -> dict[str, Any]:
            mounts = [
                {"name": "data", "mountPath": "/data"},
                {"name": "files", "mountPath": "/files"},
                {"name": "programs", "mountPath": "/programs"},
                {"name": "volume", "mountPath": "/volume"},
            ]
            probe = {"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1}} if port else {}
            made = {"name": name, "image": image, "command": command, "securityContext": _SECURITY, "volumeMounts": mounts}
            return {**made, **probe, **more}

        server = self.namespace.cluster.images["server"]
        keys = {"ROOT_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY"}
        credentials = _variables(KEYS, keys)
        account = _variables(ACCOUNT, {"NAME": "AZURE_STORAGE_ACCOUNT_NAME", "KEY": "AZURE_STORAGE_ACCOUNT_KEY"})
        account.append({"name": "AZURITE_ACCOUNTS", "value": "$(NAME):$(KEY)"})
        token = _variables(HUB, {"HF_TOKEN": "HF_TOKEN"})
        tracing = [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}]
        copy = ["sh", "-c", "mkdir /volume/all && cp -L /files/* /volume/all"]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": NAME, "labels": {"role": NAME}},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": self.namespace.cluster.nodes[0]},
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "initContainers": [container("copy", server, copy, 0)],
                "containers": [
                    container("files", server, ["python3", "/programs/files.py", str(FILES), "/files"], FILES, env=token),
                    container("s3", self.image, ["sh", "-c", _S3], S3, env=credentials),
                    container("gcs", self.image, ["fake-gcs-server", *_GCS], GCS),
                    container("azure", self.image, _AZURE, AZURE, env=account),
                    container("oci", self.image, ["registry", "serve", "/programs/registry.yaml"], OCI, env=tracing),
                ],
                "volumes": [
                    {"name": "data", "emptyDir": {}},
                    {"name": "volume", "emptyDir": {}},
                    {"name": "files", "configMap": {"name": "trained"}},
                    {"name": "programs", "configMap": {"name": NAME}},
                ],
            },
        }
