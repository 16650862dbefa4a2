"""The questions under way: each check's own loop, beside the reconciles, which only read what was answered last."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from slipway.checks.ask import Asker, Services
from slipway.core.polled import NO_ANSWERS, Answer, Answers, MetricQuery, Outcome, Outward, Polled, Query, Subject, Task

log = logging.getLogger(__name__)
# Who did not answer is asked again this soon, and a Prometheus, between two questions, whether it would.
PING_SECONDS = 3.0
# So many questions of one namespace are under way at once: its slow ones make nobody else wait.
_PARALLEL = 16

Key = tuple[str, str]


@dataclass
class _Loop:
    """One check at one step, and what was answered."""

    round: str
    check: Polled
    subject: Subject
    slots: asyncio.Semaphore
    waited_seconds: float
    answers: Answers = NO_ANSWERS
    at: float = 0.0
    task: asyncio.Task[None] | None = None


class Pollers:
    """Asks for as long as it is told to follow a step. `services` answers a Service by namespace and name."""

    def __init__(self, outward: Outward, services: Services, now: Callable[[], float] = time.monotonic) -> None:
        self._outward, self._services, self._now = outward, services, now
        self._loops: dict[Key, dict[str, _Loop]] = {}
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._asker: Asker | None = None
        self._open = asyncio.Event()

    def follow(
        self, key: Key, step: str, subject: Subject, checks: Iterable[Polled], waited: Mapping[str, float] | None = None
    ) -> Mapping[str, Answers]:
        """Ask these checks from now on, and answer what they had answered so far at this step, by their names.

        What another step was answered, or another check of that name, is forgotten. `waited` tells of the interval of a query
        that is asked for the first time how many seconds of it are over.
        """
        since = waited or {}
        loops = self._loops.setdefault(key, {})
        wanted = {check.name: check for check in checks if not isinstance(check.ask, Task)}
        for name, loop in list(loops.items()):
            if loop.round != step or wanted.get(name) != loop.check:
                self._end(loops.pop(name))
        for name, check in wanted.items():
            if name in loops:
                loops[name].subject = subject
            else:
                slots = self._slots_of(subject.namespace)
                loops[name] = self._begin(_Loop(step, check, subject, slots, since.get(name, 0.0)))
        now = self._now()
        found = {name: replace(loop.answers, age_seconds=now - loop.at) for name, loop in loops.items()}
        for loop in loops.values():
            loop.answers = replace(loop.answers, pairs=())
        return found

    def forget(self, key: Key) -> None:
        """Ask no more for a ModelDeployment."""
        for loop in self._loops.pop(key, {}).values():
            self._end(loop)

    async def run(self) -> None:
        """Keep the connections until cancelled."""
        async with Asker.open_session() as session:
            self._asker = Asker(session, self._outward, self._services)
            self._open.set()
            try:
                await asyncio.Event().wait()
            finally:
                for key in list(self._loops):
                    self.forget(key)

    def _slots_of(self, namespace: str) -> asyncio.Semaphore:
        return self._slots.setdefault(namespace, asyncio.Semaphore(_PARALLEL))

    def _begin(self, loop: _Loop) -> _Loop:
        loop.task = asyncio.create_task(self._poll(loop))
        return loop

    @staticmethod
    def _end(loop: _Loop) -> None:
        if loop.task is not None:
            loop.task.cancel()

    async def _poll(self, loop: _Loop) -> None:
        """Ask again and again. A query tells of the time before it, so it is asked first when a step has lasted for one."""
        check = loop.check
        pinged = isinstance(check.ask, Query | MetricQuery)
        due = self._now() + (max(check.interval_seconds - loop.waited_seconds, 0.0) if pinged else 0.0)
        await self._open.wait()
        while True:
            ping = self._now() < due
            answer = await self._answer(loop, ping=ping)
            now = self._now()
            if answer is not None:
                loop.answers, loop.at = loop.answers.add(answer), now
                again = PING_SECONDS if answer.outcome == Outcome.NONE else check.interval_seconds
                # Means of intervals that overlap would count twice: a Prometheus that was away is asked for one no sooner.
                early = due if ping and isinstance(check.ask, MetricQuery) else now
                due = max(early, now + min(again, check.interval_seconds))
            elif loop.answers.last is not None and loop.answers.last.outcome == Outcome.NONE:
                loop.answers = replace(loop.answers, last=None)
            wait = max(due - now, 0.0)
            if pinged and wait > PING_SECONDS:
                wait = PING_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - jitter
            await asyncio.sleep(wait)

    async def _answer(self, loop: _Loop, *, ping: bool) -> Answer | None:
        assert self._asker is not None  # noqa: S101 - it is open
        async with loop.slots:
            try:
                if ping:
                    return await self._asker.trouble(loop.check, loop.subject)
                return await self._asker.ask(loop.check, loop.subject)
            except Exception:
                log.exception("a check could not be asked")
                return Answer(Outcome.NONE, "the operator failed to ask: see its log")
