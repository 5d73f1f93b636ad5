"""Controllers ask workers through the store: the real asker and the real answerer over one store in memory."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends.memory import MemoryStore
from backends.store import Put
from controller.cluster import Cluster
from kvnet import codec, keys
from kvnet.errors import HostBusy, HostSilent, Invalid, KvnetError, NotFound, WorkerUnreachable
from kvnet.questions import Answer, Question
from tests.unit.controller.kit import ME, FakeTime, add_host, eventually, opened
from worker.answering import Answerer, Kind
from worker.log import Log
from worker.ports import Time

pytestmark = pytest.mark.anyio


async def echo(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"heard": dict(parameters)}


async def refuse(_: Mapping[str, Any]) -> dict[str, Any]:
    raise NotFound("no such device", fix="name another")


async def fail(_: Mapping[str, Any]) -> dict[str, Any]:
    raise RuntimeError("a fault")


async def overflow(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": "x" * 250_000}


async def mumble(_: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "half a character: \ud800"}


KINDS = {"echo": echo, "refuse": refuse, "fail": fail, "overflow": overflow, "mumble": mumble}


@asynccontextmanager
async def answering(
    store: MemoryStore, host: str, kinds: Mapping[str, Kind] = KINDS, at_once: Mapping[str, int] | None = None
) -> AsyncIterator[Answerer]:
    answerer = Answerer(store, host, kinds, time=Time(), log=Log(io.StringIO()), at_once=at_once)
    running = asyncio.create_task(answerer.run())
    try:
        yield answerer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def left(store: MemoryStore) -> list[str]:
    entries = [*(await store.list(keys.QUESTIONS)).entries, *(await store.list(keys.ANSWERS)).entries]
    return [entry.key for entry in entries]


async def test_a_host_answers_and_nothing_is_left_in_the_store(cluster: Cluster, store: MemoryStore) -> None:
    async with answering(store, "h1"):
        answer = await cluster.questions.ask("h1", "echo", {"mtu": 1450}, ME)

    assert answer == {"heard": {"mtu": 1450}}
    assert await left(store) == []


async def test_a_question_is_no_change_of_the_cluster(cluster: Cluster, store: MemoryStore) -> None:
    before = (await store.list(keys.JOURNAL)).entries
    async with answering(store, "h1"):
        await cluster.questions.ask("h1", "echo", {}, ME)

    assert (await store.list(keys.JOURNAL)).entries == before


async def test_what_the_worker_refuses_reaches_the_asker_as_it_was(cluster: Cluster, store: MemoryStore) -> None:
    async with answering(store, "h1"):
        with pytest.raises(NotFound, match="no such device") as refused:
            await cluster.questions.ask("h1", "refuse", {}, ME)
        with pytest.raises(Invalid, match="is not asked 'unheard-of'"):
            await cluster.questions.ask("h1", "unheard-of", {}, ME)

    assert refused.value.fix == "name another"


async def test_a_fault_in_one_answer_does_not_end_the_worker(cluster: Cluster, store: MemoryStore) -> None:
    async with answering(store, "h1"):
        with pytest.raises(KvnetError, match="RuntimeError"):
            await cluster.questions.ask("h1", "fail", {}, ME)
        with pytest.raises(KvnetError, match="would have"):
            await cluster.questions.ask("h1", "overflow", {}, ME)
        with pytest.raises(KvnetError, match="cannot be told"):
            await cluster.questions.ask("h1", "mumble", {}, ME)
        assert await cluster.questions.ask("h1", "echo", {}, ME) == {"heard": {}}


async def test_a_host_that_is_not_there_or_down_or_silent_is_told_apart(cluster: Cluster, store: MemoryStore) -> None:
    await add_host(store, "h2", alive=False)
    await cluster._state.reached(store.state.revision, *cluster._state.tables)

    with pytest.raises(NotFound):
        await cluster.questions.ask("nobody", "echo", {}, ME)
    with pytest.raises(HostSilent, match="is down"):
        await cluster.questions.ask("h2", "echo", {}, ME)
    with pytest.raises(HostSilent, match=r"did not answer within 0\.05 s") as silent:
        await cluster.questions.ask("h1", "echo", {}, ME, timeout_s=0.05)

    assert silent.value.context["alive"] is True
    assert await left(store) == []


async def test_many_hosts_are_asked_at_once_and_each_has_its_own_outcome(cluster: Cluster, store: MemoryStore) -> None:
    await add_host(store, "h2")
    await cluster._state.reached(store.state.revision, *cluster._state.tables)

    async with answering(store, "h1"):
        answers = await cluster.questions.ask_all({"h1": {"n": 1}, "h2": {"n": 2}}, "echo", ME, timeout_s=0.2)

    assert answers["h1"] == {"heard": {"n": 1}}
    assert isinstance(answers["h2"], HostSilent)


async def test_an_answer_is_told_even_if_the_question_cannot_be_taken_back_in_time(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.questions.TAKE_BACK_S", 0.0)
    async with answering(store, "h1"):
        assert await cluster.questions.ask("h1", "echo", {}, ME) == {"heard": {}}


async def test_an_answer_that_nobody_waits_for_is_not_written(cluster: Cluster, store: MemoryStore) -> None:
    begun, go_on, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_: Mapping[str, Any]) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        answered.set()
        return {}

    async with answering(store, "h1", {"slow": slow, "echo": echo}):
        asking = asyncio.create_task(cluster.questions.ask("h1", "slow", {}, ME, timeout_s=5.0))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        go_on.set()
        await answered.wait()
        await cluster.questions.ask("h1", "echo", {}, ME)

    assert await left(store) == []


async def test_however_many_slow_questions_there_are_a_quick_one_of_another_kind_is_answered_at_once(
    cluster: Cluster, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.answering.TURN_S", 0.2)
    begun, go_on = [], asyncio.Event()

    async def examine(parameters: Mapping[str, Any]) -> dict[str, Any]:
        begun.append(parameters)
        await go_on.wait()
        return {}

    async with answering(store, "h1", {"doctor": examine, "look": echo}, at_once={"doctor": 2}):
        doctors = [asyncio.create_task(cluster.questions.ask("h1", "doctor", {}, ME)) for _ in range(8)]
        await eventually(lambda: len(begun) == 2)
        assert await cluster.questions.ask("h1", "look", {}, ME, timeout_s=1.0) == {"heard": {}}
        await eventually(lambda: sum(doctor.done() for doctor in doctors) == 6)
        go_on.set()
        outcomes = await asyncio.gather(*doctors, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, HostBusy)]
    assert len(refused) == 6
    assert len(begun) == 2
    assert str(refused[0]) == "host h1 is answering 2 questions of the kind 'doctor' already"
    assert await left(store) == []


async def test_a_question_that_is_withdrawn_before_its_turn_is_not_answered(
    cluster: Cluster, store: MemoryStore
) -> None:
    asked, go_on = [], asyncio.Event()

    async def slow(parameters: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(parameters["n"])
        await go_on.wait()
        return {}

    async with answering(store, "h1", {"slow": slow}, at_once={"slow": 1}):
        first = asyncio.create_task(cluster.questions.ask("h1", "slow", {"n": 1}, ME))
        await eventually(lambda: asked == [1])
        with pytest.raises(HostSilent):
            await cluster.questions.ask("h1", "slow", {"n": 2}, ME, timeout_s=0.1)
        go_on.set()
        await first
        await cluster.questions.ask("h1", "slow", {"n": 3}, ME)

    assert asked == [1, 3]


async def test_a_worker_that_starts_late_still_answers(cluster: Cluster, store: MemoryStore) -> None:
    asking = asyncio.create_task(cluster.questions.ask("h1", "echo", {}, ME, timeout_s=5.0))
    await eventually(lambda: bool(cluster._state.questions.items))

    async with answering(store, "h1"):
        assert await asking == {"heard": {}}


async def test_what_a_controller_that_died_has_left_is_removed(store: MemoryStore) -> None:
    time = FakeTime()
    question = Question("q1", "h1", "echo", time.now(), "dead")
    async with opened(store, time) as cluster:
        await store.commit(
            [],
            [
                Put(keys.question("h1", "q1"), codec.encode(question)),
                Put(keys.answer("q1"), codec.encode(Answer("q1", "h1", time.now(), {}))),
            ],
        )
        await cluster._state.reached(store.state.revision, *cluster._state.tables)

        assert (await cluster.upkeep.sweep()).done["questions"] == 0
        time.pass_by(61.0)
        assert (await cluster.upkeep.sweep()).done["questions"] == 2

    assert await left(store) == []


async def test_the_same_can_be_asked_on_the_host_itself(store: MemoryStore) -> None:
    answerer = Answerer(store, "h1", KINDS, time=Time(), log=Log(io.StringIO()))

    assert await answerer.ask({"op": "ask", "kind": "echo", "parameters": {"a": 1}}) == {"heard": {"a": 1}}
    with pytest.raises(Invalid):
        await answerer.ask({"op": "ask"})


async def test_an_answer_that_takes_for_ever_is_given_up(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr("worker.answering.MAX_ANSWER_S", 0.05)
    answerer = Answerer(store, "h1", {"never": never}, time=Time(), log=Log(io.StringIO()))

    with pytest.raises(WorkerUnreachable, match=r"within 0\.05 s"):
        await answerer.ask({"op": "ask", "kind": "never", "parameters": {}})
