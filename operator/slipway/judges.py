"""The evidence on the candidates of all rollouts under way: the meter's totals, and what others say who are asked."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from slipway.api.status import ArmStatus, RolloutStatus, TrialStatus
from slipway.checks.pollers import Pollers
from slipway.core import trial
from slipway.core.agreement_check import Agreement, judge_agreement, together
from slipway.core.analysis import judge
from slipway.core.clock import to_datetime
from slipway.core.evidence import Evidence, Got, since
from slipway.core.figures import LIVE_SECONDS, Figures, Slice
from slipway.core.jobs import job_answers, job_name
from slipway.core.plan import NOBODY_JUDGED, UNJUDGED, AgreementBound, Bound, Judged, Judgement, Trial
from slipway.core.polled import METRIC, NO_ANSWERS, Answers, Polled, Subject, Task, round_of
from slipway.core.revision import Target
from slipway.core.routing import mirror_names
from slipway.core.state import Candidate, State
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


@dataclass(frozen=True)
class _Counted:
    """An A/B test's counts: those told `before`, and the totals by revision when this process `begun` to add to them.

    `test` says which one it is, and then whose totals there were.
    """

    test: tuple[str | None, ...]
    before: TrialStatus
    begun: Mapping[str, Slice]

    def is_of(self, test: tuple[str | None, ...]) -> bool:
        """Tell whether it is that test; candidates may have left it."""
        return self.test[:4] == test[:4] and set(test) <= set(self.test)

    def with_means(self, test: Trial, answers: Mapping[str, Answers], at: float) -> "_Counted":
        """Answer the counts with the means of a metric that were answered since, by revision."""
        if test.metric is None:
            return self
        arms: list[ArmStatus] = []
        for arm in self.before.arms:
            heard = answers.get(arm.revision, NO_ANSWERS)
            arms.append(trial.with_means(test.metric, arm, heard.pairs, at - heard.age_seconds) if heard.pairs else arm)
        return replace(self, before=self.before.model_copy(update={"arms": arms}))


class Judges:
    """Keeps the evidence of each ModelDeployment's rollout: only in this process, and none is lost that would pass anything."""

    def __init__(self, meter: Meter, pollers: Pollers, comparers: Comparers, store: Store) -> None:
        self._meter, self._pollers, self._comparers, self._store = meter, pollers, comparers, store
        self._evidence: dict[Key, dict[str, tuple[_About, Evidence]]] = {}
        self._routers: dict[Key, frozenset[str]] = {}
        self._trials: dict[Key, _Counted] = {}
        self._agreements: dict[Key, tuple[tuple[Target, Target, AgreementBound], Agreement]] = {}

    def judge(self, model: Model, state: State, at: float) -> Judged:
        """Answer the verdicts at `at` (seconds) on the step under way; without one that is judged, none is needed."""
        key = model.namespace, model.name
        if state.stable is None or not state.candidates or state.rollout is None:
            self.forget(key)
            return NOBODY_JUDGED
        self._drop(key, but=[each.revision for each in state.candidates])
        totals = {each: self._total(model, each) for each in (state.stable.revision, *(one.revision for one in state.candidates))}
        counted = self._counted(key, state, state.rollout, totals)
        same_routers = self._same_routers(key)
        heard = {each.revision: self._answers(model, state, each, counted.before, at) for each in state.candidates}
        verdicts = {
            each.revision: self._verdict(model, state, each, totals, heard[each.revision], at, same_routers=same_routers)
            for each in state.candidates
        }
        if not state.step:
            return NOBODY_JUDGED
        if model.plan.trial is None:
            return Judged(verdicts)
        means = {revision: answers.get(METRIC, NO_ANSWERS) for revision, answers in heard.items()}
        counted = self._trials[key] = counted.with_means(model.plan.trial, means, at)
        got = {revision: since(total, counted.begun[revision]) for revision, total in totals.items()}
        told = trial.tell(model.plan.trial, counted.before, got.pop(state.stable.revision), got)
        return Judged(trial.judge(model.plan.trial, told, verdicts, model.plan.min_requests, means), told)

    def forget(self, key: Key) -> None:
        """Drop the evidence of a ModelDeployment that has no rollout."""
        self._drop(key, but=[])
        self._evidence.pop(key, None)
        self._routers.pop(key, None)
        self._trials.pop(key, None)
        self._agreements.pop(key, None)

    def _drop(self, key: Key, but: list[str]) -> None:
        """Drop the evidence on revisions that are tried no more: all `but` these."""
        evidence = self._evidence.setdefault(key, {})
        for gone in evidence.keys() - set(but):
            del evidence[gone]
            self._pollers.forget((key[0], gone))

    def _counted(self, key: Key, state: State, rollout: RolloutStatus, totals: Mapping[str, Slice]) -> "_Counted":
        """Answer from where an A/B test counts. It lasts longer than a process may: status keeps what was counted before."""
        known, test = self._trials.get(key), (rollout.revision, rollout.since, rollout.judged_since, *totals)
        told = rollout.trial or trial.enrolled((each.target, each.weight) for each in state.candidates)
        if known is None and state.step:
            self._trials[key] = _Counted(test, told, totals)
        elif known is None or not state.step or not known.is_of(test):
            self._trials[key] = _Counted(test, trial.blank(told), totals)
        return self._trials[key]

    def _verdict(
        self,
        model: Model,
        state: State,
        candidate: Candidate,
        totals: Mapping[str, Slice],
        answers: Mapping[str, Answers],
        at: float,
        *,
        same_routers: bool,
    ) -> Judgement:
        """Answer the verdict on one candidate by its checks, from what it and stable had since the last look."""
        assert state.stable is not None  # noqa: S101 - the caller checked it
        assert state.rollout is not None  # noqa: S101 - the caller checked it
        key, revision, stable = (model.namespace, model.name), candidate.revision, state.stable.revision
        subject = revision, stable, model.plan.bounds, state.rollout.judged_since
        mine, theirs = (self._figures(model, each, LIVE_SECONDS) for each in (revision, stable))
        copies = sum(self._figures(model, each, LIVE_SECONDS).in_flight for each in mirror_names(revision))
        in_flight = (mine.in_flight + copies, theirs.in_flight) if mine.reliable and same_routers else None
        got = Got(totals[revision], totals[stable], in_flight=in_flight, at=at)
        known, evidence = self._evidence[key].get(revision, (None, None))
        if evidence is None or known != subject or not state.step:
            before = self._figures(model, stable, HISTORY_SECONDS)
            evidence = Evidence.begin(model.plan, state.step, got, Slice(0.0, 0.0, before.counts, before.latency))
        anew = not state.step or (known is not None and known[3] != subject[3])
        if not state.step:  # what callers get from its first request on counts, however soon they all wait for it
            self._evidence[key][revision] = subject, evidence
            return UNJUDGED
        live = state.rollout.step_since is not None
        evidence = evidence.add(state.step, got, live=live, alone=live and candidate.weight == 100)
        self._evidence[key][revision] = subject, evidence
        judgement = judge(evidence, model.plan, reliable=mine.reliable, answers=answers)
        if model.plan.agreement is None:
            return judgement
        return together(judgement, self._agreement(model, state, model.plan.agreement, at, live=live, anew=anew))

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

    def _answers(self, model: Model, state: State, candidate: Candidate, before: TrialStatus, at: float) -> Mapping[str, Answers]:
        """Answer what was said of a candidate at the step under way. Nobody is asked before its weight is live."""
        key, rollout = (model.namespace, candidate.revision), state.rollout
        assert rollout is not None  # noqa: S101 - the caller checked it
        assert state.stable is not None  # noqa: S101 - the caller checked it
        if not state.step or rollout.step_since is None or not model.plan.step(state.step).judged:
            self._pollers.forget(key)
            return {}
        target, stable = candidate.target, state.stable.revision
        subject = Subject(model.namespace, model.name, target.revision, target.version, stable, state.step, candidate.weight)
        checks, waited = model.plan.polled, dict[str, float]()
        metric = model.plan.trial.metric if model.plan.trial is not None else None
        if metric is not None and 0 < candidate.weight < 100:  # both have callers
            asked = next(
                (trial.metric_of(metric, arm).last_asked for arm in before.arms if arm.revision == target.revision), None
            )
            moments = (rollout.step_since, rollout.judged_since, asked)
            waited[METRIC] = at - max(to_datetime(each).timestamp() for each in moments if each is not None)
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
