"""Which faults are tried in which scenarios: all of them, or a sample by a fixed seed; and the running of them side by side."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import oracle
from tests.faults.fault import KILLS, ON_WATCH, REFUSALS, WRITES, Action, Call, Fault, Verb
from tests.faults.history import History
from tests.faults.plane import Plane
from tests.faults.proxy import LEASE
from tests.faults.replica import Zygote
from tests.faults.scenarios import ALONE, SCENARIOS
from tests.faults.single import PATIENCE_SECONDS, Outcome, run

# What matters most is tried first: a run that is cut short has told of it. All stories begin with the first apply: "again" is
# what befalls its writes in another one.
FAMILIES = ("kill", "stale", "hand-over", "random", "kill-again", "watch", "refuse", "refuse-again")
_BEGINNING = "first-apply"
RANDOM_KILLS, HAND_OVERS = 500, 50
# Scenarios whose rollout takes steps: where a second leader could do harm.
_ROLLOUTS = ("canary", "canary-failing", "blue-green", "supersede", "immediate")
_STATUS = Call(Verb.APPLY, "modeldeployments/status")
_EVENTS_TRIED = 4
_WRITE_FAULTS = (*REFUSALS, Action.TIMEOUT, Action.CUT, Action.LATE)


@dataclass(frozen=True)
class Case:
    """One run to be done: of a family of faults, in a scenario."""

    family: str
    scenario: str
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return " ".join((f"--scenario {self.scenario}", *(f"--fault {fault}" for fault in self.faults)))

    def told(self) -> dict[str, Any]:
        """Answer the case as JSON has it."""
        return {"family": self.family, "scenario": self.scenario, "faults": [str(fault) for fault in self.faults]}

    @staticmethod
    def read(told: Mapping[str, Any]) -> "Case":
        """Answer the case that was told."""
        return Case(told["family"], told["scenario"], tuple(map(Fault.parse, told["faults"])))


@dataclass(frozen=True)
class Result:
    """How a case ended."""

    case: Case
    fired: int
    violations: tuple[str, ...]
    seconds: float


def cases(references: Mapping[str, Outcome], seed: int) -> Iterator[Case]:
    """Yield every case, from what the runs without faults asked of the API server."""
    chance = random.Random(seed)  # noqa: S311 - the same cases each time
    known = references[_BEGINNING].calls if _BEGINNING in references else Counter[Call]()
    for name, reference in references.items():
        middle = max(reference.calls[_STATUS] // 2, 1)
        for call, number in _calls(reference, *WRITES):
            again = "-again" if name != _BEGINNING and number <= known[call] else ""
            for kill in KILLS:
                yield Case(f"kill{again}", name, (Fault(kill, call, number),))
            for action in _WRITE_FAULTS:
                yield Case(f"refuse{again}", name, (Fault(action, call, number),))
        for call in reference.calls:
            if call.verb == Verb.LIST:
                number = reference.calls[call] + 1
                yield Case("stale", name, (Fault(Action.KILL_AFTER, _STATUS, middle), Fault(Action.STALE, call, number)))
            if call.verb in (Verb.LIST, Verb.GET) and call.kind != LEASE:
                yield Case("refuse", name, (Fault(chance.choice(REFUSALS), call, 1),))
        for call, count in reference.events.items():
            for action in ON_WATCH:
                for number in sorted(chance.sample(range(1, count + 1), min(count, _EVENTS_TRIED))):
                    yield Case("watch", name, (Fault(action, call, number),))
    for _ in range(RANDOM_KILLS):
        name = chance.choice(list(references))
        places = list(_calls(references[name], *WRITES, Verb.LIST))
        chosen = chance.sample(places, min(chance.randint(1, 3), len(places)))
        yield Case("random", name, tuple(Fault(chance.choice(KILLS), *place) for place in chosen))
    rollouts = [name for name in _ROLLOUTS if name in references]
    for number in range(HAND_OVERS if rollouts else 0):
        name = rollouts[number % len(rollouts)]
        call, count = chance.choice(list(_calls(references[name], *WRITES)))
        yield Case("hand-over", name, (Fault(Action.STEAL, call, count),))


def sample(every: Iterable[Case], count: int, seed: int) -> list[Case]:
    """Answer so many cases of all families and scenarios in turn, but of those that try again what is tried elsewhere."""
    chance = random.Random(seed)  # noqa: S311 - the same cases each time
    groups: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in every:
        if not case.family.endswith("-again"):
            groups[case.family][case.scenario].append(case)
    chosen: list[Case] = []
    while len(chosen) < count and groups:
        for family in list(groups):
            scenario = chance.choice(sorted(groups[family]))
            left = groups[family][scenario]
            chosen.append(left.pop(chance.randrange(len(left))))
            if not left:
                del groups[family][scenario]
            if not groups[family]:
                del groups[family]
    return chosen[:count]


class Campaign:
    """Runs cases on one control plane, `side_by_side` at a time."""

    def __init__(self, plane: Plane, zygote: Zygote, side_by_side: int) -> None:
        self._plane, self._zygote, self._at_a_time = plane, zygote, side_by_side
        self.references: dict[str, Outcome] = {}

    async def learn(self, names: Iterable[str]) -> list[tuple[str, Outcome, History]]:
        """Run scenarios without faults. Answer those in which something was broken all the same."""
        bad: list[tuple[str, Outcome, History]] = []

        async def one(name: str) -> None:
            outcome, history = await run(self._plane, self._zygote, SCENARIOS[name])
            self.references[name] = outcome
            if outcome.violations:
                bad.append((name, outcome, history))

        await self.side_by_side([(name, one(name)) for name in names])
        return bad

    async def results(self, chosen: Iterable[Case]) -> AsyncIterator[tuple[Result, History]]:
        """Yield the results as they come."""
        queue: asyncio.Queue[tuple[Result, History]] = asyncio.Queue()
        listed = list(chosen)
        working = asyncio.create_task(self.side_by_side([(case.scenario, self._one(case, queue)) for case in listed]))
        for _ in listed:
            getting = asyncio.create_task(queue.get())
            await asyncio.wait({getting, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and working.exception():
                getting.cancel()
                await working
            yield await getting
        await working

    async def _one(self, case: Case, queue: "asyncio.Queue[tuple[Result, History]]") -> None:
        await queue.put(await self.one(case, self._zygote))

    async def one(self, case: Case, zygote: Zygote, patience_seconds: float = PATIENCE_SECONDS) -> tuple[Result, History]:
        """Run one case with the zygote's operator, and compare its end with that of the run without faults."""
        reference = self.references[case.scenario]
        outcome, history = await run(self._plane, zygote, SCENARIOS[case.scenario], case.faults, reference, patience_seconds)
        violations = list(outcome.violations)
        if not any(each.startswith("liveness") for each in violations):
            violations += oracle.compare((reference.end, reference.made), (outcome.end, outcome.made))
        return Result(case, len(outcome.fired), tuple(violations), outcome.seconds), history

    async def side_by_side(self, works: Iterable[tuple[str, Coroutine[Any, Any, None]]]) -> None:
        """Do all, each told with its scenario, so many at a time; at last those that must be alone."""
        listed = list(works)
        left = iter([work for name, work in listed if name not in ALONE])

        async def work() -> None:
            for each in left:
                await each

        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_a_time):
                group.create_task(work())
        for name, each in listed:
            if name in ALONE:
                await each


