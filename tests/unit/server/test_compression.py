"""Content codings: what comes in is bounded whatever it claims, what goes out is what the caller asked for."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway_server.protocol.compression import MIN_BYTES, compress, decompress
from slipway_server.tensors import RequestError


def bare(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@given(st.binary(max_size=3000), st.binary(max_size=100))
@settings(max_examples=50)
def test_bodies_come_back(data: bytes, more: bytes) -> None:
    assert decompress(gzip.compress(data), b"gzip", 3000) == data
    assert decompress(bytearray(gzip.compress(data)), "X-GZIP", 3000) == data
    assert decompress(zlib.compress(data), b"deflate", 3000) == data
    assert decompress(bare(data), b"deflate", 3000) == data
    assert decompress(gzip.compress(data) + gzip.compress(more), b"gzip", 3100) == data + more
    assert decompress(data, b"identity", 0) == data


@given(st.binary(max_size=200), st.sampled_from([b"gzip", b"deflate"]), st.data())
@settings(max_examples=50)
def test_a_cut_or_changed_body_is_a_mistake(data: bytes, coding: bytes, draw: st.DataObject) -> None:
    body = gzip.compress(data) if coding == b"gzip" else zlib.compress(data)
    cut = body[: draw.draw(st.integers(0, len(body) - 1))]
    for bad in (cut, body + b"x", body + body[:5]):
        with pytest.raises(RequestError) as caught:
            decompress(bad, coding, 1000)
        assert caught.value.status == 400
    at = draw.draw(st.integers(0, len(body) - 1))
    flipped = body[:at] + bytes([body[at] ^ 1 << draw.draw(st.integers(0, 7))]) + body[at + 1 :]
    try:
        decompress(flipped, coding, 1000)
    except RequestError as error:
        assert error.status in (400, 413)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_bomb_stops_at_the_limit(coding: bytes) -> None:
    zeros = bytes(50_000_000)
    bomb = gzip.compress(zeros) if coding == b"gzip" else zlib.compress(zeros)
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="inflates to more than 1000000 bytes") as caught:
            decompress(bomb, coding, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413
    assert len(decompress(bomb, coding, 50_000_000)) == 50_000_000


def test_many_members_share_one_limit() -> None:
    with pytest.raises(RequestError, match="inflates to more than 99"):
        decompress(gzip.compress(b"0123456789") * 10, b"gzip", 99)
    assert len(decompress(gzip.compress(b"0123456789") * 10, b"gzip", 100)) == 100
    with pytest.raises(RequestError, match="more than 16 members"):
        decompress(gzip.compress(b"") * 17, b"gzip", 99)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"", b"gzip, gzip", b"\xff"])
def test_other_codings_are_refused(coding: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decompress(b"x", coding, 10)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None), (b"", None), (b"identity", None), (b"br", None), (b"gzip", b"gzip"), (b"GZip", b"gzip"),
        (b"deflate", b"deflate"), (b"gzip, deflate", b"gzip"), (b"deflate, gzip", b"gzip"), (b"gzip;q=0", None),
        (b"gzip;q=0.5, deflate;q=0.8", b"deflate"), (b"*", b"gzip"), (b"*;q=0", None), (b"gzip;q=0, *", b"deflate"),
        (b"br, gzip ; q=0.1", b"gzip"), (b"gzip;q=x", None), (b"gzip;q=7", None), (b"identity, gzip;q=0.5", None),
        (b"gzip;q=0.5, identity;q=0.5", b"gzip"), (b"\xff\xfe,;;q=,gzip", b"gzip"), (b"gzip;q=nan", None),
    ],
)  # fmt: skip
def test_what_accept_encoding_asks_for(accept: bytes | None, coding: bytes | None) -> None:
    body = b"0.25," * MIN_BYTES
    answer, used = compress(body, accept)
    assert used == coding
    if coding is None:
        assert answer is body
    else:
        assert len(answer) < len(body) / 10
        assert decompress(answer, coding, len(body)) == body


def test_short_bodies_are_left_alone() -> None:
    assert compress(b"x" * (MIN_BYTES - 1), b"gzip") == (b"x" * (MIN_BYTES - 1), None)
