"""Model URIs: what each kind of source takes, and a table of what none does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway_server.sources.uri import ModelURI, parse, split_url
from slipway_server.termination import TerminalError

HEX = "0123456789abcdef" * 4

GOOD = {
    "file:///a/b.onnx": ModelURI("file", "", "a/b.onnx"),
    "FILE:///a%20b": ModelURI("file", "", "a%20b"),  # literally
    "pvc://claim/folder/": ModelURI("pvc", "claim", "folder/"),
    "configmap://name/v1.onnx": ModelURI("configmap", "name", "v1.onnx"),
    "http://host": ModelURI("http", "host", "/"),
    "HTTPS://User:pa%2Fss@HOST.example:8443/a/m.onnx?v=1&w=%20": ModelURI(
        "https", "host.example:8443", "/a/m.onnx?v=1&w=%20", "User:pa%2Fss"
    ),
    "http://[2001:DB8::1]:80/x": ModelURI("http", "[2001:db8::1]:80", "/x"),
    "http://192.0.2.1/x": ModelURI("http", "192.0.2.1", "/x"),
    "http://my_service.ns.svc/x": ModelURI("http", "my_service.ns.svc", "/x"),
    "s3://bucket.name/a%20b/%C3%BC.onnx": ModelURI("s3", "bucket.name", "a b/ü.onnx"),
    "s3://bucket/folder/": ModelURI("s3", "bucket", "folder/"),
    "s3://bucket": ModelURI("s3", "bucket", ""),
    "gs://my_bucket/m": ModelURI("gs", "my_bucket", "m"),
    "az://container/a/b": ModelURI("az", "container", "a/b"),
    "hf://owner/repo": ModelURI("hf", "owner/repo", "", reference="main"),
    "hf://Owner/repo.v1/onnx/model.onnx@refs/pr/1": ModelURI("hf", "Owner/repo.v1", "onnx/model.onnx", reference="refs/pr/1"),
    "hf://owner/repo@v1.0": ModelURI("hf", "owner/repo", "", reference="v1.0"),
    "oci://registry.example:5000/a/b_c": ModelURI("oci", "registry.example:5000", "a/b_c", reference="latest"),
    "oci://registry/a:v1": ModelURI("oci", "registry", "a", reference="v1"),
    f"oci://registry/a:v1@sha256:{HEX}": ModelURI("oci", "registry", "a", reference=f"sha256:{HEX}"),
}


@pytest.mark.parametrize("text", GOOD)
def test_good_uris(text: str) -> None:
    assert parse(text) == GOOD[text]


# fmt: off
BAD = [
    # no URI, no scheme, another scheme
    "", " ", "model.onnx", "/mnt/model.onnx", "//host/x", "://host/x", "file", "file:", "http", "s3:", "ftp://host/x",
    "s4://bucket/key",
    "javascript://x", "data:,x", "gopher://host/x", "s3a://bucket/x", "azure://c/x", "http+unix://x/y", "ssh://host/x",
    "git://host/x",
    "file:///" + "a" * 2100, "http://host/" + "a" * 2100,
    # characters
    "file:///a\nb", "file:///a b", "file:///\u00e9", "http://host/a b", "http://host/\x00", "http://host/a\tb",
    "http://h\u00f6st/x",
    "http://host\u3002example/x", "http://\uff11\uff12\uff17.0.0.1/x", "s3://bucket/\u202ekey", "http://host/x\r\nHost: y",
    "http://host/\x7f",
    "http://host/<x>", "http://host/a\\b", "http://host\\@other/x", "http://host/a|b", "http://host/a^b", "http://host/%",
    "http://host/%zz",
    "http://host/x?%g0", "http://host/`x`", "http://host/{x}", 'http://host/"x"',
    # files and volumes
    "file:/x", "file://x", "file:///", "file://host/x", "file:////x", "file:///a/./b", "file:///a//b", "file:///a/..",
    "file:///..",
    "file:///a/../b", "file:///a/..//", "file:///a//", "file:///a\\b", "file:///a?x", "file:///a#x", "file://localhost/x",
    "pvc://", "pvc://claim", "pvc://claim/", "pvc:///x", "pvc://user@claim/x", "pvc://claim:80/x", "pvc://claim/x?y",
    "pvc://claim/x#y", "pvc://claim/..", "pvc://claim/a/../b", "pvc://claim//x", "pvc://claim/../",
    "configmap://", "configmap://name", "configmap:///key", "configmap://name/a/b", "configmap://name/%2e%2e",
    "configmap://name/a\tb",
    "configmap://name/..", "configmap://name/key/", "configmap://name/a@b",
    # hosts
    "http://", "http:///x", "https://user@/x", "http://host:port/x", "http://host:99999/x", "http://[::1/x", "http://host:/x",
    "http://host:0/x",
    "http://host:-1/x", "http://:80/x", "http://@/x", "http://host./x", "http://127.0.0.1./x", "http://.host/x", "http://a..b/x",
    "http://-host/x", "http://host-/x", "http://" + "a" * 64 + ".b/x", "http://" + "a." * 130 + "b/x", "http://%31%32%37.0.0.1/x",
    "http://%6cocalhost/x", "http://2130706433/x", "http://0x7f000001/x", "http://017700000001/x", "http://0177.0.0.1/x",
    "http://0x7f.1/x",
    "http://127.1/x", "http://127.0.1/x", "http://256.0.0.1/x", "http://1.2.3.4.5/x", "http://127.0.0.01/x", "http://0/x",
    "http://0x/x",
    "http://host.0x1/x", "http://host.1/x", "http://[::ffff:127.0.0.1%25lo]/x", "http://[fe80::1%25eth0]/x",
    "http://[fe80::1%eth0]/x",
    "http://[v1.x]/x", "http://[127.0.0.1]/x", "http://[]/x", "http://[::1]x/x", "http://a[::1]/x", "http://::1/x",
    "http://host]/x",
    "http://user@name@host/x", "http://a@b@c/x", "http://us\"er@host/x", "http://user%zz@host/x", "http://host#@other/x",
    "http://host/x#y",
    "http://ho*st/x", "http://$(id)/x", "http://host;x/y", "http://host,other/x", "http://ho!st/x",
    # object stores
    "s3://", "s3:///key", "s3://b/key", "s3://Bucket/key", "s3://bucket:80/key", "s3://key:secret@bucket/x", "s3://a..b/key",
    "s3://-bucket/key",
    "s3://bucket./key", "s3://bucket_x/key", "s3://bucket/a/../b", "s3://bucket/%2e%2e/b", "s3://bucket//key",
    "s3://bucket/./key",
    "s3://bucket/a//b", "s3://bucket/%00", "s3://bucket/%0a", "s3://bucket/%ff", "s3://bucket/%2", "s3://bucket/%",
    "s3://bucket/k?versionId=1",
    "s3://bucket/k#x", "s3://bucket/a\\b", "s3://bucket/%2Fetc", "s3://bucket//", "s3://" + "b" * 64 + "/key", "s3://../key",
    "s3://%62ucket/key",
    "gs://", "gs://x", "gs://UPPER/key", "gs://bucket/../x", "gs://bucket@x/y", "az://", "az://a_b/x", "az://a.b/x", "az://co/x",
    "az://container/a/%2e%2e/b", "az://account@container/x", "az://container/x?sig=secret",
    # hubs
    "hf://", "hf://repo", "hf://owner/", "hf:///repo", "hf://owner/repo@", "hf://owner/repo@a b", "hf://owner/repo@..",
    "hf://owner/repo@/main",
    "hf://owner/repo@a@b", "hf://owner/repo@main/", "hf://owner/repo/../x@main", "hf://owner/repo//x@main", "hf://own?er/repo",
    "hf://owner/repo?x",
    "hf://owner/re..po", "hf://owner/re--po", "hf://owner/repo/%2e%2e@main", "hf://user:token@owner/repo",
    "hf://owner/repo@a//b", "hf://owner/repo#x",
    # registries
    "oci://", "oci://registry", "oci://registry/", "oci:///a", "oci://registry/A", "oci://registry/a:", "oci://registry/a@",
    "oci://registry/a@sha256:12",
    "oci://registry/a@md5:" + "0" * 32, f"oci://registry/a@sha256:{HEX.upper()}", "oci://registry/a:b:c",
    "oci://registry/a//b", "oci://registry/../a",
    "oci://registry/a/", "oci://user:x@registry/a", "oci://registry:0/a", "oci://registry:x/a", "oci://2130706433/a",
    "oci://registry/a?x", "oci://registry/a#x",
    "oci://registry/a:" + "t" * 129, "oci://registry/" + "a" * 256, "oci://registry/-a", "oci://registry/a___b",
    "oci://registry./a",
]
# fmt: on


def test_the_table_has_no_row_twice() -> None:
    assert len(set(BAD)) == len(BAD) >= 120


@pytest.mark.parametrize("uri", BAD)
def test_bad_uris(uri: str) -> None:
    with pytest.raises(TerminalError, match=r".+: .+") as caught:
        parse(uri)
    assert caught.value.reason == "InvalidURI"
    assert len(caught.value.line()) < 500
    assert caught.value.line().isprintable()


PARTS = st.sampled_from([*"/:@?#%.[]\\-_&= \n", "//", "..", "%2e", "%00", "a", "b1", "127.0.0.1", "é", "sha256:", "main"])
URIS = st.builds(
    lambda scheme, parts: f"{scheme}://{''.join(parts)}",
    st.sampled_from(["file", "pvc", "configmap", "http", "https", "s3", "gs", "az", "hf", "oci", "x"]),
    st.lists(PARTS | st.text(max_size=5), max_size=12),
)


@given(URIS | st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        uri = parse(text)
    except TerminalError as error:
        assert error.reason == "InvalidURI"
        return
    if uri.scheme not in ("http", "https", "oci"):
        assert not {"", ".", ".."} & set(uri.path.removesuffix("/").split("/")) or not uri.path
        assert not uri.path.startswith("/")
    if uri.scheme in ("http", "https", "oci"):
        parts = split_url(f"https://{uri.authority}/")  # what is connected to is what was checked
        assert parts.username is None
        assert parts.hostname
        assert parts.hostname in uri.authority


def test_labels_hide_credentials() -> None:
    uri = parse("https://user:hunter2@host:8443/a/m.onnx?X-Signature=hunter3")
    assert uri.label == "https://host:8443/a/m.onnx"
    assert (uri.name, uri.path) == ("m.onnx", "/a/m.onnx?X-Signature=hunter3")
    assert parse(f"oci://r/a@sha256:{HEX}").label == f"oci://r/a@sha256:{HEX}"
    assert parse("oci://r/a:v1").label == "oci://r/a:v1"
    assert parse("hf://o/r/f.onnx@v1").label == "hf://o/r/f.onnx@v1"


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:hunter2@host:port/x",
        "http://user:hunter2@h@st/x",
        "s3://user:hunter2@b/x",
        "hf://user:hunter2@o/r",
        "oci://user:hunter2@r/a",
    ],
)
def test_refusals_hide_credentials(uri: str) -> None:
    with pytest.raises(TerminalError) as caught:
        parse(uri)
    assert "hunter2" not in caught.value.line()
