"""HPACK: the examples of RFC 7541, laws of decoding, and blocks that nobody should send."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slipway_server.wire import huffman
from slipway_server.wire.hpack import TABLE_BYTES, Decoder, Field, HpackError, encode

BIG = 1 << 30

# --- RFC 7541, appendix C: (blocks of one connection, the fields of each, the bytes of the dynamic table after each) --------

REQUESTS: list[list[Field]] = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
_DATES = (b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT")
_LOCATION = (b"location", b"https://www.example.com")
RESPONSES: list[list[Field]] = [
    [(b":status", b"302"), (b"cache-control", b"private"), (b"date", _DATES[0]), _LOCATION],
    [(b":status", b"307"), (b"cache-control", b"private"), (b"date", _DATES[0]), _LOCATION],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", _DATES[1]),
        _LOCATION,
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]
EXAMPLES = {
    "C.3, requests": (
        REQUESTS,
        (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
    ),
    "C.4, requests in Huffman code": (
        REQUESTS,
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ),
    "C.5, responses with evictions": (
        RESPONSES,
        (
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
            "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a6970"
            "7738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b"
            "2076657273696f6e3d31",
        ),
    ),
    "C.6, responses with evictions in Huffman code": (
        RESPONSES,
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
            "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_rfc(name: str) -> None:
    lists, blocks = EXAMPLES[name]
    decoder = Decoder()
    if "responses" in name:  # with a table of 256 bytes
        assert decoder.decode(b"\x3f\xe1\x01", BIG, 100) == []
    for fields, block in zip(lists, blocks, strict=True):
        assert decoder.decode(bytes.fromhex(block), BIG, 100) == fields


def test_single_fields() -> None:  # C.2
    decoder = Decoder()
    assert decoder.decode(bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572"), BIG, 9) == [
        (b"custom-key", b"custom-header")
    ]
    assert decoder.table[62] == (b"custom-key", b"custom-header")
    assert decoder.decode(bytes.fromhex("040c2f73616d706c652f70617468"), BIG, 9) == [(b":path", b"/sample/path")]
    assert decoder.decode(bytes.fromhex("100870617373776f726406736563726574"), BIG, 9) == [(b"password", b"secret")]
    assert decoder.decode(b"\x82", BIG, 9) == [(b":method", b"GET")]
    assert len(decoder.table) == 63


# --- an encoder that uses all of the format, to check the decoder with ------------------------------------------------------


def _integer(flags: int, prefix_bits: int, value: int) -> bytes:
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([flags | value])
    out = bytearray([flags | most])
    value -= most
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def _huffman_codes() -> dict[int, str]:
    codes, code, bits = {}, 0, 0
    for symbol in sorted(range(257), key=lambda symbol: (huffman._LENGTHS[symbol], symbol)):
        code <<= huffman._LENGTHS[symbol] - bits
        bits = huffman._LENGTHS[symbol]
        codes[symbol] = f"{code:0{bits}b}"
        code += 1
    return codes


CODES = _huffman_codes()


def _huffman(text: bytes) -> bytes:
    bits = "".join(CODES[byte] for byte in text)
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def _string(text: bytes, coded: bool) -> bytes:
    return _integer(0x80, 7, len(_huffman(text))) + _huffman(text) if coded else _integer(0, 7, len(text)) + text


class Encoder:
    """Picks its forms by a random generator, and keeps a dynamic table as section 4 says, oldest field first."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - chooses among equal forms
        self.static = list(Decoder().table)
        self.dynamic: list[Field] = []
        self.limit = TABLE_BYTES

    def block(self, fields: list[Field]) -> bytes:
        out = b""
        if self.random.random() < 0.2:
            self.limit = self.random.choice((0, 60, 200, TABLE_BYTES))
            out += _integer(0x20, 5, self.limit)
            self._evict()
        return out + b"".join(self._field(field) for field in fields)

    def _field(self, field: Field) -> bytes:
        table = [*self.static, *reversed(self.dynamic)]
        if field in table[1:] and self.random.random() < 0.8:
            return _integer(0x80, 7, table.index(field, 1))
        flags, bits = self.random.choice(((0x40, 6), (0x00, 4), (0x10, 4)))
        names = [name for name, _ in table]
        if field[0] in names[1:] and self.random.random() < 0.8:
            head = _integer(flags, bits, names.index(field[0], 1))
        else:
            head = bytes([flags]) + _string(field[0], self.random.random() < 0.5)
        if flags == 0x40:
            self.dynamic.append(field)
            self._evict()
        return head + _string(field[1], self.random.random() < 0.5)

    def _evict(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self.dynamic) > self.limit:
            del self.dynamic[0]


