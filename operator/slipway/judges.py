"""The evidence on the candidates of all rollouts under way: the meter's totals, and what others say who are asked."""

import functools
import math
from collections.abc import Mapping

from slipway.api.status import RolloutStatus, TrialStatus
from slipway.checks.pollers import Pollers
from slipway.core import trial
from slipway.core.agreement_check import Agreement, judge_agreement, together
from slipway.core.analysis import judge
from slipway.core.clock import to_datetime
from slipway.core.evidence import Evidence, Got
from slipway.core.figures import LIVE_SECONDS, Figures, Slice
from slipway.core.jobs import job_answers, job_name
from slipway.core.plan import UNJUDGED, AgreementBound, Bound, Judgement
from slipway.core.polled import METRIC, NO_ANSWERS, Answers, Polled, Subject, Task, round_of
from slipway.core.revision import Target
from slipway.core.routing import mirror_names
from slipway.core.state import State
from slipway.kube.kinds import JOB, POD
from slipway.kube.store import Store
from slipway.meter.history import HISTORY_SECONDS
from slipway.meter.meter import Meter
from slipway.model import Model
from slipway.probe.agreement import Comparers
from slipway.queue import Key

# The label by which the API server's own controller marks the pods of a Job.
_JOB_LABEL = "batch.kubernetes.io/job-name"
# Which evidence it is: candidate, stable, what is tested, and since when. Another one begins anew.
_About = tuple[str, str, tuple[Bound, ...], str | None]


