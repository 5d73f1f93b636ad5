"""The state as somebody sees it: the same memory, with everything that belongs to networks out of sight left out.

Whoever reads through it cannot forget a filter: what is hidden is not there. For reading alone; choices and commits are
made on the whole state, because what is hidden is taken all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from backends.committer import Transaction
from backends.store import Check, Refused, Revision, StoreError, Write
from controller.ipam.spaces import Space
from controller.journal import Changed
from controller.reports import Reports
from controller.requests import Caller
from controller.rolls import Roll, Rolls
from controller.security.sight import WITHHELD, Sight
from controller.state import Claims, Endpoints, State
from controller.tables import Table
from controller.writer import Writer
from kvnet import keys
from kvnet.claims import HeldPorts
from kvnet.model import Block, Cidr, Endpoint, Network, NetworkObserved, Observed, Versioned

T = TypeVar("T")
V = TypeVar("V")
Show = Callable[[str, V], V | None]


class Shown(Mapping[str, V]):
    """A live view of a mapping: `show` gives each value as it may be seen, or None."""

    def __init__(self, whole: Mapping[str, V], show: Show[V]) -> None:
        self._whole = whole
        self._show = show

    def __getitem__(self, key: str) -> V:
        shown = self._show(key, self._whole[key])
        if shown is None:
            raise KeyError(key)
        return shown

    def __iter__(self) -> Iterator[str]:
        return (key for key, value in self._whole.items() if self._show(key, value) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class ShownTable(Table[T]):
    def __init__(self, whole: Table[T], show: Show[Versioned[T]]) -> None:
        self.prefix = whole.prefix
        self.mirror = whole.mirror
        self.broken = {}
        self._shown = Shown(whole.items, show)

    @property
    def items(self) -> Mapping[str, Versioned[T]]:
        return self._shown

    def get(self, name: str) -> Versioned[T] | None:
        return self._shown.get(name)


class ShownReports(Reports):
    def __init__(self, whole: Reports, sight: Sight) -> None:
        self.__dict__.update(whole.__dict__)
        self._sight = sight

    def of(self, network: str) -> Mapping[str, NetworkObserved]:
        if not self._sight.sees(network):
            return {}
        found = super().of(network)
        return {host: _told(self._sight, one) for host, one in found.items()}


class ShownRolls(Rolls):
    def __init__(self, whole: Rolls, sight: Sight) -> None:
        self._whole = whole
        self._sight = sight

    def of(self, network: str) -> Roll:
        return self._whole.of(network) if self._sight.sees(network) else Roll({}, ())


class SeenState(State):
    def __init__(self, whole: State, sight: Sight) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole
        self._sight = sight
        self.networks = ShownTable(whole.networks, lambda _, one: one if sight.admits(one.value) else None)
        self.endpoints = ShownTable(whole.endpoints, _of_network(sight))
        self.addresses = ShownTable(whole.addresses, _of_network(sight))
        self.host_blocks = ShownTable(whole.host_blocks, _of_network(sight))
        self.ports = ShownTable(whole.ports, lambda _, one: _held(sight, one))
        self.observed = ShownTable(whole.observed, lambda _, one: _observed(sight, one))
        self.reports = ShownReports(whole.reports, sight)
        self.rolls = ShownRolls(whole.rolls, sight)

    def sees(self, network: str) -> bool:
        return self._sight.sees(network)

    def shows(self, network: Network) -> bool:
        return self._sight.admits(network)

    def tells(self, key: str) -> bool:
        """What is still to be made is seen by who makes it."""
        prefix, _, rest = key.partition("/")
        network = rest.partition("/")[0]
        is_of_one = f"{prefix}/" in (keys.NETWORKS, keys.ENDPOINTS, keys.BLOCKS, keys.ADDRESSES)
        return not is_of_one or self._whole.networks.get(network) is None or self.sees(network)

    def endpoints_of(self, network: str) -> Endpoints:
        return self._whole.endpoints_of(network) if self.sees(network) else {}

    def networks_in_order(self) -> Sequence[Versioned[Network]]:
        return [one for one in self._whole.networks_in_order() if self._sight.admits(one.value)]

    def endpoints_in_order(self, network: str | None = None) -> Sequence[Versioned[Endpoint]]:
        if network is not None:
            return self._whole.endpoints_in_order(network) if self.sees(network) else ()
        return [one for one in self._whole.endpoints_in_order() if self.sees(one.value.network)]

    def endpoints_named(self, network: str, name: str) -> list[Versioned[Endpoint]]:
        return self._whole.endpoints_named(network, name) if self.sees(network) else []

    def endpoints_on(self, host: str) -> Iterator[Versioned[Endpoint]]:
        return (one for one in self._whole.endpoints_on(host) if self.sees(one.value.network))

    def claims_of(self, network: str) -> Claims:
        return self._whole.claims_of(network) if self.sees(network) else {}

    def hosts_of(self, network: str) -> Mapping[str, int]:
        return self._whole.hosts_of(network) if self.sees(network) else {}

    def networks_on(self, host: str) -> Mapping[str, int]:
        return Shown(self._whole.networks_on(host), lambda id_, count: count if self.sees(id_) else None)

    def blocks_of(self, network: str) -> Mapping[Cidr, Versioned[Block]]:
        return self._whole.blocks_of(network) if self.sees(network) else {}

    def space(self, network: Network) -> Space:
        return self._whole.space(network)


class Reader(Writer):
    """Has the store for those who look into it, and writes nothing."""

    def __init__(self, writer: Writer) -> None:
        self.__dict__.update(writer.__dict__)

    async def commit(
        self, checks: Sequence[Check], writes: Sequence[Write], caller: Caller, *changes: Changed
    ) -> Revision:
        """Raises: Refused."""
        raise Refused("a view of the cluster writes nothing")

    async def commit_many(self, transactions: Sequence[Transaction]) -> list[Revision | StoreError]:
        """Raises: Refused."""
        raise Refused("a view of the cluster writes nothing")


def _of_network(sight: Sight) -> Show[Versioned[T]]:
    """Of tables whose keys begin with a network's id."""
    return lambda key, one: one if sight.sees(key.partition("/")[0]) else None


def _held(sight: Sight, bucket: Versioned[HeldPorts]) -> Versioned[HeldPorts] | None:
    held = tuple(one for one in bucket.value.held if sight.sees(one.network))
    return Versioned(replace(bucket.value, held=held), bucket.version) if held else None


def _observed(sight: Sight, one: Versioned[Observed]) -> Versioned[Observed]:
    networks = {id_: _told(sight, told) for id_, told in one.value.networks.items() if sight.sees(id_)}
    return Versioned(replace(one.value, networks=networks), one.version)


def _told(sight: Sight, told: NetworkObserved) -> NetworkObserved:
    if not any(sight.hides(one.detail) for one in told.conditions):
        return told
    conditions = tuple(replace(c, detail=WITHHELD) if sight.hides(c.detail) else c for c in told.conditions)
    return replace(told, conditions=conditions)
