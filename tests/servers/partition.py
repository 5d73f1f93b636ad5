"""Cuts a member off from others, by rules in the member's own network namespace.

Frames are dropped without a word, in both directions, as a broken cable does. Only members with a namespace can be cut
off: on the machine's own loopback a rule would hit everyone. Never touches another table than its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from tests.servers.family import ServerFailed, run
from tests.servers.places import Place
from worker.kernel.firewall import find_nft

TABLE = "inet kvnet-test-partition"
BEFORE_ALL_OTHERS = -400


async def cut(place: Place, addresses: Sequence[str] | None) -> None:
    """From these addresses, or from everyone; replaces an earlier cut.

    Raises:
        ServerFailed: the place has no namespace of its own, or nft's words.
    """
    incoming, outgoing = _rules(addresses)
    await _nft(
        place,
        f"table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n"
        f" chain in {{ type filter hook input priority {BEFORE_ALL_OTHERS}; {incoming}; }}\n"
        f" chain out {{ type filter hook output priority {BEFORE_ALL_OTHERS}; {outgoing}; }}\n}}\n",
    )


async def heal(place: Place) -> None:
    """Undo `cut`. Repeating is no error."""
    await _nft(place, f"table {TABLE}\ndelete table {TABLE}\n")


def _rules(addresses: Sequence[str] | None) -> tuple[str, str]:
    if addresses is None:
        return 'iifname != "lo" drop', 'oifname != "lo" drop'
    incoming, outgoing = [], []
    for address in map(ip_address, addresses):
        protocol = "ip" if address.version == 4 else "ip6"
        incoming.append(f"{protocol} saddr {address} drop")
        outgoing.append(f"{protocol} daddr {address} drop")
    return "; ".join(incoming), "; ".join(outgoing)


async def _nft(place: Place, text: str) -> None:
    if place.netns is None:
        raise ServerFailed(f"{place.address} has no network namespace of its own, so it cannot be cut off")
    await run(place, [find_nft(), text])
