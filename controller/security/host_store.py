"""The store as one host sees it: its own keys, and the networks that it takes part in; the rest is refused.

The store contract itself, so that whoever serves a host need not know which rules hold for it. A watch of a network
tells all up to the moment at which the host leaves it, and ends then. Whether something that may not be read exists is
never told. Decides nothing by itself: `hosts` and `host_values` do, `participation` knows who takes part.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
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
    Write,
)
from controller.ipam.holders import HolderKind
from controller.security.host_limits import HostLimits
from controller.security.host_values import Written, require_place, written_of
from controller.security.host_watch import closed, while_part
from controller.security.hosts import Reach, list_of, read_of, refused
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


class Gate:
    """What all hosts' views of the store share."""

    def __init__(
        self, state: State, store: Store, token_bytes: Callable[[int], bytes], monotonic: Callable[[], float]
    ) -> None:
        self.state = state
        self.participation = Participation(state, store, monotonic)
        self.seals = Seals(store, token_bytes, monotonic)
        self.limits = HostLimits(state, monotonic)

    def store_for(self, principal: Principal, store: Store) -> Store:
        """`store`, as far as this host may see it."""
        return HostStore(store, principal, self)


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
        with self._gate.limits.watch_of(self._host):
            if read.reach is Reach.PART:
                known = await self._part_of(read.network, "watch", prefix)
                batches = while_part(
                    self._inner.watch(prefix, after), self._gate.participation, self._host, read.network, known
                )
            elif read.reach is Reach.CATALOGUE:
                self._require_catalogue(prefix)
                batches = self._scoped(self._inner.watch(prefix, after))
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
        self._gate.limits.count_writes(self._host, writes)
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
        self._gate.limits.require_ttl(ttl_s)
        if resume is None:
            self._gate.limits.count_session(self._host)
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
            return has_labels(codec.decode(Network, entry.value), scope)
        except StoreBroken:
            return False

    async def _scoped(self, batches: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
        """What leaves the scope is gone, for this host; of what was never in it, no change is told."""
        networks = self._gate.state.networks.items
        shown = {keys.network(id_) for id_, one in networks.items() if has_labels(one.value, self._principal.scope)}
        try:
            async for batch in batches:
                yield replace(batch, changes=tuple(self._in_scope(batch.changes, shown)))
        finally:
            await closed(batches)

    def _in_scope(self, changes: Sequence[Change], shown: set[str]) -> Iterator[Change]:
        for change in changes:
            if change.entry is None:
                yield change  # its labels are not known any more; its id says nothing
                shown.discard(change.key)
            elif self._is_shown(change.entry):
                yield change
                shown.add(change.key)
            elif change.key in shown:
                yield Change(change.key, None)
                shown.discard(change.key)


def has_labels(network: Network, wanted: Mapping[str, str]) -> bool:
    return all(network.labels.get(key) == value for key, value in wanted.items())


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
