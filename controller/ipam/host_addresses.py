"""Which addresses are hosts' own: in a transparent network, which is the hosts' own network, no endpoint may get one.

Pure: fed from what hosts report. An address that several hosts report (every Docker host has a 172.17.0.1) is one of
them all.
"""

from __future__ import annotations

from kvnet.model import Address, Host, Inventory

OWN_ADDRESS = "address dev "
RESOLVER = "resolver"


class HostAddresses:
    def __init__(self) -> None:
        self._holders: dict[Address, set[tuple[str, str]]] = {}
        self._told: dict[tuple[str, str], frozenset[Address]] = {}

    def put_inventory(self, host: str, inventory: Inventory | None) -> None:
        used = inventory.used if inventory is not None else ()
        own = (u.cidr for u in used if _is_somebodys(u.source) and u.cidr.prefixlen == u.cidr.max_prefixlen)
        self._put((host, "inventory"), frozenset(cidr.network_address for cidr in own))

    def put_host(self, host: str, record: Host | None) -> None:
        self._put((host, "underlay"), frozenset() if record is None else frozenset({record.underlay}))

    def host_of(self, address: Address) -> str:
        """The host that has it (the first by name), or ""."""
        holders = self._holders.get(address)
        return min(holders)[0] if holders else ""

    def underlay_of(self, address: Address, but: str) -> str:
        """The first of the other hosts whose underlay address it is, or ""."""
        holders = (host for host, told in self._holders.get(address, ()) if told == "underlay" and host != but)
        return min(holders, default="")

    def _put(self, teller: tuple[str, str], addresses: frozenset[Address]) -> None:
        before = self._told.pop(teller, frozenset())
        for address in before - addresses:
            self._holders[address].discard(teller)
            if not self._holders[address]:
                del self._holders[address]
        for address in addresses - before:
            self._holders.setdefault(address, set()).add(teller)
        if addresses:
            self._told[teller] = addresses


def _is_somebodys(source: str) -> bool:
    """A host's own address, or that of a resolver that it asks: both may be in the physical network."""
    return source.startswith(OWN_ADDRESS) or source == RESOLVER
