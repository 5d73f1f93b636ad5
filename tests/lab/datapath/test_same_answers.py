"""Where does this packet arrive, as whose, through which hosts? The kernel in memory must say what Linux does.

Every workload, host and outsider asks everybody, in every kind of network with every option that judges traffic.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from datapath.objects import Gate
from kvnet.model import Driver
from tests.lab.coexistence.programs import FLAVOURS, run
from tests.lab.datapath.asking import Asker, Question
from tests.lab.datapath.questions import Seen, every_question, in_memory, is_answerable, on_linux
from tests.lab.datapath.twin import HOSTS, Twin, open_twin
from worker.kernel.gates import PROGRAMS

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

SAMPLE = 1500  # of questions, where the same are asked again under other circumstances
SHOWN = 12
SETTLE_SECONDS = 8.0
AGAIN_SECONDS = 0.4
ALL_DRIVERS = frozenset(Driver)


@pytest.fixture
async def twin(wrappers: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Twin]:
    monkeypatch.setenv("PATH", f"{wrappers / 'bin'}:{os.environ['PATH']}")
    async with open_twin() as made:
        yield made


async def test_both_kernels_take_every_packet_to_the_same_place(twin: Twin) -> None:
    assert {network.driver for network in twin.world.networks.values()} == ALL_DRIVERS
    questions = every_question(twin)
    with listening(twin) as asker:
        for on in (True, False):
            twin.filter_bridged(on)
            told = await assert_same_answers(twin, asker, questions, f"bridged frames filtered: {on}")
            await assert_conversations(twin, asker, told)


async def test_both_are_alike_behind_chains_that_drop_what_they_do_not_know(twin: Twin, wrappers: Path) -> None:
    questions, rng = every_question(twin), random.Random(1)
    with listening(twin) as asker:
        for flavour in FLAVOURS:
            set_gates(twin, wrappers, flavour, "DROP")
            for is_open in (False, True):
                if is_open:
                    await twin.settle()
                for on in (True, False):
                    twin.filter_bridged(on)
                    words = f"{flavour}, open: {is_open}, bridged frames filtered: {on}"
                    await assert_same_answers(twin, asker, rng.sample(questions, SAMPLE), words)
            set_gates(twin, wrappers, flavour, "ACCEPT")


async def assert_same_answers(twin: Twin, asker: Asker, questions: list[Question], words: str) -> dict[Question, Seen]:
    """What both say."""
    told = {question: in_memory(twin, question) for question in questions}
    found, again = {}, questions
    # A packet may come late on a busy machine, and a neighbour that did not answer is asked again a second later.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                answers = await asyncio.to_thread(asker.ask, again)
                heard = {q: on_linux(twin, q, answer, told[q]) for q, answer in zip(again, answers, strict=True)}
                found = {question: real for question, real in heard.items() if real != told[question]}
                again = list(found)
                if not found:
                    return told
                await asyncio.sleep(AGAIN_SECONDS)
    lines = [f"{question}: real {real}, fake {told[question]}" for question, real in list(found.items())[:SHOWN]]
    raise AssertionError(f"{words}: {len(found)} answers differ\n" + "\n".join(lines))


async def assert_conversations(twin: Twin, asker: Asker, told: dict[Question, Seen]) -> None:
    """What arrives is answered, and the answer is believed."""
    waiting = [question for question, seen in told.items() if is_answerable(twin, question, seen)]
    for _ in range(3):
        answered = await asyncio.to_thread(asker.converse, waiting)
        waiting = [question for question, is_so in zip(waiting, answered, strict=True) if not is_so]
    assert not waiting, f"{len(waiting)} got no answer: {waiting[:SHOWN]}"


@contextlib.contextmanager
def listening(twin: Twin) -> Iterator[Asker]:
    asker = Asker(twin.places, twin.cables)
    try:
        yield asker
    finally:
        asker.close()


def set_gates(twin: Twin, wrappers: Path, flavour: str, policy: str) -> None:
    """Somebody sets the policy of that flavour's FORWARD chains, on every host, and takes our rule out."""
    for name in HOSTS:
        for family in (4, 6):
            gate = Gate(flavour, family)
            program = wrappers / "bin" / PROGRAMS[gate]
            run(twin.places[name], program, "-F", "FORWARD")
            run(twin.places[name], program, "-P", "FORWARD", policy)
            twin.world.kernels[name].set_gate(gate, False if policy == "DROP" else None)
