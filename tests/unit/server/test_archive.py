"""Archives: what good ones give, and how bad ones are refused: nothing outside the folder, no link, no bomb, no hang."""

import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway_server import archive, tree
from slipway_server.termination import TerminalError
from slipway_server.tree import Tree, digest, digest_of

LIMIT = 1 << 20


def unpacked(data: bytes, suffix: str, max_bytes: int | None = LIMIT) -> dict[str, bytes]:
    """The files that come of an archive, by path; whatever happens, nothing may lie beside the folder or be a link."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "archive").write_bytes(data)
        root = top / "outer" / "root"
        root.mkdir(parents=True)
        try:
            archive.unpack(top / "archive", Tree(root, "file:///x"), max_bytes, suffix)
        finally:
            assert sorted(each.name for each in top.iterdir()) == ["archive", "outer"]
            assert [each.name for each in (top / "outer").iterdir()] == ["root"]
            entries = list(root.rglob("*"))
            assert all(not each.is_symlink() and (each.is_dir() or each.is_file()) for each in entries)
            assert all(each.is_dir() or each.stat().st_nlink == 1 for each in entries)
        assert all(each.stat().st_mode & 0o7777 == (0o755 if each.is_dir() else 0o644) for each in entries)
        return {each.relative_to(root).as_posix(): each.read_bytes() for each in entries if each.is_file()}


# --- makers -----------------------------------------------------------------------------------------------------------


def header(name: str | bytes, content: bytes = b"", kind: bytes = b"0", **fields: object) -> bytes:
    """A ustar entry; `size`, `link`, `mode`, `checksum` and `prefix` take another value than the right one."""
    name = name.encode() if isinstance(name, str) else name
    size = fields.get("size", len(content))
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % int(str(fields.get("mode", 0o644)))
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % int(str(size))
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    link = str(fields.get("link", "")).encode()
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    prefix = str(fields.get("prefix", "")).encode()
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % int(str(fields.get("checksum", sum(block))))
    return bytes(block) + content + bytes(-len(content) % 512)


END = bytes(1024)


def tar(*entries: bytes) -> bytes:
    return b"".join(entries) + END


def pax(**records: str) -> bytes:
    body = b""
    for key, value in records.items():
        rest = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        body += str(length).encode() + rest
    return header("pax", body, b"x")


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in entries:
            made.writestr(name, content, method)
    return buffer.getvalue()


def info(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new)


def at(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Changes bytes behind the last place of a zip's signature."""
    place = data.rindex(signature) + offset
    return data[:place] + value + data[place + len(value) :]


# --- good -------------------------------------------------------------------------------------------------------------

FILES = {"model.onnx": b"x" * 1000, "a/b/weights.bin": bytes(range(256)) * 5, "a/empty": b"", "ü/" + "n" * 90: b"y" * 512}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ""])
def test_tar(form: int, suffix: str, tmp_path: Path) -> None:
    for path, content in FILES.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if "gz" in suffix else "w", format=form) as made:
        made.add(tmp_path / "in", arcname=".")
    assert unpacked(buffer.getvalue(), suffix) == FILES


def test_zip() -> None:
    assert unpacked(zipped(("a/", b""), *FILES.items()), ".zip") == FILES
    assert unpacked(zipped(*FILES.items(), method=zipfile.ZIP_STORED), ".zip") == FILES


def test_gzip_members() -> None:
    data = tar(header("a", b"1" * 600), header("b", b"2"))
    assert unpacked(gzip.compress(data[:700]) + gzip.compress(data[700:]), ".tgz") == {"a": b"1" * 600, "b": b"2"}


def test_odd_but_good() -> None:
    assert unpacked(tar(header("./a", b"1"), header("d/", b"", b"5"), header("d/b", b"2", b"\0")), ".tar") == {
        "a": b"1",
        "d/b": b"2",
    }
    assert unpacked(tar(header("d/b", b"2"), header("d", b"", b"5")), ".tar") == {"d/b": b"2"}
    assert unpacked(tar(header("b", b"2", prefix="a/c")), ".tar") == {"a/c/b": b"2"}
    assert unpacked(tar(header("a", b"1", size=b"\x80" + bytes(10) + b"\x01")), ".tar") == {"a": b"1"}
    assert unpacked(tar(header("g", b"20 comment=aaaaaaaaa\n", b"g"), header("a", b"1")), ".tar") == {"a": b"1"}
    assert unpacked(tar(header("setuid", b"1", mode=0o4777)), ".tar") == {"setuid": b"1"}


