"""Who takes part in a network: counted once, then kept up with who came and who went.

A pass after one change must not look at every endpoint again. What is remembered counts for the very same endpoint
objects, so it can never make a result wrong. Keep one per network of a host and use it from one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kvnet.model import Endpoint


@dataclass(frozen=True, slots=True)
class Members:
    """`endpoints`, by identity: no two of them share a MAC or an address. `local`: those on this host. `hosts`: where
    they are, the same object as long as that stays the same."""

    endpoints: Mapping[int, Endpoint]
    local: Collection[Endpoint]
    hosts: frozenset[str]


NOBODY = Members({}, (), frozenset())


@dataclass(slots=True)
class Census:
    _count: _Count | None = None

    def members(self, endpoints: Collection[Endpoint], here: str) -> Members:
        """Of endpoints that share something only the newest is a member: see `sole_owners`."""
        now = dict(zip(map(id, endpoints), endpoints, strict=True))
        count, self._count = self._count, None
        if count is None or count.here != here or not count.follow(now):
            count = _Count(here, now)
            if not count.add(now.values()):
                owners = sole_owners(endpoints)
                return _Count(here, dict(zip(map(id, owners), owners, strict=True))).whole()
        self._count = count
        return count.members()


@dataclass(slots=True)
class _Count:
    here: str
    endpoints: dict[int, Endpoint]
    macs: set[str] = field(default_factory=set)
    addresses: set[int] = field(default_factory=set)
    each: Counter[str] = field(default_factory=Counter)  # how many a host has
    local: dict[int, Endpoint] = field(default_factory=dict)
    hosts: frozenset[str] | None = None

    def follow(self, now: dict[int, Endpoint]) -> bool:
        """False: count anew, for too much is different or two share something."""
        then, self.endpoints = self.endpoints, now
        if now.keys() == then.keys():
            return True
        come, gone = now.keys() - then.keys(), then.keys() - now.keys()
        if len(come) + len(gone) > len(now) // 4:
            return False
        self.remove([then[one] for one in gone])
        return self.add([now[one] for one in come])

    def add(self, endpoints: Iterable[Endpoint]) -> bool:
        """False: one of them shares a MAC or an address with another, and the count is good for nothing."""
        macs, addresses, each = self.macs, self.addresses, self.each
        for endpoint in endpoints:
            numbers = [int(address) for address in endpoint.addresses]
            if endpoint.mac in macs or not addresses.isdisjoint(numbers) or len(set(numbers)) < len(numbers):
                return False
            macs.add(endpoint.mac)
            addresses.update(numbers)
            self.hosts = self.hosts if endpoint.host in each else None
            each[endpoint.host] += 1
            if endpoint.host == self.here:
                self.local[id(endpoint)] = endpoint
        return True

    def remove(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            self.macs.discard(endpoint.mac)
            self.addresses.difference_update(map(int, endpoint.addresses))
            self.each[endpoint.host] -= 1
            if not self.each[endpoint.host]:
                del self.each[endpoint.host]
                self.hosts = None
            self.local.pop(id(endpoint), None)

    def members(self) -> Members:
        self.hosts = frozenset(self.each) if self.hosts is None else self.hosts
        return Members(self.endpoints, list(self.local.values()), self.hosts)

    def whole(self) -> Members:
        """Without a count."""
        everyone = self.endpoints.values()
        local = [endpoint for endpoint in everyone if endpoint.host == self.here]
        return Members(self.endpoints, local, frozenset(endpoint.host for endpoint in everyone))


def sole_owners(endpoints: Collection[Endpoint]) -> Collection[Endpoint]:
    """Endpoints of which no two share a MAC or an address: of those that do, only the newest stays.

    The store forbids shared addresses, but a kernel has one entry per key, and two that claim it would replace each
    other for ever.
    """
    taken: set[object] = set()
    owners: list[Endpoint] = []
    for endpoint in sorted(endpoints, key=lambda e: (e.created_at, e.id), reverse=True):
        keys = {endpoint.mac, *endpoint.addresses}
        if taken.isdisjoint(keys):
            owners.append(endpoint)
            taken |= keys
    return owners
