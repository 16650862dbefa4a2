"""HPACK (RFC 7541): the header blocks of HTTP/2, decoded with the peer's dynamic table and encoded without one of ours.

Answers carry few headers, and those again and again, so they are literals without indexing, the same bytes on every
connection, and the wire keeps whole blocks of them encoded: a dynamic table would save some 50 bytes an answer and cost us
its upkeep for each connection.
"""

from collections.abc import Iterable

from slipway_server.wire import huffman

Field = tuple[bytes, bytes]

TABLE_BYTES = 4096
"""The dynamic table's size until a peer asks for less: what SETTINGS_HEADER_TABLE_SIZE is when not sent."""
FIELD_OVERHEAD_BYTES = 32
"""What a field counts beside its name and value, in tables (RFC 7541, 4.1) and in lists (RFC 9113, 6.5.2)."""
EMPTY_TABLE = b"\x20"
"""A dynamic table size update to 0: begins our first block for a peer whose table is smaller than TABLE_BYTES (4.2)."""
_STATIC_TABLE = (
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|"
    ":status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|"
    "accept-encoding gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|"
    "authorization|cache-control|content-disposition|content-encoding|content-language|content-length|"
    "content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
    "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)  # appendix A
_STATIC: tuple[Field, ...] = tuple(
    (name.encode(), value.encode()) for name, _, value in (line.partition(" ") for line in _STATIC_TABLE.split("|"))
)
_FIRST_DYNAMIC = len(_STATIC) + 1
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_STATIC_FIELDS = {field: index for index, field in enumerate(_STATIC, 1) if field[1]}


class HpackError(Exception):
    """A header block that cannot be decoded: the connection's COMPRESSION_ERROR, for the tables now differ."""


class Decoder:
    """One connection's decoder. `table` is the static and the dynamic table under RFC 7541's indexes, 0 aside."""

    __slots__ = ("_bytes", "_limit_bytes", "_sizes", "literals", "table", "version")

    def __init__(self) -> None:
        self.table: list[Field] = [(b"", b""), *_STATIC]
        self._sizes: list[int] = [_size(field) for field in self.table]  # of the fields at the same places
        self._bytes = 0  # of the dynamic fields
        self._limit_bytes = TABLE_BYTES
        self.literals: list[Field] = []
        """The fields that the last block spelled out: whatever it took from the dynamic table was once among these."""
        self.version = 0
        """Rises with each change of the dynamic table: while it stays, equal blocks of indexes alone are equal lists."""

    def decode(self, block: bytes, list_bytes: int, list_count: int) -> list[Field] | None:
        """The fields of a block in order; None if they count more than `list_bytes` or `list_count`, of which never more
        than that is held while the table is kept right. Raises HpackError."""
        try:
            return self._decode(block, list_bytes, list_count)
        except IndexError:
            raise HpackError("the block ends within a field, or names an index beyond the table") from None

    def _decode(self, block: bytes, list_bytes: int, list_count: int) -> list[Field] | None:
        fields: list[Field] = []
        self.literals = literals = []
        table, sizes = self.table, self._sizes
        total, fits = 0, True
        at, end = 0, len(block)
        while at < end:
            byte = block[at]
            at += 1
            if byte > 0x80:  # 6.1, an indexed field
                index = byte & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                field = table[index]
                total += sizes[index]
            elif byte >= 0x40 or byte < 0x20:  # 6.2, a literal: kept in the table (0x40), or not (0x00, 0x10 never)
                if byte == 0x80:
                    raise HpackError("index 0")
                prefix = 0x3F if byte >= 0x40 else 0x0F
                index = byte & prefix
                if index == prefix:
                    index, at = _integer(block, at, prefix)
                if index:
                    name = table[index][0]
                else:
                    name, at = _string(block, at, end)
                value, at = _string(block, at, end)
                field = name, value
                size = len(name) + len(value) + FIELD_OVERHEAD_BYTES
                total += size
                if byte >= 0x40:
                    self._insert(field, size)
                literals.append(field)
            else:  # 6.3, a table size update
                if total:
                    raise HpackError("a table size update after a field")
                limit = byte & 0x1F
                if limit == 0x1F:
                    limit, at = _integer(block, at, 0x1F)
                if limit > TABLE_BYTES:
                    raise HpackError(f"a table size of {limit} bytes, more than the {TABLE_BYTES} allowed")
                self._limit_bytes = limit
                self._evict(limit)
                continue
            if fits:
                fields.append(field)
                fits = total <= list_bytes and len(fields) <= list_count
        return fields if fits else None

    def _insert(self, field: Field, size: int) -> None:
        self.version += 1
        if self._bytes + size > self._limit_bytes:
            self._evict(max(0, self._limit_bytes - size))
            if size > self._limit_bytes:  # 4.4: empties the table, and is no error
                return
        self.table.insert(_FIRST_DYNAMIC, field)
        self._sizes.insert(_FIRST_DYNAMIC, size)
        self._bytes += size

    def _evict(self, limit: int) -> None:
        while self._bytes > limit:
            self.version += 1
            self.table.pop()
            self._bytes -= self._sizes.pop()


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer that filled its prefix (5.1), and the place after it. Up to 2**28: all that we speak of is less."""
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("an integer of more than 28 bits")


def _string(block: bytes, at: int, end: int) -> tuple[bytes, int]:
    """A string (5.2) and the place after it."""
    length = block[at]
    at += 1
    coded = length & 0x80
    length &= 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    after = at + length
    if after > end:
        raise HpackError("the block ends within a string")
    if not coded:
        return block[at:after], after
    try:
        return huffman.decode(block[at:after]), after
    except ValueError as error:
        raise HpackError(str(error)) from None


def encode(fields: Iterable[Field]) -> bytes:
    """A block that is right whatever the peer's table holds: static indexes and literals without indexing."""
    parts: list[bytes] = []
    for field in fields:
        name, value = field
        index = _STATIC_FIELDS.get(field)
        if index is not None:
            parts.append(bytes((0x80 | index,)))
            continue
        index = _STATIC_NAMES.get(name, 0)
        parts.append(_prefixed(0x00, 0x0F, index))
        if not index:
            parts.append(_prefixed(0x00, 0x7F, len(name)))
            parts.append(name)
        parts.append(_prefixed(0x00, 0x7F, len(value)))
        parts.append(value)
    return b"".join(parts)


def _prefixed(flags: int, prefix: int, value: int) -> bytes:
    """An integer (5.1) in the low bits of a byte with `flags`."""
    if value < prefix:
        return bytes((flags | value,))
    out = bytearray((flags | prefix,))
    value -= prefix
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
