"""Asks a pod for its figures.

Who may make pods may make one that carries a router's labels. So what answers is followed nowhere, is not inflated, is read up to
a limit only, and holds up nobody but itself.
"""

from collections.abc import Mapping

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


def open_session() -> aiohttp.ClientSession:
    """Open connections to pods. Each is asked once at a time; a shared limit would let one that hangs hold up others."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    )


async def read_text(
    session: aiohttp.ClientSession, address: str, port: int, path: str, most: int, params: Mapping[str, str] | None = None
) -> str | None:
    """Answer what the pod at `address` (IP) says, `most` bytes; None where it is silent for 2 s, says more, or no text."""
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{port}{path}"
    try:
        async with session.get(url, params=params, timeout=_TIMEOUT, allow_redirects=False) as answer:
            body = await read_at_most(answer.content, most) if answer.status == 200 else None
            if body is None:
                answer.close()
            return body if body is None else body.decode()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


async def read_at_most(content: aiohttp.StreamReader, most: int) -> bytes | None:
    """Read a body to its end; None where it is longer."""
    parts: list[bytes] = []
    size = 0
    async for part in content.iter_any():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)
