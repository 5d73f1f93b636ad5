"""Questions about addresses and blocks: who has it, what overlaps it, how full is everything. Answered from memory."""

from __future__ import annotations

from collections.abc import Iterator

from controller.consistency import Consistency
from controller.ipam.holders import HolderKind
from controller.networks import Networks
from controller.pools import Pools
from controller.requests import Caller
from controller.state import State
from controller.views import AddressHolder, CheckReport, SubnetHolder, Utilisation
from kvnet.model import Address, Cidr, ClaimKind, Network, Subnet, Versioned


class Ipam:
    def __init__(self, state: State, networks: Networks, pools: Pools, consistency: Consistency) -> None:
        self._state = state
        self._networks = networks
        self._pools = pools
        self._consistency = consistency

    def utilisation(self) -> Utilisation:
        networks = tuple((n, self._networks.use(n.value.id)) for n in self._networks.list())
        return Utilisation(pools=self._pools.list(), networks=networks)

    def address(self, address: Address) -> list[AddressHolder]:
        """Who has it, one per network that it lies in; empty if it lies in none."""
        return [self._holder(network, subnet, address) for network, subnet in self._networks_with(address)]

    def subnet(self, cidr: Cidr) -> list[SubnetHolder]:
        """Everything that overlaps a block: pools first, then networks, reservations and what hosts use."""
        pools = [
            SubnetHolder(pool.value.cidr, "pool", name, f"cut in /{pool.value.prefix_length}")
            for name, pool in sorted(self._state.pools.items.items())
            if pool.value.cidr.version == cidr.version and pool.value.cidr.overlaps(cidr)
        ]
        blocks = self._state.blocks
        claims = [
            SubnetHolder(h.cidr, h.kind.value, self._name(h.kind, h.name), blocks.describe(h))
            for h in blocks.holders_of(cidr)
        ]
        return [*pools, *claims]

    async def check(self) -> CheckReport:
        """Raises: StoreUnavailable, StoreBroken."""
        return await self._consistency.report()

    async def repair(self, caller: Caller) -> CheckReport:
        """Raises: StoreUnavailable, OutcomeUnknown, StoreBroken."""
        return await self._consistency.repair_all(caller)

    def _networks_with(self, address: Address) -> Iterator[tuple[Versioned[Network], Subnet]]:
        for network in self._networks.list():
            subnet = network.value.subnet_of(address)
            if subnet is not None:
                yield network, subnet

    def _holder(self, network: Versioned[Network], subnet: Subnet, address: Address) -> AddressHolder:
        spec = network.value
        claim = self._state.claims_of(spec.id).get(address)
        if claim is not None:
            one = claim.value
            endpoint = self._state.endpoints_of(spec.id).get(one.holder) if one.kind is ClaimKind.ENDPOINT else None
            return AddressHolder(address, one.kind.value, spec, one.holder, one.since, one.until, endpoint)
        kind, holder = _fixed(subnet, address)
        return AddressHolder(address, kind, spec, holder, None if kind == "free" else spec.created_at)

    def _name(self, kind: HolderKind, name: str) -> str:
        network = self._state.networks.get(name) if kind is HolderKind.NETWORK else None
        return network.value.name if network else name


def _fixed(subnet: Subnet, address: Address) -> tuple[str, str]:
    if address == subnet.gateway:
        return "gateway", ""
    if address == subnet.cidr.network_address:
        return "network", ""
    if address.version == 4 and address == subnet.cidr.broadcast_address:
        return "broadcast", ""
    named = next((name for name, reserved in subnet.reserved.items() if reserved == address), None)
    return ("free", "") if named is None else ("reservation", named)
