"""hf: a repository of the Hugging Face Hub, or of a mirror of it, by its public HTTP interface.

The revision is resolved to a commit once, and every file is read at that commit. A file in Git LFS has its sha256 in the listing.
"""

import re
from typing import Any
from urllib.parse import quote

from slipway_server.sources import MAX_FILES, Listing
from slipway_server.sources.credentials import Credentials, bearer
from slipway_server.sources.http import HttpFile
from slipway_server.sources.network import Network
from slipway_server.sources.uri import ModelURI
from slipway_server.sources.web import Web
from slipway_server.termination import Reason, TerminalError

ENDPOINT = "https://huggingface.co"
TOKEN = "HF_TOKEN"  # noqa: S105 - the key's name


def list_files(
    uri: ModelURI, credentials: Credentials, network: Network, timeout_seconds: float, endpoint: str | None
) -> Listing:
    """One file of a repository, all below a folder of it, or all of it.

    Raises TerminalError: ModelNotFound, ModelUnreadable, AddressRefused or DownloadFailed.
    """
    base = endpoint or ENDPOINT
    token = credentials.get(TOKEN)
    web = Web(uri.label, network, timeout_seconds, base, bearer(TOKEN, token) if token else None)
    repository = quote(uri.authority)
    revision = quote(uri.reference, safe="")
    answer = web.json(f"{base}/api/models/{repository}/revision/{revision}?blobs=true")
    commit, siblings = _parsed(answer, uri)
    if uri.pinned and commit != uri.pinned:
        raise TerminalError(
            Reason.DIGEST_MISMATCH, f"{uri.label}: the hub answers commit {commit}: name a commit of this repository"
        )
    exact = [file for file in siblings if file["rfilename"] == uri.path]
    prefix = uri.path if uri.folder else f"{uri.path}/"
    below = exact or [file for file in siblings if file["rfilename"].startswith(prefix)]
    if not below:
        names = ", ".join(sorted(file["rfilename"] for file in siblings)[:8])
        raise TerminalError(Reason.MODEL_NOT_FOUND, f"{uri.label}: the repository has no {uri.path or 'files'}; it has {names}")
    if len(below) > MAX_FILES:
        raise TerminalError(Reason.ARCHIVE_REFUSED, f"{uri.label} holds more than {MAX_FILES} files: name a folder of it")
    files: list[HttpFile] = []
    for file in sorted(below, key=lambda file: file["rfilename"]):
        path: str = file["rfilename"]
        url = f"{base}/{repository}/resolve/{commit}/{quote(path)}"
        inner = path.rsplit("/", 1)[-1] if exact else path[len(prefix) :]
        label = uri.label if exact else f"{uri.label}: {path}"
        files.append(HttpFile(web, url, label, inner, _size(file), _sha256(file)))
    return Listing(files, tree=not exact, revision=f"revision {commit}")


def _parsed(answer: Any, uri: ModelURI) -> tuple[str, list[dict[str, Any]]]:
    """The commit and the files of the hub's answer, whose shape is checked as far as it is used."""
    commit = answer.get("sha") if isinstance(answer, dict) else None
    siblings = answer.get("siblings") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{40}", commit) or not isinstance(siblings, list):
        raise _strange(uri)
    for file in siblings:
        if not isinstance(file, dict) or not isinstance(file.get("rfilename"), str):
            raise _strange(uri)
    return commit, siblings


def _strange(uri: ModelURI) -> TerminalError:
    return TerminalError(
        Reason.DOWNLOAD_FAILED, f"{uri.label}: the endpoint does not answer as a Hugging Face Hub does: check the endpoint"
    )


def _size(file: dict[str, Any]) -> int | None:
    size = file.get("size")
    return size if isinstance(size, int) and size >= 0 else None


def _sha256(file: dict[str, Any]) -> str | None:
    lfs = file.get("lfs")
    digest = (lfs.get("sha256") or lfs.get("oid")) if isinstance(lfs, dict) else None
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None
