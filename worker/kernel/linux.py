"""The Kernel port on the real kernel.

All work happens in one thread per namespace, which lives in it from its start to its end: a netlink request runs inside
`send`, so it must never be on the event loop, and two threads would only wait for the kernel's one lock. Nothing here
decides what should be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from datapath.objects import EVERYTHING, PROTOCOL, Failure, Hint, HostState, Ip, Mac, Operation, Scope
from kvnet.errors import KernelRefused
from worker.kernel import namespaces
from worker.kernel.announce import Announcer
from worker.kernel.apply import Applier
from worker.kernel.capability import require_namespace_admin, require_network_admin
from worker.kernel.conntrack import Flows
from worker.kernel.dump import device
from worker.kernel.dump import routes as dump_our_routes
from worker.kernel.events import Events, HintCollector, Interest
from worker.kernel.firewall import FirewallTables, find_nft
from worker.kernel.foreign_chains import ForwardChains
from worker.kernel.gates import Gates
from worker.kernel.handed import lead, name_inside, remove_macvlan
from worker.kernel.inventory import Surroundings, look_around
from worker.kernel.messages import IFLA_MTU, dump_links, dump_routes
from worker.kernel.netlink import NETLINK_NETFILTER, Netlink
from worker.kernel.nftables import NftablesReader
from worker.kernel.read import Reader
from worker.kernel.sysctls import host_settings
from worker.kernel.vigil import Vigil

T = TypeVar("T")


class LinuxKernel:
    """One network namespace of this machine. Made by `open`; `close` it, or use it with `async with`."""

    def __init__(self, executor: ThreadPoolExecutor, parts: _Parts) -> None:
        self._executor = executor
        self._parts = parts

    @classmethod
    async def open(
        cls, *, netns: str | None = None, nft: str | None = None, rng: random.Random | None = None
    ) -> LinuxKernel:
        """The kernel as this process sees it, or as the namespace `netns` (a path or a name) does.

        Raises:
            NamespaceNotFound, MissingCapability, Unfit: says what is missing, and what to do.
        """
        program = nft or find_nft()
        path = None if netns is None else namespaces.resolve(netns)
        executor = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        try:
            parts = await _run(executor, lambda: _Parts.open(path, program, rng or random.Random()))
        except BaseException:
            executor.shutdown(wait=False)
            raise
        return cls(executor, parts)

    async def __aenter__(self) -> LinuxKernel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, scope: Scope = EVERYTHING, *, firewall: bool = True) -> HostState:
        """What is there of ours. With the firewall come the host's own settings, too.

        Raises:
            KernelRefused: the kernel's tables change faster than they can be read, or it does not answer.
        """
        try:
            return await _run(self._executor, lambda: self._parts.read(scope, firewall))
        except OSError as error:
            raise KernelRefused(
                f"the kernel's state cannot be read: {error.strerror or error}", fix="it is tried again"
            ) from error

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        """Raises: KernelRefused: the kernel does not answer; what was done is unknown, so read again."""
        if not operations:
            return []
        try:
            return await _run(self._executor, lambda: self._parts.applier.apply(operations))
        except OSError as error:
            raise KernelRefused(
                f"the kernel does not take changes: {error.strerror or error}", fix="it is tried again"
            ) from error

    async def hints(self) -> AsyncGenerator[Hint]:
        """From the first `anext` on; never ends by itself."""
        events = await _run(self._executor, Events.open)
        try:
            interest = await _run(self._executor, self._parts.interest)
            collector = HintCollector(events, interest)
            vigil = Vigil(self._parts.rtnetlink, interest.devices)
            watching = asyncio.ensure_future(self._watch(vigil, collector))
            try:
                async with contextlib.aclosing(collector.hints()) as found:
                    async for hint in found:
                        if watching.done():
                            watching.result()
                        yield hint
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        finally:
            events.close()

    async def _watch(self, vigil: Vigil, collector: HintCollector) -> None:
        """Until cancelled. What could not be looked at is a reason to look at everything."""
        while True:
            try:
                hint = await _run(self._executor, vigil.look)
            except OSError:
                hint = Hint()
            if hint is not None:
                collector.add(hint)
            await asyncio.sleep(vigil.period_s)

    async def has_namespace(self, path: str) -> bool:
        return await _run(self._executor, lambda: namespaces.is_namespace(path))

    async def surroundings(self) -> Surroundings:
        """What this host uses besides kvnet: ranges, underlay addresses, kernel."""
        return await _run(self._executor, lambda: look_around(self._parts.rtnetlink))

    async def name_inside(self, device: str, netns: str, mac: Mac) -> str:
        try:
            return await _run(self._executor, lambda: name_inside(self._parts.rtnetlink, device, netns, mac))
        except OSError as error:
            raise KernelRefused(f"{netns} cannot be looked into: {error.strerror or error}") from error

    async def remove_macvlan(self, netns: str, mac: Mac) -> bool:
        try:
            return await _run(self._executor, lambda: remove_macvlan(self._parts.rtnetlink, netns, mac))
        except OSError as error:
            raise KernelRefused(f"{error.strerror or error}") from error

    async def lead_inside(self, netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
        try:
            await _run(self._executor, lambda: lead(netns, interface, destination, prefix_length))
        except OSError as error:
            raise KernelRefused(f"{error.strerror or error}") from error

    async def close(self) -> None:
        """Repeating is no error. Nothing in the kernel changes."""
        with contextlib.suppress(RuntimeError):  # the thread has ended already
            await _run(self._executor, self._parts.close)
        self._executor.shutdown(wait=True)


class _Parts:
    """What lives in the kernel thread."""

    def __init__(self, nft: str, rng: random.Random) -> None:
        self.rtnetlink = Netlink()
        self.reader = Reader(self.rtnetlink)
        self.netfilter = Netlink(NETLINK_NETFILTER)
        nftables = NftablesReader(self.netfilter)
        self.tables = FirewallTables(nft, nftables)
        self.gates = Gates(ForwardChains(self.netfilter, nftables))
        self.uplinks: set[str] = set()  # what hints are interested in beyond our own devices
        self.announcer = Announcer()
        self.flows = Flows()
        self.applier = Applier(self.rtnetlink, self.tables, self.announcer, self.flows, self.gates, rng)

    @classmethod
    def open(cls, path: str | None, nft: str, rng: random.Random) -> _Parts:
        if path is not None:
            descriptor = namespaces.open_namespace(path)
            try:
                namespaces.enter_for_good(descriptor)
            finally:
                os.close(descriptor)
        parts = cls(nft, rng)
        try:
            require_network_admin(parts.rtnetlink)
            require_namespace_admin()
        except BaseException:
            parts.close()
            raise
        return parts

    def read(self, scope: Scope, with_firewall: bool) -> HostState:
        if not scope.network:
            self.uplinks.clear()
        self.uplinks |= scope.uplinks
        state = self.reader.read(scope)
        if with_firewall:
            gates, walls = self.gates.read(), self.gates.walls()
            dockers = self.reader.dockers()
            state = replace(state, firewall=self.tables.read(), gates=gates, walls=walls, dockers=dockers)
        if with_firewall or not scope.network:
            state = replace(state, sysctls={**state.sysctls, **host_settings()})
        return state

    def interest(self) -> Interest:
        """What of the kernel as it is now hints are about."""
        ours: dict[int, str] = {}
        others: dict[int, str] = {}
        mtus: dict[int, bytes] = {}
        for body in self.rtnetlink.dump(dump_links()):
            found = device(body)
            (ours if found.is_ours else others)[found.index] = found.name
            mtus[found.index] = found.fields.get(IFLA_MTU, b"")
        routes = {
            (route.destination, route.prefix_length)
            for route, index in dump_our_routes(self.rtnetlink.dump(dump_routes(PROTOCOL)))
            if index not in ours
        }
        return Interest(ours, others, self.uplinks, routes, mtus)

    def close(self) -> None:
        self.flows.close()
        self.announcer.close()
        self.netfilter.close()
        self.rtnetlink.close()


async def _run(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    """Raises: OSError: of the function's, or EBADMSG: what the kernel answered is cut short, or has another shape."""
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function)
    except (struct.error, LookupError) as error:
        raise OSError(errno.EBADMSG, f"what the kernel told is not understood: {error!r}") from error
