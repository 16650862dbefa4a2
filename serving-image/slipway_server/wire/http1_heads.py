"""Heads of HTTP/1.1 answers, and what a request's line says; both remembered, for there are few different ones."""

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from slipway_server.exchange import Headers, Request

METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
"""Names of methods as text."""
_STATUS_LINES: Mapping[int, bytes] = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_CACHED = 256
HEADS: dict[tuple[int, bytes, Headers, bool], bytes] = {}
"""By status, content type, further headers and whether the connection closes: what make_head makes."""


def make_head(key: tuple[int, bytes, Headers, bool]) -> bytes:
    """An answer's head up to its length, which comes last; remembered, for there are few."""
    status, content_type, headers, close = key
    lines = [b"content-type: " + content_type, *(b"%b: %b" % header for header in headers)]
    if close:
        lines.append(b"connection: close")
    head = _STATUS_LINES[status] + b"\r\n".join((*lines, b"content-length: "))
    if len(HEADS) >= _CACHED:
        HEADS.clear()
    HEADS[key] = head
    return head


def length_of(message: Request) -> int:
    """What content-length says; 0 without."""
    return next((int(value) for name, value in message.headers if name == b"content-length"), 0)


def _parse_target(url: bytes) -> tuple[str, str] | None:
    if not url.startswith((b"/", b"*")):
        scheme, found, rest = url.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            return None
        url = b"/" + rest.partition(b"/")[2]
    path, _, query = url.partition(b"?")
    return unquote_to_bytes(path).decode(errors="replace"), query.decode("latin-1")


_cached_target = lru_cache(_CACHED)(_parse_target)


def target_of(url: bytes) -> tuple[str, str] | None:
    """(percent-decoded path, query) of a request's target; None if it has no path (RFC 9112, 3.2)."""
    return _cached_target(url) if len(url) < 512 else _parse_target(url)
