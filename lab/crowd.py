"""Many hosts in one process: the worker's own code on a kernel namespace for each, where a process each would not fit.

What is left out is what has nothing to do with networks: the worker's unix socket and its signals. Every kernel counts
what it is asked for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from backends.open import open_store
from datapath.objects import EVERYTHING, Failure, Hint, HostState, Ip, Mac, Operation, Scope
from lab.lab import Host, Lab, until
from worker.agent import Worker
from worker.controller import HttpController
from worker.disk import StateDir
from worker.kernel.inventory import Surroundings
from worker.kernel.linux import LinuxKernel
from worker.listeners import HostListeners
from worker.log import Log
from worker.ports import Time
from worker.runtimes.netns import NetworkNamespaces
from worker.settings import Settings, Timing, parse_underlay

READY_S = 60.0
# One interpreter does the work of all: a session, and an attach, must outlive the queue.
TTL_S = 120.0
APPLIED_POLL_S = 0.25
QUIET_S = 1.0
SWITCH_INTERVAL_S = 0.0005


@dataclass(slots=True)
class Counted:
    """What a kernel was asked for: `operations` one by one, by kind."""

    reads: int = 0
    applies: int = 0
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.operations.values())


class CountingKernel:
    """The real one; tells what went through it."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self.counted = Counted()

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        self.counted.reads += 1
        return await self._kernel.read(scope, firewall=firewall)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        self.counted.applies += bool(operations)
        for operation in operations:
            kind = type(operation).__name__
            self.counted.operations[kind] = self.counted.operations.get(kind, 0) + 1
        return await self._kernel.apply(operations)

    def hints(self) -> AsyncIterator[Hint]:
        return self._kernel.hints()

    async def has_namespace(self, path: str) -> bool:
        return await self._kernel.has_namespace(path)

    async def surroundings(self) -> Surroundings:
        return await self._kernel.surroundings()

    async def name_inside(self, device: str, netns: str, mac: Mac) -> str:
        return await self._kernel.name_inside(device, netns, mac)

    async def remove_macvlan(self, netns: str, mac: Mac) -> bool:
        return await self._kernel.remove_macvlan(netns, mac)

    async def lead_inside(self, netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
        await self._kernel.lead_inside(netns, interface, destination, prefix_length)

    async def close(self) -> None:
        await self._kernel.close()


@dataclass(slots=True)
class Member:
    """One host of the crowd."""

    host: Host
    worker: Worker
    kernel: CountingKernel

    async def ask(self, operation: str, **message: Any) -> dict[str, Any]:
        """As over the worker's socket."""
        answer = await self.worker.operations()[operation](message)
        return dict(answer)


async def until_applied(crowd: Mapping[str, Member], network: str, version: int, seconds: float) -> None:
    """Every host has that version of the network (its id) in its kernel, by its own word."""

    async def is_applied() -> bool:
        await asyncio.sleep(APPLIED_POLL_S)  # a status is not free, and there are many
        for member in crowd.values():
            there = [n for n in (await member.ask("status"))["networks"] if n["id"] == network]
            if not there or there[0]["version"] < version:
                return False
        return True

    await until(is_applied, f"every host has applied version {version}", seconds=seconds)


async def operations_meanwhile(crowd: Mapping[str, Member], change: Awaitable[None]) -> dict[str, dict[str, int]]:
    """What each kernel is asked to do because of a change, by kind; counted from quiet to quiet."""
    await _until_idle(crowd)
    before = {name: dict(member.kernel.counted.operations) for name, member in crowd.items()}
    await change
    await _until_idle(crowd)
    done = {}
    for name, member in crowd.items():
        counted = member.kernel.counted.operations
        done[name] = {k: n - before[name].get(k, 0) for k, n in counted.items() if n != before[name].get(k, 0)}
    return done


async def _until_idle(crowd: Mapping[str, Member]) -> None:
    """No kernel is asked for anything for a moment."""
    last = -1

    async def is_idle() -> bool:
        nonlocal last
        before, last = last, sum(member.kernel.counted.total for member in crowd.values())
        await asyncio.sleep(QUIET_S)
        return before == last

    await until(is_idle, "all hosts are idle", seconds=READY_S)


@asynccontextmanager
async def open_crowd(lab: Lab) -> AsyncIterator[Mapping[str, Member]]:
    """A worker for every host of the lab, all ready, through the controller's gateway; ended in the end."""
    async with AsyncExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_INTERVAL_S)  # as a worker does: a kernel thread must not wait for the loop
        log = stack.enter_context((lab.directory / "crowd.log").open("a"))
        crowd = {name: await _member(stack, lab, host, log) for name, host in lab.hosts.items()}
        running = [asyncio.create_task(member.worker.run()) for member in crowd.values()]
        stack.push_async_callback(_end, running)

        async def are_ready() -> bool:
            for task in running:
                if task.done():
                    task.result()
            statuses = [await member.ask("status") for member in crowd.values()]
            return all(status["ready"] for status in statuses)

        await until(are_ready, "every worker of the crowd is ready", seconds=READY_S)
        yield crowd


async def _member(stack: AsyncExitStack, lab: Lab, host: Host, log: TextIO) -> Member:
    time = Time()
    state = StateDir.open(host.state_dir)
    stack.callback(state.close)
    kernel = CountingKernel(await stack.enter_async_context(await LinuxKernel.open(netns=str(host.netns))))
    store = await stack.enter_async_context(await open_store(lab.controller_url, must_answer=False, sweeps=False))
    controller = HttpController(lab.controller_url, time=time)
    stack.push_async_callback(controller.close)
    settings = Settings(
        controller=lab.controller_url,
        host=host.name,
        underlay=parse_underlay(str(host.port.underlay)),
        state_dir=host.state_dir,
        socket=host.socket,
        timing=Timing(ttl_s=TTL_S, attach_s=TTL_S),
    )
    namespaces = NetworkNamespaces(lambda: worker.registration.boot_id)
    worker = Worker(settings, store, controller, kernel, namespaces, HostListeners(), state, time=time, log=Log(log))
    await worker.start()
    return Member(host, worker, kernel)


async def _end(running: Sequence[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
