"""What this host tells the others of itself: its record for its peers, its inventory for the controller.

Written only when it differs from what stands there; looked at every now and then, and when something hints at a change.
Only while the host is alive, so that a fenced host does not fight over its name.
"""

from __future__ import annotations

import asyncio
import contextlib

from backends.store import Put, Store, StoreError
from kvnet import __version__, codec, keys
from kvnet.errors import KvnetError
from kvnet.model import Address, Host, Inventory
from worker.log import Log
from worker.ports import HostKernel, Time
from worker.session import Lifeline
from worker.settings import Timing
from worker.view import View

ABILITIES = ("bridge", "overlay")


class Registration:
    """`view.own` is kept up to date here."""

    def __init__(
        self,
        store: Store,
        view: View,
        kernel: HostKernel,
        lifeline: Lifeline,
        underlay: Address,
        *,
        time: Time,
        timing: Timing,
        log: Log,
    ) -> None:
        self.is_done = False
        self.kernel_release = ""
        self.boot_id = ""
        self._store = store
        self._view = view
        self._kernel = kernel
        self._lifeline = lifeline
        self._underlay = underlay
        self._time = time
        self._timing = timing
        self._log = log
        self._wake = asyncio.Event()
        self._inventory: bytes | None = None
        self._problem = ""

    def look_again(self) -> None:
        self._wake.set()

    def start_over(self) -> None:
        """The store may not have what was written there."""
        self._inventory = None
        self._wake.set()

    async def look_around(self) -> Inventory:
        """
        Raises:
            NotFound: the underlay address is on no interface.
        """
        found = await self._kernel.surroundings()
        own = Host(self._view.host, self._underlay, found.mtu_of(self._underlay), ABILITIES)
        self._view.own = own
        self.kernel_release, self.boot_id = found.kernel, found.boot_id
        used = tuple(sorted(found.used, key=lambda item: (item.cidr.version, item.cidr, item.source)))
        return Inventory(self._view.host, used, found.kernel, __version__, found.boot_id)

    async def run(self) -> None:
        """Keep both records true until cancelled."""
        while True:
            await self._lifeline.until_open()
            pause = self._timing.inventory_s
            try:
                inventory = await self.look_around()
                await self._write(inventory)
                await self._lifeline.renew()
                self.is_done = True
                self._problem = ""
            except (StoreError, KvnetError) as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    self._log.warning("registration-failed", detail=self._problem)
                pause = self._timing.retry_s * 5
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._time.jittered(pause)):
                    await self._wake.wait()
            self._wake.clear()

    async def _write(self, inventory: Inventory) -> None:
        own, host = self._view.own, self._view.host
        writes = []
        if own is not None and self._view.hosts.items.get(host) != own:
            writes.append(Put(keys.host(host), codec.encode(own)))
        data = codec.encode(inventory)
        if self._inventory is None:
            there = await self._store.get(keys.inventory(host))
            self._inventory = there.value if there is not None else b""
        if data != self._inventory:
            writes.append(Put(keys.inventory(host), data))
        if writes:
            self._inventory = None  # until the outcome is known
            await self._store.commit([], writes)
            self._log.info("registered", keys=",".join(write.key for write in writes))
        self._inventory = data
