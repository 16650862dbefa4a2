"""Laws of the scaling policy, whatever is looked at in whatever order."""

import json
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.scaling_world import KNOWN, LATENCY, World

from slipway.core.scaling.arrivals import forecast
from slipway.core.scaling.limits import changed, paced
from slipway.core.scaling.memory import Cpu, Learned, Memory, Tick
from slipway.core.scaling.needs import needs
from slipway.core.scaling.objective import Objective, Reason, Settings

MINIMUM, MAXIMUM, UP, DOWN = 2, 12, 6, 3


class Scaling(RuleBasedStateMachine):
    """A revision with every objective and limit, seen through every kind of look."""

    def __init__(self) -> None:
        super().__init__()
        both = Objective(latency_ms=100, concurrency=4, requests_per_second=30, cpu=0.7)
        self.world = World(Settings(both, MINIMUM, MAXIMUM, UP, DOWN), replicas=MINIMUM)
        self.before = MINIMUM
        self.ordered = [(0.0, MINIMUM)]

    def follow(self) -> None:
        self.ordered.append((self.world.seconds, self.world.replicas))

    @rule(
        arrivals=st.integers(0, 2000),
        latency=st.sampled_from((5.0, 40.0, 95.0, 300.0, 5000.0)),
        in_flight=st.integers(0, 500),
        ready=st.integers(0, MAXIMUM),
        start=st.sampled_from((None, 1.0, 20.0, 300.0)),
        cpu=st.sampled_from((None, Cpu(missing="away"), Cpu(0.0), Cpu(0.5, 1), Cpu(20.0))),
        times=st.integers(1, 30),
    )
    def looked(
        self, arrivals: int, latency: float, in_flight: int, ready: int, start: float | None, cpu: Cpu | None, times: int
    ) -> None:
        for _ in range(times):
            look = self.world.look(arrivals, latency, in_flight)
            look = replace(look, ready=min(ready, look.replicas), start_seconds=start, cpu=cpu)
            self.world.looked(look)
            self.follow()

    @rule(known=st.booleans(), times=st.integers(1, 30))
    def blind(self, known: bool, times: int) -> None:
        for _ in range(times):
            before = self.world.replicas
            look = self.world.look(0)
            decision = self.world.looked(replace(look, reliable=False) if known else replace(look, got=None))
            self.follow()
            assert decision.replicas >= before, "figures were missing, and it went down"
            assert decision.reason == Reason.STALE_FIGURES

    @rule(arrivals=st.integers(0, 300), times=st.integers(1, 60))
    def rolling(self, arrivals: int, times: int) -> None:
        for _ in range(times):
            before = self.world.replicas
            self.world.looked(replace(self.world.look(arrivals), rolling=True))
            self.follow()
            assert self.world.replicas >= before, "a rollout was under way, and it went down"

    @rule()
    def restarted(self) -> None:
        kept = json.loads(json.dumps(self.world.memory.learned.store()))
        self.world.memory = Memory(Learned.restore(kept))
        self.ordered = self.ordered[-1:]  # the pace counts from then on

    @invariant()
    def within_bounds(self) -> None:
        assert MINIMUM <= self.world.replicas <= MAXIMUM

    @invariant()
    def within_pace(self) -> None:
        now = self.world.seconds
        lately = [replicas for at, replicas in self.ordered if at > now - 60]
        earlier = [replicas for at, replicas in self.ordered if at <= now - 60][-1:]
        seen = [*earlier, *lately]
        assert self.world.replicas - min(seen) <= UP
        assert max(seen) - self.world.replicas <= DOWN

    @invariant()
    def memory_is_small(self) -> None:
        memory = self.world.memory
        assert len(memory.ticks) <= 121
        assert len(memory.needs) <= 14
        assert len(memory.peaks) <= 32
        assert len(memory.changes) <= 32


TestScaling = Scaling.TestCase
TestScaling.settings = settings(max_examples=30, stateful_step_count=20)

counts = st.lists(st.integers(0, 400), min_size=30, max_size=60)


def seen(arrivals: list[int]) -> Memory:
    ticks = tuple(Tick(2.0 * (number + 1), 2.0, each, 0, each) for number, each in enumerate(arrivals))
    return Memory(KNOWN, ticks)


@given(counts, st.floats(1, 3))
def test_more_arrivals_by_one_factor_never_need_fewer_replicas(arrivals: list[int], factor: float) -> None:
    def most(memory: Memory) -> int:
        return max(need.replicas for need in needs(memory, World().look(0), LATENCY))

    more = [round(each * factor) for each in arrivals]
    # The trend is left out: it stops at a share of the rate, and what chance explains is a smaller share of a larger one.
    assert most(seen([max(more)] * 30)) >= most(seen([max(arrivals)] * 30))
    lower = forecast(seen(arrivals).ticks, 20, 0.05, 1.0, 0.0)
    higher = forecast(seen(more).ticks, 20, 0.05, 1.0, 0.0)
    assert higher.now + higher.variability >= (lower.now + lower.variability) * 0.98


@settings(max_examples=20)
@given(st.floats(0.5, 300), st.sampled_from((5.0, 20.0, 90.0)))
def test_a_constant_load_converges_and_never_turns_round(per_second: float, start: float) -> None:
    world = World(replicas=LATENCY.maximum)
    followed = [world.run(2, per_second, start_seconds=start).replicas for _ in range(600)]
    assert followed == sorted(followed, reverse=True)
    assert followed[-1] < LATENCY.maximum


@given(st.lists(st.tuples(st.floats(0.5, 30), st.integers(0, 40)), max_size=40), st.integers(0, 40), st.integers(0, 10))
def test_the_pace_is_kept_and_never_turns_around(steps: list[tuple[float, int]], wanted: int, pace: int) -> None:
    changes, now, ordered = ((0.0, 10),), 0.0, 10
    for after, asked in [*steps, (1.0, wanted)]:
        now += after
        changes = changed(changes, ordered, now)
        answer = paced(asked, changes, pace, pace)
        assert min(asked, ordered) <= answer <= max(asked, ordered)
        ordered = answer


@given(
    st.dictionaries(
        st.sampled_from(("parallelism", "pooling", "caution", "serviceMs", "deviation", "lightMs", "else")),
        st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.lists(st.floats(0.1, 10), max_size=20),
    )
)
def test_whatever_a_status_holds_can_be_read_and_used(kept: dict[str, object]) -> None:
    world = World(memory=Memory(Learned.restore(kept)))
    world.run(60, 20)
    assert Learned.restore(world.memory.learned.store()).store() == world.memory.learned.store()
