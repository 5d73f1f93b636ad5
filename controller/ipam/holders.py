"""Who stands in the way of a subnet, in words and as data. Shared by refusals, explanations and `kvnet ipam show`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kvnet.model import Cidr


class HolderKind(StrEnum):
    NETWORK = "network"
    HOLD = "hold"  # kept for a network that a host is about to make
    IN_FLIGHT = "in-flight"  # chosen for a network that is being created right now
    HOST = "host"
    RESERVATION = "reservation"


@dataclass(frozen=True, slots=True)
class Holder:
    """`name`: the id of the network or of the hold, the host's or the pool's name.

    `source`: how a host uses it ("route dev tun0"); the host that it is held for.
    """

    kind: HolderKind
    cidr: Cidr
    name: str
    source: str = ""

    def describe(self, network_name: str = "") -> str:
        if self.kind is HolderKind.HOST:
            return f"{self.cidr} of host {self.name} ({self.source})"
        if self.kind is HolderKind.RESERVATION:
            return f"{self.cidr}, reserved in pool {self.name}"
        if self.kind is HolderKind.HOLD:
            return f"{self.cidr}, held for a network that host {self.source} is about to make"
        if self.kind is HolderKind.IN_FLIGHT:
            return f"{self.cidr} of a network that is being created right now"
        return f"{self.cidr} of network {network_name or 'without a name'} (id {self.name})"

    def facts(self, network_name: str = "") -> dict[str, str]:
        """As members of a problem."""
        plain = {"kind": self.kind.value, "cidr": str(self.cidr)}
        if self.kind is HolderKind.HOST:
            return {**plain, "host": self.name, "source": self.source}
        if self.kind is HolderKind.RESERVATION:
            return {**plain, "pool": self.name}
        if self.kind is HolderKind.HOLD:
            return {**plain, "hold": self.name, "host": self.source}
        return {**plain, "network": self.name, "network_name": network_name}
