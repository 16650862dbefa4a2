"""Heads of HTTP/2: a request's from the fields of a header block, by the rules of RFC 9113, section 8; an answer's to a block."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from slipway_server.exchange import Headers
from slipway_server.wire.hpack import Decoder, Field, encode

_METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_METHOD, _SCHEME, _AUTHORITY, _PATH, _LENGTH, _TE, _EXPECT, _BANNED = range(8)
_SPECIAL = {
    b":method": _METHOD,
    b":scheme": _SCHEME,
    b":authority": _AUTHORITY,
    b":path": _PATH,
    b"content-length": _LENGTH,
    b"te": _TE,
    b"expect": _EXPECT,
    b"connection": _BANNED,
    b"proxy-connection": _BANNED,
    b"keep-alive": _BANNED,
    b"transfer-encoding": _BANNED,
    b"upgrade": _BANNED,
}
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_METHOD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_VISIBLE = bytes(range(0x21, 0x7F))
_BAD_VALUE = re.compile(rb"\A[ \t]|[\0\r\n]|[ \t]\Z")
_LENGTH_DIGITS = 18


_CACHED_HEADS = 64
_INDEXES = bytes(range(0x81, 0xFF))
"""Bytes that are a whole indexed field each: a block of these alone leaves the table as it is."""


class MalformedError(Exception):
    """A stream error of type PROTOCOL_ERROR (RFC 9113, 8.1.1)."""


class Head(NamedTuple):
    """What a header block says of a request."""

    method: str
    path: str
    query: str
    headers: list[Field]
    length: int
    """The content-length, -1 without one."""
    expects: bool
    """The caller waits for a 100 before it sends the body."""


@lru_cache(1024)
def _known_name(name: bytes) -> bool:
    return _NAME.fullmatch(name) is not None


def sound(fields: Iterable[Field]) -> bool:
    """Names and values are of the characters that section 8.2.1 allows. Fields from the table were checked when they came."""
    for name, value in fields:
        if not (_known_name(name) if len(name) < 64 else _NAME.fullmatch(name)):
            return False
        if value.translate(None, _VISIBLE) and _BAD_VALUE.search(value):
            return False
    return True


def parse(fields: Iterable[Field]) -> Head:
    """The head that fields make whose characters are sound. Raises MalformedError."""
    method = scheme = authority = path = None
    length = -1
    expects = False
    headers: list[Field] = []
    for field in fields:
        name, value = field
        special = _SPECIAL.get(name)
        if special is None:
            if name[0] == 0x3A:
                raise MalformedError("an unknown pseudo-header")
            headers.append(field)
        elif special >= _LENGTH:
            if special == _LENGTH:
                if not value.isdigit() or len(value) > _LENGTH_DIGITS or length not in (-1, int(value)):
                    raise MalformedError("a content-length that is no number, or two that differ")
                length = int(value)
            elif special == _EXPECT:
                expects = value.lower() == b"100-continue"
            elif special == _BANNED or value != b"trailers":
                raise MalformedError("a header of HTTP/1.1's connections")
            headers.append(field)
        elif headers:
            raise MalformedError("a pseudo-header after a header")
        elif special == _PATH and path is None:
            path = value
        elif special == _METHOD and method is None:
            method = value
        elif special == _SCHEME and scheme is None:
            scheme = value
        elif special == _AUTHORITY and authority is None:
            authority = value
        else:
            raise MalformedError("a pseudo-header twice")
    if not method or not scheme or not path:
        raise MalformedError("no :method, :scheme or :path")
    if method not in _METHODS and not _METHOD_NAME.fullmatch(method):
        raise MalformedError("a :method that is no token")
    if path[0] != 0x2F and path != b"*":
        raise MalformedError("a :path that is no path")
    target = _target(path) if len(path) < 512 else _split(path)
    return Head(_METHODS.get(method) or method.decode("latin-1"), *target, headers, length, expects)


def _split(path: bytes) -> tuple[str, str]:
    path, _, query = path.partition(b"?")
    return unquote_to_bytes(path).decode(errors="replace"), query.decode("latin-1")


_target = lru_cache(256)(_split)


class HeadReader:
    """The header blocks that one peer sends. Each has to be read, wanted or not: it may change the table for the next."""

    __slots__ = ("_decoder", "_heads", "_most_bytes", "_most_fields", "_suspect", "_version")

    def __init__(self, most_bytes: int, most_fields: int) -> None:
        self._most_bytes = most_bytes
        self._most_fields = most_fields
        self._decoder = Decoder()
        self._heads: dict[bytes, Head] = {}  # of blocks that mean the same until the table changes
        self._version = 0
        self._suspect = False  # the table may hold fields that are not sound

    def request(self, block: bytes) -> Head | None:
        """A request's head; None if it is too large. Raises HpackError and MalformedError."""
        if self._version != self._decoder.version:
            self._version = self._decoder.version
            self._heads.clear()
        head = self._heads.get(block)
        if head is None:
            fields = self._fields(block)
            if fields is None:
                return None
            head = parse(fields)
            if not block.translate(None, _INDEXES) and len(self._heads) < _CACHED_HEADS:
                self._heads[block] = head
        return head

    def trailers(self, block: bytes) -> bool:
        """Whether a block is sound as trailers, which are dropped. Raises HpackError."""
        try:
            fields = self._fields(block)
        except MalformedError:
            return False
        return fields is not None and all(name[:1] != b":" for name, _ in fields)

    def _fields(self, block: bytes) -> list[Field] | None:
        fields = self._decoder.decode(block, self._most_bytes, self._most_fields)
        if not sound(self._decoder.literals):
            self._suspect = True  # the table may keep it for later blocks
        if self._suspect and fields is not None and not sound(fields):
            raise MalformedError("a header of characters that are not allowed")
        return fields


@lru_cache(256)
def answer_block(status: int, content_type: bytes, headers: Headers) -> bytes:
    """The encoded head of an answer, content-length aside. Callers see the same few again and again."""
    fields = [(b":status", b"%d" % status), *headers]
    if content_type:
        fields.insert(1, (b"content-type", content_type))
    return encode(fields)


def trailers_block(trailers: Headers) -> bytes:
    """The encoded trailers of an answer."""
    return _bare_status_block(trailers) if len(trailers) == 1 else encode(trailers)


_bare_status_block = lru_cache(256)(encode)


@lru_cache(256)
def length_block(size: int) -> bytes:
    """An encoded content-length."""
    return encode(((b"content-length", b"%d" % size),))
