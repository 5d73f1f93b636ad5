"""Who takes part in a network: counted once, then kept up with who came and who went.

A pass after one change must not look at every endpoint again, not even to see which one changed: whoever keeps the
endpoints may tell that by their `Course`. Without one they are compared. Keep a census per network of a host and use it
from one thread; it counts for the very same endpoint objects, and from one dictionary to another of the same course.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kvnet.model import Endpoint


@dataclass(frozen=True, slots=True)
class Course:
    """How the endpoints of a network came to be what they are: after `number` changes, of which `recent` has the ids
    that the last ones were about. `line`: the one dictionary, kept by somebody, whose changes are counted."""

    line: object
    number: int
    recent: Sequence[str]

    def since(self, earlier: Course | None) -> Collection[str] | None:
        """Whose endpoints may differ from those of then, and no others; None where that is not known any more."""
        if earlier is None or earlier.line is not self.line or earlier.number > self.number:
            return None
        more = self.number - earlier.number
        return set(self.recent[len(self.recent) - more :]) if more <= len(self.recent) else None


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """`endpoints`, by id: no two of them share a MAC or an address. `local`: those on this host. `hosts`: where
    they are, the same object as long as that stays the same.

    All of it until the census is asked again, and the same object as long as nothing changes. `before`: the one that
    it was then, from which it differs by those that came and those that went (one that changed did both).
    """

    endpoints: Mapping[str, Endpoint]
    local: Collection[Endpoint]
    hosts: frozenset[str]
    step: object = field(default_factory=object)
    before: object = None
    come: Sequence[Endpoint] = ()
    gone: Sequence[Endpoint] = ()


NOBODY = Members({}, (), frozenset())


@dataclass(slots=True)
class Census:
    _count: _Count | None = None
    _course: Course | None = None

    def members(self, endpoints: Mapping[str, Endpoint], here: str, course: Course | None = None) -> Members:
        """Of endpoints that share something only the newest is a member: see `sole_owners`."""
        changed = None if course is None else course.since(self._course)
        count, self._count, self._course = self._count, None, course
        if count is None or count.here != here or not count.follow(endpoints, changed):
            count = _Count(here, dict(endpoints))
            if not count.add(endpoints.values()):
                return _Count(here, {one.id: one for one in sole_owners(endpoints.values())}).whole()
        self._count = count
        return count.members()


@dataclass(slots=True)
class _Count:
    here: str
    endpoints: dict[str, Endpoint]
    macs: set[str] = field(default_factory=set)
    addresses: set[int] = field(default_factory=set)
    each: Counter[str] = field(default_factory=Counter)  # how many a host has
    local: dict[str, Endpoint] = field(default_factory=dict)
    hosts: frozenset[str] | None = None
    told: Members | None = None
    come: Sequence[Endpoint] = ()
    gone: Sequence[Endpoint] = ()

    def follow(self, now: Mapping[str, Endpoint], changed: Collection[str] | None) -> bool:
        """`changed`: no others may differ; None = look. False: count anew, for too much is different or two share
        something."""
        then = self.endpoints
        if changed is None:
            changed = [*(id_ for id_, one in now.items() if then.get(id_) is not one), *(then.keys() - now.keys())]
        different = [id_ for id_ in changed if now.get(id_) is not then.get(id_)]
        if len(different) > len(now) // 4:
            return False
        self.gone = [then.pop(id_) for id_ in different if id_ in then]
        self.come = [now[id_] for id_ in different if id_ in now]
        then.update({one.id: one for one in self.come})
        self.remove(self.gone)
        return self.add(self.come)

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
                self.local[endpoint.id] = endpoint
        return True

    def remove(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            self.macs.discard(endpoint.mac)
            self.addresses.difference_update(map(int, endpoint.addresses))
            self.each[endpoint.host] -= 1
            if not self.each[endpoint.host]:
                del self.each[endpoint.host]
                self.hosts = None
            self.local.pop(endpoint.id, None)

    def members(self) -> Members:
        if self.told is None or self.come or self.gone:
            self.hosts = frozenset(self.each) if self.hosts is None else self.hosts
            before = self.told.step if self.told is not None else None
            local = list(self.local.values())
            self.told = Members(self.endpoints, local, self.hosts, object(), before, self.come, self.gone)
            self.come = self.gone = ()
        return self.told

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
