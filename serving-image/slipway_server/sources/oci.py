"""oci: an artifact or image of an OCI registry (distribution-spec 1.1): manifest and blobs, each of the digest that names it.

What is served: layers with a name (annotation org.opencontainers.image.title of ORAS, org.cncf.model.filepath of ModelPack) are
files; layers that are tar or tar+gzip archives are unpacked, all into one folder. An index leads to its first image: a model is
the same on every platform. Layers of an image must hold regular files and folders only, as those of an image FROM scratch do.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from slipway_server.sources import MAX_FILES, Listing
from slipway_server.sources.credentials import Credentials
from slipway_server.sources.http import HttpFile
from slipway_server.sources.network import Network
from slipway_server.sources.uri import ModelURI
from slipway_server.sources.web import Response, Web
from slipway_server.termination import Reason, TerminalError

MAX_MANIFEST_BYTES = 4 << 20  # what the specification has registries accept
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_NAMES = ("org.cncf.model.filepath", "org.opencontainers.image.title")
_UNPACK = "io.deis.oras.content.unpack"
_TAR = re.compile(r"application/[-+.\w]+[.+](?:tar|tar[.+]gzip)")
_PACKED = re.compile(r"application/[-+.\w]+[.+]tar[.+](?!gzip)[-\w]+")
_DIGEST = re.compile("sha256:([0-9a-f]{64})")
_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


def list_files(
    uri: ModelURI, credentials: Credentials, network: Network, timeout_seconds: float, endpoint: str | None
) -> Listing:
    """The files of an artifact.

    Raises TerminalError: ModelNotFound, ModelUnreadable, UnsupportedModel, DigestMismatch, AddressRefused or DownloadFailed.
    """
    base = endpoint or f"https://{_HUB.get(uri.authority, uri.authority)}"
    registry = Registry(uri, network, timeout_seconds, base, credentials.registry_authorization(uri.authority))
    digest, manifest = registry.manifest(uri.reference)
    if isinstance(manifest.get("manifests"), list):
        digest, manifest = registry.manifest(_first(uri, manifest["manifests"]))
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_FILES:
        raise _unsupported(uri, "its manifest has no list of layers")
    files = [_file(registry, uri, layer, number) for number, layer in enumerate(layers)]
    return Listing(files, tree=len(files) != 1, revision=f"manifest {digest}")


class Registry(Web):
    """A repository's API. A registry that wants a token says where to get one; that is asked for as often as it runs out."""

    def __init__(self, uri: ModelURI, network: Network, timeout_seconds: float, base: str, basic: str | None) -> None:
        super().__init__(uri.label, network, timeout_seconds, base, basic)
        self.api = f"{base}/v2/{uri.path}"
        self._basic = basic
        self._network_of_tokens = network
        self._seconds = timeout_seconds

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """As Web.open; an answer of 401 with a challenge that can be met is met once."""
        response = super().open(url, headers)
        challenges = response.headers.get_all("WWW-Authenticate") or []
        challenge = next((each for each in challenges if each.lower().startswith("bearer ")), None)
        if response.status != 401 or challenge is None:
            return response
        with response:
            pass
        self.authorization = f"Bearer {self._token(challenge)}"
        return super().open(url, headers)

    def manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        """(digest, manifest or index) of a tag or digest."""
        accept = ", ".join((*_MANIFESTS, *_INDEXES))
        body, headers = self.read(f"{self.api}/manifests/{reference}", {"Accept": accept})
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for promised in (reference if ":" in reference else digest, headers.get("docker-content-digest", digest)):
            if promised != digest:
                raise TerminalError(
                    Reason.DIGEST_MISMATCH, f"{self.label}: the registry sends a manifest of digest {digest}, not {promised[:80]}"
                )
        try:
            value = json.loads(body) if len(body) <= MAX_MANIFEST_BYTES else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: the registry sends something that is no manifest")
        return digest, value

    def _token(self, challenge: str) -> str:
        """Asks the realm of a challenge for a token (distribution's token authentication specification)."""
        fields = {name.lower(): value for name, value in re.findall(r'([a-zA-Z]+)="([^"]*)"', challenge)}
        realm = fields.get("realm", "")
        if urlsplit(realm).scheme not in ("https", urlsplit(self.api).scheme):
            raise TerminalError(
                Reason.DOWNLOAD_FAILED, f"{self.label}: the registry sends to {realm[:80]!r} for a token, which is not https"
            )
        query = urlencode({name: fields[name] for name in ("service", "scope") if name in fields})
        web = Web(self.label, self._network_of_tokens, self._seconds, realm, self._basic)
        try:
            answer = web.json(f"{realm}{'&' if '?' in realm else '?'}{query}")
        except ValueError:
            raise TerminalError(
                Reason.DOWNLOAD_FAILED, f"{self.label}: the registry's token server has a malformed URL"
            ) from None
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: the registry's token server gave no token")
        return token


def _first(uri: ModelURI, manifests: list[Any]) -> str:
    """The digest of an index's first image or artifact, past what only attests another."""
    for each in manifests:
        if not isinstance(each, dict) or each.get("mediaType") not in _MANIFESTS:
            continue
        annotations = each.get("annotations")
        if isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations:
            continue
        if isinstance(each.get("digest"), str) and _DIGEST.fullmatch(each["digest"]):
            return each["digest"]
    raise _unsupported(uri, "its index names no image or artifact")


def _file(registry: Registry, uri: ModelURI, layer: Any, number: int) -> HttpFile:
    found = _DIGEST.fullmatch(str(layer.get("digest"))) if isinstance(layer, dict) else None
    if not found or not isinstance(layer.get("size"), int) or layer["size"] < 0:
        raise _unsupported(uri, f"layer {number} of its manifest has no sha256 digest or no size")
    kind = str(layer.get("mediaType", ""))
    annotations = layer["annotations"] if isinstance(layer.get("annotations"), dict) else {}
    name = next((annotations[key] for key in _NAMES if isinstance(annotations.get(key), str)), None)
    # Not every named tar is one: oras gives that type, uncompressed, to any file pushed without another.
    tar = _TAR.fullmatch(kind) and (name is None or kind.endswith("gzip") or ".cncf.model." in kind)
    unpack = bool(tar) or annotations.get(_UNPACK) == "true"
    if not unpack and (name is None or _PACKED.fullmatch(kind)):
        raise _unsupported(
            uri,
            f"layer {number} is of type {kind[:100]!r}{' and has no name' if name is None else ''}: push files with their names "
            "(oras push), or tar or tar+gzip layers",
        )
    url = f"{registry.api}/blobs/{layer['digest']}"
    label = uri.label if name is None else f"{uri.label}: {name[:200]}"
    return HttpFile(registry, url, label, name or f"layer{number}", layer["size"], found[1], unpack)


def _unsupported(uri: ModelURI, why: str) -> TerminalError:
    return TerminalError(Reason.UNSUPPORTED_MODEL, f"{uri.label}: {why}")
