"""What goes wrong in a torture run: decided from the seed before it begins, then done to servers and to clients.

A `FlakyStore` stands between a client and its store: it stops answering for a while as a paused process does, is cut
off, loses requests and answers, and lets a request arrive long after its sender gave up. `plan` is pure: the same seed
gives the same faults at the same times. Hurts one member at a time, but for short moments in which it hurts all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from backends.store import (
    Batch,
    Check,
    Entry,
    Revision,
    Session,
    Snapshot,
    Store,
    StoreError,
    Unavailable,
    Unknown,
    Write,
)

LATEST_ARRIVAL_S = 2.0
Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` is a method of a `Victim`; `target` picks among members or clients; it ends after `seconds`."""

    at: float
    kind: str
    target: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target} for {self.seconds:.1f} s"


class Victim(Protocol):
    """What faults can be done to. `kinds` are the names of its faults."""

    @property
    def kinds(self) -> Sequence[str]: ...

    async def hurt(self, fault: Fault) -> None: ...

    async def heal(self, fault: Fault) -> None: ...


def plan(rng: random.Random, seconds: float, kinds: Sequence[str], *, pause: tuple[float, float]) -> list[Fault]:
    """Faults one after the other, each over before the next begins."""
    faults, at = [], rng.uniform(*pause) / 2
    while kinds:
        kind = rng.choice(kinds)
        lasting = rng.uniform(0.3, 2.0 if kind.endswith("all") else 4.0)
        if at + lasting > seconds:
            break
        faults.append(Fault(at, kind, rng.randrange(1 << 16), lasting))
        at += lasting + rng.uniform(*pause)
    return faults


async def inflict(
    faults: Sequence[Fault], victim: Victim, sleep: Sleep, clock: Callable[[], float], note: Callable[[str], None]
) -> None:
    """One after the other, each healed before the next, whatever happens to this task."""
    began = clock()
    for fault in faults:
        await sleep(max(0.0, fault.at - (clock() - began)))
        note(str(fault))
        try:
            await victim.hurt(fault)
            await sleep(fault.seconds)
        finally:
            await victim.heal(fault)


class FlakyStore:
    """`loss`: the share of commits whose request or answer is lost on the way; `delay_s`: each way, at most."""

    def __init__(self, store: Store, rng: random.Random, *, loss: float = 0.0, delay_s: float = 0.0) -> None:
        self._store = store
        self._rng = rng
        self.loss = loss
        self._delay_s = delay_s
        self._running = asyncio.Event()
        self._running.set()
        self._cut = asyncio.Event()
        self._late: set[asyncio.Task[None]] = set()

    def pause(self) -> None:
        """As a process that was stopped: nothing goes out, nothing that comes in is looked at."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def cut_off(self) -> None:
        """Calls fail and watches end until `reconnect`."""
        self._cut.set()

    def reconnect(self) -> None:
        self._cut = asyncio.Event()

    async def get(self, key: str) -> Entry | None:
        await self._set_out()
        entry = await self._store.get(key)
        await self._running.wait()
        return entry

    async def list(self, prefix: str) -> Snapshot:
        await self._set_out()
        snapshot = await self._store.list(prefix)
        await self._running.wait()
        return snapshot

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        await self._set_out()
        luck = self._rng.random() if self.loss else 1.0
        if luck < self.loss / 3:
            raise Unknown("injected: the request was lost")
        if luck < self.loss * 2 / 3:
            late = asyncio.create_task(self._arrive_late(checks, writes))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
            raise Unknown("injected: the request is still on its way")
        revision = await self._store.commit(checks, writes)
        if self._delay_s:
            await asyncio.sleep(self._rng.random() * self._delay_s)
        await self._running.wait()
        if luck < self.loss or self._cut.is_set():
            raise Unknown("injected: the answer was lost")
        return revision

    async def until_arrived(self) -> None:
        """Nothing that its sender gave up is still on its way."""
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _arrive_late(self, checks: Sequence[Check], writes: Sequence[Write]) -> None:
        await asyncio.sleep(self._rng.random() ** 3 * LATEST_ARRIVAL_S)
        try:
            await self._store.commit(checks, writes)
        except StoreError:
            return  # nobody waits for the answer

    async def _set_out(self) -> None:
        await self._running.wait()
        if self._delay_s:
            await asyncio.sleep(self._rng.random() * self._delay_s)
        if self._cut.is_set():
            raise Unavailable("injected: nobody there")

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        if self._cut.is_set():
            raise Unavailable("injected: nobody there")
        cut = asyncio.ensure_future(self._cut.wait())
        batches = self._store.watch(prefix, after)
        coming: asyncio.Future[Batch] = asyncio.ensure_future(anext(batches))
        try:
            while True:
                waiting: list[asyncio.Future[Any]] = [coming, cut]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                await self._running.wait()
                if cut.done():
                    raise Unavailable("injected: the connection is gone")
                yield coming.result()
                coming = asyncio.ensure_future(anext(batches))
        finally:
            cut.cancel()
            coming.cancel()
            await asyncio.gather(cut, coming, return_exceptions=True)

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        await self._set_out()
        return await self._store.session(ttl_s, resume=resume)

    async def close(self) -> None:
        await self.until_arrived()
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Clients:
    """Faults of the clients: each is one process, as far as its store can see."""

    kinds = ("pause-client", "cut-off-client", "pause-client-all", "lose-answers")

    def __init__(self, stores: Sequence[FlakyStore]) -> None:
        self._stores = stores

    def _targets(self, fault: Fault) -> Sequence[FlakyStore]:
        return self._stores if fault.kind.endswith("all") else [self._stores[fault.target % len(self._stores)]]

    async def hurt(self, fault: Fault) -> None:
        for store in self._targets(fault):
            match fault.kind:
                case "cut-off-client":
                    store.cut_off()
                case "lose-answers":
                    store.loss += 0.3
                case _:
                    store.pause()

    async def heal(self, fault: Fault) -> None:
        for store in self._targets(fault):
            match fault.kind:
                case "cut-off-client":
                    store.reconnect()
                case "lose-answers":
                    store.loss -= 0.3
                case _:
                    store.resume()
