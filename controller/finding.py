"""Which endpoint somebody means: by id, NETWORK/NAME, NETWORK/ADDRESS, an address, or a name that only one has.

Answered from memory. What is not there is told with what is at that place instead: a reservation, an address that
cools down, names that are like it.
"""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import ip_address

from controller.state import State
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import AmbiguousName, NotFound
from kvnet.model import Address, Endpoint, Network
from kvnet.moments import moment
from kvnet.rules import shown

FIX = "'kvnet endpoint ls' shows them; name one as NETWORK/NAME, NETWORK/ADDRESS, or by its id"
MOST_TOLD = 8


class Finder:
    def __init__(self, state: State) -> None:
        self._state = state

    def find(self, reference: str, pointer: str = "") -> tuple[Endpoint, int]:
        """The endpoint, and the family of the address by which it was named (0: by no address).

        Raises:
            NotFound
            AmbiguousName: several are meant; lists them.
        """
        network, name = self._scope(reference)
        address = _address(name)
        scopes = [network] if network is not None else [v.value for v in self._state.networks.items.values()]
        found = [e for scope in scopes for e in self._in(scope, name, address)]
        if not found:
            raise self._missing(reference, scopes, name, address, pointer)
        if len(found) > 1:
            told = ", ".join(f"{self._name(e.network)}/{e.name} ({e.id}, on {e.host})" for e in found[:MOST_TOLD])
            raise AmbiguousName(
                f"{len(found)} endpoints are called {shown(reference)}: {told}",
                fix=FIX,
                context={"endpoints": [e.id for e in found[:MOST_TOLD]]},
            )
        return found[0], address.version if address is not None else 0

    def _scope(self, reference: str) -> tuple[Network | None, str]:
        """Raises: NotFound: the network."""
        before, slash, after = reference.partition("/")
        if not slash:
            return None, reference
        network = self._state.network_named(before)
        if network is None:
            raise NotFound(f"there is no network {shown(before)}", fix="'kvnet network ls' shows the networks")
        return network.value, after

    def _in(self, network: Network, name: str, address: Address | None) -> list[Endpoint]:
        if address is not None:
            claim = self._state.claims_of(network.id).get(address)
            is_endpoint = claim is not None and claim.value.kind is ClaimKind.ENDPOINT
            held = self._state.endpoints_of(network.id).get(claim.value.holder) if claim and is_endpoint else None
            return [held.value] if held is not None else []
        known = self._state.endpoints_of(network.id).get(name)
        if known is not None:
            return [known.value]
        return [found.value for found in self._state.endpoints_named(network.id, name)]

    def _missing(
        self, reference: str, scopes: list[Network], name: str, address: Address | None, pointer: str
    ) -> NotFound:
        detail = f"there is no endpoint {shown(reference)}"
        if address is not None:
            detail += self._instead(scopes, address)
        else:
            known = {found.value.name for scope in scopes for found in self._state.endpoints_of(scope.id).values()}
            close = get_close_matches(name, known, MOST_TOLD)
            detail += f"; did you mean {' or '.join(close)}?" if close else ""
        return NotFound(detail, fix=FIX, context={"pointer": pointer})

    def _instead(self, scopes: list[Network], address: Address) -> str:
        for network in scopes:
            claim = self._state.claims_of(network.id).get(address)
            if claim is not None:
                return _claimed(network, claim.value)
        inside = [network.name for network in scopes if network.subnet_of(address) is not None]
        return f": nobody has that address in {', '.join(inside[:MOST_TOLD])}" if inside else ": it is in no network"

    def _name(self, network: str) -> str:
        known = self._state.networks.get(network)
        return known.value.name if known is not None else network


def _claimed(network: Network, claim: AddressClaim) -> str:
    holder = claim.holder or "nobody"
    if claim.kind is ClaimKind.TOMBSTONE:
        until = moment(claim.until or 0.0)
        return f": in {network.name} that address cools down until {until}, after endpoint {holder} had it"
    return f": in {network.name} that address is a {claim.kind.value} ({holder})"


def _address(name: str) -> Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
