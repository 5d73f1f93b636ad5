"""The store as one host sees it: its own keys, and the networks that it takes part in; the rest is refused.

The store contract itself, so that whoever serves a host need not know which rules hold for it. A watch of a network
tells all up to the moment at which the host leaves it, and ends then. Whether something that may not be read exists is
never told. Decides nothing by itself: `hosts` and `host_values` do, `participation` knows who takes part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import ParamSpec, TypeVar

from backends.passing import PassingStore
from backends.store import (
    Batch,
    Change,
    Check,
    Entry,
    Put,
    Refused,
    Revision,
    Session,
    Snapshot,
    Store,
    Unavailable,
    Write,
)
from controller.ipam.holders import HolderKind
from controller.security.host_values import Written, require_place, written_of
from controller.security.host_watch import closed, while_part
from controller.security.hosts import Reach, list_of, read_of, refused
from controller.security.limits import Buckets
from controller.security.participation import Participation
from controller.security.principal import Principal
from controller.security.session_seal import Seals
from controller.state import State
from kvnet import codec, keys
from kvnet.errors import Forbidden, StoreBroken
from kvnet.model import Address, Driver, Host, Network, Observed
from kvnet.rules import NETWORK_ID
from kvnet.security import Grant

P = ParamSpec("P")
T = TypeVar("T")

SESSIONS_AT_ONCE = 30.0
SESSIONS_PER_S = 1.0
RECORDS_AT_ONCE = 30.0
RECORDS_PER_S = 0.5
MAX_TTL_S = 3600.0
WATCHES = 64  # of one host, and more for each network that it is in
WATCHES_PER_NETWORK = 8


class Gate:
    """What all hosts' views of the store share."""

    def __init__(
        self, state: State, store: Store, token_bytes: Callable[[int], bytes], monotonic: Callable[[], float]
    ) -> None:
        self.state = state
        self.participation = Participation(state, store, monotonic)
        self.seals = Seals(store, token_bytes, monotonic)
        self._sessions = Buckets()
        self._records = Buckets()
        self._watches = Counter[str]()
        self._monotonic = monotonic

    def store_for(self, principal: Principal, store: Store) -> Store:
        """`store`, as far as this host may see it."""
        return HostStore(store, principal, self)

    def count_session(self, host: str) -> None:
        """
        Raises:
            Unavailable: it opens too many.
        """
        if self._sessions.take(host, SESSIONS_PER_S, SESSIONS_AT_ONCE, self._monotonic()):
            raise Unavailable(f"host {host} opens too many sessions")

    def count_record(self, host: str) -> None:
        """Every worker hears of every change of one.

        Raises:
            Unavailable: it changes too often.
        """
        if self._records.take(host, RECORDS_PER_S, RECORDS_AT_ONCE, self._monotonic()):
            raise Unavailable(f"host {host} changes its record too often")

    @contextmanager
    def watch_of(self, host: str) -> Iterator[None]:
        """
        Raises:
            Unavailable: it has more than a worker needs.
        """
        most = WATCHES + WATCHES_PER_NETWORK * len(self.state.networks_on(host))
        if self._watches[host] >= most:
            raise Unavailable(f"host {host} has {most} watches open")
        self._watches[host] += 1
        try:
            yield
        finally:
            self._watches[host] -= 1
            if not self._watches[host]:
                del self._watches[host]


