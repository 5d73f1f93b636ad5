"""Follows the change log of `consul_log` with blocking queries, and sweeps it.

One query waits on the log alone; the values of what changed are read when somebody wants them. Never tells a step
before everything up to its revision is known.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from backends.consul_log import Log, Record, Sweeper, swept_value
from backends.lease import Clock, Sleep
from backends.medium import Step
from backends.store import Change, Entry, Revision, StoreError

READ_AT_ONCE = 64
# How often a step grows because what it read is newer than itself, before it is told as it is.
GROWTHS = 4
# Without a log, Consul wakes us for every write of anybody; also bounds what a misbehaving proxy can make of us.
IDLE_PAUSE_S = 0.05
# While others commit by the hundred, changes are told in larger steps instead of reading a large log for each.
SMALL_LOG_BYTES = 48 * 1024
LOG_BYTES_PER_S = 8e6


class Source(Protocol):
    """What following needs of the medium."""

    async def read(self, keys: Sequence[str]) -> list[Entry | None]: ...

    async def read_log(self, newer_than: int = 0) -> tuple[Log, int]: ...

    async def sweep(self, slots: Sequence[Record], value: bytes, swept: Revision) -> None: ...


async def follow(
    source: Source,
    after: Revision | None,
    is_wanted: Callable[[str], bool],
    *,
    rng: random.Random,
    clock: Clock,
    sleep: Sleep,
) -> AsyncIterator[Step]:
    """See `Medium.follow`."""
    sweeper = Sweeper(rng, clock())
    log, index = await source.read_log()
    told = log.revision if after is None else after
    if log.since(told):
        step, log, index = await _step(source, log, index, told, is_wanted)
        told = step.revision
        yield step
    else:
        yield Step(told, ())
    while True:
        if due := sweeper.due(log, clock()):
            await _sweep(source, log, due)
        log, newer = await source.read_log(index)
        index = newer if newer >= index else 1  # Consul's advice: an index that went back starts again
        if not log.since(told) and log.revision == told:
            await sleep(IDLE_PAUSE_S)
            continue
        step, log, index = await _step(source, log, index, told, is_wanted)
        told = step.revision
        yield step
        if log.size > SMALL_LOG_BYTES:
            await sleep(log.size / LOG_BYTES_PER_S)


async def _step(
    source: Source, log: Log, index: int, told: Revision, is_wanted: Callable[[str], bool]
) -> tuple[Step, Log, int]:
    """Everything after `told`. Values are as new as when they are read: the step grows until it covers them."""
    states: dict[str, Entry | None] = {}
    unread: set[str] = set()
    known = told
    for _ in range(GROWTHS):
        fresh = [one for one in log.since(told) if one.revision > known]
        known = log.revision
        wanted = [replace(one, put=_those(is_wanted, one.put), gone=_those(is_wanted, one.gone)) for one in fresh]
        for key in [key for one in fresh for key in (*one.put, *one.gone)]:
            states.pop(key, None)  # what was read of it before is old now, also if nobody wants to know any more
            unread.add(key)
        await _read(source, wanted, states)
        if max((entry.version for entry in states.values() if entry), default=0) <= known:
            break
        log, index = await source.read_log()
    # What is newer still is left to the step that it belongs to.
    changes = [Change(key, entry) for key, entry in states.items() if entry is None or entry.version <= known]
    unread.difference_update(change.key for change in changes)
    return Step(known, tuple(changes), tuple(sorted(unread))), log, index


def _those(is_wanted: Callable[[str], bool], keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if is_wanted(key))


async def _read(source: Source, records: Sequence[Record], states: dict[str, Entry | None]) -> None:
    """The states after `records`, each key where its last change stands in the order of revisions."""
    put: dict[str, None] = {}
    for record in records:
        for key in (*record.put, *record.gone):
            states.pop(key, None)
            states[key] = None
            put.pop(key, None)
        for key in record.put:
            if key in record.values:
                states[key] = Entry(key, record.values[key], record.revision)
            else:
                put[key] = None
    wanted = list(put)
    for start in range(0, len(wanted), READ_AT_ONCE):
        some = wanted[start : start + READ_AT_ONCE]
        states.update(zip(some, await source.read(some), strict=True))


async def _sweep(source: Source, log: Log, due: Sequence[Record]) -> None:
    """If somebody else was first, or it does not work out, the next one will."""
    try:
        await source.sweep(due, swept_value(log, due), log.swept)
    except StoreError:
        return
