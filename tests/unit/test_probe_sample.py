"""A user's sample of requests: what is read, and what is refused in words that tell nothing of it."""

import json
from typing import Any

import pytest

from slipway.core.sample import SampleError, SampleRequest, parse

SECRET = "hunter2"  # noqa: S105 - it must not be told


def test_lines_and_lists_are_the_same() -> None:
    requests = [{"body": {"a": [1.5]}}, {"path": "/v1/models/m:predict?x=1", "method": "PUT", "bodyBase64": "AAE="}]
    lines = "\n\n".join(json.dumps(each) for each in requests) + "\n"
    read = parse(lines, "churn")
    assert read == parse(json.dumps(requests, indent=1), "churn")
    assert read == (
        SampleRequest("/v2/models/churn/infer", "POST", (("content-type", "application/json"),), b'{"a":[1.5]}'),
        SampleRequest("/v1/models/m:predict?x=1", "PUT", (), b"\x00\x01"),
    )


def test_headers_go_along_and_a_content_type_of_ones_own_stays() -> None:
    (read,) = parse(json.dumps({"headers": {"X-Team": "a", "Content-Type": "text/plain"}, "body": None}), "m")
    assert read.headers == (("content-type", "text/plain"), ("x-team", "a"))
    assert read.body == b"null"
    assert parse('{"method": "GET", "path": "/"}', "m") == (SampleRequest("/", "GET"),)


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ("", "it has 0 requests, expected 1 to 100"),
        ("[]", "it has 0 requests, expected 1 to 100"),
        ("{}\n" * 101, "it has 101 requests, expected 1 to 100"),
        (" " * (256 * 1024 + 1), "expected at most 262144"),
        (f'{{"body": 1}}\n{{"body": {SECRET}}}', "line 2, column 10: not JSON: Expecting value"),
        (f'[\n{{"body": {SECRET}}}]', "line 2, column 10: not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 10_000, "a number is too long"),
        (f'["{SECRET}"]', "request 1:"),
        ({"path": SECRET}, "request 1: path must begin with /"),
        ({"path": "/a b"}, "request 1: path must begin with /"),
        ({"path": "/a#b"}, "request 1: path must begin with /"),
        ({"path": "/a\nb"}, "request 1: path must begin with /"),
        ({"path": "/" + "a" * 3000}, "request 1: path: "),
        ({"method": SECRET}, "request 1: method: Input should be 'GET', 'POST' or 'PUT'"),
        ({SECRET: 1}, "has a member that no request has, expected body, bodyBase64, headers, method, path"),
        ({"headers": {"x": 1}}, "request 1: headers: Input should be a valid string"),
        ({"headers": {"x": f"{SECRET}\r\nhost: other"}}, "request 1: headers: a name or a value is not printable ASCII"),
        ({"headers": {f"x\n{SECRET}": ""}}, "request 1: headers: a name or a value is not printable ASCII"),
        ({"headers": {"Host": SECRET}}, "request 1: headers.host is not for a sample to set; remove it"),
        ({"headers": {"X-Envoy-Upstream-Rq-Timeout-Ms": "1"}}, "is not for a sample to set"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "is not for a sample to set"),
        ({"body": SECRET, "bodyBase64": "AA=="}, "has both body and bodyBase64"),
        ({"bodyBase64": SECRET + "?"}, "bodyBase64 is not base64"),
    ],
)
def test_what_is_no_sample_is_refused_without_a_word_of_it(sample: str | dict[str, Any], says: str) -> None:
    with pytest.raises(SampleError) as refused:
        parse(sample if isinstance(sample, str) else json.dumps(sample), "m")
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(parse(json.dumps({"body": SECRET}), "m"))
