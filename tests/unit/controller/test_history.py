"""What happened to one thing is read from the journal without holding anybody up."""

from __future__ import annotations

import asyncio

import pytest

from backends.store import Change, Entry
from controller import journal
from controller.events import EventLog
from controller.history import Subject, changes
from controller.journal import Changed
from controller.requests import Caller
from kvnet import keys

pytestmark = pytest.mark.anyio

COUNT = 400


@pytest.fixture
def log() -> EventLog:
    log = EventLog()
    for number in range(1, COUNT + 1):
        key = keys.endpoint("0123456789ab", f"id{number:06d}")
        after = b'{"v":1,"id":"id%06d","name":"web-%d"}' % (number, number)
        note = journal.note(float(number), Caller("me", "r"), Changed("endpoint.created", key, None, after))
        entry = Entry(keys.journal(number, "x"), b'{"v":1,"n":1,"entries":[%b]}' % note, number)
        log.on_change([Change(entry.key, entry)])
    return log


async def test_the_newest_are_told_first_and_no_more_than_asked_for(log: EventLog) -> None:
    assert [event.revision for event in await changes(log, Subject(), 3)] == [COUNT, COUNT - 1, COUNT - 2]
    assert [event.revision for event in await changes(log, Subject(endpoint="web-7"), 3)] == [7]


async def test_others_run_while_a_word_that_is_everywhere_is_looked_for(log: EventLog) -> None:
    looking = asyncio.create_task(changes(log, Subject(endpoint="e"), 50))
    turns = 0
    while not looking.done():
        turns += 1
        await asyncio.sleep(0)

    assert await looking == []
    assert turns > COUNT / 10


async def test_what_goes_away_meanwhile_is_not_told(log: EventLog) -> None:
    looking = asyncio.create_task(changes(log, Subject(), COUNT))
    await asyncio.sleep(0)
    log.went_back(0)

    assert len(await looking) < COUNT
