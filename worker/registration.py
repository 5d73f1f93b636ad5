"""What this host tells the others of itself: its record for its peers, its inventory for the controller.

Written only when it differs from what stands there; looked at every now and then, and when something hints at a change.
Only while the host is alive, so that a fenced host does not fight over its name. An underlay address that moves on its
device is followed; while there is none, the record and the networks stay as they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from backends.store import Put, Store, StoreError
from kvnet import __version__, codec, keys
from kvnet.errors import KvnetError, NotFound
from kvnet.model import Condition, Host, Inventory
from worker.crowding import Crowding
from worker.kernel.inventory import HostAddress, Surroundings
from worker.log import Log
from worker.ports import HostKernel, Time
from worker.session import Lifeline
from worker.settings import Timing
from worker.underlay import MISSING, Underlay, find
from worker.view import View

ABILITIES = ("bridge", "overlay", "routed", "transparent")
# A hint often comes while several changes are under way: an address that is replaced is gone for a moment.
SETTLE_S = 0.1
LOOK_SHARE = 10.0  # and many of them in a row cost at most a tenth of the time


class Registration:
    """`view.own` is kept up to date here; `on_change` is called when it, `problem` or `crowding` became another."""

    def __init__(
        self,
        store: Store,
        view: View,
        kernel: HostKernel,
        lifeline: Lifeline,
        underlay: Underlay,
        *,
        on_change: Callable[[], None] = lambda: None,
        time: Time,
        timing: Timing,
        log: Log,
    ) -> None:
        self.is_done = False
        self.problem: Condition | None = None
        self.crowding = Crowding()
        self.kernel_release = ""
        self.boot_id = ""
        self._store = store
        self._view = view
        self._kernel = kernel
        self._lifeline = lifeline
        self._wanted = underlay
        self._at: HostAddress | None = None
        self._took_s = 0.0
        self._on_change = on_change
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
            NotFound: the underlay address is on no interface, and never was while this worker runs.
        """
        found = await self._kernel.surroundings()
        self._follow(found)
        if self.crowding.note(found.refused_neighbours, self._time.monotonic(), self._time.now()):
            for condition in self.crowding.conditions:
                self._log.warning(condition.code, detail=condition.detail)
            self._on_change()
        self.kernel_release, self.boot_id = found.kernel, found.boot_id
        used = tuple(sorted(found.used, key=lambda item: (item.cidr.version, item.cidr, item.source)))
        return Inventory(self._view.host, used, found.kernel, __version__, found.boot_id)

    def _follow(self, found: Surroundings) -> None:
        before = self._view.own
        try:
            at = find(self._wanted, self._at, found)
        except NotFound as error:
            if self._at is None:
                raise
            self._tell(error.detail)
            return
        self._tell("")
        if self._at is not None and self._at.address != at.address:
            self._log.warning("underlay-moved", was=self._at.address, now=at.address, device=at.device)
        self._at = at
        self._view.own = Host(self._view.host, at.address, at.mtu, ABILITIES, segment=at.segment)
        if before is not None and before != self._view.own:
            self._on_change()

    def _tell(self, detail: str) -> None:
        if detail == (self.problem.detail if self.problem is not None else ""):
            return
        self.problem = Condition(MISSING, detail, self._time.now()) if detail else None
        if detail:
            self._log.warning(MISSING, detail=detail)
        self._on_change()

    async def run(self) -> None:
        """Keep both records true until cancelled; a fenced host writes none, but looks where its underlay is."""
        while True:
            pause = self._timing.inventory_s
            began = self._time.monotonic()
            try:
                inventory = await self.look_around()
                self._took_s = self._time.monotonic() - began
                if self._lifeline.is_open:
                    await self._write(inventory)
                    await self._lifeline.renew()
                    self.is_done = True
                self._problem = ""
            except (StoreError, KvnetError) as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    self._log.warning("registration-failed", detail=self._problem)
                pause = self._timing.retry_s * 5
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Until it is time, something hints at a change, or the fence opens."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
        if not self._lifeline.is_open:
            waits.append(asyncio.ensure_future(self._lifeline.until_open()))
        try:
            await asyncio.wait(waits, timeout=self._time.jittered(seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._wake.is_set():
            await self._time.sleep(max(SETTLE_S, LOOK_SHARE * self._took_s))
        self._wake.clear()

    async def _write(self, inventory: Inventory) -> None:
        own, host = self._view.own, self._view.host
        writes = []
        is_damaged = host in self._view.hosts.broken
        if own is not None and (is_damaged or self._view.hosts.items.get(host) != own):
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
