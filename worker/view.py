"""What this host knows of the cluster: mirrors of exactly the keys that concern it.

`meta/`, `hosts/` and `local/<me>/` always; a network with its endpoints and blocks from the first local key that names
it to the last, and as long the networks that it is peered with. So the cost grows with what the host carries, not with
the cluster. Knows nothing of the kernel, never writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from backends.store import Revision, Store
from datapath.view import Attachment, HostView
from kvnet import codec, keys, sentinel
from kvnet.marks import Accepted, Cluster
from kvnet.model import Host, Network, Versioned
from kvnet.rules import NETWORK_ID
from kvnet.sentinel import Meta
from worker.lastknown import Written
from worker.networktables import NetworkTables
from worker.ports import Time
from worker.provenance import Origins
from worker.tables import Table, until_in_step

LOOK_AGAIN_S = 1.0
REMEMBERED = 64  # networks that were left, until the kernel has left them too


class View:
    """`on_networks` is told which networks to look at again, `on_local` that the set of local endpoints changed."""

    def __init__(
        self,
        store: Store,
        host: str,
        *,
        time: Time,
        on_networks: Callable[[Collection[str]], None],
        on_local: Callable[[], None],
    ) -> None:
        self.host = host
        self.own: Host | None = None
        self._store = store
        self._time = time
        self._on_networks = on_networks
        self._on_local = on_local
        self._networks: dict[str, NetworkTables] = {}
        self._pins: dict[str, int] = {}
        self._parted: dict[str, tuple[str, Origins]] = {}
        self._all: list[Table[Any]] | None = None
        self._known: tuple[Host | None, Mapping[str, Host]] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._is_ready = asyncio.Event()
        self.meta: Table[Meta] = Table(
            store, keys.META, sentinel.decode, lambda _: self._on_networks(list(self._networks)), time
        )
        self.hosts: Table[Host] = Table(store, keys.HOSTS, partial(codec.decode, Host), self._hosts_changed, time)
        self.local: Table[str] = Table(store, keys.local_of(host), _network_id, self._local_changed, time)

    async def run(self) -> None:
        """Keep everything in step until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for table in self._base():
                group.create_task(table.mirror.run())
            for table in self._base():
                await until_in_step(table)
            self._is_ready.set()
            self._on_local()
            self._on_networks(list(self._networks))

    # what is known

    @property
    def is_ready(self) -> bool:
        """The first lists are in: it is known which networks this host takes part in."""
        return self._is_ready.is_set()

    @property
    def is_in_step(self) -> bool:
        return self.is_ready and all(tables.is_ready for tables in self._networks.values())

    @property
    def cluster(self) -> Versioned[Cluster] | None:
        found = self.meta.items.get(keys.CLUSTER.removeprefix(keys.META))
        entry = self.meta.mirror.entries.get(keys.CLUSTER)
        return Versioned(found, entry.version) if entry is not None and isinstance(found, Cluster) else None

    @property
    def acceptance(self) -> Versioned[Accepted] | None:
        """The last time that an operator took the store as it was."""
        found = self.meta.items.get(keys.ACCEPTED.removeprefix(keys.META))
        entry = self.meta.mirror.entries.get(keys.ACCEPTED)
        return Versioned(found, entry.version) if entry is not None and isinstance(found, Accepted) else None

    @property
    def revision(self) -> Revision:
        return max([table.mirror.revision for table in self._tables()])

    @property
    def lists(self) -> int:
        """Changes whenever some mirror has been listed anew."""
        return sum(table.lists for table in self._tables())

    @property
    def stale_since(self) -> float | None:
        """Since when some mirror has not heard from the store (monotonic); None while all have."""
        stale = [table.mirror.stale_since for table in self._tables()]
        return min((since for since in stale if since is not None), default=None)

    @property
    def network_ids(self) -> Collection[str]:
        return self._networks.keys()

    def tables(self, network_id: str) -> NetworkTables | None:
        return self._networks.get(network_id)

    def network_named(self, name_or_id: str) -> Network | None:
        """As far as it is mirrored here."""
        known = (tables.network for tables in self._networks.values())
        return next((n for n in known if n is not None and name_or_id in (n.id, n.name)), None)

    def origins(self, network_id: str) -> Origins | None:
        """Whose changes of it wait to be in the kernel; also of a network that this host has just left."""
        tables = self._networks.get(network_id)
        return tables.origins if tables is not None else self._parted.get(network_id, ("", None))[1]

    def name_of(self, network_id: str) -> str:
        """How people call it, as far as that is known here; also of one that this host has just left."""
        tables = self._networks.get(network_id)
        return tables.name if tables is not None else self._parted.get(network_id, ("", None))[0]

    def version(self, network_id: str) -> Revision:
        tables = self._networks.get(network_id)
        return tables.version if tables else 0

    def held(self) -> frozenset[str]:
        """Networks that must be left alone: not all is known of them yet, or part of it cannot be read."""
        return frozenset(id_ for id_, tables in self._networks.items() if tables.is_doubtful)

    def start_over(self) -> None:
        """The store was accepted as it is now, so all of it is read anew."""
        for table in self._base():
            table.start_over()
        for tables in self._networks.values():
            tables.start_over()

    @property
    def is_starting_over(self) -> bool:
        """What is known is still partly that of before."""
        return any([table.is_owed for table in self._tables()])  # noqa: C419 - a generator costs twice as much

    def fell_back(self) -> tuple[Revision, Revision] | None:
        falls = [table.fell_back for table in self._tables() if table.fell_back is not None]
        return falls[0] if falls else None

    def host_view(self, networks: Collection[str] | None, attachments: Mapping[str, Attachment]) -> HostView:
        """Of the given networks, or of all but the held ones. The dictionaries are copies: a thread may have them.

        The networks that a given one is peered with come along: they tell whether it is built here, and who visits it.
        """
        held = self.held()
        chosen = self._networks.keys() - held if networks is None else set(networks) & self._networks.keys() - held
        peers = {peer for id_ in chosen for peer in self._networks[id_].peers} & self._networks.keys()
        near = chosen | peers
        found = {id_: t for id_, t in self._networks.items() if id_ in near and t.network is not None}
        return HostView(
            host=self.host,
            hosts=self._known_hosts(),
            networks={id_: tables.network for id_, tables in found.items() if tables.network is not None},
            endpoints={id_: dict(tables.endpoints.items) for id_, tables in found.items()},
            attachments=attachments,
            blocks={id_: tables.known_blocks() for id_, tables in found.items()},
            carried=frozenset(self.local.items.values()),
            courses={id_: tables.course for id_, tables in found.items()},
        )

    def outline(self, without: Collection[str]) -> HostView:
        """Every network of this host but these, with this host's endpoints only: what concerns the host as a whole.

        Which those are is asked of the networks, as for a network's own part: `local/` may be told later.
        """
        found = {id_: t for id_, t in self._networks.items() if t.network is not None and id_ not in without}
        return HostView(
            host=self.host,
            hosts=self._known_hosts(),
            networks={id_: tables.network for id_, tables in found.items() if tables.network is not None},
            endpoints={id_: dict(tables.own) for id_, tables in found.items()},
            attachments={},
            blocks={id_: tables.known_blocks() for id_, tables in found.items()},
            carried=frozenset(self.local.items.values()),
        )

    def written(self) -> Written:
        """All but the held networks, as the store has it."""
        held = self.held()
        found = [tables for id_, tables in self._networks.items() if id_ not in held]
        return Written(
            hosts=_values(self.hosts),
            networks=tuple(value for tables in found for value in _values(tables.specification)),
            endpoints=tuple(value for tables in found for value in _values(tables.endpoints)),
            blocks=tuple(value for tables in found if tables.blocks for value in _values(tables.blocks)),
        )

    async def until_caught_up(self, revision: Revision, timeout_s: float) -> None:
        """
        Raises:
            TimeoutError: some mirror has not reached `revision`.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                behind = [t for t in self._tables() if not t.mirror.in_step or t.mirror.revision < revision]
                if not behind:
                    return
                # A mirror may be closed meanwhile, and then it never arrives.
                with contextlib.suppress(TimeoutError):
                    await behind[0].mirror.until(revision, LOOK_AGAIN_S)

    @contextlib.contextmanager
    def pinned(self, network_id: str) -> Iterator[None]:
        """Mirror the network now: its first local key is on the way."""
        self._pins[network_id] = self._pins.get(network_id, 0) + 1
        self._adjust()
        try:
            yield
        finally:
            self._pins[network_id] -= 1
            if not self._pins[network_id]:
                del self._pins[network_id]
            self._adjust()

    # how it is kept

    def _base(self) -> tuple[Table[Any], ...]:
        return (self.meta, self.hosts, self.local)

    def _tables(self) -> Sequence[Table[Any]]:
        """Kept as a list: whether the store may be believed is asked of all of them, many times a second."""
        if self._all is None:
            self._all = [*self._base(), *(one for tables in self._networks.values() for one in tables.tables())]
        return self._all

    def _known_hosts(self) -> Mapping[str, Host]:
        """The same one as long as it stays the same, which is how a pass sees that; never changed itself."""
        if self._known is None or self._known[0] is not self.own:
            own = {} if self.own is None else {self.host: self.own}
            self._known = self.own, {**self.hosts.items, **own}
        return self._known[1]

    def _hosts_changed(self, names: Collection[str]) -> None:
        self._known = None
        changed = set(names) - {self.host}
        concerned = [id_ for id_, tables in self._networks.items() if not changed.isdisjoint(tables.hosts)]
        if concerned:
            self._on_networks(concerned)

    def _local_changed(self, _: Collection[str]) -> None:
        self._adjust()
        if self.is_ready:
            self._on_local()

    def _adjust(self) -> None:
        """Open what is needed, close what is not. What the peers of a network are peered with does not concern us."""
        self._all = None
        group = self._group
        if group is None:
            return
        # What has endpoints here stays also while `local/` does not tell of them yet, or tells first that they go; but
        # not if the network is refused to this host by now: then nobody will tell of it any more.
        seen = (id_ for id_, tables in self._networks.items() if tables.own and not tables.is_refused)
        own = {*self.local.items.values(), *self._pins, *seen}
        wanted = own | {peer for id_ in own & self._networks.keys() for peer in self._networks[id_].peers}
        closed = [id_ for id_ in self._networks if id_ not in wanted]
        for id_ in closed:
            tables = self._networks.pop(id_)
            self._part_with(id_, tables)
            if tables.task is not None:
                tables.task.cancel()
        for id_ in sorted(wanted - self._networks.keys()):  # the same order in every run
            tables = NetworkTables(self._store, id_, self.host, self._network_changed, self._adjust, self._time)
            tables.task = group.create_task(tables.run())
            self._networks[id_] = tables
        self._all = None
        if closed:
            self._on_networks(closed)

    def _part_with(self, network_id: str, tables: NetworkTables) -> None:
        if len(self._parted) >= REMEMBERED:
            del self._parted[next(iter(self._parted))]
        self._parted[network_id] = (tables.name, tables.origins)

    def _network_changed(self, network_id: str) -> None:
        """Who is in it, and on which hosts, concerns those that it is peered with too."""
        tables = self._networks.get(network_id)
        if tables is not None and not tables.own:
            self._adjust()
        peers = [id_ for id_, tables in self._networks.items() if network_id in tables.peers]
        self._on_networks([network_id, *peers])


def _values(table: Table[Any]) -> tuple[bytes, ...]:
    return tuple(entry.value for entry in table.mirror.entries.values())


def _network_id(value: bytes) -> str:
    """Raises: ValueError: not what the controller writes there."""
    text = value.decode("ascii")
    if not NETWORK_ID.match(text):
        raise ValueError(f"{text[:80]!r} is not a network id")
    return text
