"""An operator's pause of the repairs, and the memory of what was repaired."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from datapath.objects import CreateLink, Neighbour, ReplaceNeighbour, ReplaceVtep, Veth, VtepEntry
from kvnet.errors import Invalid
from worker.agenda import Agenda, Work
from worker.log import Log
from worker.pausing import LONGEST_S, Pause
from worker.ports import Time
from worker.repairs import KEPT, KEPT_S, Repairs

pytestmark = pytest.mark.anyio

NETWORK, DEVICE = "0" * 12, "kvx" + "0" * 12
ENTRY = ReplaceVtep(VtepEntry(DEVICE, b"\x02\x00\x00\x00\x00\x09", b"\xc0\x00\x02\x02"))
OTHER = ReplaceNeighbour(Neighbour("kvb" + "0" * 12, b"\x0a\x01\x00\x03", b"\x02\x00\x00\x00\x00\x09"))


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def time(self) -> Time:
        return Time(now=lambda: self.at, monotonic=lambda: self.at)


async def test_a_pause_is_told_and_ends_by_itself() -> None:
    clock, told = Clock(), []
    pause = Pause("h1", clock.time(), Log(io.StringIO()))
    pause.on_change = lambda: told.append(pause.left_s)

    answer = await pause.pause({"seconds": 60})

    assert answer == {"host": "h1", "paused": True, "seconds": 60.0}
    assert [condition.code for condition in pause.conditions] == ["repairs-paused"]
    clock.at += 59
    assert pause.left_s == 1.0
    clock.at += 1
    assert pause.left_s == 0
    assert pause.conditions == ()
    assert told == [60.0]


async def test_a_pause_says_who_wanted_it() -> None:
    pause = Pause("h1", Clock().time(), Log(io.StringIO()))

    await pause.pause({"seconds": 60, "by": "alice", "request_id": "r-1"})
    [condition] = pause.conditions
    assert " by alice (request r-1); 'kvnet host resume h1' ends that" in condition.detail

    await pause.pause({"seconds": 60, "by": 7, "request_id": "x" * 10_000})
    [condition] = pause.conditions
    assert " by " not in condition.detail


async def test_a_pause_can_be_ended_and_ending_none_is_no_error() -> None:
    pause = Pause("h1", Clock().time(), Log(io.StringIO()))
    await pause.pause({"seconds": 60})

    assert (await pause.resume({}))["paused"] is False
    assert (await pause.resume({}))["paused"] is False


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_S + 1, True, "60", None, float("nan"), float("inf")])
async def test_a_pause_without_a_sensible_end_is_refused(seconds: object) -> None:
    pause = Pause("h1", Clock().time(), Log(io.StringIO()))

    with pytest.raises(Invalid):
        await pause.pause({"seconds": seconds})
    assert pause.left_s == 0


def test_repairs_are_counted_and_the_newest_come_first() -> None:
    clock = Clock()
    repairs = Repairs(clock.time())
    for _ in range(3):
        repairs.note(NETWORK, [ENTRY])
        clock.at += 10
    repairs.note(NETWORK, [OTHER])

    found = list(repairs.of([NETWORK], [DEVICE, "10.1.0.3"]))

    assert [(one.times, one.seconds_ago) for one in found] == [(1, 0.0), (3, 10.0)]
    assert DEVICE in found[1].text


def test_what_is_about_something_else_or_old_is_not_told() -> None:
    clock = Clock()
    repairs = Repairs(clock.time())
    repairs.note(NETWORK, [ENTRY])

    assert not list(repairs.of(["1" * 12], [DEVICE]))
    assert not list(repairs.of([NETWORK], ["kvx-other"]))
    clock.at += KEPT_S + 1
    assert not list(repairs.of([NETWORK], [DEVICE]))


def test_the_memory_is_bounded() -> None:
    repairs = Repairs(Clock().time())
    for number in range(2 * KEPT):
        entry = replace(ENTRY, entry=ENTRY.entry._replace(mac=number.to_bytes(6, "big")))
        repairs.note(NETWORK, [entry])

    assert len(list(repairs.of([NETWORK], [DEVICE]))) == KEPT


def test_an_interface_of_a_workload_that_just_came_is_no_repair() -> None:
    repairs = Repairs(Clock().time(), lambda device: device == "kvenew")
    repairs.note(NETWORK, [CreateLink(Veth("kvenew", 1450, "kvb")), ENTRY])

    assert not list(repairs.of([NETWORK], ["kve", DEVICE]))
    repairs.note(NETWORK, [CreateLink(Veth("kveold", 1450, "kvb"))])
    assert list(repairs.of([NETWORK], ["kve"]))


def test_a_pause_forgets_what_was_to_be_looked_at_for_a_hint_and_nothing_else() -> None:
    agenda = Agenda()
    agenda.add(["hinted", "failed", "hinted later"], 1.0, read=True, hinted=True)
    agenda.add(["failed"], 2.0, read=True)
    agenda.add(["changed"], 1.0)
    agenda.add(["failed"], 1.0, read=True, hinted=True)
    agenda.add_host(1.0, hinted=True)

    agenda.drop_hints()

    assert agenda.take(5.0) == Work(networks=frozenset({"failed", "changed"}), read=frozenset({"failed"}))
    agenda.add_host(1.0)
    agenda.add_host(1.0, hinted=True)
    agenda.drop_hints()
    assert agenda.take(5.0) == Work(host=True)
