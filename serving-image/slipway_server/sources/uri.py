"""Model URIs: parsed once, refused with the cure."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from slipway_server.termination import Reason, TerminalError

MAX_LENGTH = 2048
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_FORMS = {
    "file": "file:///PATH",
    "pvc": "pvc://CLAIM/PATH",
    "configmap": "configmap://NAME/KEY",
    "http": "http://HOST/PATH",
    "https": "https://HOST/PATH",
    "s3": "s3://BUCKET/KEY",
    "gs": "gs://BUCKET/KEY",
    "az": "az://CONTAINER/PATH",
    "hf": "hf://OWNER/REPO[/PATH]@REVISION",
    "oci": "oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]",
}
SCHEMES = tuple(_FORMS)
_BUCKETS = {
    "s3": re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": re.compile(r"(?!.*\.\.)[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]"),
    "az": re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
}
_HF_NAME = re.compile(r"(?!.*(?:\.\.|--))[A-Za-z0-9][-._A-Za-z0-9]{0,95}")
_HF_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][-._/A-Za-z0-9]{0,254}(?<![/.])")
_OCI = re.compile(
    r"(?P<repository>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][-.A-Za-z0-9_]{0,127}))?(?:@(?P<digest>sha256:[a-f0-9]{64}))?"
)
_LABEL = r"[A-Za-z0-9_](?:[-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_TARGET = re.compile(r"(?:[-A-Za-z0-9._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_USER_INFO = re.compile(r"(?:[-A-Za-z0-9._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True)
class ModelURI:
    """A parsed model URI.

    `authority` is the claim, the ConfigMap, the bucket, OWNER/REPO or the host[:port]. `path` has no leading slash but for
    http(s), where it is the request target with its query; for oci it is the repository; "" or a last "/" means a folder.
    `user_info` ("user:password", percent-encoded) is only ever set for http(s), `reference` (the revision; a tag or a digest)
    for hf and oci.
    """

    scheme: str
    authority: str
    path: str
    user_info: str | None = None
    reference: str = ""

    @property
    def label(self) -> str:
        """The URI without credentials: no user info, and no query (signed links carry their key there)."""
        path = self.path.split("?")[0] if self.scheme in ("http", "https") else self.path
        slash = "" if path.startswith("/") or not path else "/"
        mark = ("@" if self.scheme == "hf" or ":" in self.reference else ":") if self.reference else ""
        return f"{self.scheme}://{self.authority}{slash}{path}{mark}{self.reference}"

    @property
    def name(self) -> str:
        """The file's own name; "" of a folder."""
        path = self.path.split("?")[0] if self.scheme in ("http", "https") else self.path
        return path.rsplit("/", 1)[-1]

    @property
    def folder(self) -> bool:
        """Whether all below the path is meant."""
        return self.path.endswith("/") or not self.path

    @property
    def pinned(self) -> str:
        """The commit or digest of a reference that can never lead elsewhere, else ""."""
        return self.reference if re.fullmatch(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}", self.reference) else ""


def parse(text: str) -> ModelURI:
    """Parses a model URI; raises TerminalError(InvalidURI) that says what is wrong and what would be right."""
    if len(text) > MAX_LENGTH:
        raise _invalid("the URI", f"it has {len(text)} characters: use at most {MAX_LENGTH}")
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise _invalid("the URI", "it is empty or holds a space, a control or a non-ASCII character: percent-encode it")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise _invalid(f"scheme {scheme[:32]!r}" if separator else "the URI", f"use one of {', '.join(_FORMS.values())}")
    if scheme in ("http", "https"):
        return _web(scheme, text)
    if "\\" in rest:
        raise _invalid(f"the {scheme} URI", f"it holds a backslash: use {_FORMS[scheme]}")
    if scheme in _BUCKETS:
        return _bucket(scheme, rest)
    if scheme == "hf":
        return _hugging_face(rest)
    if scheme == "oci":
        return _oci(rest)
    return _local(scheme, rest)


def split_url(text: str) -> SplitResult:
    """The parts of an absolute http(s) URL whose host is a name or an address in its usual form.

    Raises ValueError with what is wrong, which shows no user info and no query. Other spellings of an address (decimal, octal,
    hexadecimal, percent-encoded) are refused: what reads them differently from us would be led elsewhere.
    """
    parts = urlsplit(text)
    host = parts.hostname
    port = parts.port
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("it names no host" if parts.scheme in ("http", "https") else "it is not http(s)")
    if port == 0 or authority_of(parts) != parts.netloc.rpartition("@")[2].lower():
        raise ValueError("it has no usable port, or something beside its host")
    if parts.netloc.count("@") > 1 or not _USER_INFO.fullmatch(parts.netloc.rpartition("@")[0]):
        raise ValueError("its user info is not percent-encoded")
    _check_host(host, "[" in parts.netloc)
    if not _TARGET.fullmatch(parts.path) or not _TARGET.fullmatch(parts.query):
        raise ValueError("it holds a character that must be percent-encoded")
    return parts


