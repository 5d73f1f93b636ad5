"""The addresses of one subnet: which were never used, which rest, which are taken. Integers only, and no clock.

Choosing costs the same in a /24 and in a /64: a byte per address where that is small, a set where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from controller.ipam.idle import IdleQueue, Rest
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.model import Address, Subnet

# How far from the longest idle address a choice may be.
MAX_PASSED_OVER = 63
BYTE_PER_ADDRESS_UP_TO = 1 << 20  # a /12; above, a set of what was touched


class Fixed(StrEnum):
    """Addresses that no endpoint ever gets, whatever the store says."""

    NETWORK = "the network address"
    BROADCAST = "the broadcast address"
    GATEWAY = "the gateway"
    RESERVED = "reserved"


class Window:
    """One subnet of a network. `first` to `last` is where automatic choice looks: the subnet's range, or all of it.

    An address is exactly one of: fixed, claimed (by an endpoint or a reservation), in flight, idle (released; cooling
    down or ready), or never used. A tombstone in the store is idle here; `versions` remembers its key's version.
    """

    def __init__(self, subnet: Subnet) -> None:
        self.subnet = subnet
        self.address_class: type[IPv4Address] | type[IPv6Address] = (
            IPv4Address if subnet.cidr.version == 4 else IPv6Address
        )
        bounds = subnet.range or subnet.cidr
        self.first, self.last = int(bounds.network_address), int(bounds.broadcast_address)
        self.low, self.high = int(subnet.cidr.network_address), int(subnet.cidr.broadcast_address)
        self.fixed = fixed_addresses(subnet)
        self.claims: dict[int, AddressClaim] = {}
        self.versions: dict[int, int] = {}
        self.in_flight: dict[int, Rest | None] = {}  # what an address was before: idle, or never used
        self.idle = IdleQueue()
        self.endpoints = 0
        inside = [a for a in self.fixed if self.first <= a <= self.last]
        self.capacity = self.last - self.first + 1 - len(inside)
        self._touched = _Touched(self.first, self.last)
        for address in inside:
            self._touched.add(address)
        self._cursor: int | None = None
        self._newest = (float("-inf"), self.first - 1)

    def put(self, address: int, claim: AddressClaim, version: int) -> None:
        if self.versions.get(address) == version:
            return  # told twice; what is in flight meanwhile stays in flight
        self._forget(address)
        self._touched.add(address)
        self.claims[address] = claim
        self.versions[address] = version
        self.in_flight.pop(address, None)
        self.idle.remove(address)
        if claim.kind is ClaimKind.TOMBSTONE:
            self._rest(address, Rest(claim.since, claim.since if claim.until is None else claim.until))
        elif claim.kind is ClaimKind.ENDPOINT:
            self.endpoints += 1
            self._newest = max(self._newest, (claim.since, address))

    def drop(self, address: int, latest: float) -> None:
        """The key is gone: free, and in the queue since its release, or since `latest` if it left no tombstone."""
        claim = self._forget(address)
        if claim is not None:
            since = claim.since if claim.kind is ClaimKind.TOMBSTONE else latest
            self._rest(address, Rest(since, since))

    def _rest(self, address: int, rest: Rest) -> None:
        if address in self.in_flight:
            self.in_flight[address] = rest
        elif self.first <= address <= self.last and address not in self.fixed:
            self.idle.add(address, rest)

    def _forget(self, address: int) -> AddressClaim | None:
        claim = self.claims.pop(address, None)
        self.versions.pop(address, None)
        if claim is not None and claim.kind is ClaimKind.ENDPOINT:
            self.endpoints -= 1
        return claim

    def choose(self, now: float, skip: int) -> int | None:
        """Take an address: one that was never used, else the longest idle one. None: there is none."""
        address = self._next_never_used(skip)
        if address is not None:
            self.in_flight[address] = None
            return address
        found = self.idle.pop(now, min(skip, MAX_PASSED_OVER))
        if found is None:
            return None
        address, rest = found
        self.in_flight[address] = rest
        return address

    def take(self, address: int) -> None:
        """Take this very address, which the caller has found to be free."""
        self.in_flight[address] = self.idle.remove(address)
        self._touched.add(address)

    def let_go(self, address: int) -> None:
        """What was taken did not become a claim: it is again what it was before."""
        if address not in self.in_flight:
            return
        before = self.in_flight.pop(address)
        if before is not None:
            self._rest(address, before)
        else:
            self._touched.discard(address)

    def _next_never_used(self, skip: int) -> int | None:
        touched = self._touched
        if touched.is_full:
            return None
        if self._cursor is None:  # a new process goes on after the newest endpoint
            self._cursor = self._newest[1] + 1
        start = self._cursor - self.first if self.first <= self._cursor <= self.last else 0
        address = touched.next_free(self.first + (start + skip) % (self.last - self.first + 1))
        self._cursor = address + 1
        touched.add(address)
        return address

    def count(self, kind: ClaimKind) -> int:
        """How many claims of a kind lie where automatic choice looks."""
        return sum(c.kind is kind and self.first <= a <= self.last for a, c in self.claims.items())

    def count_reserved(self) -> int:
        """Addresses between `first` and `last` that automatic choice passes over for ever."""
        return self.last - self.first + 1 - self.capacity + self.count(ClaimKind.RESERVATION)

    def reservations(self) -> Iterator[tuple[Address, str]]:
        """Those between `first` and `last`, with their names."""
        named = {a: name for a, (reason, name) in self.fixed.items() if reason is Fixed.RESERVED}
        named |= {a: claim.holder for a, claim in self.claims.items() if claim.kind is ClaimKind.RESERVATION}
        return ((self.address_class(a), name) for a, name in sorted(named.items()) if self.first <= a <= self.last)


class _Touched:
    """Which addresses of a window are not "never used". Finding the next one that is not costs next to nothing."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._size = first, last - first + 1
        self._count = 0
        self._bytes = bytearray(self._size) if self._size <= BYTE_PER_ADDRESS_UP_TO else None
        self._set: set[int] = set()

    @property
    def is_full(self) -> bool:
        return self._count >= self._size

    def add(self, address: int) -> None:
        at = address - self._first
        if not 0 <= at < self._size:
            return
        if self._bytes is None:
            self._set.add(at)
            self._count = len(self._set)
        elif not self._bytes[at]:
            self._bytes[at] = 1
            self._count += 1

    def discard(self, address: int) -> None:
        at = address - self._first
        if not 0 <= at < self._size:
            return
        if self._bytes is None:
            self._set.discard(at)
            self._count = len(self._set)
        elif self._bytes[at]:
            self._bytes[at] = 0
            self._count -= 1

    def next_free(self, start: int) -> int:
        """The first untouched address from `start` on; wraps. There must be one."""
        at = start - self._first
        if not 0 <= at < self._size:
            at = 0
        if self._bytes is None:
            while at in self._set:
                at = (at + 1) % self._size
            return self._first + at
        found = self._bytes.find(0, at)
        return self._first + (found if found >= 0 else self._bytes.find(0))


def fixed_addresses(subnet: Subnet) -> dict[int, tuple[Fixed, str]]:
    """Per address that is never handed out: why, and under which name."""
    fixed = {int(a): (Fixed.RESERVED, name) for name, a in subnet.reserved.items()}
    fixed[int(subnet.cidr.network_address)] = (Fixed.NETWORK, "")
    if subnet.cidr.version == 4:
        fixed[int(subnet.cidr.broadcast_address)] = (Fixed.BROADCAST, "")
    if subnet.gateway is not None:
        fixed[int(subnet.gateway)] = (Fixed.GATEWAY, "")
    return fixed
