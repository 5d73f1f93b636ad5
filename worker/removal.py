"""Takes interfaces away: directly, for nothing has to be known of their network for that.

One that is wholly in a workload's namespace is gone with that, and a new namespace under the path is somebody else's.
Where a runtime moves interfaces, one may be on its way back to the host meanwhile: it is looked for where it comes from
first, and then where it goes to. Never touches a record.
"""

from __future__ import annotations

from datapath.names import handed_name, macvlan_name, veth_name
from datapath.objects import ContainerSide, DeleteLink, Failure, Macvlan, Operation, Veth
from datapath.packing import packed_mac
from kvnet.errors import KernelRefused
from worker.attachments import UNKNOWN, VETH, Record
from worker.ports import HostKernel, Namespaces
from worker.together import Together


class Remover:
    """Removals at the same time go together."""

    def __init__(self, kernel: HostKernel, namespaces: Namespaces) -> None:
        self._kernel = kernel
        self._namespaces = namespaces
        self._together = Together(kernel)

    async def remove(self, record: Record, *, is_moved: bool) -> None:
        """`is_moved`: its runtime moves it, so it may be on the host under the name that it has there.

        Raises:
            KernelRefused: it is still there.
        """
        failures = await self._together.apply(await self._elsewhere(record, is_moved))
        if is_moved and record.kind != VETH and (record.kind != UNKNOWN or record.interface):
            waiting = ContainerSide("", handed_name(record.endpoint), b"", 0, (), (), is_handed_over=True)
            failures += await self._together.apply([DeleteLink(_macvlan(record), waiting)])
        # What stands under the name is somebody else's and never was our interface.
        failures = [failure for failure in failures if not failure.is_foreign]
        if failures:
            raise KernelRefused(_words(record, failures[0]))

    async def _elsewhere(self, record: Record, is_moved: bool) -> list[Operation]:
        operations: list[Operation] = []
        if not record.is_inside:
            operations.append(DeleteLink(Veth(veth_name(record.endpoint), 0, "")))
        if record.kind != VETH and record.interface and await self._is_namespace_there(record):
            interface = await self._name_inside(record) if is_moved else record.interface
            if interface:
                side = ContainerSide(record.netns, interface, b"", 0, (), ())
                operations.append(DeleteLink(_macvlan(record), side))
        return operations

    async def _name_inside(self, record: Record) -> str:
        """ "" where it is not there (any more)."""
        try:
            return await self._kernel.name_inside(
                macvlan_name(record.endpoint), record.netns, packed_mac(record.answer["mac"])
            )
        except KernelRefused:
            return ""

    async def _is_namespace_there(self, record: Record) -> bool:
        return bool(record.identity) and await self._namespaces.identity(record.netns) == record.identity


def _macvlan(record: Record) -> Macvlan:
    return Macvlan(macvlan_name(record.endpoint), "", 0)


def _words(record: Record, failure: Failure) -> str:
    return f"the interface of {record.name} cannot be removed: {failure.reason}"
