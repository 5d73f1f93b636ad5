"""A change that is tried and not made: the same use cases over a store that keeps what would be written to itself.

Every rule, every check of a commit and every choice is the real one, so what a rehearsal refuses the real thing would
refuse, too. What is chosen freely (an id, an address, a port) may be another one when it is really done. Never writes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

from backends.store import (
    Absent,
    Batch,
    Check,
    Conflict,
    Entry,
    Put,
    Refused,
    Revision,
    Session,
    Snapshot,
    Store,
    Unchanged,
    Write,
    require_floor,
)
from controller.cases import Cases, cases
from controller.settings import Settings
from controller.standing import Standing
from controller.state import State
from controller.writer import Writer
from kvnet.errors import KvnetError

T = TypeVar("T")
Written = Mapping[str, bytes | None]
NOT_YET: Revision = 0  # the version of what was not written


class RehearsalStore:
    """The store as it would be: what was put here lies over what is there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: dict[str, bytes | None] = {}

    @property
    def written(self) -> Written:
        """None: deleted."""
        return MappingProxyType(self._written)

    async def get(self, key: str) -> Entry | None:
        if key in self._written:
            value = self._written[key]
            return None if value is None else Entry(key, value, NOT_YET)
        return await self._store.get(key)

    async def list(self, prefix: str) -> Snapshot:
        found = await self._store.list(prefix)
        entries = {entry.key: entry for entry in found.entries}
        for key, value in self._written.items():
            if key.startswith(prefix):
                entries.pop(key, None)
                if value is not None:
                    entries[key] = Entry(key, value, NOT_YET)
        return Snapshot(tuple(entries[key] for key in sorted(entries)), found.revision)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        require_floor(checks, writes)
        failed = [check.key for check in checks if not await self._holds(check)]
        if failed:
            raise Conflict(sorted(failed))
        for write in writes:
            self._written[write.key] = write.value if isinstance(write, Put) else None
        return NOT_YET

    async def _holds(self, check: Check) -> bool:
        entry = await self.get(check.key)
        match check:
            case Absent():
                return entry is None
            case Unchanged(_, version):
                return entry is not None and entry.version == version
            case _:
                return entry is not None

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        return self._store.watch(prefix, after)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        raise Refused("a rehearsal holds no sessions")

    async def close(self) -> None:
        """The store is another's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""


async def rehearse(
    action: Callable[[Cases], Awaitable[T]],
    store: Store,
    state: State,
    settings: Settings,
    standing: Standing,
    rng: random.Random,
) -> tuple[T, Written]:
    """What the action would return, and what it would have written.

    Raises:
        KvnetError: what the action would raise.
    """
    over = RehearsalStore(store)
    writer = Writer(over, settings, rng, standing)
    changes = cases(state.aside(), writer, settings, rng)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        outcome = await _outcome(action(changes))
        running.cancel()
    if isinstance(outcome, KvnetError):
        raise outcome
    return outcome, over.written


async def _outcome(awaited: Awaitable[T]) -> T | KvnetError:
    """A refusal as a value: a task group would wrap it."""
    try:
        return await awaited
    except KvnetError as error:
        return error