names = st.sampled_from([b"", b":path", b"content-type", b"te", b"x-request-id", b"a" * 130]) | st.binary(max_size=40)
field_lists = st.lists(st.tuples(names, st.binary(max_size=200) | st.sampled_from([b"trailers", b"/"])), max_size=12)


@given(st.lists(field_lists, max_size=6), st.integers(0, 1000))
def test_what_any_encoder_writes_is_read(lists: list[list[Field]], seed: int) -> None:
    encoder, decoder = Encoder(seed), Decoder()
    for fields in lists:
        assert decoder.decode(encoder.block(fields), BIG, 100) == fields
        assert decoder.table[62:] == encoder.dynamic[::-1]


@given(field_lists)
def test_our_blocks_are_read_whatever_the_table_holds(fields: list[Field]) -> None:
    decoder = Decoder()
    decoder.decode(Encoder(1).block([(b"x", b"y")] * 3), BIG, 100)
    version = decoder.version
    assert decoder.decode(encode(fields), BIG, 100) == fields
    assert decoder.version == version


@given(st.binary(max_size=300))
def test_the_huffman_code_is_read_back(text: bytes) -> None:
    assert huffman.decode(_huffman(text)) == text


@given(st.binary(max_size=60))
def test_huffman_strings_have_one_form(data: bytes) -> None:
    try:
        text = huffman.decode(data)
    except ValueError:
        return
    assert _huffman(text) == data


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([b"\x80"])
@example([b"\x7f\xff\xff\xff\xff\xff"])
@example([b"\x00\x8f\xff\xff\xff\xff"])
def test_any_bytes_are_fields_or_an_hpack_error(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for block in blocks:
        try:
            decoder.decode(block, 1000, 10)
        except HpackError:
            return
        assert sum(len(name) + len(value) + 32 for name, value in decoder.table[62:]) <= TABLE_BYTES


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("80", "index 0"),
        ("be", "beyond the table"),
        ("ff80808001", "beyond the table"),
        ("ff8080808001", "28 bits"),
        ("7fff", "ends within"),
        ("40", "ends within"),
        ("4001", "ends within a string"),
        ("400161", "ends within"),
        ("40016105616263", "ends within a string"),
        ("3fe21f", "a table size of 4097"),
        ("8220", "after a field"),
        ("4181", "ends within a string"),
        ("4084fffffffc0161", "Huffman"),  # EOS
        ("40820fff0161", "Huffman"),  # more than 7 bits of padding
        ("4081000161", "Huffman"),  # padding of zeros
    ],
)
def test_bad_blocks(block: str, message: str) -> None:
    with pytest.raises(HpackError, match=message):
        Decoder().decode(bytes.fromhex(block), BIG, 100)


def test_a_list_too_large_is_not_held_but_still_changes_the_table() -> None:
    decoder = Decoder()
    large = b"\x40\x01a" + _string(b"v" * 1000, coded=False)
    assert decoder.decode(large + b"\xbe" * 10_000 + b"\x40\x01b\x01c", 32_768, 100) is None
    assert decoder.table[62] == (b"b", b"c")
    assert decoder.decode(b"\x82" * 100, 32_768, 100) == [(b":method", b"GET")] * 100
    assert decoder.decode(b"\x82" * 101, 32_768, 100) is None
    assert decoder.decode(b"\xbe", 34, 1) == [(b"b", b"c")]
    assert decoder.decode(b"\xbe", 33, 1) is None


def test_a_field_larger_than_the_table_empties_it() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b", BIG, 9)
    assert decoder.decode(b"\x40\x01a" + _string(b"v" * 5000, coded=False), BIG, 9) == [(b"a", b"v" * 5000)]
    assert len(decoder.table) == 62
