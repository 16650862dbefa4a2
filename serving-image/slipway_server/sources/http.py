"""http(s): streamed with time limits, resumed where it was cut, retried with back-off."""

import base64
import http.client
import random
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import IO
from urllib.parse import unquote, urlsplit

from slipway_server import __version__, logs
from slipway_server.sources import CHUNK_BYTES, Chunk
from slipway_server.sources.uri import ModelURI
from slipway_server.termination import Reason, TerminalError

MAX_ATTEMPTS = 12
MAX_FRUITLESS_ATTEMPTS = 5
"""Attempts in a row that brought no byte: then the other side is down, not flaky."""
BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


class HttpSource:
    """A file behind an http(s) URL. Credentials in the URL become Basic authorization, for that origin only."""

    def __init__(self, uri: ModelURI, timeout_seconds: float) -> None:
        self.label = uri.label
        self.size: int | None = None
        self._url = f"{uri.scheme}://{uri.authority}{uri.path}"
        self._timeout_seconds = timeout_seconds
        self._headers = {"User-Agent": f"slipway-server/{__version__}", "Accept-Encoding": "identity"}
        self._authorization = _basic(uri.user_info) if uri.user_info else None
        self._opener = urllib.request.build_opener(_SafeRedirects(self._url, self._authorization))
        self._offset = 0
        self._validator: str | None = None

    def chunks(self) -> Iterator[Chunk]:
        """The file's bytes. Raises TerminalError: ModelNotFound, ModelUnreadable, DownloadFailed or InvalidURI."""
        fruitless = 0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            before = self._offset
            try:
                yield from self._attempt()
            except _RetryableError as error:
                fruitless = 0 if self._offset > before else fruitless + 1
                if fruitless == MAX_FRUITLESS_ATTEMPTS or attempt == MAX_ATTEMPTS:
                    raise TerminalError(
                        Reason.DOWNLOAD_FAILED,
                        f"{self.label}: {error} (after {attempt} attempts, {self._offset} bytes received): "
                        "check that the server is reachable from the pod and serves the whole file",
                    ) from None
                longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**fruitless)
                pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
                logs.warning("download interrupted", cause=str(error), received=self._offset, retry_in=f"{pause:.1f}s")
                time.sleep(pause)
            else:
                return

    def _attempt(self) -> Iterator[Chunk]:
        if self._validator is None:
            self._offset = 0  # nothing would tell a changed file from the same one: begin anew
        try:
            with self._open() as response:
                self._begin(response)
                # read1 answers what has come, so that a cut loses nothing that was already here.
                while data := response.read1(CHUNK_BYTES):
                    yield Chunk(self._offset, data)
                    self._offset += len(data)
        except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            raise _RetryableError(_cause(error)) from None
        if self.size is not None and self._offset < self.size:
            raise _RetryableError(f"the connection was cut at byte {self._offset} of {self.size}")

    def _open(self) -> http.client.HTTPResponse:
        request = urllib.request.Request(self._url, headers=self._headers)  # noqa: S310 - uri.py allows only http(s)
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        if self._offset and self._validator:
            request.add_header("Range", f"bytes={self._offset}-")
            request.add_header("If-Range", self._validator)
        try:
            return self._opener.open(request, timeout=self._timeout_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error.code) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise TerminalError(
                    Reason.DOWNLOAD_FAILED,
                    f"{self.label}: its certificate is not trusted ({error.reason.verify_message}): "
                    "serve it with one that the image's certificate authorities signed",
                ) from None
            raise _RetryableError(_cause(error.reason)) from None
        except ValueError as error:  # a redirect to something that is no URL
            raise TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: a malformed redirect: {error}") from None

    def _refused(self, status: int) -> Exception:
        if status == 416:  # the file is shorter than what we have: it is another one
            self._validator = None
        if status in _RETRIED or status == 416:
            return _RetryableError(f"the server answered {status}")
        if status in (404, 410):
            return TerminalError(Reason.MODEL_NOT_FOUND, f"{self.label}: the server answered {status}: check the URI")
        if status in (401, 403, 407):
            message = f"{self.label}: the server answered {status}: check the credentials, or make the file public"
            return TerminalError(Reason.MODEL_UNREADABLE, message)
        return TerminalError(Reason.DOWNLOAD_FAILED, f"{self.label}: the server answered {status}")

    def _begin(self, response: http.client.HTTPResponse) -> None:
        """Takes size, validator and place in the file from the answer's head."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{self.label}: the server compressed the file ({headers['Content-Encoding']}) though asked not to: "
                "turn that off",
            )
        length = headers.get("Content-Length", "")
        size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        if response.status == 206:
            place = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", ""))
            if not place or int(place[1]) != self._offset or not self._offset:
                self._validator = None
                raise _RetryableError("the server answered a range that was not asked for")
            size = self._offset + size if size is not None else None
        else:
            self._offset = 0  # the whole file again: it changed, or ranges are not served
        self.size = size
        etag = headers.get("ETag", "")
        strong = etag.startswith('"')  # a weak tag may stay while bytes change
        self._validator = etag if strong else headers.get("Last-Modified")


class _RetryableError(Exception):
    """Worth another attempt; the text says what happened, without the URL."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, never from https to http; sends credentials to their own origin only."""

    max_redirections = 5

    def __init__(self, url: str, authorization: str | None) -> None:
        self.origin = urlsplit(url)[:2]
        self.authorization = authorization

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        target = urlsplit(newurl)
        if target.scheme not in ("http", "https") or (req.type == "https" and target.scheme != "https"):
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{req.type}://{req.host}: it redirects to {target.scheme or 'no'}://, which is refused: name the file's own URI",
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)  # pyright: ignore[reportArgumentType]
        if request is not None and self.authorization and target[:2] == self.origin:
            request.add_unredirected_header("Authorization", self.authorization)
        return request

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message) -> object:
        # The standard library refuses other schemes itself, but with an error that would be reported as the server's.
        location = headers.get("Location") or headers.get("URI") or ""
        scheme = urlsplit(location).scheme
        if scheme not in ("", "http", "https"):
            return self.redirect_request(req, fp, code, msg, headers, location)
        return super().http_error_302(req, fp, code, msg, headers)  # pyright: ignore[reportArgumentType]

    http_error_301 = http_error_303 = http_error_302  # pyright: ignore[reportAssignmentType]
    http_error_307 = http_error_308 = http_error_302  # pyright: ignore[reportAssignmentType]


def _basic(user_info: str) -> str:
    return "Basic " + base64.b64encode(unquote(user_info).encode()).decode()


def _cause(error: object) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(error, TimeoutError):
        return "no byte came within the time limit"
    if isinstance(error, socket.gaierror):
        return f"the host's name is not known ({error.strerror})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__} {error}".strip() if isinstance(error, Exception) else str(error)