@given(
    st.dictionaries(
        st.lists(
            st.text("abcXYZ0é_- .", min_size=1, max_size=60).filter(lambda name: name.strip(". ")), min_size=1, max_size=4
        ).map("/".join),
        st.binary(max_size=2000),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, None]),
)
def test_what_is_packed_is_unpacked(files: dict[str, bytes], form: int | None) -> None:
    folded = [path.casefold() for path in files]
    if any(one != other and (other + "/").startswith(one + "/") for one in folded for other in folded) or len(set(folded)) < len(
        folded
    ):
        return  # a file that is a folder too, or the same in another case
    if any(part in (".", "..") for path in files for part in path.split("/")):
        return
    parents = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    if len({parent.casefold() for parent in parents}) < len(parents):
        return
    if form is None:
        assert unpacked(zipped(*files.items()), ".zip") == files
        return
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                made.addfile(entry, io.BytesIO(content))
    except ValueError:
        return  # a name that ustar cannot hold
    assert unpacked(buffer.getvalue(), ".tar") == files


# --- bad --------------------------------------------------------------------------------------------------------------

TAR = tar(header("a", b"1" * 600), header("b", b"2"))
ZIP = zipped((info("a"), b"1" * 600), (info("b"), b"2"))  # of one time: the clock would write letters into it
CD, EOCD, LOCAL = b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"
BOMB = 8 << 20

BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    # what: (suffix, maker, words of the message)
    "tar: parent": (".tar", lambda: tar(header("../a", b"1")), "'..'"),
    "tar: parent inside": (".tar", lambda: tar(header("a/../../b", b"1")), "'..'"),
    "tar: parent at the end": (".tar", lambda: tar(header("a/..", b"1")), "'..'"),
    "tar: only parent": (".tar", lambda: tar(header("..", b"", b"5")), "'..'"),
    "tar: dot inside": (".tar", lambda: tar(header("a/./b", b"1")), "'.'"),
    "tar: empty part": (".tar", lambda: tar(header("a//b", b"1")), "empty"),
    "tar: absolute": (".tar", lambda: tar(header("/etc/passwd", b"1")), "absolute"),
    "tar: absolute after a dot": (".tar", lambda: tar(header(".//etc/passwd", b"1")), "absolute|empty"),
    "tar: absolute folder": (".tar", lambda: tar(header("/var/x/", b"", b"5")), "absolute"),
    "tar: absolute by prefix": (".tar", lambda: tar(header("passwd", b"1", prefix="/etc")), "absolute"),
    "tar: parent by prefix": (".tar", lambda: tar(header("b", b"1", prefix="..")), "'..'"),
    "tar: parent by pax": (".tar", lambda: tar(pax(path="../b"), header("a", b"1")), "'..'"),
    "tar: parent by a long name": (".tar", lambda: tar(header("long", b"../b\0", b"L"), header("a", b"1")), "'..'"),
    "tar: backslash": (".tar", lambda: tar(header("..\\a", b"1")), "backslash"),
    "tar: no name": (".tar", lambda: tar(header("", b"1")), "empty"),
    "tar: control character": (".tar", lambda: tar(header("a\nb", b"1")), "printable"),
    "tar: escape sequence": (".tar", lambda: tar(header("a\x1b[2J", b"1")), "printable"),
    "tar: right-to-left": (".tar", lambda: tar(header("a\u202eb", b"1")), "printable"),
    "tar: NUL by pax": (".tar", lambda: tar(pax(path="a\0b"), header("a", b"1")), "NUL"),
    "tar: not UTF-8": (".tar", lambda: tar(header(b"\xff\xfe", b"1")), "UTF-8"),
    "tar: name too long": (".tar", lambda: tar(pax(path="n" * 256), header("a", b"1")), "longer"),
    "tar: path too long": (".tar", lambda: tar(pax(path="nnnnnnnnn/" * 25 + "x/" + "m" * 900), header("a", b"1")), "longer"),
    "tar: too deep": (".tar", lambda: tar(pax(path="d/" * 40 + "x"), header("a", b"1")), "longer|deep"),
    "tar: symbolic link": (".tar", lambda: tar(header("a", b"", b"2", link="/etc/passwd")), "symbolic link"),
    "tar: symbolic link inside": (".tar", lambda: tar(header("b", b"1"), header("a", b"", b"2", link="b")), "symbolic link"),
    "tar: link, then through it": (
        ".tar", lambda: tar(header("a", b"", b"2", link="/var"), header("a/b", b"1")), "symbolic link"
    ),
    "tar: hard link": (".tar", lambda: tar(header("b", b"1"), header("a", b"", b"1", link="b")), "hard link"),
    "tar: hard link to the outside": (".tar", lambda: tar(header("a", b"", b"1", link="../../etc/passwd")), "hard link"),
    "tar: character device": (".tar", lambda: tar(header("a", b"", b"3")), "device"),
    "tar: block device": (".tar", lambda: tar(header("a", b"", b"4")), "device"),
    "tar: pipe": (".tar", lambda: tar(header("a", b"", b"6")), "pipe"),
    "tar: sparse": (".tar", lambda: tar(header("a", b"1", b"S")), "sparse"),
    "tar: sparse by pax": (".tar", lambda: tar(pax(GNU__sparse__major="1"), header("a", b"1")), "sparse"),
    "tar: long link": (".tar", lambda: tar(header("a", b"x\0", b"K")), "long name"),
    "tar: volume": (".tar", lambda: tar(header("a", b"", b"V")), "unknown"),
    "tar: folder with content": (".tar", lambda: tar(header("a/", b"1", b"5")), "folder with content"),
    "tar: twice": (".tar", lambda: tar(header("a", b"1"), header("a", b"2")), "one place"),
    "tar: twice by dot": (".tar", lambda: tar(header("a", b"1"), header("./a", b"2")), "one place"),
    "tar: twice by case": (".tar", lambda: tar(header("a", b"1"), header("A", b"2")), "one place"),
    "tar: twice by case of a folder": (".tar", lambda: tar(header("d/a", b"1"), header("D/b", b"2")), "one place"),
    "tar: twice by Unicode form": (".tar", lambda: tar(header("\u00e9", b"1"), header("e\u0301", b"2")), "one place"),
    "tar: file over folder": (".tar", lambda: tar(header("a/b", b"1"), header("a", b"2")), "one place"),
    "tar: folder over file": (".tar", lambda: tar(header("a", b"1"), header("a/b", b"2")), "one place"),
    "tar: folder entry over file": (".tar", lambda: tar(header("a", b"1"), header("a", b"", b"5")), "one place"),
    "tar: empty": (".tar", lambda: END, "empty"),
    "tar: nothing at all": (".tar", lambda: b"", "cut"),
    "tar: cut in a header": (".tar", lambda: TAR[:300], "cut"),
    "tar: cut in a file": (".tar", lambda: TAR[:700], "cut"),
    "tar: cut between entries": (".tar", lambda: TAR[: 512 * 3], "cut"),
    "tar: cut before its end": (".tar", lambda: TAR[:-1024], "cut"),
    "tar: cut after a name": (".tar", lambda: tar(pax(path="x")), "cut"),
    "tar: wrong checksum": (".tar", lambda: tar(header("a", b"1", checksum=1)), "checksum"),
    "tar: garbage after an entry": (".tar", lambda: header("a", b"1") + b"g" * 512 + END, "checksum|number"),
    "tar: garbage after its end": (".tar", lambda: TAR + b"g" * 512, "after its end"),
    "tar: no tar": (".tar", lambda: b"not a tar archive" * 100, "no tar archive"),
    "tar: size no number": (".tar", lambda: tar(header("a", b"1", size=b"zzzzzzzzzzz\0")), "no number"),
    "tar: size negative": (".tar", lambda: tar(header("a", b"1", size=b"\xff" * 12)), "no number"),
    "tar: size beyond the limit": (".tar", lambda: tar(header("a", b"1", size=1 << 30)), "unpacks to more than"),
    "tar: size beyond all": (".tar", lambda: tar(header("a", b"1", size=b"\x80" + b"\xff" * 11)), "unpacks to more than"),
    "tar: pax size no number": (".tar", lambda: tar(pax(size="1e3"), header("a", b"1")), "no number"),
    "tar: pax size beyond the limit": (".tar", lambda: tar(pax(size=str(10**17)), header("a", b"1")), "unpacks to more than"),
    "tar: pax header of a gigabyte": (".tar", lambda: tar(header("a", b"", b"x", size=1 << 30)), "header of"),
    "tar: long name of a gigabyte": (".tar", lambda: tar(header("a", b"", b"L", size=1 << 30)), "header of"),
    "tar: pax length wrong": (".tar", lambda: tar(header("p", b"99 path=x\n", b"x"), header("a", b"1")), "pax"),
    "tar: pax length none": (".tar", lambda: tar(header("p", b"path=x\n", b"x"), header("a", b"1")), "pax"),
    "tar: pax length zero": (".tar", lambda: tar(header("p", b"0 path=x\n", b"x"), header("a", b"1")), "pax"),
    "tar: pax without value": (".tar", lambda: tar(header("p", b"7 path\n", b"x"), header("a", b"1")), "pax"),
    "gzip: bomb": (".tgz", lambda: gzip.compress(tar(header("a", bytes(BOMB))), 9), "unpacks to more than"),
    "gzip: bomb behind the end": (".tgz", lambda: gzip.compress(TAR + bytes(BOMB), 9), "unpacks to more than"),
    "gzip: cut": (".tgz", lambda: gzip.compress(TAR)[:-20], "cut|damaged"),
    "gzip: cut in the checksum": (".tgz", lambda: gzip.compress(TAR)[:-3], "cut"),
    "gzip: wrong checksum": (".tgz", lambda: gzip.compress(TAR)[:-8] + b"\0" * 8, "damaged"),
    "gzip: garbage behind": (".tgz", lambda: gzip.compress(TAR) + b"garbage", "damaged"),
    "gzip: another content": (".tgz", lambda: gzip.compress(b"hello"), "cut"),
    "gzip: is none": (".tar.gz", lambda: TAR, "no gzip"),
    "gzip: called tar": (".tar", lambda: gzip.compress(TAR), "compressed by gzip"),
    "zip: parent": (".zip", lambda: zipped((info("../a"), b"1")), "'..'"),
    "zip: parent inside": (".zip", lambda: zipped((info("a/../../b"), b"1")), "'..'"),
    "zip: absolute": (".zip", lambda: zipped((info("/etc/passwd"), b"1")), "absolute"),
    "zip: backslash": (".zip", lambda: zipped((info("..\\a"), b"1")), "backslash"),
    "zip: NUL": (".zip", lambda: zipped((info("a\0b"), b"1")), "printable|damaged"),
    "zip: control character": (".zip", lambda: zipped((info("a\rb"), b"1")), "printable"),
    "zip: empty part": (".zip", lambda: zipped((info("a//b"), b"1")), "empty"),
    "zip: no name": (".zip", lambda: zipped((info(""), b"1")), "empty|damaged"),
    "zip: name too long": (".zip", lambda: zipped((info("n" * 300), b"1")), "longer"),
    "zip: symbolic link": (".zip", lambda: zipped((info("a", 0o120777), b"/etc/passwd")), "link"),
    "zip: device": (".zip", lambda: zipped((info("a", 0o060666), b"")), "special"),
    "zip: pipe": (".zip", lambda: zipped((info("a", 0o010666), b"")), "special"),
    "zip: link as a folder": (".zip", lambda: zipped((info("a/", 0o120777), b"")), "link"),
    "zip: folder with content": (".zip", lambda: zipped((info("a/", 0o040755), b"1")), "folder with content"),
    "zip: twice": (".zip", lambda: changed(ZIP, b"b", b"a"), "one place"),
    "zip: twice by case": (".zip", lambda: zipped(("a", b"1"), ("A", b"2")), "one place"),
    "zip: file over folder": (".zip", lambda: zipped(("a/b", b"1"), ("a", b"2")), "one place"),
    "zip: folder over file": (".zip", lambda: zipped(("a", b"1"), ("a/", b"")), "one place"),
    "zip: encrypted": (".zip", lambda: at(ZIP, CD, 8, b"\x01\0"), "encrypted"),
    "zip: bzip2": (".zip", lambda: zipped(("a", b"1" * 99), method=zipfile.ZIP_BZIP2), "method 12"),
    "zip: lzma": (".zip", lambda: zipped(("a", b"1" * 99), method=zipfile.ZIP_LZMA), "method 14"),
    "zip: unknown method": (".zip", lambda: at(ZIP, CD, 10, b"\x63\0"), "method 99"),
    "zip: wrong checksum": (".zip", lambda: at(ZIP, CD, 16, b"\0\0\0\0"), "damaged"),
    "zip: says less than it holds": (".zip", lambda: at(zipped(("a", b"1" * 600)), CD, 24, struct.pack("<I", 10)), "damaged"),
    "zip: says more than it holds": (".zip", lambda: at(zipped(("a", b"1" * 600)), CD, 24, struct.pack("<I", 1000)), "damaged"),
    "zip: bomb": (".zip", lambda: zipped(("a", bytes(BOMB))), "unpacks to more than"),
    "zip: empty": (".zip", lambda: zipped(), "empty"),
    "zip: nothing at all": (".zip", lambda: b"", "no zip"),
    "zip: cut": (".zip", lambda: ZIP[:-30], "no zip"),
    "zip: without its head": (".zip", lambda: ZIP[20:], "damaged"),
    "zip: no zip": (".zip", lambda: b"not a zip" * 100, "no zip"),
    "zip: tar": (".zip", lambda: TAR, "no zip"),
    "zip: place outside": (".zip", lambda: at(ZIP, CD, 42, b"\xff\xff\xff\x7f"), "damaged"),
    "zip: other name inside": (".zip", lambda: ZIP.replace(b"b", b"c", 1), "damaged"),
    "zip: directory of a gigabyte": (".zip", lambda: at(ZIP, EOCD, 12, struct.pack("<I", 1 << 30)), "damaged|directory"),
    "zip: directory elsewhere": (".zip", lambda: at(ZIP, EOCD, 16, b"\xff\xff\xff\x0f"), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_archives(name: str) -> None:
    suffix, make, words = BAD[name]
    with pytest.raises(TerminalError, match=words) as caught:
        unpacked(make(), suffix)
    assert caught.value.reason == ("ModelTooLarge" if "unpacks to" in words else "ArchiveRefused")
    assert caught.value.line().isprintable()


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".tar", tar(*[header(f"d{number}/", b"", b"5") for number in range(101)])),
        (".tar", tar(*[pax(path=f"{number}/" + "d/" * 25 + "x") + header("a") for number in range(4)])),
        (".zip", zipped(*[(f"f{number}", b"") for number in range(101)])),
    ],
)
def test_too_many(monkeypatch: pytest.MonkeyPatch, suffix: str, data: bytes) -> None:
    monkeypatch.setattr(tree, "MAX_FILES", 100)
    with pytest.raises(TerminalError, match="more than 100 files and folders"):
        unpacked(data, suffix)