class Judges:
    """Keeps the evidence of each ModelDeployment's rollout: only in this process, and none is lost that would pass anything."""

    def __init__(self, meter: Meter, pollers: Pollers, comparers: Comparers, store: Store) -> None:
        self._meter, self._pollers, self._comparers, self._store = meter, pollers, comparers, store
        self._evidence: dict[Key, tuple[_About, Evidence]] = {}
        self._routers: dict[Key, frozenset[str]] = {}
        self._trials: dict[Key, tuple[TrialStatus | None, Got]] = {}
        self._agreements: dict[Key, tuple[tuple[Target, Target, AgreementBound], Agreement]] = {}

    def judge(self, model: Model, state: State, at: float) -> Judgement:
        """Answer the verdict at `at` (seconds) on the step under way; without one that is judged, none is needed."""
        key = model.namespace, model.name
        if state.stable is None or state.candidate is None or state.rollout is None:
            self.forget(key)
            return UNJUDGED
        subject = state.candidate.revision, state.stable.revision, model.plan.bounds, state.rollout.judged_since
        mine, theirs = (self._figures(model, each, LIVE_SECONDS) for each in subject[:2])
        copies = sum(self._figures(model, each, LIVE_SECONDS).in_flight for each in mirror_names(subject[0]))
        in_flight = (mine.in_flight + copies, theirs.in_flight) if mine.reliable and self._same_routers(key) else None
        totals = Got(*(self._total(model, each) for each in subject[:2]), in_flight=in_flight, at=at)
        known, evidence = self._evidence.get(key, (None, None))
        if evidence is None or known != subject or not state.step:
            before = self._figures(model, state.stable.revision, HISTORY_SECONDS)
            evidence = Evidence.begin(model.plan, state.step, totals, Slice(0.0, 0.0, before.counts, before.latency))
        anew = not state.step or (known is not None and known[3] != subject[3])
        if anew or key not in self._trials:  # an A/B test lasts longer than a process may: status keeps its counts
            self._trials[key] = None if anew else state.rollout.trial, totals
        answers = self._answers(model, state, state.rollout, at)
        metric = model.plan.trial.metric if model.plan.trial is not None else None
        heard = answers.get(METRIC, NO_ANSWERS)
        if metric is not None and heard.pairs:
            before, begun = self._trials[key]
            self._trials[key] = trial.with_means(metric, before, heard.pairs, at - heard.age_seconds), begun
        if not state.step:  # what callers get from its first request on counts, however soon they all wait for it
            self._evidence[key] = subject, evidence
            return UNJUDGED
        live = state.rollout.step_since is not None
        evidence = evidence.add(state.step, totals, live=live, alone=live and state.weight == 100)
        self._evidence[key] = subject, evidence
        judgement = judge(evidence, model.plan, reliable=mine.reliable, answers=answers)
        if model.plan.agreement is not None:
            judgement = together(judgement, self._agreement(model, state, model.plan.agreement, at, live=live, anew=anew))
        if model.plan.trial is None:
            return judgement
        before, begun = self._trials[key]
        told = trial.tell(model.plan.trial, before, totals.since(begun))
        return trial.judge(model.plan.trial, told, judgement, model.plan.min_requests, heard)

    def forget(self, key: Key) -> None:
        """Drop the evidence of a ModelDeployment that has no rollout."""
        self._evidence.pop(key, None)
        self._routers.pop(key, None)
        self._trials.pop(key, None)
        self._agreements.pop(key, None)
        self._pollers.forget(key)

    def _agreement(self, model: Model, state: State, bound: AgreementBound, at: float, *, live: bool, anew: bool) -> Judgement:
        """Answer the verdict on how far the answers of both agree."""
        assert state.candidate is not None  # noqa: S101 - the caller checked it
        assert state.stable is not None  # noqa: S101 - the caller checked it
        key = model.namespace, model.name
        compared = self._comparers.compared(*key, state.stable.revision, state.candidate.revision)
        subject, evidence = self._agreements.get(key, (None, None))
        if evidence is None or anew or subject != (state.stable, state.candidate, bound):
            evidence = Agreement.begin(bound, state.step, compared.pairs, at)
        evidence = evidence.add(state.step, compared.pairs, at, live=live)
        self._agreements[key] = (state.stable, state.candidate, bound), evidence
        return judge_agreement(evidence, age_seconds=compared.age_seconds, tests=len(model.plan.bounds) + 1)

    def _answers(self, model: Model, state: State, rollout: RolloutStatus, at: float) -> Mapping[str, Answers]:
        """Answer what was said of the candidate at the step under way. Nobody is asked before its weight is live."""
        key = model.namespace, model.name
        if not state.step or rollout.step_since is None or not model.plan.step(state.step).judged:
            self._pollers.forget(key)
            return {}
        assert state.candidate is not None  # noqa: S101 - the caller checked it
        assert state.stable is not None  # noqa: S101 - the caller checked it
        revision, version, stable = state.candidate.revision, state.candidate.version, state.stable.revision
        subject = Subject(model.namespace, model.name, revision, version, stable, state.step, state.weight)
        checks, waited = model.plan.polled, dict[str, float]()
        metric = model.plan.trial.metric if model.plan.trial is not None else None
        if metric is not None and 0 < state.weight < 100:  # both arms have callers
            before, _ = self._trials[key]
            since = (rollout.step_since, rollout.judged_since, trial.metric_of(metric, before).last_asked)
            waited[METRIC] = at - max(to_datetime(each).timestamp() for each in since if each is not None)
            checks = (*checks, metric)
        answers = dict(self._pollers.follow(key, round_of(rollout), subject, checks, waited))
        jobs = (check for check in model.plan.polled if isinstance(check.ask, Task))
        return answers | {check.name: self._job_answers(model, rollout, check) for check in jobs}

    def _job_answers(self, model: Model, rollout: RolloutStatus, check: Polled) -> Answers:
        name = job_name(rollout, check)
        job = self._store.get(JOB, model.namespace, name)
        if job is None or all(ref["uid"] != model.identity.uid for ref in job["metadata"].get("ownerReferences", ())):
            return job_answers(None)
        pods = self._store.children(model.namespace, model.name, POD)
        return job_answers(job, [pod for pod in pods if pod["metadata"]["labels"].get(_JOB_LABEL) == name])

    def _same_routers(self, key: Key) -> bool:
        """Tell whether the routers are those of the look before: what one that left had in flight has not ended."""
        pods = frozenset(router.pod for router in self._meter.routers(key[0]) if router.counts)
        before, self._routers[key] = self._routers.get(key), pods
        return before in (None, pods)

    def _figures(self, model: Model, revision: str, seconds: float) -> Figures:
        return self._meter.figures(model.namespace, revision, seconds)

    def _total(self, model: Model, revision: str) -> Slice:
        """Answer all that a revision was asked, copies of requests included."""
        found = (self._meter.total(model.namespace, cluster) for cluster in (revision, *mirror_names(revision)))
        return functools.reduce(Slice.__add__, (each for each in found if each is not None), Slice(math.inf, 0.0))
