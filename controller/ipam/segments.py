"""Which hosts reach each other without a router, as their underlay addresses tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kvnet.errors import HostsApart
from kvnet.model import Host


def are_adjacent(one: Host, other: Host) -> bool:
    """A host that does not tell its segment (an older worker) is not suspected."""
    return _reaches(one, other) and _reaches(other, one)


def _reaches(one: Host, other: Host) -> bool:
    segment = one.segment
    return segment is None or (segment.version == other.underlay.version and other.underlay in segment)


def require_near(network: str, host: Host, others: Iterable[Host]) -> None:
    """
    Raises:
        HostsApart: names the first of the others that is behind a router from the host.
    """
    for other in others:
        if are_adjacent(host, other):
            continue
        raise HostsApart(
            f"hosts {host.name} ({_where(host)}) and {other.name} ({_where(other)}) are on different segments: the "
            f"router between them does not know the blocks of network {network}",
            fix="create the network with cross_segment 'tunnel' ('kvnet network create --cross-segment tunnel'), "
            f"or choose a host on the segment of {other.name}",
            context={
                "hosts": [
                    {"host": h.name, "underlay": str(h.underlay), "segment": str(h.segment) if h.segment else None}
                    for h in (host, other)
                ]
            },
        )


def _where(host: Host) -> str:
    return f"{host.underlay} in {host.segment or 'an unknown segment'}"
