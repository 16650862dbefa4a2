"""The Huffman code of HPACK strings (RFC 7541, section 5.2 and appendix B), decoded a byte at a time.

A row is the decoder's state between two bytes: what the bits left over from the last byte are the beginning of. It says
for each next byte which symbols that completes and which row comes after. Rows are made when first needed: real strings
reach a few dozen of the 256 there are, and all of them would cost every start of the server 0.1 s.
"""

from typing import Any, cast

_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
"""Bits of the code of each of the 256 bytes and of EOS. The code is canonical, so its lengths are all of it."""
_EOS = 256
_Node = list[Any]  # [node or symbol for 0, for 1]
_Row = list[Any]  # for each byte (next row, symbols; None: not a string), and whether a string may end here; empty: not made


class _Code:
    """The code as a tree, and the rows made of it so far."""

    def __init__(self) -> None:
        self._tree: _Node = [None, None]
        code, bits = 0, 0
        for symbol in sorted(range(257), key=lambda symbol: (_LENGTHS[symbol], symbol)):
            code <<= _LENGTHS[symbol] - bits
            bits = _LENGTHS[symbol]
            node = self._tree
            for shift in range(bits - 1, 0, -1):
                side = code >> shift & 1
                if node[side] is None:
                    node[side] = [None, None]
                node = node[side]
            node[code & 1] = symbol
            code += 1
        # What may be left over at a string's end: nothing, or up to 7 bits of EOS's code, which is all ones.
        self._endings: set[int] = set()
        node = self._tree
        for _ in range(8):
            self._endings.add(id(node))
            node = node[1]
        self.first: _Row = []
        self._rows: dict[int, tuple[_Row, _Node]] = {id(self._tree): (self.first, self._tree)}
        self._nodes: dict[int, _Node] = {id(self.first): self._tree}

    def make(self, row: _Row) -> None:
        """Fills a row."""
        start = self._nodes[id(row)]
        for byte in range(256):
            node = start
            symbols: bytes | None = b""
            for shift in range(7, -1, -1):
                following = node[byte >> shift & 1]
                if isinstance(following, int):
                    symbols = None if following == _EOS or symbols is None else symbols + bytes((following,))
                    following = self._tree
                node = following
            row.append((self._row(node), symbols))
        row.append(id(start) in self._endings)

    def _row(self, node: _Node) -> _Row:
        if id(node) not in self._rows:
            row: _Row = []
            self._rows[id(node)] = row, node
            self._nodes[id(row)] = node
        return self._rows[id(node)][0]


_code: _Code | None = None


def decode(data: bytes) -> bytes:
    """The string that `data` encodes. ValueError: not the code of a string, or padded as section 5.2 forbids."""
    global _code
    if _code is None:  # most servers never see HTTP/2
        _code = _Code()
    while True:
        row = _code.first
        pieces: list[bytes | None] = []
        try:
            for byte in data:
                row, symbols = row[byte]
                pieces.append(symbols)
            ends = row[256]
        except IndexError:
            _code.make(row)
            continue
        if not ends or None in pieces:
            raise ValueError("not a Huffman-coded string")
        return b"".join(cast(list[bytes], pieces))
