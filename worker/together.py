"""Hands the operations of many to the kernel at once: taking one interface away keeps the kernel busy for as long as
taking away many.

Whoever comes first goes at once, or after a pause where nobody minds, and those who come meanwhile go together next.
Every caller gets the failures of its own operations, which must not depend on those of others and may be repeated.
Decides nothing about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from datapath.objects import Failure, Kernel, Operation
from kvnet.errors import KvnetError

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Order:
    operations: Sequence[Operation]
    failures: list[Failure] | None = None
    error: KvnetError | None = None

    @property
    def is_over(self) -> bool:
        return self.failures is not None or self.error is not None


class Together:
    """One per kernel and kind of work. `pause`: what comes in that time goes along."""

    def __init__(self, kernel: Kernel, pause: Callable[[], Awaitable[None]] | None = None) -> None:
        self._kernel = kernel
        self._pause = pause
        self._waiting: list[_Order] = []
        self._turn = asyncio.Lock()

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        """As the kernel's own `apply`."""
        if not operations:
            return []
        order = _Order(operations)
        self._waiting.append(order)
        try:
            async with self._turn:
                if not order.is_over and self._pause is not None:
                    await self._pause()
                if not order.is_over:
                    await self._carry_out(list(self._waiting))
        finally:
            if order in self._waiting:
                self._waiting.remove(order)
        if order.error is not None:
            raise order.error
        return order.failures or []

    async def _carry_out(self, orders: Sequence[_Order]) -> None:
        """Of those that it does not come to, because it is cancelled, the next in turn takes care."""
        try:
            failures = await self._kernel.apply([operation for order in orders for operation in order.operations])
        except KvnetError as error:
            for order in orders:
                order.error = error
        else:
            for order in orders:
                order.failures = [failure for failure in failures if failure.operation in order.operations]
        finally:
            self._waiting = [order for order in self._waiting if not order.is_over]


async def all_of(doings: Iterable[Awaitable[T]]) -> list[T]:
    """What came of each; all at once and each to its end, whatever becomes of the others. Raises the first error."""
    outcomes = await asyncio.gather(*doings, return_exceptions=True)
    results: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results
