"""A store client that records what it is asked and told. Everything in a torture run speaks to its store through one.

Each put value gets a trailer with the number of its commit and a checksum, which is taken off again when it is read: so
every value that is seen names its writer, and one that was damaged on the way names nobody. Never changes an outcome.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

from backends.store import (
    Batch,
    Change,
    Check,
    Conflict,
    Entry,
    Put,
    Revision,
    Session,
    Snapshot,
    Store,
    StoreError,
    Unchanged,
    Unknown,
    Write,
)
from tests.torture.history import Recorder

TRAILER = struct.Struct(">QI")
NOBODY = -1  # what a value without a good trailer names as its writer


class Gate:
    """Commits pass while it is open; `until_idle` says when the last one is through."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._inside = 0
        self._open.set()
        self._idle.set()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    async def until_idle(self) -> None:
        await self._idle.wait()

    async def __aenter__(self) -> None:
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._idle.clear()

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._idle.set()


class RecordingStore:
    def __init__(self, store: Store, recorder: Recorder, process: str, gate: Gate) -> None:
        self._store = store
        self._recorder = recorder
        self._process = process
        self._gate = gate

    async def get(self, key: str) -> Entry | None:
        op = self._begin("get", key=key)
        kind, more = "fail", {}
        try:
            entry = await self._store.get(key)
            kind, more = "ok", _told(entry)
        finally:
            self._end(kind, "get", op, key=key, **more)
        return None if entry is None else _bare(entry)

    async def list(self, prefix: str) -> Snapshot:
        return await self.list_as(prefix, is_final=False)

    async def list_as(self, prefix: str, *, is_final: bool) -> Snapshot:
        op = self._begin("list", prefix=prefix)
        kind, more = "fail", {}
        try:
            snapshot = await self._store.list(prefix)
            kind, more = "ok", {"revision": snapshot.revision, "entries": [_seen(e) for e in snapshot.entries]}
        finally:
            self._end(kind, "list", op, **more, **({"final": True} if is_final else {}))
        return Snapshot(tuple(map(_bare, snapshot.entries)), snapshot.revision)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        async with self._gate:
            puts = [write for write in writes if isinstance(write, Put)]
            bound = [put.key for put in puts if put.session is not None]
            op = self._begin(
                "commit",
                checks=[_demand(check) for check in checks],
                puts=[put.key for put in puts],
                deletes=[write.key for write in writes if not isinstance(write, Put)],
                **({"bound": bound} if bound else {}),
            )
            tagged = [Put(w.key, _tagged(w.value, op), w.session) if isinstance(w, Put) else w for w in writes]
            kind: str = "info"
            more: dict[str, Any] = {}
            try:
                revision = await self._store.commit(checks, tagged)
                kind, more = "ok", {"revision": revision}
            except Unknown:
                raise
            except Conflict as conflict:
                kind, more = "fail", {"conflict": conflict.keys}
                raise
            except StoreError as error:
                kind, more = "fail", {"error": type(error).__name__}
                raise
            finally:
                self._end(kind, "commit", op, **more)
            return revision

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        op = self._begin("watch", prefix=prefix, after=after)
        try:
            async for batch in self._store.watch(prefix, after):
                changes = [[c.key, 0, 0] if c.entry is None else _seen(c.entry) for c in batch.changes]
                self._recorder.write("told", "watch", op, self._process, revision=batch.revision, changes=changes)
                bare = [Change(c.key, None if c.entry is None else _bare(c.entry)) for c in batch.changes]
                yield Batch(tuple(bare), batch.revision)
        finally:
            self._end("info", "watch", op)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        return await self._store.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _begin(self, f: str, **more: Any) -> int:
        op = self._recorder.number()
        self._recorder.write("invoke", f, op, self._process, **more)
        return op

    def _end(self, kind: str, f: str, op: int, **more: Any) -> None:
        self._recorder.write(kind, f, op, self._process, **more)


def _tagged(value: bytes, op: int) -> bytes:
    return value + TRAILER.pack(op, zlib.crc32(value))


def _writer(value: bytes) -> int:
    if len(value) < TRAILER.size:
        return NOBODY
    op, checksum = TRAILER.unpack_from(value, len(value) - TRAILER.size)
    return int(op) if checksum == zlib.crc32(value[: -TRAILER.size]) else NOBODY


def _bare(entry: Entry) -> Entry:
    return Entry(entry.key, entry.value[: -TRAILER.size], entry.version)


def _seen(entry: Entry) -> list[Any]:
    return [entry.key, _writer(entry.value), entry.version]


def _told(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"value": None, "version": None}
    return {"value": _writer(entry.value), "version": entry.version}


def _demand(check: Check) -> list[Any]:
    if isinstance(check, Unchanged):
        return ["unchanged", check.key, check.version]
    return [type(check).__name__.lower(), check.key]