def test_the_table_is_long() -> None:
    assert len(BAD) >= 60


def test_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "RATIO_FLOOR_BYTES", 1 << 20)
    bomb = gzip.compress(tar(header("a", bytes(4 << 20))), 9)
    with pytest.raises(TerminalError, match="200 times its own size") as caught:
        unpacked(bomb, ".tgz", None)
    assert caught.value.reason == "ArchiveRefused"
    assert unpacked(tar(header("a", bytes(4 << 20))), ".tar", None) == {"a": bytes(4 << 20)}


@given(st.sampled_from([(".tar", TAR), (".zip", ZIP), ("", gzip.compress(TAR, mtime=0))]), st.data())
def test_mutated_archives(archive_of: tuple[str, bytes], data: st.DataObject) -> None:
    suffix, good = archive_of
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(bad) - 1))
        bad[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        if not bad:
            break
    try:
        unpacked(bytes(bad), suffix)
    except TerminalError as error:
        assert error.reason in ("ArchiveRefused", "ModelTooLarge")


@given(st.binary(max_size=600), st.sampled_from([".tar", ".tgz", ".zip", ""]))
def test_any_bytes(data: bytes, suffix: str) -> None:
    with pytest.raises(TerminalError):
        unpacked(data, suffix)


@pytest.mark.parametrize("name", ["m.tar.zst", "m.tar.xz", "m.TBZ2", "m.7z", "m.rar"])
def test_other_archives(name: str) -> None:
    with pytest.raises(TerminalError, match=r"use one of \.tar, \.tar\.gz, \.tgz, \.zip"):
        archive.suffix_of(name)


def test_suffixes() -> None:
    assert [archive.suffix_of(name) for name in ("a.TAR.gz", "a.tgz", "a.tar", "a.zip", "a.onnx", "tar", "zip")] == [
        ".tar.gz", ".tgz", ".tar", ".zip", "", "", ""
    ]  # fmt: skip


def test_digest_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"2")
    (tmp_path / "b-a").write_bytes(b"1")
    # (printf '%s  b-a\n%s  b/c\n' $(printf 1 | sha256sum | cut -c-64) $(printf 2 | sha256sum | cut -c-64)) | sha256sum
    one, two = (
        "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35",
    )
    assert digest_of(tmp_path) == (digest([("b/c", two), ("b-a", one)]), 2)
    assert digest_of(tmp_path)[0] == EXPECTED_DIGEST


EXPECTED_DIGEST = "bcaa7ee07181e3562b6fafbe0d861fd1b35aab451a9a01f237542d21473dab5a"
