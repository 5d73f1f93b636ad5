"""Endpoints that were given up are remembered: a controller that was frozen may make them after any restart."""

from __future__ import annotations

import copy
import io
import random

import pytest

from tests.simulation.disk import Disk, SimulatedDir
from worker.givenup import GivenUp
from worker.log import Log

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def given_up(disk: Disk) -> GivenUp:
    return GivenUp(SimulatedDir(disk), Log(io.StringIO(), now=lambda: 0.0))


async def test_what_was_settled_is_known_after_any_power_failure() -> None:
    disk = Disk()
    given_up(disk).add("unsettled")
    settled = given_up(disk)
    settled.add("e1")
    await settled.settle()

    for seed in range(20):
        found = copy.deepcopy(disk)
        found.lose_power(random.Random(seed))
        assert list(given_up(found)) == ["unsettled", "e1"]


async def test_what_came_after_all_is_given_up_no_more_and_the_oldest_are_forgotten() -> None:
    disk = Disk()
    known = given_up(disk)
    for number in range(1_002):
        known.add(f"e{number}")

    assert known.found_in({"e0", "e1", "e2", "e3"}) == ["e2", "e3"]
    assert next(iter(given_up(disk))) == "e4"
