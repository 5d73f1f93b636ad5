"""Everything the controllers share, as this one last saw it: typed tables over the store and the indexes between them.

Always a moment old and never the authority: the checks of the commit that follows confirm what was decided by it.
Nothing here writes; nothing here reads the store but through mirrors, so no question costs a round trip.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

from backends.mirror import Mirror
from backends.store import Change, Store
from controller.audit.chain import Chain
from controller.events import EventLog
from controller.ipam.host_addresses import HostAddresses
from controller.ipam.routed import BlockSpace
from controller.ipam.spaces import Space, shape, space_for
from controller.ipam.subnets import SubnetSpace
from controller.ordered import Ordered
from controller.reports import Reports
from controller.rolls import Rolls
from controller.security.quotas import Quotas
from controller.settings import Settings
from controller.signal import Signal
from controller.steps import Steps
from controller.tables import Table
from kvnet import codec, keys, sentinel
from kvnet.claims import AddressClaim, ClaimKind, HeldPorts, SubnetClaim
from kvnet.marks import Replica
from kvnet.model import (
    Address,
    Alive,
    Block,
    Cidr,
    Endpoint,
    Host,
    Inventory,
    Network,
    Observed,
    Pool,
    Reclaim,
    Versioned,
)
from kvnet.questions import Answer, Question
from kvnet.security import Token
from kvnet.sentinel import Meta

REMEMBERED_GONE = 10_000
Endpoints = Mapping[str, Versioned[Endpoint]]
Claims = Mapping[Address, Versioned[AddressClaim]]


class State:
    """The tables, and what is derived from them the moment a change arrives."""

    def __init__(self, store: Store, settings: Settings, rng: random.Random) -> None:
        self.now = now = settings.clock.now
        self._patience_s = settings.read_your_writes_s
        self.meta: Table[Meta] = Table(store, keys.META, sentinel.decode, now, rng)
        self.pools = Table(store, keys.POOLS, partial(codec.decode, Pool), now, rng)
        self.subnets = Table(store, keys.SUBNETS, partial(codec.decode, SubnetClaim), now, rng)
        self.networks = Table(store, keys.NETWORKS, partial(codec.decode, Network), now, rng)
        self.addresses = Table(store, keys.ADDRESSES, partial(codec.decode, AddressClaim), now, rng)
        self.endpoints = Table(store, keys.ENDPOINTS, partial(codec.decode, Endpoint), now, rng)
        self.hosts = Table(store, keys.HOSTS, partial(codec.decode, Host), now, rng)
        self.inventory = Table(store, keys.INVENTORY, partial(codec.decode, Inventory), now, rng)
        self.alive = Table(store, keys.ALIVE, partial(codec.decode, Alive), now, rng)
        self.host_blocks = Table(store, keys.BLOCKS, partial(codec.decode, Block), now, rng)
        self.ports = Table(store, keys.PORTS, partial(codec.decode, HeldPorts), now, rng)
        self.reclaims = Table(store, keys.RECLAIMS, partial(codec.decode, Reclaim), now, rng)
        self.observed = Table(store, keys.OBSERVED, partial(codec.decode, Observed), now, rng)
        self.replicas = Table(store, keys.REPLICAS, partial(codec.decode, Replica), now, rng)
        self.questions = Table(store, keys.QUESTIONS, partial(codec.decode, Question), now, rng)
        self.answers = Table(store, keys.ANSWERS, partial(codec.decode, Answer), now, rng)
        self.tokens = Table(store, keys.TOKENS, partial(codec.decode, Token), now, rng)
        self.quotas = Quotas(self.networks, self.endpoints)
        self.events = EventLog()
        self.journal = Mirror(store, keys.JOURNAL, on_change=self.events.on_change, clock=now, rng=rng)
        self.chain = Chain()
        self.secrets = Mirror(store, keys.SECRETS, clock=now, rng=rng)
        self.seals = Mirror(store, keys.SEALS, on_change=self.chain.on_change, clock=now, rng=rng)
        self.leader = Mirror(store, "leader/", on_change=self._on_leader, clock=now, rng=rng)
        of_tables = (table.mirror for table in self.tables)
        self._mirrors = (*of_tables, self.journal, self.seals, self.secrets, self.leader)
        self.progress = Signal()  # rings when a host may have applied, come or gone
        self.leadership = Signal()
        self.on_list: Callable[[str, int, int], None] = lambda _prefix, _before, _now: None
        self.vnis: dict[int, str] = {}
        self.blocks = SubnetSpace(self._name_of)
        self._id_of: dict[str, str] = {}
        self._endpoints: dict[str, dict[str, Versioned[Endpoint]]] = {}
        self._named: dict[tuple[str, str], set[str]] = {}
        self._claims: dict[str, dict[Address, Versioned[AddressClaim]]] = {}
        self._carried: dict[str, dict[str, int]] = {}
        self._hosts_of: dict[str, dict[str, int]] = {}
        self._joined: dict[tuple[str, str], float] = {}  # when a host got its first endpoint of a network
        self._latest: dict[str, Steps] = {}
        self.reports = Reports()
        self._vanished: dict[str, tuple[float, str]] = {}  # when, and the incarnation
        self._gone: dict[str, Mapping[str, str]] = {}  # the labels of networks that were there, the newest last
        self._spaces: dict[str, Space] = {}
        self._blocks_of: dict[str, dict[Cidr, Versioned[Block]]] = {}
        self.host_addresses = HostAddresses()
        self._watch_indexes()
        self.rolls = Rolls(self)
        self._networks_by_name = Ordered(self.networks, lambda n: (n.value.name, n.value.id))
        self._endpoints_by_name = Ordered(self.endpoints, lambda e: (e.value.network, e.value.name, e.value.id))

    def _watch_indexes(self) -> None:
        for mirror in self.mirrors:
            mirror.on_list = partial(self._on_list, mirror.prefix)
        self.networks.listen(self._on_network)
        self.endpoints.listen(self._on_endpoint)
        self.addresses.listen(self._on_address)
        self.alive.listen(self._on_alive)
        self.observed.listen(self._on_observed)
        self.subnets.listen(self._on_subnet)
        self.inventory.listen(self._on_inventory)
        self.pools.listen(self._on_pool)
        self.host_blocks.listen(self._on_block)
        self.hosts.listen(self._on_host)

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        return (
            self.meta,
            self.pools,
            self.subnets,
            self.networks,
            self.addresses,
            self.endpoints,
            self.hosts,
            self.inventory,
            self.alive,
            self.reclaims,
            self.observed,
            self.host_blocks,
            self.ports,
            self.replicas,
            self.questions,
            self.answers,
            self.tokens,
        )

    @property
    def unreadable(self) -> dict[str, str]:
        """Keys whose values are not what kvnet keeps there, and why; what is there without them goes on."""
        return {key: why for table in self.tables for key, why in table.broken.items()}

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        return self._mirrors

    @property
    def revision(self) -> int:
        """Every answer about networks, endpoints, pools and addresses is at least as new as this."""
        tables = (self.networks, self.endpoints, self.addresses, self.pools)
        return min(self.journal.revision, *(table.mirror.revision for table in tables))

    @property
    def stale_since(self) -> float | None:
        """Since when a mirror is cut off from the store; None when all are in step."""
        cut_off = [m.stale_since for m in self.mirrors if m.stale_since is not None]
        return min(cut_off, default=None)

    @property
    def is_in_step(self) -> bool:
        return all(m.in_step and m.stale_since is None for m in self.mirrors)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for mirror in self.mirrors:
                tasks.create_task(mirror.run())

    async def until_in_step(self, timeout_s: float) -> None:
        """
        Raises:
            TimeoutError: some mirror has not got its first list within `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            for mirror in self.mirrors:
                await mirror.until_in_step(timeout_s)

    async def reached(self, revision: int, *tables: Table[Any]) -> None:
        """Wait, for a bounded time, until these tables show the commit `revision`.

        When the watch is cut off the answer comes without it: the commit stands, only this replica's lists lag.
        """
        for table in tables:
            if table.mirror.revision < revision:
                try:
                    await table.mirror.until(revision, self._patience_s)
                except TimeoutError:
                    return

    def network_named(self, name_or_id: str) -> Versioned[Network] | None:
        """No name looks like an id (`drafts`); of an older one that does, the id wins: it never changes its meaning."""
        return self.networks.get(name_or_id) or self.networks.get(self._id_of.get(name_or_id, ""))

    def sees(self, network: str) -> bool:
        """Whether whom this state is for may know of that network; here everybody may."""
        return True

    def shows(self, network: Network) -> bool:
        """As `sees`, of one that the store told of before the memory did."""
        return True

    def tells(self, key: str) -> bool:
        """As `sees`, of the network that a key belongs to."""
        return True

    def id_named(self, name: str) -> str | None:
        return self._id_of.get(name)

    def labels_of_gone(self, network: str) -> Mapping[str, str] | None:
        """Those of a network that is no more; None if nobody knows."""
        known = self._gone.get(network)
        if known is None:
            known = self.events.labels_of(network)
            if known is not None:
                self._remember(network, known)
        return known

    def _remember(self, network: str, labels: Mapping[str, str]) -> None:
        self._gone[network] = labels
        if len(self._gone) > REMEMBERED_GONE:
            del self._gone[next(iter(self._gone))]

    def endpoints_of(self, network: str) -> Endpoints:
        return self._endpoints.get(network, {})

    def networks_in_order(self) -> Sequence[Versioned[Network]]:
        """By name. Not to be kept."""
        return self._networks_by_name.all()

    def endpoints_in_order(self, network: str | None = None) -> Sequence[Versioned[Endpoint]]:
        """By network's id, name and id. Not to be kept."""
        return self._endpoints_by_name.all() if network is None else self._endpoints_by_name.under(network)

    def endpoints_on(self, host: str) -> Iterator[Versioned[Endpoint]]:
        for network in self._carried.get(host, ()):
            yield from (e for e in self._endpoints[network].values() if e.value.host == host)

    def endpoints_named(self, network: str, name: str) -> list[Versioned[Endpoint]]:
        return [self._endpoints[network][one] for one in sorted(self._named.get((network, name), ()))]

    def claims_of(self, network: str) -> Claims:
        return self._claims.get(network, {})

    def hosts_of(self, network: str) -> Mapping[str, int]:
        """Which hosts take part in a network, and with how many endpoints."""
        return self._hosts_of.get(network, {})

    @property
    def hosts_with_endpoints(self) -> Sequence[str]:
        return tuple(self._carried)

    def networks_on(self, host: str) -> Mapping[str, int]:
        return self._carried.get(host, {})

    def latest_change(self, network: str) -> int:
        """The newest revision of a network that its hosts have to apply."""
        steps = self._latest.get(network)
        return steps.last if steps is not None else 0

    def behind_since(self, network: str, host: str, wanted: int = 0) -> float | None:
        """Since when the host lacks a change of the network, or that of `wanted`; None if it has all, or nobody knows.

        Who has nothing of it yet lacks nothing before its first endpoint is there.
        """
        seen, steps = self.reports.of(network).get(host), self._latest.get(network)
        applied = seen.version if seen is not None else 0
        first = wanted or (steps.after(applied) if steps is not None else None)
        since = None if first is None else self.events.moment(first)
        if applied or first is None:
            return since
        joined = self._joined.get((network, host))
        return max((at for at in (since, joined) if at is not None), default=None)

    def last_seen(self, host: str) -> float | None:
        """Now if it lives; else as this controller, the mark on the host, or its own last report remembers it."""
        if self.alive.get(host):
            return self.now()
        if host in self._vanished:
            return self._vanished[host][0]
        mark, report = self.reclaims.get(host), self.observed.get(host)
        noted = mark.value.last_seen if mark is not None else None
        return noted if noted is not None or report is None else report.value.at

    def down_since(self, host: str) -> float | None:
        """When it was first seen absent; None while it lives, or if nobody knows."""
        if self.alive.get(host):
            return None
        mark = self.reclaims.get(host)
        return mark.value.absent_since if mark is not None else self._vanished.get(host, (None,))[0]

    def incarnation(self, host: str) -> str:
        """The run of the worker that lives, or that was seen last; "" if nobody knows."""
        living, mark = self.alive.get(host), self.reclaims.get(host)
        if living is not None:
            return living.value.incarnation
        return self._vanished[host][1] if host in self._vanished else (mark.value.incarnation if mark else "")

    def space(self, network: Network) -> Space:
        """The free and taken addresses of a network: built once, then kept with every change."""
        space = self._spaces.get(network.id)
        if space is None:
            space = space_for(network, partial(self._endpoint_name, network.id), self.host_addresses.host_of)
            if isinstance(space, BlockSpace):
                for block in self.blocks_of(network.id).values():
                    space.put_block(block.value, block.version)
            for address, claim in self.claims_of(network.id).items():
                space.put(address, claim.value, claim.version)
            self._spaces[network.id] = space
        return space

    def _endpoint_name(self, network: str, endpoint: str) -> str:
        found = self.endpoints_of(network).get(endpoint)
        return found.value.name if found else ""

    def blocks_of(self, network: str) -> Mapping[Cidr, Versioned[Block]]:
        """The blocks of a routed network that hosts have."""
        return self._blocks_of.get(network, {})

    def aside(self) -> State:
        """The same mirrors with address spaces of its own: what is chosen there is not kept from anybody here."""
        other = copy(self)
        other._spaces = {}
        other.blocks = self.blocks.aside(self.inventory.items, self.pools.items)
        return other

    def relist(self) -> None:
        """Read everything anew: what was mirrored may be that of another store under the same address."""
        for mirror in self.mirrors:
            mirror.relist()

    def _on_list(self, prefix: str, before: int, now: int) -> None:
        if now < before:  # revisions begin anew from there: what was numbered above it will never be seen again
            for steps in self._latest.values():
                steps.went_back(now)
            if prefix == keys.JOURNAL:
                self.events.went_back(now)
            if prefix == keys.SEALS:
                self.chain.went_back(now)
        self.on_list(prefix, before, now)

    def _on_network(self, name: str, before: Versioned[Network] | None, after: Versioned[Network] | None) -> None:
        if before is not None and self._id_of.get(before.value.name) == name:
            del self._id_of[before.value.name]
        if before is not None and before.value.vni is not None:
            self.vnis.pop(before.value.vni, None)
        if after is None:
            self._spaces.pop(name, None)
            self._latest.pop(name, None)
            if before is not None:
                self._remember(name, before.value.labels)
            return
        if after.value.vni is not None:
            self.vnis[after.value.vni] = name
        self._id_of[after.value.name] = name
        self._note_latest(name, after.version)
        if before is not None and shape(before.value) != shape(after.value):
            self._spaces.pop(name, None)
        elif name in self._spaces:
            self._spaces[name].call_it(after.value)

    def _name_of(self, network: str) -> str:
        found = self.networks.get(network)
        return found.value.name if found else ""

    def _on_subnet(
        self, name: str, _before: Versioned[SubnetClaim] | None, after: Versioned[SubnetClaim] | None
    ) -> None:
        cidr = keys.parse_subnet(keys.SUBNETS + name)
        if after is None:
            self.blocks.drop_claim(cidr)
        else:
            self.blocks.put_claim(cidr, after.value)
            self.blocks.let_go(cidr)

    def _on_inventory(
        self, name: str, _before: Versioned[Inventory] | None, after: Versioned[Inventory] | None
    ) -> None:
        if after is None:
            self.blocks.drop_inventory(name)
        else:
            self.blocks.put_inventory(after.value)
        self.host_addresses.put_inventory(name, after.value if after is not None else None)

    def _on_host(self, name: str, _before: Versioned[Host] | None, after: Versioned[Host] | None) -> None:
        self.host_addresses.put_host(name, after.value if after is not None else None)

    def _on_block(self, name: str, _before: Versioned[Block] | None, after: Versioned[Block] | None) -> None:
        network, cidr = keys.parse_block(keys.BLOCKS + name)
        space = self._spaces.get(network)
        if after is None:
            _drop_from(self._blocks_of, network, cidr)
        else:
            self._blocks_of.setdefault(network, {})[cidr] = after
        if isinstance(space, BlockSpace):
            if after is None:
                space.drop_block(cidr)
            else:
                space.put_block(after.value, after.version)

    def _on_pool(self, name: str, _before: Versioned[Pool] | None, after: Versioned[Pool] | None) -> None:
        if after is None:
            self.blocks.drop_pool(name)
        else:
            self.blocks.put_pool(after.value)

    def _on_endpoint(self, name: str, before: Versioned[Endpoint] | None, after: Versioned[Endpoint] | None) -> None:
        network, _, endpoint = name.partition("/")
        if before is not None:
            self._unlink(network, before.value)
            if after is None:
                _drop_from(self._endpoints, network, endpoint)
                self.reports.forget(endpoint)
        if after is not None:
            self._endpoints.setdefault(network, {})[endpoint] = after
            self._named.setdefault((network, after.value.name), set()).add(endpoint)
            host = after.value.host
            for counts, outer, inner in self._counts(network, host):
                per = counts.setdefault(outer, {})
                per[inner] = per.get(inner, 0) + 1
            at, first = after.value.created_at, self._joined.get((network, host))
            if first is None or at < first:
                self._joined[network, host] = at
            self._note_latest(network, after.version)
        self.progress.ring()

    def _unlink(self, network: str, endpoint: Endpoint) -> None:
        named = self._named[network, endpoint.name]
        named.discard(endpoint.id)
        if not named:
            del self._named[network, endpoint.name]
        for counts, outer, inner in self._counts(network, endpoint.host):
            counts[outer][inner] -= 1
            if not counts[outer][inner]:
                _drop_from(counts, outer, inner)
                self._joined.pop((network, endpoint.host), None)

    def _counts(self, network: str, host: str) -> tuple[tuple[dict[str, dict[str, int]], str, str], ...]:
        return (self._carried, host, network), (self._hosts_of, network, host)

    def _on_address(
        self, name: str, before: Versioned[AddressClaim] | None, after: Versioned[AddressClaim] | None
    ) -> None:
        network, address = keys.parse_address(keys.ADDRESSES + name)
        space = self._spaces.get(network)
        if after is None:
            _drop_from(self._claims, network, address)
            if space is not None:
                space.drop(address)
            return
        self._claims.setdefault(network, {})[address] = after
        if after.value.kind is ClaimKind.TOMBSTONE:  # written by the commit that removed the endpoint
            self._note_latest(network, after.version)
        if space is not None:
            space.put(address, after.value, after.version)

    def _note_latest(self, network: str, version: int) -> None:
        steps = self._latest.get(network)
        if steps is None:
            steps = self._latest[network] = Steps()
        steps.note(version)

    def _on_observed(self, host: str, before: Versioned[Observed] | None, after: Versioned[Observed] | None) -> None:
        self.reports.put(host, before, after)
        self.progress.ring()

    def _on_alive(self, name: str, before: Versioned[Alive] | None, after: Versioned[Alive] | None) -> None:
        now = self.now()
        if after is None:
            self._vanished[name] = (now, before.value.incarnation if before is not None else "")
        else:
            self._vanished.pop(name, None)
        self.progress.ring()
        is_same = before is not None and after is not None and before.value.incarnation == after.value.incarnation
        if not is_same:
            self.events.tell_host(name, before, after, now, self.alive.mirror.revision)

    def _on_leader(self, _changes: Sequence[Change]) -> None:
        self.leadership.ring()


def _drop_from(outer: dict[str, dict[Any, Any]], key: str, inner: Any) -> None:
    """Remove `outer[key][inner]`, and the inner dictionary with its last item."""
    items = outer.get(key)
    if items is not None:
        items.pop(inner, None)
        if not items:
            del outer[key]
