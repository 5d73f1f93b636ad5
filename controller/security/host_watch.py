"""A watch of a network on behalf of a host: all of it while the host takes part, and then no more.

What made the host leave is still told, for its worker goes by that: it closes a network when it has seen its last
endpoint of it go. What came later is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from backends.store import Batch, Refused, Revision
from controller.security.participation import Participation

DRAIN_S = 2.0


async def while_part(
    batches: AsyncIterator[Batch], participation: Participation, host: str, network: str, known: Revision
) -> AsyncIterator[Batch]:
    """`known`: up to which revision it is certain that the host takes part, whatever this replica has seen.

    Raises:
        Refused: it does not any more.
        StoreError: of the watch itself.
    """
    coming = _Coming(batches)
    try:
        with participation.watching(network) as left:
            while True:
                await coming.until(left)
                if not participation.takes_part(host, network) and participation.revision >= known:
                    confirmed = await participation.confirmed(host, network)
                    if confirmed is None:
                        break
                    known = confirmed
                if coming.is_there:
                    yield coming.take()
        left_at = participation.revision
        async for batch in _rest(coming, left_at):
            yield batch
    finally:
        await coming.close()
    raise Refused(f"host {host} takes part in network {network} no more")


async def _rest(coming: _Coming, left_at: Revision) -> AsyncIterator[Batch]:
    """What led to this, if it comes soon: of keys outside of it nothing comes at all."""
    deadline = asyncio.get_running_loop().time() + DRAIN_S
    while True:
        await coming.until(None, max(0.0, deadline - asyncio.get_running_loop().time()))
        if not coming.is_there:
            return
        batch = coming.take()
        known = tuple(c for c in batch.changes if c.entry is None or c.entry.version <= left_at)
        yield Batch(known, min(batch.revision, left_at))
        if batch.revision >= left_at:
            return


class _Coming:
    """The next batch, while something else may happen first."""

    def __init__(self, batches: AsyncIterator[Batch]) -> None:
        self._batches = batches
        self._next: asyncio.Task[Batch] | None = None

    @property
    def is_there(self) -> bool:
        return self._next is not None and self._next.done()

    async def until(self, event: asyncio.Event | None, timeout_s: float | None = None) -> None:
        """It is there, the event is set (and cleared again), or the time is over."""
        if self._next is None:
            self._next = asyncio.create_task(_next(self._batches))
        told = asyncio.create_task(event.wait()) if event is not None else None
        try:
            wanted = {self._next} if told is None else {self._next, told}
            await asyncio.wait(wanted, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if told is not None:
                told.cancel()
        if event is not None:
            event.clear()

    def take(self) -> Batch:
        """Raises: StoreError."""
        assert self._next is not None
        batch, self._next = self._next.result(), None
        return batch

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await closed(self._batches)


async def _next(batches: AsyncIterator[Batch]) -> Batch:
    return await anext(batches)


async def closed(batches: AsyncIterator[Batch]) -> None:
    aclose = getattr(batches, "aclose", None)
    if aclose is not None:
        await aclose()
