"""s3, gs and az: object stores, by obstore. Every object is read in ranges that are checked to be of one and the same object."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from slipway_server import __version__
from slipway_server.sources import MAX_FILES, Chunk, Listing, ranges
from slipway_server.sources.credentials import Credentials
from slipway_server.sources.network import UNTRUSTED_CURE, Network
from slipway_server.sources.retries import Retries, RetryableError
from slipway_server.sources.uri import ModelURI
from slipway_server.termination import Reason, TerminalError

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

Store = S3Store | GCSStore | AzureStore

MAX_CHANGES = 3
"""How often an object may change while it is read."""
_PIECE_BYTES = 1 << 20
_GKE_METADATA = ("169.254.169.254", 80)
_AWS_ENV = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_GOOGLE_ENV = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN")
_AZURE_ENV = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET")


@dataclass(frozen=True)
class Reach:
    """How the store is reached: its URL if it is not the provider's own, an s3 bucket's region, where its name goes."""

    endpoint: str | None
    region: str | None
    path_style: bool
    timeout_seconds: float


def list_files(uri: ModelURI, credentials: Credentials, network: Network, reach: Reach) -> Listing:
    """The object of a URI, or all below a path that ends in "/".

    Raises TerminalError: ModelNotFound, ModelUnreadable, AddressRefused or DownloadFailed.
    """
    if reach.endpoint:
        _check_endpoint(uri, reach.endpoint, network)
    store, anonymous = open_store(uri, credentials, reach, network.authorities)
    bucket = Bucket(store, uri, anonymous)
    if not uri.folder:
        return Listing([bucket.head(uri.path)], tree=False)
    return Listing(sorted(bucket.below(uri.path), key=lambda file: file.path), tree=True)


def open_store(uri: ModelURI, credentials: Credentials, reach: Reach, authorities: str | None = None) -> tuple[Store, bool]:
    """The store of a URI, and whether it is asked without credentials: none in the Secret, and no workload identity.

    `authorities`: see Network.
    """
    client: ClientConfig = {
        "user_agent": f"slipway-server/{__version__}",
        "connect_timeout": timedelta(seconds=reach.timeout_seconds),
        "read_timeout": timedelta(seconds=reach.timeout_seconds),
        "timeout": timedelta(hours=1),  # of one range; what counts is that bytes come
        "allow_http": bool(reach.endpoint and reach.endpoint.startswith("http://")),
    }
    if authorities:
        client["root_certificate"] = authorities
    retry: RetryConfig = {"max_retries": 0}  # the retries are ours: logged, and from where it was cut
    try:
        match uri.scheme:
            case "s3":
                s3 = _s3(uri, credentials, reach)
                return S3Store(uri.authority, config=s3, client_options=client, retry_config=retry), bool(
                    s3.get("skip_signature")
                )
            case "gs":
                gs = _google(credentials, reach)
                return GCSStore(uri.authority, config=gs, client_options=client, retry_config=retry), bool(
                    gs.get("skip_signature")
                )
            case _:
                az = _azure(uri, credentials, reach)
                store = AzureStore(uri.authority, config=az, client_options=client, retry_config=retry)
                return store, bool(az.get("skip_signature"))
    except (BaseError, ValueError):  # its text may show what is secret
        raise TerminalError(
            Reason.MODEL_UNREADABLE,
            f"{uri.label}: the credentials of the Secret or of the pod's environment are not of the form that {uri.scheme} wants",
        ) from None


def _s3(uri: ModelURI, credentials: Credentials, reach: Reach) -> "S3Config":
    config: S3Config = {"region": reach.region or os.environ.get("AWS_REGION") or "us-east-1"}
    # A dot in a bucket's name is one too many for the certificate of *.s3.REGION.amazonaws.com.
    hosted = not reach.path_style and "." not in uri.authority
    if reach.endpoint:
        parts = urlsplit(reach.endpoint)
        hosted = hosted and bool(re.search("[a-z]", parts.hostname or "")) and ":" not in (parts.hostname or "")
        config["endpoint"] = f"{parts.scheme}://{uri.authority}.{parts.netloc}{parts.path}" if hosted else reach.endpoint
    config["virtual_hosted_style_request"] = hosted
    if key := credentials.get("AWS_ACCESS_KEY_ID"):
        config["access_key_id"] = key
        config["secret_access_key"] = credentials.get("AWS_SECRET_ACCESS_KEY") or ""
        if token := credentials.get("AWS_SESSION_TOKEN"):
            config["session_token"] = token
    elif not any(os.environ.get(name) for name in _AWS_ENV):
        config["skip_signature"] = True
    return config


def _google(credentials: Credentials, reach: Reach) -> "GCSConfig":
    config: GCSConfig = {}
    if reach.endpoint:
        config["base_url"] = reach.endpoint
    if key := credentials.get("service-account.json"):
        config["service_account_key"] = key
    elif not any(os.environ.get(name) for name in _GOOGLE_ENV) and not _on_google():
        config["skip_signature"] = True
    return config


def _on_google() -> bool:
    """Whether there is a metadata server to ask for a token: a workload identity of GKE leaves no other trace in the pod."""
    try:
        with socket.create_connection(_GKE_METADATA, timeout=1.0) as connection:
            connection.settimeout(1.0)
            connection.sendall(b"GET / HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n")
            return b"metadata-flavor: google" in connection.recv(4096).lower()
    except OSError:
        return False


def _azure(uri: ModelURI, credentials: Credentials, reach: Reach) -> "AzureConfig":
    config: AzureConfig = {}
    host = urlsplit(reach.endpoint).hostname or "" if reach.endpoint else ""
    account = credentials.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    account = account or (host.split(".")[0] if ".blob." in host else None)
    if not account:
        raise TerminalError(
            Reason.MODEL_UNREADABLE,
            f"{uri.label}: no storage account is named: give AZURE_STORAGE_ACCOUNT_NAME in the Secret, or the endpoint "
            "https://ACCOUNT.blob.core.windows.net",
        )
    config["account_name"] = account
    if reach.endpoint:
        config["endpoint"] = reach.endpoint
    if key := credentials.get("AZURE_STORAGE_ACCOUNT_KEY"):
        config["account_key"] = key
    elif sas := credentials.get("AZURE_STORAGE_SAS_TOKEN"):
        config["sas_key"] = sas
    elif secret := credentials.get("AZURE_CLIENT_SECRET"):
        config["client_secret"] = secret
        config["client_id"] = credentials.get("AZURE_CLIENT_ID") or ""
        config["tenant_id"] = credentials.get("AZURE_TENANT_ID") or ""
    elif not any(os.environ.get(name) for name in _AZURE_ENV):
        config["skip_signature"] = True
    return config


def _check_endpoint(uri: ModelURI, endpoint: str, network: Network) -> None:
    """Refuses an endpoint at a private address. obstore resolves the name once more: this is a guard against a mistaken or a
    plainly hostile endpoint, not against a name whose address changes in between.
    """
    parts = urlsplit(endpoint)
    try:
        network.resolve(parts.hostname or "", parts.port or 443)
    except (OSError, UnicodeError):
        raise TerminalError(
            Reason.DOWNLOAD_FAILED, f"{uri.label}: the endpoint's host {parts.hostname} is not known: check the endpoint"
        ) from None


class Bucket:
    """A bucket or container, as it is asked for one URI."""

    def __init__(self, store: Store, uri: ModelURI, anonymous: bool) -> None:
        self.store = store
        self.uri = uri
        self._anonymous = anonymous

    def head(self, key: str) -> "ObjectFile":
        """The object of a key."""
        retries = Retries(self.uri.label)
        while True:
            try:
                try:
                    meta = obstore.head(self.store, key)
                except (BaseError, OSError):  # the answer to a HEAD has no body that would say why
                    meta = obstore.get(self.store, key).meta
            except (BaseError, OSError) as error:
                retries.failed(self.failed(error), 0, progress=False)
            else:
                return ObjectFile(self, key, self.uri.name, meta["size"], meta["e_tag"])

    def below(self, prefix: str) -> "list[ObjectFile]":
        """The objects below a prefix, without the empty ones that stand for folders."""
        retries = Retries(self.uri.label)
        while True:
            files: list[ObjectFile] = []
            try:
                for page in obstore.list(self.store, prefix or None, chunk_size=1000):
                    for meta in page:
                        path = meta["path"][len(prefix) :]
                        if path and not (meta["size"] == 0 and path.endswith("/")):
                            files.append(ObjectFile(self, meta["path"], path, meta["size"], meta["e_tag"]))
                    if len(files) > MAX_FILES:
                        raise TerminalError(
                            Reason.ARCHIVE_REFUSED, f"{self.uri.label} holds more than {MAX_FILES} objects: name a smaller folder"
                        )
            except (BaseError, OSError) as error:
                retries.failed(self.failed(error), 0, progress=False)
            else:
                return files

    def failed(self, error: BaseError | OSError) -> RetryableError:
        """What an error of the store is to us, in words of ours: its own quote URLs, with signatures in them.

        Raises TerminalError where another attempt would end alike.
        """
        text = str(error)
        label = self.uri.label
        code = _CODE.search(text)
        said = code[1] if code else ""
        found = re.search(r"\b(?:status code|status|HTTP error)\W{0,12}(\d{3})\b|\b([45]\d\d) [A-Z][a-z]+", text)
        status = found[1] or found[2] if found else ""
        if said in ("NoSuchBucket", "ContainerNotFound"):
            raise TerminalError(
                Reason.MODEL_NOT_FOUND, f"{label}: there is no {self.uri.authority}: check the name and the endpoint"
            )
        if said == "InvalidBucketName":
            raise TerminalError(Reason.INVALID_URI, f"{label}: {self.uri.authority} is no bucket's name")
        if isinstance(error, FileNotFoundError) and said not in _DENIED:
            raise TerminalError(Reason.MODEL_NOT_FOUND, f"{label}: there is no such object: check the URI")
        # Of a listing obstore says no more than the status.
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in ("401", "403") or said in _DENIED:
            given = (
                "wants credentials: give a Secret, or make it public"
                if self._anonymous
                else "refused the credentials: check them"
            )
            raise TerminalError(Reason.MODEL_UNREADABLE, f"{label}: the store {given}{f' ({said})' if said else ''}")
        if isinstance(error, PreconditionError):
            return ChangedError("the object changed meanwhile")
        if "Received redirect without LOCATION" in text or said in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{label}: the bucket is in another region: set the region")
        if "InvalidCertificate(" in text:
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{label}: the store's certificate is not trusted: {UNTRUSTED_CURE}")
        for pattern, words in _CAUSES.items():
            if pattern in text:
                return RetryableError(words)
        return RetryableError(f"the store answered {status}" if status else "the store's answer could not be used")


_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
# Said with another status than 401 and 403.
_DENIED = {"ExpiredToken", "InvalidToken", "PublicAccessNotPermitted", "ResourceNotFound", "XAdminUserNotFound"}
_CAUSES = {
    "dns error": "the host's name is not known",
    "Connection refused": "Connection refused",
    "TimedOut": "no byte came within the time limit",
    "timed out": "no byte came within the time limit",
    "error decoding response body": "the connection was cut",
    "connection closed": "the connection was cut",
    "IncompleteMessage": "the connection was cut",
    "end of file before message length reached": "the connection was cut",
}


class ChangedError(RetryableError):
    """The object is another one than the one that was begun."""


class ObjectFile:
    """One object; its ETag says whether it is still the same."""

    sha256: str | None = None
    unpack = False

    def __init__(self, bucket: Bucket, key: str, path: str, size: int, etag: str | None) -> None:
        self.label = bucket.uri.label if not bucket.uri.folder else f"{bucket.uri.label.rstrip('/')}/{path}"
        self.path = path
        self.size: int | None = size
        self.validator = etag
        self._bucket = bucket
        self._key = key

    def chunks(self, offset: int = 0, validator: str | None = None) -> Iterator[Chunk]:
        """The bytes. Raises TerminalError: ModelNotFound, ModelUnreadable or DownloadFailed."""
        for _ in range(MAX_CHANGES):
            if validator is None or validator != self.validator:
                offset = 0
            validator = self.validator
            try:
                yield from ranges.in_order(self._read, offset, self.size or 0)
            except ChangedError:
                new = self._bucket.head(self._key)
                self.size, self.validator = new.size, new.validator
            else:
                return
        raise TerminalError(
            Reason.DOWNLOAD_FAILED, f"{self.label} changes while it is read: upload another version under another name"
        )

    def _read(self, start: int, end: int, stop: threading.Event) -> bytearray:
        """The bytes [start, end), each attempt going on where the last was cut."""
        data = bytearray(end - start)
        got = 0
        retries = Retries(self.label)
        while True:
            before = got
            try:
                options: obstore.GetOptions = {"range": (start + got, end)}
                if self.validator:
                    options["if_match"] = self.validator
                for piece in obstore.get(self._bucket.store, self._key, options=options).stream(min_chunk_size=_PIECE_BYTES):
                    if stop.is_set():
                        raise ranges.StoppedError
                    count = len(piece)
                    if got + count > len(data):
                        raise ChangedError("the store sends more than was asked for")
                    data[got : got + count] = piece
                    got += count
                if got == len(data):
                    return data
                raise ChangedError("the object has another size now")
            except (BaseError, OSError) as error:
                failure = self._bucket.failed(error)
                if isinstance(failure, ChangedError):
                    raise failure from None
                retries.failed(failure, start + got, progress=got > before)
