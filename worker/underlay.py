"""Which address of this host is its underlay: as it was given, or wherever it went on the same device.

Pure. An address that changes while the worker runs (a lease that ended, a renumbered site) is followed within its
device and family; nothing is guessed beyond that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvnet.errors import NotFound
from kvnet.model import Address
from worker.kernel.inventory import HostAddress, Surroundings

MISSING = "underlay-missing"


@dataclass(frozen=True, slots=True)
class Underlay:
    """What was asked for: an address, or a device (then of `version`, or its first: IPv4 before IPv6)."""

    address: Address | None = None
    device: str = ""
    version: int | None = None


def find(wanted: Underlay, last: HostAddress | None, found: Surroundings) -> HostAddress:
    """`last`: where it was the last time; None at the start.

    Raises:
        NotFound: it is nowhere, and nothing took its place.
    """
    usable = [a for a in found.addresses if not a.address.is_link_local and not a.address.is_loopback]
    if wanted.address is not None:
        for candidate in found.addresses:
            if candidate.address == wanted.address:
                return candidate
    device = wanted.device or (last.device if last is not None else "")
    version = wanted.version or (last.address.version if last is not None else None)
    if last is not None and any(a.address == last.address and a.device == device for a in usable):
        return next(a for a in usable if a.address == last.address and a.device == device)
    there = _ranked(a for a in usable if a.device == device and version in (None, a.address.version))
    if there:
        return there[0]
    raise _missing(wanted, last, usable)


def _ranked(addresses: Iterable[HostAddress]) -> list[HostAddress]:
    """In the order that they should be taken: IPv4 first, no privacy address, then as the kernel lists them."""
    return sorted(addresses, key=lambda a: (a.address.version, a.is_temporary))


def _missing(wanted: Underlay, last: HostAddress | None, usable: list[HostAddress]) -> NotFound:
    what = f"underlay address {last.address if last else wanted.address}" if last or wanted.address else ""
    if wanted.device and last is None:
        family = f"IPv{wanted.version} " if wanted.version else ""
        return NotFound(
            f"the device {wanted.device} has no {family}address that peers could reach",
            fix="give it one, or name another device or an address with --underlay",
        )
    there = ", ".join(f"{a.address} on {a.device}" for a in usable) or "none"
    lost = f", and {last.device} has no other of its family" if last is not None else ""
    return NotFound(
        f"no device of this host has the {what}{lost}",
        fix=f"give one of this host's addresses with --underlay (there are: {there})",
    )
