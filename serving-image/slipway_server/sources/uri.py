"""Model URIs: parsed once, refused with the cure."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from slipway_server.termination import Reason, TerminalError

SCHEMES = ("file", "pvc", "configmap", "http", "https")
MAX_LENGTH = 2048
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_FORMS = {
    "file": "file:///PATH",
    "pvc": "pvc://CLAIM/PATH",
    "configmap": "configmap://NAME/KEY",
    "http": "http://HOST/PATH",
    "https": "https://HOST/PATH",
}


@dataclass(frozen=True)
class ModelURI:
    """A parsed model URI.

    `authority` is the claim, the ConfigMap or the host[:port]; `path` has no leading slash but for http(s), where it is
    the request target with its query. `user_info` ("user:password", percent-encoded) is only ever set for http(s).
    """

    scheme: str
    authority: str
    path: str
    user_info: str | None = None

    @property
    def label(self) -> str:
        """The URI without credentials: no user info, and no query (signed links carry their key there)."""
        path = self.path.split("?")[0]
        slash = "" if path.startswith("/") else "/"
        return f"{self.scheme}://{self.authority}{slash}{path}"

    @property
    def suffix(self) -> str:
        """The file's extension in lower case, with its dot; "" where there is none."""
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        return "." + name.rsplit(".", 1)[1].lower() if "." in name.strip(".") else ""


def parse(text: str) -> ModelURI:
    """Parses a model URI; raises TerminalError(InvalidURI) that says what is wrong and what would be right."""
    if len(text) > MAX_LENGTH:
        raise _invalid(text[:64] + "...", f"it has {len(text)} characters: use at most {MAX_LENGTH}")
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise _invalid("the URI", "it is empty or holds a space, a control or a non-ASCII character: percent-encode it")
    scheme, separator, _ = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise _invalid(f"scheme {scheme[:32]!r}" if separator else "the URI", f"use one of {', '.join(_FORMS.values())}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _invalid(f"the {scheme} URI", f"{error}: use {_FORMS[scheme]}") from None
    if scheme in ("http", "https"):
        return _web(scheme, text, port)
    return _local(scheme, text)


def _web(scheme: str, text: str, port: int | None) -> ModelURI:
    parts = urlsplit(text)
    host = parts.hostname
    if not host:
        raise _invalid(f"the {scheme} URI", f"it names no host: use {_FORMS[scheme]}")
    bracketed = f"[{host}]" if ":" in host else host
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    user_info = parts.netloc.rpartition("@")[0] or None
    return ModelURI(scheme, bracketed + (f":{port}" if port is not None else ""), target, user_info)


def _local(scheme: str, text: str) -> ModelURI:
    # Taken literally: names of files and keys are not percent-encoded in a model URI.
    authority, _, path = text.split("://", 1)[1].partition("/")
    label = f"{scheme}://{authority}/{path}"
    if scheme == "file" and authority:
        raise _invalid(label, "a file has no host: use file:///PATH, with three slashes")
    if scheme != "file" and not authority:
        raise _invalid(label, f"it names no {'claim' if scheme == 'pvc' else 'ConfigMap'}: use {_FORMS[scheme]}")
    if "@" in authority or ":" in authority or "?" in path or "#" in path:
        raise _invalid(label, f"it has a user, port, query or fragment: use {_FORMS[scheme]}")
    segments = path.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise _invalid(label, f"its path is empty or has an empty, '.' or '..' part: use {_FORMS[scheme]}")
    if scheme == "configmap" and not _KEY.fullmatch(path):
        raise _invalid(label, "a ConfigMap's key has only letters, digits, '-', '_' and '.'")
    return ModelURI(scheme, authority, path)


def _invalid(what: str, cure: str) -> TerminalError:
    return TerminalError(Reason.INVALID_URI, f"{what}: {cure}")
