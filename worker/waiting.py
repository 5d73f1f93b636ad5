"""Who waits for a network to be in the kernel, up to which version, and as planned by which pass at the earliest.

Everybody who waits is answered exactly once: by the pass that brings it, or with the reason why none can. Bounds no
wait: that is the callers'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from kvnet.errors import KvnetError


class _Waiter(NamedTuple):
    version: int
    after: int
    arrived: asyncio.Future[None]


class Waiting:
    """Passes are numbered in their order; `after`: only one that began later than that counts."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[_Waiter]] = {}

    def is_awaited(self, network_id: str) -> bool:
        return network_id in self._waiters

    async def until(self, network_id: str, version: int, after: int) -> None:
        """
        Raises:
            KvnetError: what `fail` was told.
        """
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(network_id, []).append(_Waiter(version, after, arrived))
        await arrived

    def arrive(self, network_id: str, version: int, number: int) -> None:
        """Pass `number` brought the network up to `version`."""
        for waiter in self._taken(network_id, version, number):
            waiter.arrived.set_result(None)

    def fail(self, network_id: str, version: int, number: int, error: KvnetError) -> None:
        for waiter in self._taken(network_id, version, number):
            waiter.arrived.set_exception(error)

    def _taken(self, network_id: str, version: int, number: int) -> Iterator[_Waiter]:
        """In the order of their versions."""
        waiters = self._waiters.pop(network_id, [])
        kept = [w for w in waiters if w.version > version or w.after >= number]
        if kept:
            self._waiters[network_id] = kept
        for waiter in sorted((w for w in waiters if w not in kept), key=lambda w: w.version):
            if not waiter.arrived.done():
                yield waiter
