"""The evidence on the candidates of all rollouts under way, from the meter's totals."""

from slipway.core.analysis import Evidence, Got, judge
from slipway.core.figures import LIVE_SECONDS, Slice
from slipway.core.plan import UNJUDGED, Bound, Judgement
from slipway.core.rollout import State
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

    def judge(self, model: Model, state: State) -> Judgement:
        """Answer the verdict on the step under way; without one that is judged, none is needed."""
        key = model.namespace, model.name
        if state.stable is None or state.candidate is None or not state.weight:
            self.forget(key)
            return UNJUDGED
        subject = state.candidate.revision, state.stable.revision, model.plan.bounds
        totals = Got(self._total(model, state.candidate.revision), self._total(model, state.stable.revision))
        known, evidence = self._evidence.get(key, (None, None))
        if evidence is None or known != subject:
            evidence = Evidence.begin(model.plan, state.step, totals)
        evidence = evidence.add(state.step, totals)
        self._evidence[key] = subject, evidence
        figures = self._meter.figures(model.namespace, state.candidate.revision, LIVE_SECONDS)
        return judge(evidence, model.plan, reliable=figures.reliable)

    def forget(self, key: Key) -> None:
        """Drop the evidence of a ModelDeployment that has no rollout."""
        self._evidence.pop(key, None)

    def _total(self, model: Model, revision: str) -> Slice:
        return self._meter.total(model.namespace, revision) or Slice(0.0, 0.0)
