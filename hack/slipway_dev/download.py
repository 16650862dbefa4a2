"""Released binaries, where they can be reached. A host that does not answer is asked once in a run."""

import hashlib
import http.client
import io
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from slipway_dev.catalog import Tool, fill
from slipway_dev.console import CommandError, say
from slipway_dev.paths import architecture

CONNECT_TIMEOUT_SECONDS = 3.0
_unreachable: set[str] = set()


class UnavailableError(Exception):
    """The release cannot be had from here: build it instead."""


def download(tool: Tool, folder: Path) -> None:
    """Put a tool's released binary into a folder, its digest checked against the one published beside it.

    The digests are not pinned in the repository: they prove a whole download, the host's TLS proves where it is from.
    """
    if tool.release is None:
        raise UnavailableError(f"{tool.name} has no release")
    arch = architecture()
    url = fill(tool.release.url, tool, arch)
    checksums = _fetch(fill(tool.release.checksum_url, tool, arch)).decode()
    data = _fetch(url)
    expected = checksum_for(url.rpartition("/")[2], checksums)
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise CommandError(f"{url} has SHA-256 {actual}, the one published beside it is {expected}: try again later")
    if tool.release.member:
        member = fill(tool.release.member, tool, arch)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile(member)
            if file is None:
                raise CommandError(f"{url} holds no file {member}")
            data = file.read()
    target = folder / tool.name
    target.write_bytes(data)
    target.chmod(0o755)
    say(f"downloaded {tool.name} from {url}; its digest agrees with the one published beside it")


def checksum_for(file: str, checksums: str) -> str:
    """Return the digest of a file in a published list ('DIGEST  FILE' lines, or the digest alone)."""
    for line in checksums.splitlines():
        words = line.split()
        if words and (len(words) == 1 or words[-1].lstrip("*").rpartition("/")[2] == file):
            return words[0].lower()
    raise CommandError(f"the published checksums do not name {file}")


def _fetch(url: str) -> bytes:
    host = urllib.parse.urlsplit(url).netloc
    if host in _unreachable:
        raise UnavailableError(host)
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_SECONDS) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise UnavailableError(f"{url}: HTTP status {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        _unreachable.add(host)
        raise UnavailableError(f"{host}: {error}") from error
