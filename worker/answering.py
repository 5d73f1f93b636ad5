"""Answers what controllers ask this host through the store: what only its worker can see.

A question that is withdrawn is forgotten, and an answer that nobody waits for is not written: every answer's commit
checks that its question is still there. Bounded in number, time and size, each kind for itself: however many slow
questions there are, a quick one of another kind has its turn. Never changes a network, and what a kind of question may
do is decided where it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from backends.store import Conflict, Present, Put, Store, StoreError
from kvnet import codec, keys
from kvnet.errors import AnswerTooLarge, HostBusy, Invalid, KvnetError, WorkerUnreachable
from kvnet.problems import to_problem
from kvnet.questions import MAX_ANSWER_BYTES, MAX_ANSWER_S, Answer, Question
from kvnet.request import asked_by
from worker.log import Log
from worker.ports import Backoff, Time
from worker.tables import Table

AT_ONCE = 4
MAX_WAITING = 64
MAX_ARRIVED = 256
TURN_S = 3.0  # less than any asker's patience, so that it is told why
ATTEMPTS = 5

Kind = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class Lane:
    """Questions of one kind: so many at once, a bounded number that wait, and not for long."""

    def __init__(self, host: str, kind: str, at_once: int) -> None:
        self._host = host
        self._kind = kind
        self._at_once = at_once
        self._gate = asyncio.Semaphore(at_once)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises: HostBusy."""
        if self._waiting >= MAX_WAITING:
            raise self._busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_S):
                await self._gate.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._gate.release()

    def _busy(self) -> HostBusy:
        return HostBusy(
            f"host {self._host} is answering {self._at_once} questions of the kind {self._kind!r} already",
            fix="repeat it in a few seconds",
        )


class Answerer:
    """`kinds`: what can be asked, by name. `at_once`: how many of a kind, where that is not `AT_ONCE`."""

    def __init__(
        self,
        store: Store,
        host: str,
        kinds: Mapping[str, Kind],
        *,
        time: Time,
        log: Log,
        at_once: Mapping[str, int] | None = None,
    ) -> None:
        self._store = store
        self._host = host
        self._kinds = kinds
        self._lanes = {kind: Lane(host, kind, (at_once or {}).get(kind, AT_ONCE)) for kind in kinds}
        self._time = time
        self._log = log
        self._table: Table[Question] = Table(
            store, keys.questions_to(host), partial(codec.decode, Question), self._take, time
        )
        self._arrived: asyncio.Queue[str] = asyncio.Queue(MAX_ARRIVED)
        self._seen: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._table.mirror.run())
            while True:
                question = self._table.items.get(await self._arrived.get())
                if question is not None:
                    group.create_task(self._work(question))

    async def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The same question from this host itself, over the worker's socket.

        Raises:
            Invalid: nothing of that kind can be asked.
            KvnetError: what came of it.
        """
        kind, parameters = message.get("kind"), message.get("parameters", {})
        if not isinstance(kind, str) or not isinstance(parameters, dict):
            raise Invalid.field("/kind", "the question has no kind", f"one of {', '.join(self._kinds)}")
        known = self._known(kind)
        async with self._lanes[kind].turn():
            return await self._result(kind, known, parameters)

    def start_over(self) -> None:
        """The store was accepted as it is, so all of it is read anew."""
        self._table.start_over()

    def _take(self, changed: Collection[str]) -> None:
        for id_ in changed:
            if id_ not in self._table.items:
                self._seen.discard(id_)
            elif id_ not in self._seen:
                self._seen.add(id_)
                try:
                    self._arrived.put_nowait(id_)
                except asyncio.QueueFull:
                    self._log.warning("question-dropped", detail=f"{MAX_ARRIVED} came at once")

    async def _work(self, question: Question) -> None:
        with asked_by(question.request_id):
            answer = await self._answer(question)
            if answer is not None:
                await self._write(answer)

    async def _answer(self, question: Question) -> Answer | None:
        """None: it was withdrawn before its turn came."""
        began = self._time.monotonic()
        result, problem = None, None
        try:
            known = self._known(question.kind)
            async with self._lanes[question.kind].turn():
                if question.id not in self._table.items:
                    return None
                result = await self._result(question.kind, known, question.parameters)
        except KvnetError as error:
            problem = to_problem(error, instance=question.request_id)
        self._log.info(
            "asked",
            kind=question.kind,
            asker=question.asker,
            code=problem["code"] if problem else None,
            duration_ms=round(1000 * (self._time.monotonic() - began), 1),
        )
        return Answer(question.id, self._host, self._time.now(), result, problem)

    def _known(self, kind: str) -> Kind:
        known = self._kinds.get(kind)
        if known is None:
            raise Invalid.field(
                "/kind", f"this worker is not asked {kind[:64]!r}", f"it knows {', '.join(sorted(self._kinds))}"
            )
        return known

    async def _result(self, kind: str, known: Kind, parameters: Mapping[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(MAX_ANSWER_S):
                return await known(parameters)
        except TimeoutError:
            raise WorkerUnreachable(
                f"the answer was not ready within {MAX_ANSWER_S:g} s", fix="ask for less, or when the host is less busy"
            ) from None
        except KvnetError:
            raise
        except Exception as error:
            self._log.error("question-failed", kind=kind, detail=f"{type(error).__name__}: {error}")
            raise KvnetError(f"the worker failed: {type(error).__name__}", fix="see its log") from error

    async def _write(self, answer: Answer) -> None:
        value = self._encoded(answer)
        question = keys.question(self._host, answer.id)
        backoff = Backoff(0.1, 2.0)
        for _ in range(ATTEMPTS):
            try:
                await self._store.commit([Present(question)], [Put(keys.answer(answer.id), value)])
                return
            except Conflict:
                return  # nobody waits any more
            except StoreError as error:
                self._log.warning("answer-not-written", detail=str(error))
                await self._time.sleep(backoff.next(self._time))

    def _encoded(self, answer: Answer) -> bytes:
        """Whatever a kind answers, it is an answer: what cannot be told is told so."""
        try:
            value = codec.encode(answer)
            if len(value) <= MAX_ANSWER_BYTES:
                return value
            error: KvnetError = AnswerTooLarge(f"the answer would have {len(value)} bytes", fix="ask for less at once")
        except (TypeError, ValueError, RecursionError) as fault:
            self._log.error("question-failed", detail=f"the answer is not JSON: {fault}")
            error = KvnetError("the worker failed: its answer cannot be told", fix="see its log")
        return codec.encode(replace(answer, result=None, problem=to_problem(error)))
