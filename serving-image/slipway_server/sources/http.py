"""http(s): streamed with time limits, resumed where it was cut, in parallel ranges when it is large."""

import re
import threading
from collections.abc import Iterator
from urllib.parse import unquote

from slipway_server.sources import CHUNK_BYTES, Chunk, Listing, ranges
from slipway_server.sources.credentials import Credentials, basic
from slipway_server.sources.network import Network
from slipway_server.sources.retries import Retries, RetryableError
from slipway_server.sources.uri import ModelURI
from slipway_server.sources.web import NETWORK_ERRORS, Response, Web, cause
from slipway_server.termination import Reason, TerminalError


def list_files(uri: ModelURI, credentials: Credentials, network: Network, timeout_seconds: float) -> Listing:
    """The one file of an http(s) URI. Credentials of the URI or the Secret go to its own origin only."""
    origin = f"{uri.scheme}://{uri.authority}"
    authorization = basic(unquote(uri.user_info)) if uri.user_info else credentials.authorization()
    web = Web(uri.label, network, timeout_seconds, origin, authorization)
    return Listing([HttpFile(web, origin + uri.path, uri.label, uri.name)], tree=False)


class HttpFile:
    """A file behind an http(s) URL.

    With a promised `sha256` its bytes can be no others: it is resumed without a validator. `size`, where it is known
    beforehand, must be that of the answer.
    """

    def __init__(
        self,
        web: Web,
        url: str,
        label: str,
        path: str,
        size: int | None = None,
        sha256: str | None = None,
        unpack: bool = False,
    ) -> None:
        self.label = label
        self.path = path
        self.size = size
        self.sha256 = sha256
        self.unpack = unpack
        self.validator = f"sha256:{sha256}" if sha256 else None
        self._web = web
        self._url = url
        self._offset = 0
        self._announced = size

    def chunks(self, offset: int = 0, validator: str | None = None) -> Iterator[Chunk]:
        """The bytes. Raises TerminalError: ModelNotFound, ModelUnreadable, AddressRefused or DownloadFailed."""
        self._offset = offset
        if self.sha256 is None:
            self.validator = validator
        elif validator != self.validator:
            self._offset = 0
        retries = Retries(self.label)
        while True:
            before = self._offset
            try:
                yield from self._attempt()
            except RetryableError as error:
                retries.failed(error, self._offset, progress=self._offset > before)
            else:
                return

    def _attempt(self) -> Iterator[Chunk]:
        if self.validator is None:
            self._offset = 0  # nothing would tell a changed file from the same one: begin anew
        if self.size is not None and self._offset == self.size:
            return
        response = self._web.open(self._url, self._range_headers(self._offset) if self._offset else None)
        with response:
            self._begin(response)
            if not self._rangeable(response):
                yield from self._stream(response)
                return
        assert self.size is not None  # noqa: S101 - _rangeable
        for chunk in ranges.in_order(self._read_range, self._offset, self.size):
            yield chunk
            self._offset = chunk.offset + len(chunk.data)

    def _stream(self, response: Response) -> Iterator[Chunk]:
        try:
            while data := response.read1(CHUNK_BYTES):
                yield Chunk(self._offset, data)
                self._offset += len(data)
        except NETWORK_ERRORS as error:
            raise RetryableError(cause(error)) from None
        if self.size is not None and self._offset < self.size:
            raise RetryableError(f"the connection was cut at byte {self._offset} of {self.size}")

    def _begin(self, response: Response) -> None:
        """Takes size, validator and place in the file from the answer's head."""
        if response.status not in (200, 206):
            if response.status != 416:
                raise self._web.refused(response)
            self._forget()  # the file is shorter than what we have: it is another one
            raise RetryableError("the server answered 416")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{self.label}: the server compressed the file ({encoding[:32]!r}) though asked not to: turn that off",
            )
        size = response.length
        if response.status == 206:
            if not self._offset or _place(response)[0] != self._offset:
                self._forget()
                raise RetryableError("the server answered a range that was not asked for")
            size = self._offset + size if size is not None else None
        else:
            self._offset = 0  # the whole file again: it changed, or ranges are not served
        if self._announced is not None and size not in (None, self._announced):
            raise TerminalError(
                Reason.DOWNLOAD_FAILED,
                f"{self.label}: the server sends {size} bytes of a file that it listed with {self._announced}",
            )
        self.size = size if size is not None else self._announced
        if self.sha256 is None:
            etag = response.headers.get("ETag", "")
            # A weak tag may stay while bytes change.
            self.validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")

    def _forget(self) -> None:
        if self.sha256 is None:
            self.validator = None
        self._offset = 0

    def _rangeable(self, response: Response) -> bool:
        if self.size is None or self.size - self._offset <= ranges.LARGE_BYTES:
            return False
        # A date has seconds only: too coarse for pieces that are put together.
        exact = self.sha256 is not None or (self.validator or "").startswith('"')
        return exact and (response.status == 206 or response.headers.get("Accept-Ranges", "").lower() == "bytes")

    def _range_headers(self, start: int, end: int | None = None) -> dict[str, str]:
        headers = {"Range": f"bytes={start}-{end - 1 if end else ''}"}
        return headers if self.sha256 or self.validator is None else {**headers, "If-Range": self.validator}

    def _read_range(self, start: int, end: int, stop: threading.Event) -> bytearray:
        """The bytes [start, end), each attempt going on where the last was cut."""
        data = bytearray(end - start)
        view = memoryview(data)
        got = 0
        retries = Retries(self.label)
        while True:
            before = got
            try:
                with self._web.open(self._url, self._range_headers(start + got, end)) as response:
                    if response.status == 200:
                        self._forget()
                        raise RangesRefusedError
                    if response.status != 206:
                        raise self._web.refused(response)
                    if _place(response) != (start + got, end - 1, self.size):
                        raise RetryableError("the server answered a range that was not asked for")
                    while got < len(data) and (count := response.readinto(view[got : got + CHUNK_BYTES])):
                        got += count
                        if stop.is_set():
                            raise ranges.StoppedError
                if got == len(data):
                    return data
                raise RetryableError(f"the connection was cut at byte {start + got} of {self.size}")
            except NETWORK_ERRORS as error:
                retries.failed(RetryableError(cause(error)), start + got, progress=got > before)
            except RangesRefusedError:
                raise RetryableError("the file changed meanwhile") from None
            except RetryableError as error:
                retries.failed(error, start + got, progress=got > before)


class RangesRefusedError(Exception):
    """The server answered a range with the whole file: it is another one now."""


def _place(response: Response) -> tuple[int, int, int | None]:
    """(first byte, last byte, size) of a 206 answer; (-1, -1, None) where it does not say."""
    place = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    if not place:
        return -1, -1, None
    return int(place[1]), int(place[2]), None if place[3] == "*" else int(place[3])
