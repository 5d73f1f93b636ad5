"""Takes interfaces away: directly, for nothing has to be known of their network for that.

One that is wholly in a workload's namespace is gone with that, and a new namespace under the path is somebody else's.
Where a runtime moves interfaces, one may be on its way back to the host at the same time. Never touches a record.
"""

from __future__ import annotations

from datapath.names import macvlan_name, veth_name
from datapath.objects import ContainerSide, DeleteLink, Macvlan, Operation, Veth
from datapath.packing import packed_mac
from kvnet.errors import KernelRefused
from worker.attachments import UNKNOWN, VETH, Record
from worker.ports import HostKernel, Namespaces, Time
from worker.together import Together

# A move takes the kernel a few milliseconds, more on a busy host, and the interface is nowhere meanwhile.
LOOKS = 10
PAUSE_S = 0.02
# The kernel sleeps for 10 to 20 ms over one interface, or over many, and nobody else's is made meanwhile: those that
# go in so long a time go together.
LEISURE_S = 0.2


class Remover:
    """Removals at the same time go together."""

    def __init__(self, kernel: HostKernel, namespaces: Namespaces, time: Time) -> None:
        self._kernel = kernel
        self._namespaces = namespaces
        self._time = time
        self._together = Together(kernel)
        self._at_leisure = Together(kernel, lambda: time.sleep(LEISURE_S))

    async def remove(self, record: Record, *, is_moved: bool, is_urgent: bool = True) -> None:
        """`is_moved`: its runtime moves it, so it may be on the host, under whatever name. `is_urgent`: not so where
        nobody uses it any more, and others may be waiting for the kernel.

        Raises:
            KernelRefused: it is still there.
        """
        operations: list[Operation] = []
        if not record.is_inside:
            operations.append(DeleteLink(Veth(veth_name(record.endpoint), 0, "")))
        if record.kind != VETH and is_moved:
            await self._remove_moved(record)
        elif record.kind != VETH and record.interface and await self._is_namespace_there(record):
            side = ContainerSide(record.netns, record.interface, b"", 0, (), ())
            operations.append(DeleteLink(Macvlan(macvlan_name(record.endpoint), "", 0), side))
        # What stands under the name is somebody else's and never was our interface.
        together = self._together if is_urgent else self._at_leisure
        failures = [f for f in await together.apply(operations) if not f.is_foreign]
        if failures:
            raise KernelRefused(f"the interface of {record.name} cannot be removed: {failures[0].reason}")

    async def _remove_moved(self, record: Record) -> None:
        """Not seen at once is not gone: nobody else takes it away."""
        if "mac" not in record.answer or (record.kind == UNKNOWN and not record.interface):
            return  # nothing was ever made
        mac = packed_mac(record.answer["mac"])
        for _ in range(LOOKS):
            is_there = bool(record.interface) and await self._may_be_inside(record)
            if await self._kernel.remove_macvlan(record.netns if is_there else "", mac) or not is_there:
                return
            await self._time.sleep(PAUSE_S)

    async def _may_be_inside(self, record: Record) -> bool:
        """Also where nobody could see which namespace it was meant for: the MAC tells ours from others."""
        now = await self._namespaces.identity(record.netns)
        return bool(now) and record.identity in ("", now)

    async def _is_namespace_there(self, record: Record) -> bool:
        return bool(record.identity) and await self._namespaces.identity(record.netns) == record.identity
