"""A call from one process to another: it may never arrive, its answer may never come back, and who serves it may die.

Whoever serves goes on with what its caller has given up once it has begun, as servers do. Says no more of a failure
than the caller of a real one would know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kvnet.http import Lost, NotSent
from kvnet.request import asked_by
from tests.simulation.network import Link
from tests.simulation.processes import Process

T = TypeVar("T")

GONE_S = 0.01


class Service:
    """What one process offers to others."""

    def __init__(self, process: Process, is_serving: Callable[[], bool]) -> None:
        self.process = process
        self._is_serving = is_serving
        self._open: dict[asyncio.Future[Any], None] = {}
        process.on_death.append(self._die)

    async def ask(self, link: Link, timeout_s: float, work: Callable[[], Awaitable[T]]) -> T:
        """
        Raises:
            NotSent, Lost: as `kvnet.http`.
            Exception: what the work raises.
        """
        loop = link.loop
        if link.is_refused or self.process.is_dead or not self._is_serving():
            await link.pause()
            raise NotSent("simulated: connection refused")
        done: asyncio.Future[T] = loop.create_future()
        self._open[done] = None
        loop.call_later(link.way_s(), self._arrive, link, work, done, context=self.process.context())
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            raise Lost(f"simulated: no answer within {timeout_s:g} s") from None
        finally:
            self._open.pop(done, None)

    def _arrive(self, link: Link, work: Callable[[], Awaitable[T]], done: asyncio.Future[T]) -> None:
        if link.is_delivered():
            link.loop.create_task(self._serve(link, work, done))

    async def _serve(self, link: Link, work: Callable[[], Awaitable[T]], done: asyncio.Future[T]) -> None:
        result: T | None = None
        error: Exception | None = None
        try:
            # As a server sees it: the end of a connection comes over the same way as what was asked on it.
            with asked_by("", has_gone=lambda: done.done() and not link.is_cut):
                result = await work()
        except Exception as raised:  # noqa: BLE001 - whatever it is, the caller gets it
            error = raised

        def come_back() -> None:
            if done.done() or not link.is_delivered():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        # Also what was sent by somebody who died a moment later arrives.
        link.loop.call_later(link.way_s(), come_back, context=link.loop.world.context())

    def _die(self) -> None:
        for done in self._open:
            done.get_loop().call_later(GONE_S, _lose, done)


def _lose(done: asyncio.Future[Any]) -> None:
    if not done.done():
        done.set_exception(Lost("simulated: connection reset"))