def _check_host(host: str, bracketed: bool) -> None:
    try:
        if bracketed:
            if "%" in host:
                raise ValueError("its address names an interface")
            IPv6Address(host)
        elif re.fullmatch(r"(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?", host.rstrip(".").rpartition(".")[2]):
            IPv4Address(host)  # names that end in a number are addresses
        elif not _HOST_NAME.fullmatch(host):
            raise ValueError("its host is not a DNS name (of letters, digits, '-' and '.', no dot at the end)")
    except AddressValueError:
        raise ValueError("its host is an address in an unusual form: write it as 192.0.2.1 or [2001:db8::1]") from None


def _web(scheme: str, text: str) -> ModelURI:
    if "#" in text:
        raise _invalid(f"the {scheme} URI", "it has a fragment (#...), which no server sees: leave it out")
    try:
        parts = split_url(text)
    except ValueError as error:
        raise _invalid(f"the {scheme} URI", f"{_plain(error)}: use {_FORMS[scheme]}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return ModelURI(scheme, authority_of(parts), target, parts.netloc.rpartition("@")[0] or None)


def authority_of(parts: SplitResult) -> str:
    """host[:port] of a URL, in lower case and without its user info."""
    host = parts.hostname or ""
    return (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port is not None else "")


def _bucket(scheme: str, rest: str) -> ModelURI:
    bucket, _, encoded = rest.partition("/")
    label = f"the {scheme} URI"
    if not _BUCKETS[scheme].fullmatch(bucket):
        raise _invalid(
            label, f"it names no {'container' if scheme == 'az' else 'bucket'} as the store allows: use {_FORMS[scheme]}"
        )
    if "?" in encoded or "#" in encoded:
        raise _invalid(label, f"it has a query or a fragment: use {_FORMS[scheme]}, with %3F and %23 for ? and # in names")
    return ModelURI(scheme, bucket, _decoded(scheme, encoded))


def _hugging_face(rest: str) -> ModelURI:
    place, mark, revision = rest.partition("@")
    owner, _, more = place.partition("/")
    repo, _, encoded = more.partition("/")
    if not _HF_NAME.fullmatch(owner) or not _HF_NAME.fullmatch(repo) or "?" in rest or "#" in rest:
        raise _invalid("the hf URI", f"it names no OWNER/REPO, or has a query or fragment: use {_FORMS['hf']}")
    if mark and not _HF_REVISION.fullmatch(revision):
        raise _invalid("the hf URI", "its revision is not a commit, a tag or a branch: write it after the @, last")
    return ModelURI("hf", f"{owner}/{repo}", _decoded("hf", encoded), reference=revision or "main")


def _oci(rest: str) -> ModelURI:
    registry, slash, place = rest.partition("/")
    try:
        if "@" in registry:
            raise ValueError("it has a user name: put credentials into a Secret")
        authority = authority_of(split_url(f"https://{registry}"))
    except ValueError as error:
        raise _invalid("the oci URI", f"{_plain(error)}: use {_FORMS['oci']}") from None
    found = _OCI.fullmatch(place)
    if not slash or not found or len(found["repository"]) > 255:
        raise _invalid(
            "the oci URI",
            f"it names no repository (in lower case), or its tag or sha256 digest is malformed: use {_FORMS['oci']}",
        )
    return ModelURI("oci", authority, found["repository"], reference=found["digest"] or found["tag"] or "latest")


def _decoded(scheme: str, encoded: str) -> str:
    """The path of an object store or a hub: percent-decoded, without empty, "." and ".." parts; a last slash stays."""
    label = f"the {scheme} URI"
    if re.search(r"%(?![0-9A-Fa-f]{2})", encoded):
        raise _invalid(label, "it has a % without two hexadecimal digits: write a % as %25")
    try:
        path = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise _invalid(label, "its percent-encoded bytes are not UTF-8") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise _invalid(label, "its path holds a control character")
    _check_segments(label, path.removesuffix("/"), _FORMS[scheme], empty_allowed=not path)
    return path


def _local(scheme: str, rest: str) -> ModelURI:
    # Taken literally: names of files and keys are not percent-encoded in a model URI.
    authority, _, path = rest.partition("/")
    label = f"{scheme}://{authority}/{path}" if len(rest) < 200 else f"the {scheme} URI"
    if scheme == "file" and authority:
        raise _invalid(label, "a file has no host: use file:///PATH, with three slashes")
    if scheme != "file" and not authority:
        raise _invalid(label, f"it names no {'claim' if scheme == 'pvc' else 'ConfigMap'}: use {_FORMS[scheme]}")
    if "@" in authority or ":" in authority or "?" in path or "#" in path:
        raise _invalid(label, f"it has a user, port, query or fragment: use {_FORMS[scheme]}")
    if scheme == "configmap" and not _KEY.fullmatch(path):
        raise _invalid(label, "a ConfigMap's key has only letters, digits, '-', '_' and '.'")
    _check_segments(label, path.removesuffix("/"), _FORMS[scheme])
    return ModelURI(scheme, authority, path)


def _check_segments(label: str, path: str, form: str, empty_allowed: bool = False) -> None:
    if empty_allowed and not path:
        return
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        raise _invalid(label, f"its path is empty or has an empty, '.' or '..' part: use {form}")


def _plain(error: ValueError) -> str:
    """What a ValueError says, without the values that the standard library quotes in it."""
    return str(error) if str(error).startswith("it") else "it is malformed"


def _invalid(what: str, cure: str) -> TerminalError:
    return TerminalError(Reason.INVALID_URI, f"{what}: {cure}")
