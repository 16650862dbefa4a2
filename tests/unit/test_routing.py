"""What routers are told, and when it is believed that they do it."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from slipway.core import routing
from slipway.core.observation import RouterSeen
from slipway.core.routing import RouterState, Wanted

ONE = Wanted({"m-a": 100}, {"m-a": 8080})
TWO = Wanted({"m-b": 100, "m-a": 0}, {"m-a": 8080, "m-b": 8080}, ("h.example.com",), 5.0)


def plan(
    written: RouterState, wanted: dict[str, Wanted], unknown: tuple[str, ...] = (), live: int = 0, now: int = 10
) -> RouterState:
    return routing.plan(written, wanted, unknown, live, now)


def router(version: int, *, ready: bool = True, answered: bool = True) -> RouterSeen:
    return RouterSeen("r", ready, answered, version)


def test_nothing_changed_is_the_same_state() -> None:
    state = plan(RouterState(), {"m": ONE})
    assert plan(state, {"m": ONE}, now=99) is state


def test_only_what_changed_for_callers_gets_a_new_version() -> None:
    state = plan(RouterState(), {"m": ONE, "n": ONE})
    other = plan(state, {"m": TWO, "n": ONE}, now=50)
    assert (other.version, other.routes["m"].version, other.routes["n"].version) == (50, 50, 10)
    known = plan(state, {"m": replace(ONE, ports={"m-a": 8080, "m-b": 8080}), "n": ONE}, now=60)
    assert (known.version, known.routes["m"].version) == (60, 10), "endpoints made known change nothing for callers"
    assert known.clusters == {"m-a": 8080, "m-b": 8080}
    limited = plan(state, {"m": replace(ONE, limits={"m-a": 7}), "n": ONE}, now=70)
    assert (limited.version, limited.routes["m"].version) == (70, 10), "no rollout waits for a limit"


def test_versions_grow_though_the_clock_goes_back_or_the_state_is_lost() -> None:
    state = plan(RouterState(), {"m": ONE}, now=1000)
    assert plan(state, {"m": TWO}, now=5).version == 1001
    assert plan(RouterState(), {"m": TWO}, live=2000, now=5).version == 2001


def test_who_cannot_say_keeps_its_route() -> None:
    state = plan(RouterState(), {"m": TWO, "n": ONE})
    kept = plan(state, {"n": ONE}, unknown=("m",), now=99)
    assert kept is state
    assert plan(state, {"n": ONE}, now=99).routes.keys() == {"n"}


def test_live_is_what_every_router_does() -> None:
    state = plan(RouterState(), {"m": TWO}, now=7)
    cases = {
        "all": ((router(7), router(9)), {"m-b": 100}),
        "one is behind": ((router(7), router(6)), None),
        "one is silent but ready": ((router(7), router(7, answered=False)), None),
        "one is gone": ((router(7), router(0, ready=False, answered=False)), {"m-b": 100}),
        "one drains with old routes": ((router(7), router(6, ready=False)), None),
        "none ready": ((router(7, ready=False),), None),
        "none": ((), None),
    }
    for case, (routers, live) in cases.items():
        assert routing.seen(state, "m", routers, None).live == live, case


def test_a_host_belongs_to_the_first_that_asks() -> None:
    asked = {"m": ("a.example.com", "m.ns"), "n": ("b.example.com", "a.example.com"), "o": ("m.ns.svc",), "p": ()}
    got, refused = routing.share_hosts(asked, "ns", "cluster.local")
    assert got == {"m": ("a.example.com",), "n": ("b.example.com",), "o": (), "p": ()}
    assert {name: symptom.reason for name, symptom in refused.items()} == {"n": "HostTaken", "o": "HostTaken"}
    assert "a.example.com already belongs to ModelDeployment m" in refused["n"].message


def test_nobody_gets_the_name_of_a_preview() -> None:
    """Else two routes would answer to it once there is one, and the routers would take no change of the namespace any more."""
    asked = {"m": ("n-preview.ns", "m-preview"), "n": ("n.example.com",), "o-preview": (), "o": ("o-preview.ns",)}
    got, refused = routing.share_hosts(asked, "ns", "cluster.local")
    assert got == {"m": (), "n": ("n.example.com",), "o-preview": (), "o": ()}
    assert {name: symptom.reason for name, symptom in refused.items()} == {"m": "HostTaken", "o": "HostTaken"}
    assert "m-preview is the preview of ModelDeployment m" in refused["m"].message


def test_endpoints_are_what_every_router_sees() -> None:
    seen = routing.seen(
        plan(RouterState(), {"m": ONE}),
        "m",
        (replace(router(9), healthy={"m-a": 3}), replace(router(9), healthy={"m-a": 1}, active={"m-a": 2})),
        None,
    )
    assert (seen.healthy("m-a"), seen.healthy("m-b")) == (1, 0)
    assert (seen.idle("m-a"), seen.idle("m-b")) == (False, True)


def test_endpoints_left_of_an_earlier_configuration_do_not_count() -> None:
    """A revision that went and comes back: who has not heard of its going still sees it, and will not when it has."""
    both = replace(ONE, ports={"m-a": 8080, "m-b": 8080})
    went = plan(plan(RouterState(), {"m": both}), {"m": ONE}, now=20)
    back = plan(went, {"m": both}, now=30)
    behind, there = (replace(router(version), healthy={"m-a": 1, "m-b": 1}) for version in (10, 30))
    seen = {each.route_version: routing.seen(back, "m", (each,), None) for each in (behind, there)}
    assert (seen[10].healthy("m-b"), seen[30].healthy("m-b")) == (0, 1)
    assert seen[10].healthy("m-a") == 1, "what has weight was never unknown"
    assert routing.affected(back, [replace(there, route_version=29)], [there]) == {"m"}


names = st.text("abc", min_size=1, max_size=3)
wants = st.builds(
    Wanted,
    st.dictionaries(names, st.integers(0, 100), max_size=3),
    st.dictionaries(names, st.integers(1024, 65535), max_size=3),
    st.tuples(names),
    st.floats(0.001, 3600),
    limits=st.dictionaries(names, st.integers(1, 8192), max_size=2),
)


@given(st.dictionaries(names, wants, max_size=4))
def test_the_state_survives_its_dump(wanted: dict[str, Wanted]) -> None:
    state = plan(RouterState(), wanted)
    assert routing.load(state.dump()) == state


def test_affected_are_those_for_whom_a_router_does_something_else() -> None:
    state = plan(plan(RouterState(), {"m": ONE}), {"m": ONE, "n": replace(ONE, ports={"n-a": 8080})}, now=20)
    assert (state.routes["m"].version, state.routes["n"].version) == (10, 20)
    old = [replace(router(10), healthy={"m-a": 1, "n-a": 1})]
    for after, names in [
        (replace(old[0], active={"m-a": 3}), set[str]()),
        (replace(old[0], route_version=15), set()),
        (replace(old[0], route_version=20), {"n"}),
        (replace(old[0], healthy={"m-a": 2, "n-a": 1}), {"m"}),
        (replace(old[0], healthy={"n-a": 1}), {"m"}),
        (replace(old[0], ready=False), {"m", "n"}),
        (replace(old[0], pod="another"), {"m", "n"}),
    ]:
        assert routing.affected(state, old, [after]) == names
    assert routing.affected(state, old, []) == {"m", "n"}


def test_an_unreadable_state_is_none() -> None:
    for text in ("", "{", "[]", '{"version": 1}', '{"version": "x", "routes": {}}', '{"version": 1, "routes": {"m": {}}}'):
        assert routing.load(text) == RouterState()
