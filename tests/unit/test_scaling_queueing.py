"""The queue-tail model: beside Erlang's exact formula, and what must hold whatever the numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.scaling.queueing import (
    MIDDLES,
    Pod,
    Service,
    mean_wait,
    replicas_for,
    slow_share,
    waits_longer,
)

LATENCY_MS = 100.0
loads = st.floats(0.0, 200.0)
pods = st.builds(Pod, st.floats(0.2, 16.0), st.floats(0.0, 1.0))
services = st.lists(st.floats(1.0, 200.0), min_size=len(MIDDLES), max_size=len(MIDDLES)).map(
    lambda parts: Service(tuple(sorted(parts)))
)


def exponential(mean_ms: float) -> Service:
    return Service(tuple(-mean_ms * math.log(1 - share) for share in MIDDLES))


def erlang_c(servers: int, load: float) -> float:
    """Answer the exact probability that a request of M/M/c waits."""
    block = 1.0
    for each in range(1, servers + 1):
        block = load * block / (each + load * block)
    return block / (1 - load / servers * (1 - block))


@pytest.mark.parametrize("servers", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("utilisation", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_waits_are_those_of_erlangs_formula(servers: int, utilisation: float) -> None:
    exact = erlang_c(servers, utilisation * servers)
    # The approximation errs on the safe side.
    assert -0.01 <= waits_longer(utilisation, servers, 0.0, 1.0) - exact <= 0.055
    assert mean_wait(utilisation, servers, 1.0) == pytest.approx(exact / (servers * (1 - utilisation)), rel=0.2, abs=0.03)


def test_beyond_capacity_everybody_waits() -> None:
    assert waits_longer(1.0, 8, 3.0, 1.0) == waits_longer(1.2, 8, 3.0, 1.0) == 1.0
    assert mean_wait(1.2, 8, 1.0) == math.inf
    assert slow_share(10.0, 8, Pod(1.0, 0.5), exponential(40.0), LATENCY_MS) == pytest.approx(1.0)


def test_a_service_keeps_its_moments() -> None:
    service = exponential(40.0)
    assert service.mean_ms == pytest.approx(40, rel=0.02)
    assert service.variability == pytest.approx(1.0, abs=0.06)
    assert service.slower_than(120.0) == pytest.approx(math.exp(-3), abs=0.03)


@given(pods, services, loads, loads, st.floats(0.001, 0.5), st.integers(1, 300))
def test_more_load_never_needs_fewer_replicas(pod: Pod, service: Service, a: float, b: float, allowed: float, most: int) -> None:
    low, high = sorted((a, b))
    fewer = replicas_for(low, pod, service, LATENCY_MS, allowed, most)
    assert 1 <= fewer <= replicas_for(high, pod, service, LATENCY_MS, allowed, most) <= most


@given(pods, services, loads, st.floats(0.001, 0.5))
def test_the_answer_is_enough_and_one_fewer_is_not(pod: Pod, service: Service, load: float, allowed: float) -> None:
    replicas = replicas_for(load, pod, service, LATENCY_MS, allowed, 2000)
    if replicas < 2000:
        assert slow_share(load, replicas, pod, service, LATENCY_MS) <= allowed
    if replicas > 1:
        assert slow_share(load, replicas - 1, pod, service, LATENCY_MS) > allowed or load >= (replicas - 1) * pod.parallelism
