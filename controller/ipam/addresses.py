"""Chooses addresses for new endpoints of one network, and says who has an address that somebody wants.

Pure: fed from the mirror of `addresses/<network>/`, it returns a candidate; the claim is made by the transaction of the
use case. What was chosen is in flight until the mirror shows it or `let_go` is called, so that concurrent requests of
one process never get the same. Order: addresses never used before, then the one released longest ago whose cool-down
has ended. Never hands out a gateway, a network or broadcast address, or anything reserved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from controller.ipam.window import Window
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import AddressesExhausted, AddressTaken, Invalid
from kvnet.model import Address, Network
from kvnet.moments import calendar

MAX_RESERVATIONS = 3  # named when no address is free


class Candidate(NamedTuple):
    """A free address. The claim checks `Absent`, or `Unchanged` with the `version` of its expired tombstone."""

    address: Address
    version: int | None


class AddressHolder(NamedTuple):
    """Who has an address: in words that follow "it is", and as data."""

    text: str
    facts: Mapping[str, str | float]


class AddressSpace:
    """The addresses of one network, kept in step by `put` and `drop`, which may be called twice.

    `families`: the address families of the network, 4, 6 or both.
    `endpoint_name` tells an endpoint's name from its id ("" when unknown); only used in messages.
    `host_of`: which host has an address as its own ("" if none), where endpoints share the network of the hosts.
    """

    def __init__(
        self,
        network: Network,
        endpoint_name: Callable[[str], str] = lambda endpoint_id: "",
        host_of: Callable[[Address], str] | None = None,
    ) -> None:
        self.network = network
        self._endpoint_name = endpoint_name
        self._host_of = host_of
        self._aside: set[Address] = set()  # addresses of hosts that automatic choice came across
        self.windows = tuple(Window(subnet) for subnet in network.subnets)
        self._by_family = {v: tuple(w for w in self.windows if w.subnet.cidr.version == v) for v in (4, 6)}
        self.families = tuple(version for version, windows in self._by_family.items() if windows)
        self._latest = 0.0

    @property
    def used(self) -> int:
        """How many addresses endpoints have."""
        return sum(window.endpoints for window in self.windows)

    def call_it(self, network: Network) -> None:
        """The network as it is now; only what no address depends on is another: its name, when it gets one."""
        self.network = network

    def put(self, address: Address, claim: AddressClaim, version: int) -> None:
        """From `addresses/<network>/`: an endpoint's, a reservation, or a tombstone."""
        self._latest = max(self._latest, claim.since)
        if window := self._window(address):
            window.put(int(address), claim, version)

    def drop(self, address: Address) -> None:
        """The key is gone: upkeep removed an expired tombstone, or a reservation was lifted."""
        if window := self._window(address):
            window.drop(int(address), self._latest)

    def choose(self, family: int, now: float, *, skip: int = 0) -> Candidate:
        """Take the longest-idle free address of a family (4 or 6); several subnets fill in order.

        `skip`: a random number from who lost a race for the last candidate. Fresh addresses go on from so much further,
        so that replicas that started at the same place walk apart; of released ones a few are passed over.

        Raises:
            AddressesExhausted: none is free; says how many are used, reserved and cooling down, and until when.
            Invalid: the network has no subnet of this family.
        """
        self._latest = max(self._latest, now)
        windows = self._by_family[family]
        for window in windows:
            value = window.choose(now, skip) if self._host_of is None else self._choose_beside(window, now, skip)
            if value is not None:
                return Candidate(window.address_class(value), window.versions.get(value))
        if not windows:
            raise Invalid(
                f"network {self.network.name} has no IPv{family} subnet", fix=f"create it with an IPv{family} subnet"
            )
        raise self._exhausted(family, now)

    def claim(self, address: Address, now: float, *, pointer: str = "/address", reuse: bool = False) -> Candidate:
        """Take an address that somebody asked for. May lie outside `range`, but not outside the subnets.

        `reuse`: even while it cools down.

        Raises:
            AddressTaken: names who has it, or until when it cools down.
            Invalid: in none of the network's subnets.
        """
        self._latest = max(self._latest, now)
        window = self._window(address)
        if window is None:
            subnets = ", ".join(str(s.cidr) for s in self.network.subnets)
            raise Invalid.field(
                pointer, f"{address} is in no subnet of network {self.network.name}", f"choose one in {subnets}"
            )
        value = int(address)
        self.require_free(window, value, now, reuse=reuse)
        window.take(value)
        return Candidate(address, window.versions.get(value))

    def holder_of(self, address: Address, now: float) -> AddressHolder | None:
        """Who has an address of this network; None when it is free or lies in none of the subnets."""
        window = self._window(address)
        return None if window is None else self._holder(window, int(address), now)

    def let_go(self, address: Address) -> None:
        """The claim is in the mirror, or did not come about. Always called after a choice; twice is no error."""
        if window := self._window(address):
            window.let_go(int(address))

    def _window(self, address: Address) -> Window | None:
        value = int(address)
        for window in self._by_family[address.version]:
            if window.low <= value <= window.high:
                return window
        return None

    def _choose_beside(self, window: Window, now: float, skip: int) -> int | None:
        """As the window chooses, but what is a host's own is put aside for as long as it is."""
        for address in [one for one in self._aside if not self._hosts(one)]:
            self._aside.discard(address)
            self.let_go(address)
        while (value := window.choose(now, skip)) is not None:
            address = window.address_class(value)
            if not self._hosts(address):
                return value
            self._aside.add(address)
        return None

    def _hosts(self, address: Address) -> str:
        return self._host_of(address) if self._host_of is not None else ""

    def require_free(self, window: Window, value: int, now: float, *, reuse: bool = False) -> None:
        """Raises: AddressTaken."""
        holder = self._holder(window, value, math.inf if reuse else now)
        if holder is None:
            return
        address = window.address_class(value)
        fix = "give no address and kvnet picks a free one, or choose another"
        if "until" in holder.facts:
            seconds = max(1, math.ceil(float(holder.facts["until"]) - now))
            fix = f"repeat in {seconds} s, take it with reuse if its last holder is gone for good, or choose another"
        raise AddressTaken(
            f"{address} of network {self.network.name} is {holder.text}",
            fix=f"{fix}; 'kvnet ipam show {address}' tells more",
            context={"address": str(address), "network": self.network.id, "holder": holder.facts},
        )

    def _holder(self, window: Window, value: int, now: float) -> AddressHolder | None:
        if value in window.fixed:
            reason, name = window.fixed[value]
            return AddressHolder(reason.value + (f" as {name!r}" if name else ""), {"kind": reason.name.lower()})
        claim = window.claims.get(value)
        if claim is not None and not (claim.kind is ClaimKind.TOMBSTONE and (claim.until or 0.0) <= now):
            return self._claimed(claim)
        if host := self._hosts(window.address_class(value)):
            return AddressHolder(f"host {host}'s own address", {"kind": "host", "host": host})
        if value in window.in_flight:
            return AddressHolder("being given to another endpoint right now", {"kind": "in-flight"})
        return None

    def _claimed(self, claim: AddressClaim) -> AddressHolder:
        facts: dict[str, str | float] = {"kind": claim.kind.value, "holder": claim.holder, "since": claim.since}
        if claim.kind is ClaimKind.RESERVATION:
            return AddressHolder(f"reserved as {claim.holder!r}", facts)
        name = self._endpoint_name(claim.holder)
        if name:
            facts["name"] = name
        if claim.host:
            facts["host"] = claim.host
        who = f"endpoint {name or claim.holder} (id {claim.holder}{f', host {claim.host}' if claim.host else ''})"
        if claim.kind is ClaimKind.ENDPOINT:
            return AddressHolder(f"in use by {who}", facts)
        until = claim.until or claim.since
        facts["until"] = until
        return AddressHolder(f"cooling down until {_clock(until)} after {who}", facts)

    def _exhausted(self, family: int, now: float) -> AddressesExhausted:
        windows = self._by_family[family]
        aside = [address for address in self._aside if address.version == family]
        free_at = min((t for w in windows if (t := w.idle.first_ready_at()) is not None), default=None)
        figures = {
            "used": sum(w.count(ClaimKind.ENDPOINT) for w in windows),
            "reserved": sum(w.count_reserved() for w in windows),
            "cooling_down": sum(len(w.idle) for w in windows),
            "in_flight": sum(len(w.in_flight) for w in windows) - len(aside),
            "hosts": len(aside),
            "size": sum(w.last - w.first + 1 for w in windows),
        }
        where = ", ".join(str(w.subnet.range or w.subnet.cidr) for w in windows)
        wait = "" if free_at is None else f"; the first is free again in {max(0, math.ceil(free_at - now))} s"
        fixes = [f"wait {max(1, math.ceil(free_at - now))} s"] if free_at is not None else []
        fixes += ["remove endpoints that nobody needs ('kvnet endpoint ls', 'kvnet endpoint rm')"]
        fixes += ["lift a reservation ('kvnet ipam release')"] if figures["reserved"] else []
        fixes += ["create a network with a larger or a second subnet ('kvnet network create --subnet')"]
        return AddressesExhausted(
            f"network {self.network.name} has no free IPv{family} address in {where}: of {figures['size']} addresses "
            f"{figures['used']} are used, {figures['reserved']} reserved{_named(windows)}, "
            f"{figures['cooling_down']} cooling down, {figures['in_flight']} being claimed"
            f"{f', {len(aside)} of hosts' if aside else ''}{wait}",
            fix="; or ".join(fixes[:3]),
            context={"network": self.network.id, "family": family, "first_free_at": free_at, **figures},
        )


def _named(windows: Sequence[Window]) -> str:
    """The reservations that somebody could lift, the first few: " (10.0.0.9 as 'printer')", or nothing."""
    few = islice(chain.from_iterable(window.reservations() for window in windows), MAX_RESERVATIONS + 1)
    shown = [f"{address} as {name!r}" for address, name in few]
    more = ", ..." if len(shown) > MAX_RESERVATIONS else ""
    return f" ({', '.join(shown[:MAX_RESERVATIONS])}{more})" if shown else ""


def _clock(at: float) -> str:
    return calendar(at).strftime("%H:%M:%S UTC")
