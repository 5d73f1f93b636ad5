"""Mirrors of one network: its specification, its endpoints and, where it is routed, whose its blocks are.

Tells when any of it changed, and up to which revision all of it is known. Knows nothing of other networks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Set
from functools import partial
from typing import Any

from backends.store import Refused, Revision, Store, StoreError
from datapath.census import Course
from kvnet import codec, keys
from kvnet.model import Block, Driver, Endpoint, Network
from worker.ports import Time
from worker.provenance import Origins
from worker.tables import Table, until_in_step

SETTLE_S = 5.0
RECENT = 256  # changes between two passes; where there were more, a pass compares all endpoints


class NetworkTables:
    """`version`: every change of the network up to this revision is in the tables.

    `on_specification` is told of every change of the specification, and when the network is refused, at once;
    `on_change` of all changes that count.
    """

    def __init__(
        self,
        store: Store,
        network_id: str,
        host: str,
        on_change: Callable[[str], None],
        on_specification: Callable[[], None],
        time: Time,
    ) -> None:
        self.is_ready = False
        self.task: asyncio.Task[None] | None = None
        self.peers: tuple[str, ...] = ()
        self.blocks: Table[Block] | None = None
        self.origins = Origins()
        self.name = ""  # the last one that was told
        self._store = store
        self._id = network_id
        self._host = host
        self._own: dict[str, Endpoint] = {}
        self._hosts: Set[str] | None = None
        self._changes = 0
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._time = time
        self._on_change = on_change
        self._on_specification = on_specification
        self._version: Revision = 0
        self._changed_at: Revision = 0
        self._is_unsettled = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self.specification: Table[Network] = Table(
            store,
            keys.network(network_id),
            partial(codec.decode, Network),
            self._specification_changed,
            time,
            self.origins,
        )
        self.endpoints: Table[Endpoint] = Table(
            store,
            keys.endpoints(network_id),
            partial(codec.decode, Endpoint),
            self._endpoints_changed,
            time,
            self.origins,
        )
        self.endpoints.mirror.on_error = self._refused
        self.endpoints.mirror.on_nothing = partial(self._endpoints_changed, ())

    @property
    def version(self) -> Revision:
        return max(self._version, min(table.relisted_at for table in self.tables()))

    @property
    def network(self) -> Network | None:
        return self.specification.items.get(self._id)

    @property
    def is_doubtful(self) -> bool:
        """Not all of it is here yet, or part of it never could be read, or it has endpoints and no specification.

        What could be read before it was damaged goes on as it was.
        """
        is_whole = self.is_ready and (self.blocks is None or self.blocks.mirror.in_step)
        return not is_whole or self._is_unknown or (self.network is None and bool(self.endpoints.items))

    @property
    def _is_unknown(self) -> bool:
        parts = [table for table in self.tables() if table is not self.specification]
        return self._id in self.specification.unknown or any(table.unknown for table in parts)

    @property
    def broken(self) -> Mapping[str, str]:
        return {name: detail for table in self.tables() for name, detail in table.broken.items()}

    @property
    def hosts(self) -> Set[str]:
        """Those that take part: they have an endpoint or a block of it. Whatever changes of any host asks for it."""
        if self._hosts is None:
            found = {endpoint.host for endpoint in self.endpoints.items.values()}
            self._hosts = found | {block.host for block in self.known_blocks()}
        return self._hosts

    @property
    def is_refused(self) -> bool:
        """The store does not let this host see the network (any more)."""
        return isinstance(self.endpoints.mirror.last_error, Refused)

    @property
    def own(self) -> Mapping[str, Endpoint]:
        """The endpoints of this host, by id: known with the network's others, in one step."""
        return self._own

    @property
    def course(self) -> Course:
        """Of the endpoints as they are now."""
        return Course(self._recent, self._changes, tuple(self._recent))

    def _refused(self, error: StoreError) -> None:
        """What was to be told of how this host left the network may never be told then."""
        if isinstance(error, Refused):
            self._on_specification()

    def known_blocks(self) -> tuple[Block, ...]:
        return tuple(self.blocks.items.values()) if self.blocks is not None else ()

    def tables(self) -> tuple[Table[Any], ...]:
        base: tuple[Table[Any], ...] = (self.specification, self.endpoints)
        return base if self.blocks is None else (*base, self.blocks)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self.specification.mirror.run())
            group.create_task(self.endpoints.mirror.run())
            await until_in_step(self.specification)
            await until_in_step(self.endpoints)
            if self.blocks is not None:
                await until_in_step(self.blocks)
            self.is_ready = True
            self._version = max(self._version, min(table.mirror.revision for table in self.tables()))
            self._on_change(self._id)
            await self._settle()

    def start_over(self) -> None:
        """As `Table.start_over`."""
        self._version = self._changed_at = 0
        for table in self.tables():
            table.start_over()

    async def _settle(self) -> None:
        """What changed may only be claimed as known once the other tables have come as far."""
        while True:
            await self._is_unsettled.wait()
            wanted = self._changed_at
            try:
                for table in self.tables():
                    await table.mirror.until(wanted, SETTLE_S)
            except TimeoutError:
                continue
            if wanted == self._changed_at:
                self._is_unsettled.clear()
            if wanted > self._version:
                self._version = wanted
                self._on_change(self._id)

    def _specification_changed(self, _: Collection[str]) -> None:
        network = self.network
        if network is not None:  # one that is gone, or cannot be read, keeps what it had
            self.peers, self.name = network.peers, network.name
            if network.driver is Driver.ROUTED and self.blocks is None:
                self._open_blocks()
        self._changed(self.specification)
        self._on_specification()
        self._tell()

    def _open_blocks(self) -> None:
        parse = partial(codec.decode, Block)
        blocks = self.blocks = Table(self._store, keys.blocks(self._id), parse, self._blocks_changed, self._time)
        blocks.mirror.on_nothing = partial(self._blocks_changed, ())
        assert self._group is not None
        self._group.create_task(blocks.mirror.run())
        self._group.create_task(self._await_blocks(blocks))

    async def _await_blocks(self, blocks: Table[Block]) -> None:
        await until_in_step(blocks)
        self._tell()

    def _endpoints_changed(self, names: Collection[str]) -> None:
        self._hosts = None
        self._changes += len(names)
        self._recent.extend(names)
        for name in names:
            endpoint = self.endpoints.items.get(name)
            if endpoint is not None and endpoint.host == self._host:
                self._own[name] = endpoint
            else:
                self._own.pop(name, None)
        self._version = max(self._version, self.endpoints.mirror.revision)
        self._tell()

    def _blocks_changed(self, _: Collection[str]) -> None:
        self._hosts = None
        if self.blocks is not None:
            self._changed(self.blocks)
        self._tell()

    def _changed(self, table: Table[Any]) -> None:
        self._changed_at = max(self._changed_at, table.mirror.revision)
        self._is_unsettled.set()

    def _tell(self) -> None:
        if self.is_ready:
            self._on_change(self._id)
