"""Which host ports an endpoint gets, and whose a taken one is. Pure: what is held comes in, a choice or a clash out.

A wish is one port of a workload: a certain host port, any of a range, or any that is free. Two holds of a host clash if
they are of one protocol and port and one of their addresses covers the other; no address covers all of them, 0.0.0.0
and :: those of their family. The claim itself is made by the transaction of the endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from kvnet.claims import HeldPorts, PortHold
from kvnet.keys import PORTS_PER_BUCKET
from kvnet.model import Address, PublishedPort

# Chosen for who names none: first above what kernels use for their own connections, then the rest of what IANA leaves.
EPHEMERAL = ((61000, 65535), (49152, 60999))


@dataclass(frozen=True, slots=True)
class Wish:
    """`low` to `high`: the host ports that would do; 0: any free one. `address` None: on all of the host's."""

    port: int
    protocol: str
    low: int = 0
    high: int = 0
    address: Address | None = None

    @property
    def is_fixed(self) -> bool:
        return 0 < self.low == self.high

    def is_answered_by(self, port: PublishedPort, default: Address | None) -> bool:
        """What was left open may be anything; `default` is where the network publishes what says nothing."""
        return (
            (self.port, self.protocol) == (port.port, port.protocol)
            and (self.low == 0 or self.low <= (port.host_port or 0) <= self.high)
            and (self.address is None or self.address == port.host_address or self.address == default)
        )


class Taken(Exception):
    """No host port is left for a wish. `hold`: whose the only one is; None: of several, or of this endpoint itself."""

    def __init__(self, wish: Wish, hold: PortHold | None) -> None:
        super().__init__(wish, hold)
        self.wish = wish
        self.hold = hold


class Crowded(Exception):
    """Others are just changing what would have to be looked at."""


# The bucket that a port of a protocol is in; None while somebody else is changing it.
Look = Callable[[str, int], HeldPorts | None]


def covers(one: Address | None, other: Address | None) -> bool:
    """Whether both would answer on some address of the host."""
    if one is None or other is None:
        return True
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def clash(held: Iterable[PortHold], port: int, address: Address | None) -> PortHold | None:
    return next((h for h in held if h.port == port and covers(h.address, address)), None)


def choose_ports(wishes: Sequence[Wish], look: Look, rng: random.Random) -> tuple[PublishedPort, ...]:
    """One host port for each wish, in their order. Certain ones are given first, so that no other choice takes them.

    Raises:
        Taken: a wish cannot be had.
        Crowded: it may be, once others are done.
    """
    choice = _Choice(look, rng)
    chosen: dict[int, PublishedPort] = {}
    for i in sorted(range(len(wishes)), key=lambda i: (not wishes[i].is_fixed, wishes[i].low == 0)):
        wish = wishes[i]
        port = choice.take(wish)
        chosen[i] = PublishedPort(wish.port, wish.protocol, port, wish.address)
    return tuple(chosen[i] for i in range(len(wishes)))


class _Choice:
    def __init__(self, look: Look, rng: random.Random) -> None:
        self._look = look
        self._rng = rng
        self._own: dict[str, list[PortHold]] = {"tcp": [], "udp": []}
        self._starts: dict[str, int] = {}  # the last one given freely: the next beside it shares its bucket

    def take(self, wish: Wish) -> int:
        port = self._fixed(wish) if wish.is_fixed else self._any(wish)
        self._own[wish.protocol].append(PortHold(port, "", "", wish.address))
        return port

    def _fixed(self, wish: Wish) -> int:
        held = self._look(wish.protocol, wish.low)
        if held is None:
            raise Crowded
        hold = clash(held.held, wish.low, wish.address)
        if hold is not None or clash(self._own[wish.protocol], wish.low, wish.address):
            raise Taken(wish, hold)
        return wish.low

    def _any(self, wish: Wish) -> int:
        is_crowded = False
        own = self._own[wish.protocol]
        for span in self._spans(wish):
            bucket = self._look(wish.protocol, span.start)
            if bucket is None:
                is_crowded = True
                continue
            held = [*bucket.held, *own] if own else bucket.held
            for port in span:
                if not held or clash(held, port, wish.address) is None:
                    if not wish.low:
                        self._starts[wish.protocol] = port
                    return port
        if is_crowded:
            raise Crowded
        raise Taken(wish, None)

    def _spans(self, wish: Wish) -> Iterator[range]:
        """The ports that would do, in the order in which they are tried, each span within one bucket."""
        if wish.low:
            yield from _cut(wish.low, wish.high)
            return
        for low, high in EPHEMERAL:
            start = self._starts.get(wish.protocol, 0)
            if not low <= start <= high:
                start = self._rng.randint(low, high)
            yield from _cut(start, high)
            yield from _cut(low, start - 1)


def kept(wishes: Sequence[Wish], ports: Sequence[PublishedPort]) -> tuple[Wish, ...]:
    """The wishes of an endpoint that has these ports: what one of them answers stays on its host port.

    A port that a certain wish takes for itself answers no other.
    """
    certain = [wish for wish in wishes if wish.is_fixed]
    left = [port for port in ports if not any(_takes(wish, port) for wish in certain)]
    return tuple(wish if wish.is_fixed else _fixed_on(_answering(wish, left), wish) for wish in wishes)


def _takes(wish: Wish, port: PublishedPort) -> bool:
    there = (port.protocol, port.host_port) == (wish.protocol, wish.low)
    return there and covers(wish.address, port.host_address)


def _answering(wish: Wish, left: list[PublishedPort]) -> PublishedPort | None:
    """Each answers once."""
    for port in left:
        if port.host_address == wish.address and wish.is_answered_by(port, None):
            left.remove(port)
            return port
    return None


def _fixed_on(port: PublishedPort | None, wish: Wish) -> Wish:
    if port is None or port.host_port is None:
        return wish
    return replace(wish, low=port.host_port, high=port.host_port)


def _cut(low: int, high: int) -> Iterator[range]:
    while low <= high:
        end = min(first_of(low) + PORTS_PER_BUCKET, high + 1)
        yield range(low, end)
        low = end


def with_holds(held: HeldPorts, holds: Iterable[PortHold]) -> HeldPorts:
    return HeldPorts(tuple(sorted((*held.held, *holds), key=_order)))


def without(held: HeldPorts, network: str, endpoint: str) -> HeldPorts:
    return HeldPorts(tuple(h for h in held.held if (h.network, h.endpoint) != (network, endpoint)))


def hold_of(port: PublishedPort, network: str, endpoint: str) -> PortHold:
    return PortHold(port.host_port or 0, network, endpoint, port.host_address)


def first_of(port: int) -> int:
    """The bucket's name: its first port."""
    return port - port % PORTS_PER_BUCKET


def _order(hold: PortHold) -> tuple[int, bool, int, int]:
    address = hold.address
    return hold.port, address is not None, 0 if isinstance(address, IPv4Address) else 1, int(address or 0)
