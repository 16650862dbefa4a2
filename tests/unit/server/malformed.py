"""Fragments of JSON that callers should not send, and a request with each of them at each of its places."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

DEEP = 100_000
MALFORMED = [
    b"1e999", b"-1e999", b"1e99999999999999999999", b"NaN", b"nan", b"Infinity", b"-Infinity", b"+1", b"01", b".5", b"1.",
    b"1e", b"0x10", b"1_0", b"--1", b"'a'", b"True", b"None", b"undefined", b"", b"]", b"}", b'"', b'"\n"', b'"\0"', b'"\\x41"',
    b'"\\ud800"', b'"\\ud800\\u0041"', b'"\\udc00"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"',
    b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP, b"/**/1", b"1//", b"[1,]", b'{"a":1,}', b"{1:2}", b"\xef\xbb\xbf1",
]  # fmt: skip
WELL_FORMED = [
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"1", b"1.5", b"1e5", b"1e-999", b"1e308", b"65505", b"3.5e38",
    b"2147483648", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"9" * 4299, b'""',
    b'"1"', b'"NaN"', b'"\\u0000"', b'"__class__"', b"[]", b"[[]]", b"[[[]]]", b"[0]", b"[-1]", b"[1,1,1,1]",
    b"[" + b"9" * 4000 + b"," + b"9" * 4000 + b"]", b"[9223372036854775807,4]", b"[4611686018427387904,4611686018427387904]",
    b"[" + b"1," * 40 + b"1]", b"[null]", b"[{}]", b"{}", b'{"b64":"!"}', b'{"b64":1}', b'{"b64":""}',
    b'{"name":"f","name":"g"}', b'{"binary_data_size":8}', b'{"binary_data_size":-1}', b'{"binary_data":true}',
    b'{"binary_data":1}', b'{"binary_data_output":"yes"}', b'{"classification":3}', b'{"content_type":"base64"}',
    b'{"shared_memory_region":"r","shared_memory_byte_size":8}', b'{"a":[1]}', b'"FP32"', b'"BYTES"', b'"INT8"', b'"f"', b'"s"',
]  # fmt: skip
_HERE = "\u2603"


def bodies(document: object, fragments: list[bytes]) -> Iterator[bytes]:
    """The document with each of the fragments of JSON at each of its places."""
    for path in places(document):
        before, after = json.dumps(replaced(document, path, _HERE)).encode().split(json.dumps(_HERE).encode())
        for fragment in fragments:
            yield before + fragment + after


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    yield path
    members = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in members:
        yield from places(value, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(document[path[0]], path[1:], value)
    return copy
