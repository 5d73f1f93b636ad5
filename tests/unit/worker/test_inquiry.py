"""Whose request removed something is asked for a log line only, and so never often."""

from __future__ import annotations

import pytest

from kvnet.request import asked_by
from tests.unit.worker.kit import World, until
from tests.unit.worker.test_chronicle import told
from worker.inquiry import BURST, PER_SECOND, Allowance
from worker.ports import Time

C1 = "/run/netns/c1"
pytestmark = pytest.mark.anyio


def test_a_crowd_of_questions_is_a_burst_and_then_a_few_a_second() -> None:
    now = 0.0
    allowance = Allowance(Time(monotonic=lambda: now))
    asked = 0
    while now < 60.0:
        asked += allowance.take()
        now += 0.01

    assert BURST + 59 * PER_SECOND <= asked <= BURST + 60 * PER_SECOND


async def test_many_removals_one_after_another_are_all_told_and_seldom_asked_for(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    for number in range(40):
        await h1.attach("c1", id=f"e{number}")
        with asked_by(f"detach-{number}"):
            await h1.detach(id=f"e{number}")
    await until(lambda: all(any(f"e{n}" in line for line in removals(told(h1, "applied"))) for n in range(40)))

    assert BURST <= h1.controller.inquiries <= BURST + PER_SECOND * h1.worker._time.monotonic() + 1


def removals(lines: list[str]) -> list[str]:
    return [line for line in lines if "removed=" in line]
