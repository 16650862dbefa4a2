"""`fetch`: brings a model into a folder, verified before anything parses it."""

import argparse
import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from slipway_server import archive, formats, logs
from slipway_server.sources import Listing
from slipway_server.sources.uri import SCHEMES, ModelURI, parse
from slipway_server.staging import Staging, Transfer
from slipway_server.termination import Reason, TerminalError, tell
from slipway_server.tree import Tree, digest, digest_of

RECEIPT = "fetched.json"
"""Beside the model: what was fetched, for `serve` to tell in its metrics."""
CUSTOM = "Custom"
"""The format of an image of the user's own, which makes of the files what it will."""


@dataclass(frozen=True)
class Receipt:
    """What was fetched.

    `uri` without credentials; `sha256`, hexadecimal, of the file or archive, or of a folder's `sha256sum` lines (tree.digest);
    `size`, the bytes on disk; `file`, its name in the model folder; `revision`, for hf and oci the commit or manifest digest;
    `tree`, for what was unpacked the digest of the folder.
    """

    uri: str
    sha256: str
    size: int
    file: str
    revision: str = ""
    tree: str = ""


def fetch(options: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises TerminalError."""
    logs.setup()
    started = time.monotonic()
    if options.format != CUSTOM:
        formats.check(options.format)
    uri = parse(options.uri)
    dest: Path = options.dest
    if present := _present(dest, uri, options.sha256):
        _check_format(options)
        logs.info("already there, sha256 verified", file=str(dest / present.file), size=present.size)
        tell(f"Fetched: {present.size} bytes were here already, {_described(present)}")
        return 0
    listing = _list(uri, options)
    logs.info("fetching", uri=uri.label, to=str(dest), files=len(listing.files))
    if not listing.files:
        raise TerminalError(Reason.MODEL_NOT_FOUND, f"{uri.label} holds no files: check the URI")
    transfer = Transfer(uri.label, listing.files, options.max_bytes)
    staging: Staging | None = None
    try:
        dest.mkdir(parents=True, exist_ok=True)
        staging = Staging(dest, options.uri, listing.files)
        receipt = _bring(listing, uri, options, staging, transfer)
        _check_format(options)
    except TerminalError as error:
        with contextlib.suppress(OSError):
            if staging and not (error.reason == Reason.DOWNLOAD_FAILED and staging.resumable()):
                staging.remove()
        raise
    except OSError as error:
        if staging:
            staging.remove()
        raise _storage_failed(dest, error) from None
    seconds = time.monotonic() - started
    logs.info("fetched", file=str(dest / receipt.file), size=receipt.size, sha256=receipt.sha256, seconds=f"{seconds:.2f}")
    tell(f"Fetched: {receipt.size} bytes in {seconds:.1f} s, {_described(receipt)}")
    return 0


def read_receipt(dest: Path) -> Receipt | None:
    """The receipt in a model folder, or None where there is none that can be read."""
    try:
        return Receipt(**json.loads((dest / RECEIPT).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _check_format(options: argparse.Namespace) -> None:
    """Raises TerminalError where `serve` would find no model of the format, or one that is not trusted: now, not in minutes."""
    if options.format != CUSTOM:
        formats.find(options.dest, options.format, options.trust)


def _described(receipt: Receipt) -> str:
    return f"sha256 {receipt.sha256}" + (f", {receipt.revision}" if receipt.revision else "")


def _list(uri: ModelURI, options: argparse.Namespace) -> Listing:
    """The files of the URI. Each source is imported only where it is used: start-up time is latency here."""
    schemes = options.allow_schemes or frozenset(SCHEMES)
    if uri.scheme not in schemes:
        raise TerminalError(
            Reason.ADDRESS_REFUSED,
            f"{uri.label}: {uri.scheme}:// is not allowed in this cluster: use one of {', '.join(sorted(schemes))}",
        )
    if uri.scheme in ("file", "pvc", "configmap"):
        from slipway_server.sources import local

        return local.list_files(uri, options.source_dir)
    from slipway_server.sources.credentials import Credentials
    from slipway_server.sources.network import Network

    credentials = Credentials(options.credentials_dir)
    network = Network(options.allow_networks, credentials.authorities())
    match uri.scheme:
        case "hf":
            from slipway_server.sources import huggingface

            return huggingface.list_files(uri, credentials, network, options.timeout, options.endpoint)
        case "oci":
            from slipway_server.sources import oci

            return oci.list_files(uri, credentials, network, options.timeout, options.endpoint)
        case "s3" | "gs" | "az":
            from slipway_server.sources import objects

            reach = objects.Reach(options.endpoint, options.region, options.path_style, options.timeout)
            return objects.list_files(uri, credentials, network, reach)
        case _:
            from slipway_server.sources import http

            return http.list_files(uri, credentials, network, options.timeout)


def _bring(listing: Listing, uri: ModelURI, options: argparse.Namespace, staging: Staging, transfer: Transfer) -> Receipt:
    """Downloads, verifies, unpacks and puts in place. Raises TerminalError, or the destination's OSError."""
    single = None if listing.tree else listing.files[0]
    suffix = archive.suffix_of(single.path) if single and not single.unpack else ""
    unpacks = bool(suffix) or any(file.unpack for file in listing.files)
    tree = Tree(staging.model, uri.label)
    # Names are looked at before gigabytes are brought.
    places = [tree.claim(file.path) if listing.tree and not file.unpack else None for file in listing.files]
    parts = [staging.download(number, file, transfer) for number, file in enumerate(listing.files)]
    if not any(part.size for part in parts):
        raise TerminalError(Reason.MODEL_NOT_FOUND, f"{uri.label} is empty: 0 bytes")
    sha256 = parts[0].sha256 if len(parts) == 1 and not listing.tree else ""
    if not sha256 and not unpacks:
        sha256 = digest((file.path, part.sha256) for file, part in zip(listing.files, parts, strict=True))
    if sha256:
        _verify(uri, sha256, options.sha256)
    for file, part, place in zip(listing.files, parts, places, strict=True):
        if place is not None:
            part.place.replace(place)
        elif suffix or file.unpack:
            archive.unpack(part.place, tree, options.max_bytes, suffix)
    if single and not unpacks:
        own = PurePosixPath(single.path).suffix.lower()
        name = f"{formats.TREE}{own}" if options.format == CUSTOM else formats.file_name(options.format, own)
        staged, size, tree_digest = parts[0].place, parts[0].size, ""
    else:
        name, staged = formats.TREE, staging.model
        tree_digest, size = digest_of(staged)
        if not sha256:  # several archives, each verified by its own digest: only what became of them has one of its own
            sha256 = tree_digest
            _verify(uri, sha256, options.sha256)
    receipt = Receipt(uri.label, sha256, size, name, listing.revision, tree_digest)
    _install(staged, dest=options.dest, receipt=receipt)
    staging.remove()
    return receipt


def _verify(uri: ModelURI, sha256: str, wanted: str | None) -> None:
    if wanted and sha256 != wanted:
        raise TerminalError(
            Reason.DIGEST_MISMATCH,
            f"{uri.label} has sha256 {sha256}, but {wanted} is asked for: "
            "correct the sha256 if the file is the right one, else restore the file",
        )


def _install(staged: Path, dest: Path, receipt: Receipt) -> None:
    """Puts the model in place by a rename; what an earlier run left is removed first."""
    for old in _models_in(dest):
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    part = dest / f".{RECEIPT}.part"
    part.write_text(json.dumps(asdict(receipt)))
    part.replace(dest / RECEIPT)
    staged.replace(dest / receipt.file)


def _models_in(dest: Path) -> Sequence[Path]:
    return [entry for entry in dest.iterdir() if entry.name == formats.TREE or entry.name.startswith(f"{formats.TREE}.")]


def _present(dest: Path, uri: ModelURI, sha256: str | None) -> Receipt | None:
    """The receipt, if an earlier run of the init container already brought exactly what is asked for."""
    receipt = read_receipt(dest)
    if receipt is None:
        return None
    same = (
        sha256 == receipt.sha256 if sha256 else uri.pinned and uri.label == receipt.uri and receipt.revision.endswith(uri.pinned)
    )
    if not same:
        return None
    try:
        if receipt.file == formats.TREE:
            return receipt if digest_of(dest / formats.TREE)[0] == receipt.tree else None
        with (dest / PurePosixPath(receipt.file).name).open("rb") as opened:
            return receipt if hashlib.file_digest(opened, "sha256").hexdigest() == receipt.sha256 else None
    except OSError:
        return None


def _storage_failed(dest: Path, error: OSError) -> TerminalError:
    cure = {
        errno.ENOSPC: "give the model volume a larger size limit",
        errno.EDQUOT: "give the model volume a larger size limit",
        errno.EFBIG: "give the model volume a larger size limit",
        errno.EROFS: "mount it writable in the init container",
        errno.EACCES: f"make it writable for user {os.getuid()}",
        errno.EPERM: f"make it writable for user {os.getuid()}",
    }.get(error.errno or 0, "check the volume")
    return TerminalError(Reason.STORAGE_FAILED, f"{dest} cannot be written ({error.strerror or error}): {cure}")
