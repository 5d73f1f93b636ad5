"""Waits until an attachment's interface is in the kernel, and tells why when it will not be.

Asks the reconciler and believes its passes; builds nothing itself. Bounds no wait: that is the callers'.
"""

from __future__ import annotations

from kvnet.errors import KernelRefused, NotFound
from kvnet.model import Driver, Network, UplinkMode
from worker.attachments import MACVLAN, VETH, Attachments, Record
from worker.reconcile import Reconciler
from worker.view import View


class Building:
    """The network has to be pinned in the view meanwhile."""

    def __init__(self, view: View, attachments: Attachments, reconciler: Reconciler) -> None:
        self._view = view
        self._attachments = attachments
        self._reconciler = reconciler

    def network(self, record: Record) -> Network | None:
        """As far as it is known here already."""
        tables = self._view.tables(record.network_id)
        return tables.network if tables is not None else None

    async def until_known(self, record: Record) -> Network:
        """
        Raises:
            NotFound: it was removed meanwhile.
            KvnetError: as of `Reconciler.until`.
        """
        await self.until_built(record)
        network = self.network(record)
        if network is None:
            raise NotFound(f"network {record.network} was removed while {record.name} was attached to it")
        return network

    async def until_built(self, record: Record) -> None:
        """By any pass that knew the endpoint.

        Raises:
            KvnetError: as of `Reconciler.until`.
        """
        await self._reconciler.until(record.network_id, _version(record))

    async def until_there(self, record: Record) -> None:
        """Where passes have known the record for as long as the endpoint: nothing to do, in the best case.

        Raises:
            KvnetError: as of `Reconciler.until`.
        """
        network_id, version = record.network_id, _version(record)
        if not self._reconciler.is_up_to(network_id, version):
            self._reconciler.touch([network_id], at_once=True)
            await self._reconciler.until(network_id, version)
        if not self.is_there(record):
            await self.until_built_anew(record)

    async def until_built_anew(self, record: Record) -> None:
        """By a pass that knows the record as it is now.

        Raises:
            KvnetError: as of `Reconciler.until`.
        """
        after = self._reconciler.number
        self._reconciler.touch([record.network_id], at_once=True)
        await self._reconciler.until(record.network_id, _version(record), after=after)

    def is_there(self, record: Record) -> bool:
        """Whether the last pass left the interface there."""
        return self._reconciler.has_link(record.network_id, record.device)

    def require(self, record: Record) -> None:
        """That the last pass left the interface there.

        Raises:
            NotFound: the endpoint was removed, or the namespace went away.
            KernelRefused: why it is not there.
        """
        tables = self._view.tables(record.network_id)
        if tables is None or record.endpoint not in tables.endpoints.items:
            raise NotFound(f"endpoint {record.endpoint} was removed while it was attached", fix="attach it again")
        if record.endpoint in self._attachments.lost:
            raise NotFound(f"the namespace {record.netns} went away while it was attached")
        if not self.is_there(record):
            why = "; ".join(self._reconciler.problems(record.network_id)) or "it is not in the plan"
            raise KernelRefused(f"the interface of {record.name} cannot be built: {why}", fix="see 'kvnet status'")


def kind_of(network: Network) -> str:
    """Of the interfaces of its workloads."""
    is_inside = network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.MACVLAN
    return MACVLAN if is_inside else VETH


def _version(record: Record) -> int:
    return int(record.answer["version"])
