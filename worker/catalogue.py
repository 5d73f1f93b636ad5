"""All networks of the cluster, mirrored: for a runtime that shows them to its users before anything of them is here.

Costs a host one more watch, and memory by the number of networks, so it runs only where such a runtime does. What the
kernel should look like follows from `worker.view` alone. Never writes, and says nothing of whether the store may be
believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType

from backends.store import Store
from kvnet import codec, keys
from kvnet.model import Network, Versioned
from worker.ports import Time
from worker.tables import Table


class NetworkCatalogue:
    """What cannot be read keeps its predecessor, as in every table of the worker's."""

    def __init__(self, store: Store, *, time: Time) -> None:
        self._table: Table[Network] = Table(store, keys.NETWORKS, partial(codec.decode, Network), self._take, time)
        self._networks: dict[str, Versioned[Network]] = {}
        self._names: dict[str, str] = {}
        self._subnets: dict[str, str] = {}
        self._number = 0
        self._changed = asyncio.Event()

    @property
    def is_in_step(self) -> bool:
        return self._table.mirror.in_step and self._table.mirror.stale_since is None

    @property
    def networks(self) -> Mapping[str, Versioned[Network]]:
        """A live view, not a copy."""
        return MappingProxyType(self._networks)

    def named(self, name: str) -> Network | None:
        return self._found(self._names.get(name))

    def of_subnet(self, cidr: str) -> Network | None:
        return self._found(self._subnets.get(cidr))

    async def changed(self, after: int) -> int:
        """Also once the first list is in, be it empty."""
        while self._number <= after:
            self._changed.clear()
            await self._changed.wait()
        return self._number

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._table.mirror.run())
            group.create_task(self._tell_of_the_first_list())

    def start_over(self) -> None:
        """The store was accepted as it is, so all of it is read anew."""
        self._table.start_over()

    async def _tell_of_the_first_list(self) -> None:
        while not self._table.mirror.in_step:
            try:
                await self._table.mirror.until_in_step(3600.0)
            except TimeoutError:
                continue
        self._tell()

    def _take(self, changed: Collection[str]) -> None:
        for id_ in changed:
            known = self._networks.pop(id_, None)
            if known is not None:
                self._forget(known.value)
        for id_ in changed:
            network = self._table.items.get(id_)
            entry = self._table.mirror.entries.get(keys.network(id_))
            if network is not None and entry is not None:
                self._networks[id_] = Versioned(network, entry.version)
                self._names[network.name] = id_
                self._subnets.update((str(subnet.cidr), id_) for subnet in network.subnets)
        self._tell()

    def _forget(self, network: Network) -> None:
        """Its name and subnets may be another's by now."""
        if self._names.get(network.name) == network.id:
            del self._names[network.name]
        for subnet in network.subnets:
            if self._subnets.get(str(subnet.cidr)) == network.id:
                del self._subnets[str(subnet.cidr)]

    def _found(self, id_: str | None) -> Network | None:
        known = self._networks.get(id_) if id_ is not None else None
        return known.value if known is not None else None

    def _tell(self) -> None:
        self._number += 1
        self._changed.set()
