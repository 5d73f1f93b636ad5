"""What stands in the store for what is taken: addresses, subnets and host ports, and who has them.

Plain data, as the nouns in `model` are: no I/O, no clock. What may be claimed, and by which commit, is the controller's
affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kvnet.model import Address


class ClaimKind(StrEnum):
    """Why an address is not free."""

    ENDPOINT = "endpoint"
    RESERVATION = "reservation"
    TOMBSTONE = "tombstone"  # released, cooling down


@dataclass(frozen=True, slots=True)
class AddressClaim:
    """What stands under `addresses/<network>/<ip>`.

    `holder` is the endpoint's id, or the reservation's name; for a tombstone whoever had it last.
    `until` (Unix seconds) is when a tombstone's cool-down ends.
    """

    kind: ClaimKind
    holder: str
    since: float
    until: float | None = None
    host: str = ""


@dataclass(frozen=True, slots=True)
class SubnetHold:
    """A subnet is kept for a network that `host` is about to make, until then (Unix seconds) at least."""

    host: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class SubnetClaim:
    """What stands under `subnets/<cidr>`. `forced` tells why an overlap with a host's route was accepted, if it was.

    `network` is the network's id; while `hold` is there no network has the subnet, and it is the id of the hold.
    """

    network: str
    forced: str = ""
    hold: SubnetHold | None = None


@dataclass(frozen=True, slots=True)
class PortHold:
    """A host port that an endpoint has. `address` None = on every address of the host."""

    port: int
    network: str
    endpoint: str
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class HeldPorts:
    """What stands under `ports/<host>/<protocol>_<first>`: of these host ports, who has which."""

    held: tuple[PortHold, ...] = ()