def _calls(outcome: Outcome, *verbs: Verb) -> Iterator[tuple[Call, int]]:
    for call, count in sorted(outcome.calls.items(), key=str):
        if call.verb in verbs and call.kind != LEASE:
            for number in range(1, count + 1):
                yield call, number


class Book:
    """The plan and its results so far, a line each in a file: a run that was cut short goes on from there.

    How often an operator asks for something differs a little from run to run: a plan made anew would never be done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.plan: list[Case] = []
        self.results: dict[str, Result] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            told = json.loads(line)
            if "plan" in told:
                self.plan = [Case.read(each) for each in told["plan"]]
                continue
            case = Case.read(told)
            self.results[str(case)] = Result(case, told["fired"], tuple(told["violations"]), told["seconds"])

    def keep(self, plan: list[Case]) -> list[Case]:
        """Answer the plan that is kept already, else keep this one."""
        if not self.plan:
            self.plan = plan
            self._write({"plan": [case.told() for case in plan]})
        return self.plan

    def add(self, result: Result) -> None:
        """Take a result."""
        self.results[str(result.case)] = result
        how = {"fired": result.fired, "violations": result.violations, "seconds": round(result.seconds, 1)}
        self._write({**result.case.told(), **how})

    def _write(self, told: Mapping[str, Any]) -> None:
        with self._path.open("a") as book:
            book.write(json.dumps(told) + "\n")


def report(results: Iterable[Result], planned: Counter[str]) -> str:
    """Answer the results in Markdown."""
    found = list(results)
    lines = ["| faults | cases | run | happened | violated |", "|---|---|---|---|---|"]
    for family, count in sorted(planned.items(), key=lambda each: [*FAMILIES, each[0]].index(each[0])):
        of = [each for each in found if each.case.family == family]
        happened = sum(each.fired == len(each.case.faults) for each in of)
        lines.append(f"| {family} | {count} | {len(of)} | {happened} | {sum(bool(each.violations) for each in of)} |")
    lines += ["", "| scenario | run | violated | seconds a run |", "|---|---|---|---|"]
    for name in SCENARIOS:
        of = [each for each in found if each.case.scenario == name]
        if of:
            mean = sum(each.seconds for each in of) / len(of)
            lines.append(f"| {name} | {len(of)} | {sum(bool(each.violations) for each in of)} | {mean:.1f} |")
    for each in found:
        if each.violations:
            lines += ["", f"`tests/faults/run {each.case}`", *(f"- {said}" for said in each.violations)]
    return "\n".join(lines)
