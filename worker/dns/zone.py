"""What a name means to one workload: the names of all the networks that it is on, and of no other.

Pure: endpoints in, addresses and names out; messages are made elsewhere. Never tells of a network that the asker is not
on, not even that a name exists there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from string import hexdigits
from typing import TypeVar

from kvnet.model import Address, Endpoint, Network

K = TypeVar("K")
SUFFIX = "kvnet"
OWN_HOST = frozenset({f"host.{SUFFIX}", "host.docker.internal"})
LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_REVERSE4, _REVERSE6 = ".in-addr.arpa", ".ip6.arpa"
_LABELS4, _NIBBLES6 = 4, 32


class Verdict(Enum):
    """What else there is to say about a name than what it stands for."""

    ABSENT = "absent"
    ELSEWHERE = "elsewhere"  # it is not ours to say: the host's resolvers may know
    BARE = "bare"  # a name without a dot: likewise, but most often nobody does


@dataclass(frozen=True, slots=True)
class Found:
    """What stands behind a name. All of it empty: the name is there, and has nothing of that kind.

    `domains`: what a reverse name leads to. `holders`: the endpoints that bear the name.
    """

    addresses: tuple[Address, ...] = ()
    domains: tuple[str, ...] = ()
    holders: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Under:
    """Absent, unless others know a domain that happens to be called as a network of ours is."""

    domain: str


Meaning = Found | Verdict | Under


@dataclass(slots=True, eq=False)
class Names:
    """One network's names, kept in step with its endpoints at the cost of what changed.

    `is_complete`: all of it is known, so that what is not in here is not there. `generation` grows with every change.
    """

    id: str
    network: Network | None = None
    is_complete: bool = False
    generation: int = 0
    _seen: dict[str, Endpoint] = field(default_factory=dict)
    _holders: dict[str, dict[str, Endpoint]] = field(default_factory=dict)
    _addresses: dict[Address, dict[str, Endpoint]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.network.name.lower() if self.network is not None else ""

    def follow(self, network: Network | None, endpoints: Mapping[str, Endpoint], *, is_complete: bool = True) -> None:
        gone = [id_ for id_ in self._seen if id_ not in endpoints]
        changed = [endpoint for id_, endpoint in endpoints.items() if self._seen.get(id_) is not endpoint]
        for id_ in gone:
            self._drop(self._seen.pop(id_))
        for endpoint in changed:
            before = self._seen.get(endpoint.id)
            if before is not None:
                self._drop(before)
            self._keep(endpoint)
        if gone or changed or network is not self.network or is_complete is not self.is_complete:
            self.generation += 1
        self.network, self.is_complete = network, is_complete

    def holders(self, name: str) -> Iterator[Endpoint]:
        """Of a name in lower case, without the network's."""
        yield from self._holders.get(name, {}).values()

    def at(self, address: Address) -> Endpoint | None:
        return next(iter(self._addresses.get(address, {}).values()), None)

    def covers(self, address: Address) -> bool:
        return self.network is not None and self.network.subnet_of(address) is not None

    def _keep(self, endpoint: Endpoint) -> None:
        self._seen[endpoint.id] = endpoint
        for name in names_of(endpoint):
            self._holders.setdefault(name, {})[endpoint.id] = endpoint
        for address in endpoint.addresses:
            self._addresses.setdefault(address, {})[endpoint.id] = endpoint

    def _drop(self, endpoint: Endpoint) -> None:
        for name in names_of(endpoint):
            _discard(self._holders, name, endpoint.id)
        for address in endpoint.addresses:
            _discard(self._addresses, address, endpoint.id)


@dataclass(frozen=True, slots=True)
class Zone:
    """All that one workload may ask for. `gateways`: where it reaches its own host.

    `is_host`: the host itself asks; whom it asks on is its own business, and asking them here would lead in circles.
    """

    networks: tuple[Names, ...] = ()
    gateways: tuple[Address, ...] = ()
    is_host: bool = False

    @property
    def is_complete(self) -> bool:
        return all(names.is_complete for names in self.networks)

    @property
    def generation(self) -> int:
        return sum(names.generation for names in self.networks)

    def meaning(self, name: str) -> Meaning:
        """Of a name without its last dot, in any case."""
        asked = name.lower()
        if asked.endswith((_REVERSE4, _REVERSE6)):
            return self._reverse(asked)
        if asked in OWN_HOST:
            return Found(self.gateways)
        if asked == "localhost" or asked.endswith(".localhost"):
            return Found(LOOPBACK)  # RFC 6761: it never leaves
        inner = asked.removesuffix(f".{SUFFIX}")
        holders = self._holders(inner)
        if holders:
            return Found(tuple(address for holder in holders for address in holder.addresses), holders=holders)
        if asked == SUFFIX or any(inner == names.name for names in self.networks):
            return Found()
        return self._absent(asked, is_ours=inner != asked)

    def _holders(self, inner: str) -> tuple[Endpoint, ...]:
        """Who bears it, in any of the networks or, with a network's name behind it, in that one."""
        found: dict[tuple[str, str], Endpoint] = {}
        for names in self.networks:
            found.update(((e.network, e.id), e) for e in names.holders(inner))
            if names.name and inner.endswith(f".{names.name}"):
                own = inner[: -len(names.name) - 1]
                found.update(((e.network, e.id), e) for e in names.holders(own))
        return tuple(found.values())

    def _absent(self, asked: str, *, is_ours: bool) -> Meaning:
        if is_ours:
            return Verdict.ABSENT
        if asked and "." not in asked:
            return Verdict.BARE
        under = (names.name for names in self.networks if names.name and asked.endswith(f".{names.name}"))
        domain = next(under, "")
        return Under(domain) if domain else Verdict.ELSEWHERE

    def _reverse(self, asked: str) -> Meaning:
        address = address_of(asked)
        if address is None:
            return Verdict.ELSEWHERE
        found = ((names, names.at(address)) for names in self.networks)
        domains = [f"{holder.name}.{names.name}" for names, holder in found if holder is not None]
        if domains:
            return Found(domains=tuple(domains))
        return Verdict.ABSENT if any(names.covers(address) for names in self.networks) else Verdict.ELSEWHERE


def names_of(endpoint: Endpoint) -> frozenset[str]:
    return frozenset(name.lower() for name in (endpoint.name, endpoint.hostname, *endpoint.aliases) if name)


def address_of(reverse: str) -> Address | None:
    """What a reverse name stands for; None where it is only part of one, or none."""
    is_ipv6 = reverse.endswith(_REVERSE6)
    labels = reverse.removesuffix(_REVERSE6 if is_ipv6 else _REVERSE4).split(".")[::-1]
    try:
        if is_ipv6:
            if len(labels) != _NIBBLES6 or any(len(nibble) != 1 or nibble not in hexdigits for nibble in labels):
                return None
            return IPv6Address(int("".join(labels), 16))
        return IPv4Address(".".join(labels)) if len(labels) == _LABELS4 else None
    except ValueError:
        return None


def _discard(held: dict[K, dict[str, Endpoint]], key: K, id_: str) -> None:
    holders = held.get(key, {})
    holders.pop(id_, None)
    if not holders:
        held.pop(key, None)
