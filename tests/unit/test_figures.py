"""Figures: what counters say, and what lies in a window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.figures import Counters, Counts, Slice, merge, over
from slipway.core.latency import Histogram, bucket_of

counts = st.integers(0, 50)
counters = st.builds(Counters, **dict.fromkeys(Counters._fields, counts))

# name, counters -> errors, abandoned
TABLE = [
    ("all well", Counters(answered=100), 0, 0),
    ("the caller's fault", Counters(answered=10, client_errors=10), 0, 0),
    ("the model's own 500", Counters(answered=10, server_errors=3), 3, 0),
    ("a timeout is one error, and its connection is ours to end", Counters(10, 0, 2, timeouts=2, hung_up=2), 2, 0),
    ("a caller left", Counters(answered=10, hung_up=2), 0, 2),
    ("a reset before the head", Counters(10, 0, 1, resets=1, unavailable=1), 1, 0),
    ("a reset that was retried", Counters(10, resets=1, retries=1), 0, 0),
    ("answers cut off after their head", Counters(10, resets=3), 3, 0),
    ("cut off beside the model's own 500", Counters(10, 0, 2, resets=3), 5, 0),
    ("no endpoint", Counters(10, 0, 4, no_endpoint=4, unavailable=4), 4, 0),
    ("refused by the router", Counters(10, 0, 4, overflows=4, unavailable=4), 0, 0),
    ("refused beside the model's own 500", Counters(10, 0, 6, overflows=4, unavailable=4), 2, 0),
    ("refused beside a reset", Counters(10, 0, 5, overflows=4, resets=1, unavailable=5), 1, 0),
    ("refused by HTTP beside gRPC's own errors", Counters(10, 0, 4, overflows=4, unavailable=4, grpc_errors=3), 3, 0),
    ("gRPC's own errors", Counters(10, grpc_errors=4), 4, 0),
    ("gRPC errors by the router", Counters(10, 0, 2, timeouts=2, grpc_errors=2, hung_up=2), 2, 0),
    ("of both", Counters(10, 0, 2, timeouts=2, grpc_errors=5, hung_up=2), 5, 0),
    ("HTTP errors beside gRPC errors", Counters(10, 0, 3, grpc_errors=2), 5, 0),
]


@pytest.mark.parametrize(("seen", "errors", "abandoned"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_errors_are_counted_once(seen: Counters, errors: int, abandoned: int) -> None:
    admitted = seen.admitted(Counters())
    assert (admitted.errors, admitted.abandoned) == (errors, abandoned)
    found = Counts.of(admitted)
    assert (found.requests + found.refused, found.errors, found.abandoned) == (seen.answered + abandoned, errors, abandoned)
    assert found.refused == seen.overflows
    assert found.server_errors == seen.server_errors - found.refused, "a refusal is no error of the model"
    for name in set(Counts._fields) & set(Counters._fields) - {"server_errors"}:
        assert getattr(found, name) == getattr(seen, name)


@given(counters, counters)
def test_what_was_counted_never_shrinks(before: Counters, after: Counters) -> None:
    counted = before.admitted(Counters())
    grown = after.admitted(counted).since(counted)
    assert min(grown) >= 0
    assert min(Counts.of(grown)) >= 0


@given(counters, counters)
def test_what_only_grew_did_not_begin_anew(before: Counters, more: Counters) -> None:
    after = Counters(*(then + grown for then, grown in zip(before, more, strict=True)))
    assert not after.began_anew(before)
    assert before.began_anew(after) == any(more)


def test_a_total_knows_its_earlier_states() -> None:
    assert Counts(5, 2).since(Counts(3, 2)) == Counts(2)
    with pytest.raises(ValueError, match="no earlier state"):
        Counts(5).since(Counts(6))


slices = st.builds(
    lambda since, length, requests, bucket: Slice(since, since + length, Counts(requests), Histogram({bucket: requests})),
    st.integers(0, 100),
    st.integers(1, 10),
    st.integers(1, 9),
    st.integers(0, 5),
)


@given(slices, slices, slices)
def test_slices_add_up_in_any_order(a: Slice, b: Slice, c: Slice) -> None:
    assert (a + b) + c == a + (b + c) == c + b + a == merge([b, c, a])


@given(st.lists(slices, max_size=8))
def test_a_window_over_everything_has_everything(all_: list[Slice]) -> None:
    total, per_second = over(all_, 0, 200)
    assert total == merge(all_)
    assert per_second == pytest.approx(total.counts.requests / 200)


def test_a_window_takes_of_the_rate_what_lies_in_it() -> None:
    steady = [Slice(at, at + 5, Counts(50), Histogram({bucket_of(9): 50})) for at in range(0, 100, 5)]
    for since in (0, 3, 5, 40, 97):
        total, per_second = over(steady, since, 100)
        assert per_second == pytest.approx(10), since
        assert total.since == since // 5 * 5
        assert total.counts.requests == (100 - total.since) * 10, "counts are of whole slices"
    assert over(steady, 100, 100) == (merge([]), 0.0)
