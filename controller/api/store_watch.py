"""What a connection of the gateway's hears of the watches that it carries, as JSON lines.

A host watches a dozen prefixes; on a connection each, a thousand hosts would be twelve thousand connections, each with
buffers, a timer and a sign of life of its own. So one connection carries as many as are asked for at once, and one sign
of life is for all. A watch that fails is told of and ends alone. Keeps nothing when the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from backends import gateway_wire as wire
from backends.store import Batch, Revision, Store, StoreError, Unavailable
from controller.api.encoded import Encodings, encode

# Changes a line: a long backlog is sent in digestible pieces.
LINE_CHANGES = 500
# Lines that wait to be sent; the store's own feed keeps what is not taken meanwhile, or drops the watch.
QUEUED = 16
ALIVE = encode(wire.SIGN_OF_LIFE) + b"\n"


@dataclass(frozen=True, slots=True)
class Told:
    """`every_s`: how often the connection shows a sign of life. `stopping`: of the server."""

    store: Store
    encodings: Encodings
    every_s: float
    ended: asyncio.Event
    stopping: asyncio.Event

    async def lines(self, asked: Sequence[wire.Watched]) -> AsyncIterator[bytes]:
        """Until the credential or the server ends, or no watch is left."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)
        revisions = {one.id: one.after for one in asked}
        pumps = {one.id: asyncio.create_task(self._pump(one, queue, revisions)) for one in asked}
        others = [asyncio.create_task(self._signs_of_life(queue, revisions))]
        others += [asyncio.create_task(_end(event, queue)) for event in (self.ended, self.stopping)]
        for pump in pumps.values():
            pump.add_done_callback(lambda _: _look(queue))
        try:
            while not self.ended.is_set() and not self.stopping.is_set():
                if (line := await queue.get()) is not None:
                    yield line
                elif all(pump.done() for pump in pumps.values()):
                    break
                _require_sound(pumps.values())
            if not self.ended.is_set():
                for id_ in [id_ for id_, pump in pumps.items() if not pump.done()]:
                    yield _failed(id_, Unavailable("the controller stops"))
        finally:
            for task in (*pumps.values(), *others):
                task.cancel()
            await asyncio.gather(*pumps.values(), *others, return_exceptions=True)

    async def _pump(
        self, one: wire.Watched, queue: asyncio.Queue[bytes | None], revisions: dict[int | None, Revision]
    ) -> None:
        batches = self.store.watch(one.prefix, one.after)
        try:
            async for batch in batches:
                for start in range(0, max(1, len(batch.changes)), LINE_CHANGES):
                    part = batch.changes[start : start + LINE_CHANGES]
                    is_last = start + LINE_CHANGES >= len(batch.changes)
                    line = self.encodings.line(Batch(part, batch.revision if is_last else revisions[one.id]))
                    await queue.put(_of(one.id, line))
                revisions[one.id] = batch.revision
            await queue.put(_failed(one.id, Unavailable("the watch has ended")))
        except StoreError as error:
            await queue.put(_failed(one.id, error))
        finally:
            aclose = getattr(batches, "aclose", None)
            if aclose is not None:
                await aclose()

    async def _signs_of_life(self, queue: asyncio.Queue[bytes | None], revisions: dict[int | None, Revision]) -> None:
        """Who watches by id knows by itself what it has heard of each."""
        while True:
            await asyncio.sleep(self.every_s)
            alone = revisions.get(None)
            await queue.put(ALIVE if alone is None else self.encodings.line(Batch((), alone)))


async def _end(event: asyncio.Event, queue: asyncio.Queue[bytes | None]) -> None:
    await event.wait()
    await queue.put(None)


def _look(queue: asyncio.Queue[bytes | None]) -> None:
    """Somebody waits for the queue only where it is empty."""
    if not queue.full():
        queue.put_nowait(None)


def _require_sound(pumps: Iterable[asyncio.Task[None]]) -> None:
    """Raises: what one of them failed with that no store says. Without it, its watch would be silent for ever."""
    for pump in pumps:
        if pump.done():
            pump.result()


def _of(id_: int | None, line: bytes) -> bytes:
    return line if id_ is None else b'{"watch":%d,' % id_ + line[1:]


def _failed(id_: int | None, error: StoreError) -> bytes:
    problem = wire.error_to_json(error)
    return encode(problem if id_ is None else {"watch": id_, **problem}) + b"\n"
