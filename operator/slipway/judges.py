"""The evidence on the candidates of all rollouts under way, from the meter's totals."""

from slipway.core.analysis import judge
from slipway.core.evidence import Evidence, Got
from slipway.core.figures import LIVE_SECONDS, Figures, Slice
from slipway.core.plan import UNJUDGED, Bound, Judgement
from slipway.core.state import State
from slipway.meter.history import HISTORY_SECONDS
from slipway.meter.meter import Meter
from slipway.model import Model
from slipway.queue import Key

# Which evidence it is: candidate, stable and what is tested. Another one begins anew.
_Subject = tuple[str, str, tuple[Bound, ...]]


class Judges:
    """Keeps the evidence of each ModelDeployment's rollout: only in this process, and none is lost that would pass anything."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._evidence: dict[Key, tuple[_Subject, Evidence]] = {}
        self._routers: dict[Key, frozenset[str]] = {}

    def judge(self, model: Model, state: State, at: float) -> Judgement:
        """Answer the verdict at `at` (seconds) on the step under way; without one that is judged, none is needed."""
        key = model.namespace, model.name
        if state.stable is None or state.candidate is None or state.rollout is None:
            self.forget(key)
            return UNJUDGED
        subject = state.candidate.revision, state.stable.revision, model.plan.bounds
        mine, theirs = (self._figures(model, each, LIVE_SECONDS) for each in subject[:2])
        in_flight = (mine.in_flight, theirs.in_flight) if mine.reliable and self._same_routers(key) else None
        totals = Got(*(self._total(model, each) for each in subject[:2]), in_flight=in_flight, at=at)
        known, evidence = self._evidence.get(key, (None, None))
        if evidence is None or known != subject or not state.step:
            before = self._figures(model, state.stable.revision, HISTORY_SECONDS)
            evidence = Evidence.begin(model.plan, state.step, totals, Slice(0.0, 0.0, before.counts, before.latency))
        if not state.step:  # what callers get from its first request on counts, however soon they all wait for it
            self._evidence[key] = subject, evidence
            return UNJUDGED
        live = state.rollout.step_since is not None
        evidence = evidence.add(state.step, totals, live=live, alone=live and state.weight == 100)
        self._evidence[key] = subject, evidence
        return judge(evidence, model.plan, reliable=mine.reliable)

    def forget(self, key: Key) -> None:
        """Drop the evidence of a ModelDeployment that has no rollout."""
        self._evidence.pop(key, None)
        self._routers.pop(key, None)

    def _same_routers(self, key: Key) -> bool:
        """Tell whether the routers are those of the look before: what one that left had in flight has not ended."""
        pods = frozenset(router.pod for router in self._meter.routers(key[0]) if router.counts)
        before, self._routers[key] = self._routers.get(key), pods
        return before in (None, pods)

    def _figures(self, model: Model, revision: str, seconds: float) -> Figures:
        return self._meter.figures(model.namespace, revision, seconds)

    def _total(self, model: Model, revision: str) -> Slice:
        return self._meter.total(model.namespace, revision) or Slice(0.0, 0.0)
