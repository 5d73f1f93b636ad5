"""Interfaces that go at the same time are one call of the kernel, and everybody gets what became of his own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from datapath.objects import EVERYTHING, DeleteLink, Failure, Hint, HostState, Operation, Scope, Veth
from kvnet.errors import KernelRefused
from worker.together import Together

pytestmark = pytest.mark.anyio


class SlowKernel:
    """Every call waits until it is let go on."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.may_go_on = asyncio.Semaphore(0)
        self.refused: set[Operation] = set()
        self.answers = True

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        return HostState()

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        self.calls.append(len(operations))
        await self.may_go_on.acquire()
        if not self.answers:
            raise KernelRefused("it does not answer")
        return [Failure(operation, 5, "no") for operation in operations if operation in self.refused]

    def hints(self) -> AsyncIterator[Hint]:
        raise NotImplementedError

    async def has_namespace(self, path: str) -> bool:
        return False

    async def close(self) -> None:
        pass


def deletion(number: int) -> DeleteLink:
    return DeleteLink(Veth(f"kve{number}", 0, ""))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_goes_at_once_and_who_comes_meanwhile_goes_together() -> None:
    kernel = SlowKernel()
    together = Together(kernel)
    kernel.refused = {deletion(3)}
    tasks = [asyncio.create_task(together.apply([deletion(number)])) for number in range(10)]
    await turns()
    assert kernel.calls == [1]
    kernel.may_go_on.release()
    await turns()
    assert kernel.calls == [1, 9]
    kernel.may_go_on.release()
    failures = await asyncio.gather(*tasks)
    assert [len(found) for found in failures] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert await together.apply([]) == []


async def test_whoever_gives_up_leaves_the_others_to_the_next() -> None:
    kernel = SlowKernel()
    together = Together(kernel)
    tasks = [asyncio.create_task(together.apply([deletion(number)])) for number in range(4)]
    await turns()
    kernel.may_go_on.release()
    await turns()
    tasks[1].cancel()  # it carries out those of 2 and 3, too
    await turns()
    assert kernel.calls == [1, 3, 2]
    kernel.may_go_on.release()
    assert await asyncio.gather(*tasks[2:]) == [[], []]
    assert tasks[1].cancelled()


async def test_a_kernel_that_does_not_answer_is_told_to_all() -> None:
    kernel = SlowKernel()
    kernel.answers = False
    together = Together(kernel)
    tasks = [asyncio.create_task(together.apply([deletion(number)])) for number in range(3)]
    await turns()
    kernel.may_go_on.release()
    await turns()
    kernel.may_go_on.release()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, KernelRefused) for outcome in outcomes)
    assert kernel.calls == [1, 2]