class HostStore(PassingStore):
    def __init__(self, inner: Store, principal: Principal, gate: Gate) -> None:
        super().__init__(inner)
        self._principal = principal
        self._host = principal.host
        self._gate = gate

    # reading

    async def get(self, key: str) -> Entry | None:
        read = _told(read_of, self._host, key)
        if read.reach is Reach.NAME:
            return await self._name(key)
        if read.reach is Reach.PART and self._has_catalogue and key.startswith(keys.NETWORKS):
            return await self._of_catalogue(key)
        if read.reach is Reach.PART:
            await self._part_of(read.network, "read", key)
        return await self._inner.get(key)

    async def list(self, prefix: str) -> Snapshot:
        read = _told(list_of, self._host, prefix)
        if read.reach is Reach.PART:
            await self._part_of(read.network, "list", prefix)
        elif read.reach is Reach.CATALOGUE:
            self._require_catalogue(prefix)
            found = await self._inner.list(prefix)
            return replace(found, entries=tuple(entry for entry in found.entries if self._is_shown(entry)))
        return await self._inner.list(prefix)

    async def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        read = _told(list_of, self._host, prefix)
        with self._gate.watch_of(self._host):
            if read.reach is Reach.PART:
                known = await self._part_of(read.network, "watch", prefix)
                batches = while_part(
                    self._inner.watch(prefix, after), self._gate.participation, self._host, read.network, known
                )
            elif read.reach is Reach.CATALOGUE:
                self._require_catalogue(prefix)
                batches = self._catalogue(prefix, after)
            else:
                batches = self._inner.watch(prefix, after)
            try:
                async for batch in batches:
                    yield batch
            finally:
                await closed(batches)

    # writing

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        written = _told(written_of, self._host, checks, writes)
        if written.record is not None:
            self._require_place(written.record)
        if written.observed is not None:
            await self._require_known(written.observed)
        return await self._inner.commit(checks, await self._unsealed(written, writes))

    async def session(self, ttl_s: float, *, resume: str | None = None) -> Session:
        """
        Raises:
            Refused: it would make a dead host be believed alive for too long.
            Unavailable: too many at once.
        """
        if ttl_s > MAX_TTL_S:
            raise Refused(f"a host's session may last {MAX_TTL_S:g} s, not {ttl_s:g}")
        if resume is None:
            self._gate.count_session(self._host)
            opened = await self._inner.session(ttl_s)
        else:
            opened = await self._inner.session(ttl_s, resume=await self._gate.seals.open(self._host, resume))
        return _Sealed(opened, await self._gate.seals.seal(self._host, opened.id))

    async def _unsealed(self, written: Written, writes: Sequence[Write]) -> Sequence[Write]:
        if written.session is None:
            return writes
        session = await self._gate.seals.open(self._host, written.session)
        return [
            replace(write, session=session) if isinstance(write, Put) and write.session is not None else write
            for write in writes
        ]

    def _require_place(self, record: Host) -> None:
        state, address = self._gate.state, record.underlay
        before = state.hosts.get(self._host)
        if before is None or before.value != record:
            self._gate.count_record(self._host)
        holder = state.host_addresses.underlay_of(address, self._host)
        _told(require_place, record, before.value if before is not None else None, holder, self._claimed(address))

    def _claimed(self, address: Address) -> str:
        """What it is in the networks, but for a physical one, where hosts have addresses too."""
        state = self._gate.state
        for holder in state.blocks.holders_of(ip_network(address)):
            network = state.networks.get(holder.name) if holder.kind is HolderKind.NETWORK else None
            if network is None:
                continue
            if network.value.driver is not Driver.TRANSPARENT:
                return "an address of a network of workloads"
            subnet = network.value.subnet_of(address)
            if address in state.claims_of(holder.name) or (subnet is not None and subnet.gateway == address):
                return "the address of a workload or of a gateway"
        return ""

    async def _require_known(self, observed: Observed) -> None:
        """What a host says of a network that it has nothing to do with would be believed of that network."""
        before = self._gate.state.observed.get(self._host)
        known = before.value.networks if before is not None else {}
        took_part = self._gate.participation.took_part_lately
        for network in observed.networks:
            if (
                network in known
                or took_part(self._host, network)
                or (self._has_catalogue and network in self._gate.state.networks.items)
            ):
                continue
            await self._part_of(network, "report on", keys.network(network))

    # who may see what

    async def _part_of(self, network: str, what: str, key: str) -> Revision:
        """Up to which revision it is certain that the host takes part.

        Raises:
            Refused
        """
        known = await self._gate.participation.confirmed(self._host, network)
        if known is None:
            raise Refused(refused(self._host, what, key).detail)
        return known

    @property
    def _has_catalogue(self) -> bool:
        return Grant.DOCKER in self._principal.grants

    def _require_catalogue(self, prefix: str) -> None:
        if not self._has_catalogue:
            raise Refused(f"{refused(self._host, 'list', prefix).detail} without the grant 'docker'")

    async def _name(self, key: str) -> Entry | None:
        """Of a network that this host may join: it learns as much by trying."""
        entry = await self._inner.get(key)
        network = entry.value.decode("ascii", "replace") if entry is not None else ""
        is_shown = NETWORK_ID.match(network) and await self._of_catalogue(keys.network(network)) is not None
        return entry if is_shown else None

    async def _of_catalogue(self, key: str) -> Entry | None:
        entry = await self._inner.get(key)
        return entry if entry is not None and self._is_shown(entry) else None

    def _is_shown(self, entry: Entry) -> bool:
        """Whether a network is in this host's scope, or it is in that network."""
        scope = self._principal.scope
        if not scope or self._gate.participation.takes_part(self._host, entry.key.removeprefix(keys.NETWORKS)):
            return True
        try:
            labels = codec.decode(Network, entry.value).labels
        except StoreBroken:
            return False
        return all(labels.get(key) == value for key, value in scope.items())

    async def _catalogue(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        """What leaves the scope is gone, for this host."""
        batches = self._inner.watch(prefix, after)
        try:
            async for batch in batches:
                yield (
                    batch
                    if not self._principal.scope
                    else replace(batch, changes=tuple(self._scoped(change) for change in batch.changes))
                )
        finally:
            await closed(batches)

    def _scoped(self, change: Change) -> Change:
        return change if change.entry is None or self._is_shown(change.entry) else Change(change.key, None)


class _Sealed:
    """A session under the id that its host gets."""

    def __init__(self, inner: Session, id_: str) -> None:
        self._inner = inner
        self._id = id_

    @property
    def id(self) -> str:
        return self._id

    @property
    def is_lost(self) -> bool:
        return self._inner.is_lost

    async def until_lost(self) -> None:
        await self._inner.until_lost()

    async def close(self) -> None:
        await self._inner.close()

    async def release(self) -> None:
        await self._inner.release()


def _told(decide: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """A decision in the words of the store contract.

    Raises:
        Refused
    """
    try:
        return decide(*args, **kwargs)
    except Forbidden as error:
        raise Refused(f"{error.detail}; {error.fix}" if error.fix else error.detail) from error
