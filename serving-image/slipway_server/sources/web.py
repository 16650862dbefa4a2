"""An HTTP/1.1 client that connects to permitted addresses only and follows redirects with care."""

import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from slipway_server import __version__
from slipway_server.sources.network import UNTRUSTED_CURE, Network
from slipway_server.sources.retries import Retries, RetryableError
from slipway_server.sources.uri import split_url
from slipway_server.termination import Reason, TerminalError

MAX_REDIRECTS = 5
MAX_JSON_BYTES = 32 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
NETWORK_ERRORS = (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)
"""What reading an answer raises when its connection fails."""


class Web:
    """Requests about one model: `label` names it in messages, `authorization` goes to `origin` (scheme, host:port) alone."""

    def __init__(
        self,
        label: str,
        network: Network,
        timeout_seconds: float,
        origin: str = "",
        authorization: str | None = None,
    ) -> None:
        self.label = label
        self.authorization = authorization
        self._network = network
        self._timeout_seconds = timeout_seconds
        self._origin = urlsplit(origin)[:2]
        self._tls: ssl.SSLContext | None = None

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> "Response":
        """GETs a URL, redirects followed; any other status is answered as it is.

        Raises RetryableError, or TerminalError: AddressRefused or DownloadFailed.
        """
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(url, headers or {})
            if response.status not in _REDIRECTS:
                return response
            with response:
                url = self._target(url, response)
        raise TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: the server redirects more than {MAX_REDIRECTS} times (302)")

    def json(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON value behind a URL, retried; for errors of the other side, see `refused` and `open`."""
        body = self.read(url, headers)[0]
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: the server answered something that is not JSON") from None

    def read(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[bytes, Mapping[str, str]]:
        """Body (at most MAX_JSON_BYTES) and headers (names in lower case) of a 200 answer, retried."""
        retries = Retries(self.label)
        while True:
            try:
                with self.open(url, headers) as response:
                    if response.status != 200:
                        raise self.refused(response)
                    body = response.read(MAX_JSON_BYTES + 1)
                    if len(body) > MAX_JSON_BYTES:
                        raise TerminalError(
                            Reason.DOWNLOAD_FAILED, f"{self.label}: the server's answer has more than {MAX_JSON_BYTES} bytes"
                        )
                    return body, {name.lower(): value for name, value in response.headers.items()}
            except NETWORK_ERRORS as error:
                retries.failed(RetryableError(cause(error)), 0, progress=False)
            except RetryableError as error:
                retries.failed(error, 0, progress=False)

    def refused(self, response: "Response") -> RetryableError | TerminalError:
        """What an answer that is no success means."""
        status = response.status
        if status in _RETRIED:
            return RetryableError(f"the server answered {status}")
        if status in (404, 410):
            return TerminalError(Reason.MODEL_NOT_FOUND, f"{self.label}: the server answered {status}: check the URI")
        if status in (401, 403, 407):
            given = "refused the given credentials" if self.authorization else "wants credentials"
            message = f"{self.label}: the server answered {status} and {given}: check the credentials, or make the file public"
            return TerminalError(Reason.MODEL_UNREADABLE, message)
        return TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: the server answered {status}")

    def _send(self, url: str, headers: Mapping[str, str]) -> "Response":
        parts = split_url(url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"User-Agent": f"slipway-server/{__version__}", "Accept-Encoding": "identity", "Connection": "close", **headers}
        if self.authorization and parts[:2] == self._origin:
            sent["Authorization"] = self.authorization
        try:
            connection.request("GET", target, headers=sent)
            return Response(connection)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{self.label}: its certificate is not trusted ({error.verify_message}): {UNTRUSTED_CURE}",
            ) from None
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise RetryableError(cause(error)) from None

    def _connection(self, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        if scheme == "http":
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        else:
            self._tls = self._tls or _trusting(self._network.authorities)
            connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=self._tls)
        # The hook that http.client has for this; before TLS, whose certificate is checked against the name as ever.
        connection._create_connection = self._network.connect  # pyright: ignore[reportAttributeAccessIssue]
        return connection

    def _target(self, url: str, response: "Response") -> str:
        """Where a redirect leads; it is checked like the first URL, and never leaves https."""
        location = quote(response.headers.get("Location") or "", safe="%/:=&?~#+!$,;'@()*[]")
        origin = urlsplit(url)
        scheme = urlsplit(location).scheme
        if scheme not in ("", "http", "https") or (origin.scheme == "https" and scheme == "http"):
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{self.label}: it redirects to {scheme}://, which is refused: name the file's own URI",
            )
        target = urljoin(url, location).partition("#")[0]
        try:
            if not location or split_url(target).username is not None:
                raise ValueError("it names no place" if not location else "it has a user name")
        except ValueError as error:
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: a malformed redirect ({response.status})") from error
        return target


def _trusting(authorities: str | None) -> ssl.SSLContext:
    """The image's certificate authorities, and these."""
    context = ssl.create_default_context()
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


class Response:
    """The answer to one request, whose connection ends with it."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = self._response.headers

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._response.close()
        self._connection.close()

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes of the body, fewer only at its end."""
        return self._response.read(limit)

    def read1(self, limit: int) -> bytes:
        """What has come of the body, at most `limit` bytes; b"" at its end. So a cut loses nothing that was already here."""
        return self._response.read1(limit)

    def readinto(self, buffer: memoryview) -> int:
        """Fills the buffer, or what has come of it at the body's end; returns the bytes."""
        return self._response.readinto(buffer)

    @property
    def length(self) -> int | None:
        """Content-Length, if there is a usable one."""
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def cause(error: object) -> str:
    """What went wrong on the network, in words, without the URL."""
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(error, TimeoutError):
        return "no byte came within the time limit"
    if isinstance(error, socket.gaierror):
        return f"the host's name is not known ({error.strerror})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
