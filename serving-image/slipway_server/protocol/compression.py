"""gzip and deflate of HTTP bodies and gRPC messages, with a hard limit on what comes out."""

import zlib

from slipway_server.tensors import RequestError

# Below this an answer fits a packet or two and compressing it costs more than it saves.
MIN_BYTES = 1024
_LEVEL = 1  # of zlib: level 6 takes five times as long to save a tenth more of JSON numbers
_MAX_MEMBERS = 16
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def decompress(body: bytes | bytearray, encoding: bytes | str, limit_bytes: int) -> bytes:
    """The body without its content coding.

    Raises RequestError: 400 for what is corrupt, cut or followed by something else, 413 as soon as more than
    `limit_bytes` come out, 415 for an unknown coding.
    """
    name = (encoding.decode("latin-1") if isinstance(encoding, bytes) else encoding).strip().lower()
    if name == "identity":
        return bytes(body)
    if name not in _WINDOWS:
        raise RequestError(f"content encoding '{name[:32]}' is not served: use gzip, deflate or none", 415)
    window = _WINDOWS[name]
    if window == 15 and not _has_zlib_header(body):
        window = -15  # what some clients call deflate: the bare stream
    parts: list[bytes] = []
    size = 0
    rest: bytes | bytearray = body
    try:
        while rest:  # gzip may have several members; zlib copies what follows each, so that many would take long
            if len(parts) == _MAX_MEMBERS:
                raise RequestError(f"the {name} body has more than {_MAX_MEMBERS} members: send it as one")
            member = zlib.decompressobj(window)
            parts.append(member.decompress(rest, limit_bytes + 1 - size))
            size += len(parts[-1])
            if size > limit_bytes:
                raise RequestError(f"the body inflates to more than {limit_bytes} bytes: send fewer rows at once", 413)
            if not member.eof:
                raise RequestError(f"the {name} body is cut short")
            rest = member.unused_data
            if rest and (window != 31 or not rest.startswith(b"\x1f\x8b")):
                raise RequestError(f"the {name} body is followed by {len(rest)} bytes that are not part of it")
    except zlib.error:
        raise RequestError(f"the body is not {name}") from None
    if not parts:
        raise RequestError(f"the {name} body is empty")
    return b"".join(parts)


def _has_zlib_header(body: bytes | bytearray) -> bool:
    """Whether the first two bytes are RFC 1950's: deflate in the first, a multiple of 31 together."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def compress(body: bytes, accept_encoding: bytes | None) -> tuple[bytes, bytes | None]:
    """(body, content coding or None): compressed if the caller accepts that and it is worth it."""
    if accept_encoding is None or len(body) < MIN_BYTES or (coding := _accepted(accept_encoding)) is None:
        return body, None
    compressor = zlib.compressobj(_LEVEL, wbits=_WINDOWS[coding])
    return compressor.compress(body) + compressor.flush(), coding.encode()


def _accepted(accept_encoding: bytes) -> str | None:
    """The coding that the header Accept-Encoding wants most (RFC 9110, 12.5.3); gzip where it does not mind."""
    weights: dict[str, float] = {}
    for item in accept_encoding.decode("latin-1").lower().split(","):
        name, _, parameters = item.partition(";")
        weight = 1.0
        for parameter in parameters.split(";"):
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[name.strip()] = weight if 0 <= weight <= 1 else 0.0
    anything = weights.get("*", 0.0)
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, anything))  # the first of equals
    weight = weights.get(best, anything)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None
