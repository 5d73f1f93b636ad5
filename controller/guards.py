"""A key that every transaction of a kind rewrites, so that the store orders them: the lock that nobody can forget.

Who holds the guard decides on a view at least as new as its last writer's; a commit that checks it proves that nothing
of that kind happened since. Inside one process a real lock keeps our own writers from losing against each other.
Carries a counter, because not every store versions an identical write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from backends.store import Absent, Check, Put, Revision, Store, Unchanged, Write
from controller.tables import Table
from kvnet import codec
from kvnet.errors import StoreUnavailable


@dataclass(frozen=True, slots=True)
class _Counter:
    n: int


class Guard:
    """`tables` are what is decided by: they must have seen the guard's last writer before anybody decides."""

    def __init__(self, store: Store, key: str, tables: Sequence[Table[Any]], patience_s: float) -> None:
        self.key = key
        self._store = store
        self._tables = tables
        self._patience_s = patience_s
        self._lock = asyncio.Lock()
        self._version: Revision | None = None  # None: to be read; 0: nobody wrote it yet
        self._counter = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Guard]:
        async with self._lock:
            yield self

    async def ready(self) -> None:
        """Call before deciding, at every attempt.

        Raises:
            StoreUnavailable: the watch does not bring what the guard's last writer did.
            StoreError: the guard cannot be read.
        """
        if self._version is not None:
            return
        entry = await self._store.get(self.key)
        version, counter = (0, 0) if entry is None else (entry.version, codec.decode(_Counter, entry.value).n)
        for table in self._tables:
            await self._until(table, version)
        self._version, self._counter = version, counter

    def forget(self) -> None:
        """What is looked for may be newer than what is known: `ready` reads again."""
        self._version = None

    @property
    def check(self) -> Check:
        return Unchanged(self.key, self._version) if self._version else Absent(self.key)

    @property
    def write(self) -> Write:
        return Put(self.key, b'{"v":1,"n":%d}' % (self._counter + 1))

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Around the commit: whatever goes wrong in it, the guard is read again before the next decision."""
        try:
            yield
        except BaseException:
            self._version = None
            raise

    def won(self, revision: Revision) -> None:
        self._version = revision
        self._counter += 1

    async def _until(self, table: Table[Any], version: Revision) -> None:
        try:
            await table.mirror.until(version, self._patience_s)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"{table.prefix} did not arrive up to revision {version} within {self._patience_s:g} s",
                fix="nothing was changed; repeat when 'kvnet status' shows no lag",
            ) from error
