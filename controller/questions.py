"""Asks a host's worker something that only it can see: its kernel, its surroundings, the way to another host.

Goes through the store, so that any controller reaches any worker, whichever of them have a way to each other. A
question and its answer live as long as somebody waits; upkeep removes what a controller that died has left. Never
journalled, and never a way to change what a network is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from backends.committer import Transaction
from backends.store import Absent, Conflict, Delete, Put, StoreError, Unchanged
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.settings import Settings
from controller.signal import Signal
from controller.state import State
from controller.suspicions import Suspicions
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import HostSilent, KvnetError, NotFound, TooMuchContention
from kvnet.model import Versioned
from kvnet.moments import moment
from kvnet.problems import from_problem
from kvnet.questions import MAX_ANSWER_S, Answer, Question

AT_ONCE = 32
LEFT_BEHIND_S = 60.0
TAKE_BACK_S = 1.0  # nobody is kept waiting by it: what stays is swept


class Questions:
    """What each replica asks for itself; answers to others' questions are seen and not touched."""

    def __init__(self, state: State, writer: Writer, settings: Settings, rng: random.Random) -> None:
        self._state = state
        self._writer = writer
        self._replica = settings.replica
        self._rng = rng
        self._answered = Signal()
        self.asked = 0
        self.outcomes = Counter[tuple[str, str]]()  # by kind, and: answered, refused, silent
        state.answers.listen(self._on_answer)

    async def ask(
        self, host: str, kind: str, parameters: Mapping[str, Any], caller: Caller, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """The worker's answer; `timeout_s` is at most 20 s.

        Raises:
            NotFound: there is no such host.
            HostSilent: its worker is down, or did not answer in time.
            StoreUnavailable: the question could not be written.
            KvnetError: what the worker answered with.
        """
        if self._state.hosts.get(host) is None:
            raise NotFound(f"there is no host {host!r}", fix="'kvnet host ls' shows those that are there")
        if self._state.alive.get(host) is None:
            raise self._silent(host, "its worker is down")
        self.asked += 1
        timeout_s = min(timeout_s, MAX_ANSWER_S)
        question = Question(
            id=f"{self._rng.getrandbits(64):016x}",
            host=host,
            kind=kind,
            asked_at=self._writer.now(),
            asker=self._replica,
            request_id=caller.request_id,
            parameters=dict(parameters),
        )
        answer = await self._answer_to(question, caller, timeout_s)
        if answer is None:
            self.outcomes[kind, "silent"] += 1
            raise self._silent(host, f"its worker did not answer within {timeout_s:g} s")
        if answer.value.problem is not None:
            self.outcomes[kind, "refused"] += 1
            raise from_problem(answer.value.problem)
        self.outcomes[kind, "answered"] += 1
        return dict(answer.value.result or {})

    async def ask_all(
        self, parameters: Mapping[str, Mapping[str, Any]], kind: str, caller: Caller, timeout_s: float = 10.0
    ) -> dict[str, dict[str, Any] | KvnetError]:
        """The same of many hosts, a bounded number at once: each host's answer, or why there is none."""
        gate = asyncio.Semaphore(AT_ONCE)
        found: dict[str, dict[str, Any] | KvnetError] = {}

        async def one(host: str, wanted: Mapping[str, Any]) -> None:
            async with gate:
                try:
                    found[host] = await self.ask(host, kind, wanted, caller, timeout_s)
                except KvnetError as error:
                    found[host] = error

        async with asyncio.TaskGroup() as group:
            for host, wanted in parameters.items():
                group.create_task(one(host, wanted))
        return {host: found[host] for host in parameters}

    async def _answer_to(self, question: Question, caller: Caller, timeout_s: float) -> Versioned[Answer] | None:
        key = keys.question(question.host, question.id)
        with store_errors_told():
            try:
                await self._writer.commit([Absent(key)], [Put(key, codec.encode(question))], caller)
            except Conflict as error:
                raise TooMuchContention("another question has its id", fix="ask again") from error
        try:
            await self._answered.until(lambda: self._state.answers.get(question.id) is not None, timeout_s)
            return self._state.answers.get(question.id)
        finally:
            # Both at once: a worker answers only a question that is still there.
            with contextlib.suppress(StoreError, KvnetError, TimeoutError):
                async with asyncio.timeout(TAKE_BACK_S):
                    await self._writer.commit([], [Delete(key), Delete(keys.answer(question.id))], caller)

    def _silent(self, host: str, why: str) -> HostSilent:
        state = self._state
        down_since, last_seen = state.down_since(host), state.last_seen(host)
        since = f", since {moment(down_since)}" if down_since is not None else ""
        return HostSilent(
            f"host {host} does not answer: {why}{since}",
            fix=f"see 'kvnet host inspect {host}', and the worker's log there",
            context={
                "host": host,
                "alive": state.alive.get(host) is not None,
                "last_seen": moment(last_seen) if last_seen is not None else None,
            },
        )

    def _on_answer(self, _name: str, _before: object, after: Versioned[Answer] | None) -> None:
        if after is not None:
            self._answered.ring()


class QuestionUpkeep:
    """Removes questions and answers that nobody waits for any more."""

    def __init__(self, state: State, writer: Writer, settings: Settings) -> None:
        self._state = state
        self._writer = writer
        self._monotonic = settings.clock.monotonic
        self._left: Suspicions[tuple[str, int]] = Suspicions()

    def forget(self) -> None:
        self._left.forget()

    async def sweep(self) -> int:
        """One that is unchanged after a minute is not being waited for: an answer takes 20 s at most."""
        there = [
            (table.prefix + name, item.version)
            for table in (self._state.questions, self._state.answers)
            for name, item in table.items.items()
        ]
        doomed = self._left.confirmed(there, self._monotonic(), LEFT_BEHIND_S)
        outcomes = await self._writer.commit_many(
            [Transaction((Unchanged(key, version),), (Delete(key),)) for key, version in doomed]
        )
        return sum(isinstance(outcome, int) for outcome in outcomes)
