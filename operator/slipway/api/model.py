"""The model: where it lies, what it is, how it is known to be the right one."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from slipway.api.base import DnsName, LabelValue, Quantity, Rule, Type, text


class Format(StrEnum):
    """How the model is stored."""

    ONNX = "ONNX"
    SKLEARN = "SKLearn"
    XGBOOST = "XGBoost"
    LIGHTGBM = "LightGBM"
    PYTHON = "Python"
    CUSTOM = "Custom"


class Trust(StrEnum):
    """Whether loading the model may run code of its author."""

    SAFE = "Safe"
    UNSAFE = "Unsafe"


SCHEMES = ("configmap", "pvc", "file", "http", "https", "s3", "gs", "az", "hf", "oci")
_REMOTE = "^(https?|s3|gs|az|hf|oci)://"
_SAYS_SHA256 = "must be the 64 lower-case hex digits that sha256sum prints"
_SAYS_ENDPOINT = "must be http(s)://HOST[:PORT][/PATH] without a user name, such as https://minio.example.com:9000"


class Storage(Type):
    """How a remote `model.uri` is reached."""

    secret_name: DnsName | None = Field(
        default=None,
        description="A Secret in this namespace with the credentials: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` for s3, "
        "`service-account.json` for gs, `AZURE_STORAGE_ACCOUNT_NAME` and a key or SAS for az, `HF_TOKEN` for hf, "
        "`.dockerconfigjson` for oci, `username` and `password` or `token` for http(s). Only the init container sees it. Without "
        "it workload identity (`server.podTemplate.spec.serviceAccountName`) is used, or nothing, as for public models.",
    )
    endpoint: Annotated[str, text(r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$", _SAYS_ENDPOINT, 512)] | None = Field(
        default=None,
        description="Where the service is, if not at its usual place: a MinIO, a mirror of a hub, a registry without TLS.",
    )
    region: Annotated[str, text(r"^[a-z0-9][-a-z0-9]*$", "must be a region such as eu-west-1", 64)] | None = Field(
        default=None, description="The region of an s3 bucket."
    )
    path_style: bool | None = Field(
        default=None,
        description="Whether an s3 bucket is named in the path rather than in the host. Default: with an endpoint of your own.",
    )


class Model(Type):
    """The model: where it lies, what it is, and how it is known to be the right one."""

    uri: str | None = Field(
        default=None,
        max_length=2048,
        description="Where the model lies: `configmap://NAME/KEY`, `pvc://CLAIM/PATH`, `file:///PATH` (in the image), "
        "`http(s)://HOST/PATH`, `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `az://CONTAINER/PATH`, `hf://OWNER/REPO[/PATH]@REVISION`, "
        "`oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]`. A file, an archive (.tar, .tar.gz, .tgz, .zip), or where there are folders "
        "one that ends in `/`. Without it `server.image` holds the model itself (`format: Custom`).",
    )
    format: Format = Field(
        description="How the model is stored. All but Custom are loaded by Slipway's server; Custom is whatever `server.image` "
        "makes of it."
    )
    version: LabelValue = Field(
        default="",
        description="Your own label for this version. Callers see it as `model_version`.",
    )
    sha256: Annotated[str, text("^[a-f0-9]{64}$", _SAYS_SHA256, 64)] | None = Field(
        default=None,
        description="The digest of the file, in lower-case hex (of a folder: of what `sha256sum` prints for its files, sorted by "
        "path). What differs is refused before it is parsed.",
    )
    trust: Trust = Field(
        default=Trust.SAFE,
        description="Unsafe allows SKLearn models in pickle or joblib, or of types that skops does not know: loading them runs "
        "whatever code their author put in. The condition UnsafeModel then says so.",
    )
    max_size: Quantity | None = Field(
        default=None, description="The most bytes that the model may have, unpacked, such as `10Gi`. Default: what the node has."
    )
    storage: Storage | None = Field(default=None, description="Credentials, endpoint and region of a remote uri.")

    rules = (
        Rule(
            "has(self.uri) || self.format == 'Custom'",
            "model.uri is needed: only format Custom, with a server.image that holds the model, goes without",
            ".uri",
        ),
        Rule("has(self.uri) || !has(self.sha256)", "model.sha256 has no effect without model.uri: remove it", ".sha256"),
        Rule("has(self.uri) || !has(self.maxSize)", "model.maxSize has no effect without model.uri: remove it", ".maxSize"),
        Rule(
            f"!has(self.uri) || self.uri.matches('^({'|'.join(SCHEMES)})://')",
            "model.uri must begin with one of configmap:// pvc:// file:/// http:// https:// s3:// gs:// az:// hf:// oci://",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('configmap:') || "
            "self.uri.matches('^configmap://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[-._a-zA-Z0-9]{1,253}$')",
            "model.uri must be configmap://NAME/KEY, with the name of a ConfigMap in this namespace and one of its keys",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('pvc:') || "
            "self.uri.matches('^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[^/].*$')",
            "model.uri must be pvc://CLAIM/PATH, with the name of a PersistentVolumeClaim in this namespace and the path "
            "of a file or folder on it",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('file:') || self.uri.matches('^file:///[^/].*$')",
            "model.uri must be file:///PATH, the absolute path of a file in the image",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('file:') || self.format != 'Custom'",
            "model.uri: an image of your own has its files already; leave uri out",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('^(pvc|file|s3|gs|az|hf):') || !self.uri.matches('(^|/)[.][.](/|@|$)')",
            "model.uri must not hold '..': name the file by its path below the volume, the bucket or the image's root",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('^https?:') || self.uri.matches('^https?://[^/@?#]+/[^#]*$')",
            "model.uri must be http(s)://HOST/PATH without a user name, password or fragment: "
            "a credential in a spec is visible to whoever may read it; put it into a Secret (model.storage.secretName)",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('^(s3|gs|az):') || "
            "self.uri.matches('^(s3|gs|az)://[a-z0-9][-a-z0-9._]{1,254}/[^/?#].*$')",
            "model.uri must be s3://BUCKET/KEY, gs://BUCKET/KEY or az://CONTAINER/PATH, without a query",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('hf:') || "
            "self.uri.matches('^hf://[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*(/[^@?#]+)?@[A-Za-z0-9][-A-Za-z0-9_./]*$')",
            "model.uri must be hf://OWNER/REPO[/PATH]@REVISION, with a commit, tag or branch after the @",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.startsWith('oci:') || "
            "self.uri.matches('^oci://[^/@?#]+/[a-z0-9][-a-z0-9._/]*(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[a-f0-9]{64})?$')",
            "model.uri must be oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST], the repository in lower case",
            ".uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.matches('[[:space:][:cntrl:]]')",
            "model.uri must not hold spaces or control characters: percent-encode them",
            ".uri",
        ),
        Rule(
            "self.trust == 'Safe' || self.format == 'SKLearn'",
            "model.trust has an effect on format SKLearn only: remove it",
            ".trust",
        ),
        Rule(
            "self.format != 'SKLearn' || self.trust == 'Unsafe' || !has(self.uri) || "
            "!self.uri.matches('[.](pkl|pickle|joblib)([?@]|$)')",
            "model.uri: pickle and joblib run code of their author when loaded; save the model with skops, or set model.trust: "
            "Unsafe",
            ".uri",
        ),
        Rule(
            f"!has(self.storage) || (has(self.uri) && self.uri.matches('{_REMOTE}'))",
            "model.storage has an effect on http(s), s3, gs, az, hf and oci only: remove it",
            ".storage",
        ),
        Rule(
            "!has(self.storage) || !has(self.storage.endpoint) || !has(self.uri) || !self.uri.matches('^https?:')",
            "model.storage.endpoint: http(s) names its host in model.uri; remove it",
            ".storage",
        ),
        Rule(
            "!has(self.storage) || !(has(self.storage.region) || has(self.storage.pathStyle)) || !has(self.uri) || "
            "self.uri.startsWith('s3:')",
            "model.storage.region and pathStyle are for s3 only: remove them",
            ".storage",
        ),
    )
