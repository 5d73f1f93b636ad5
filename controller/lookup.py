"""Questions about addresses and blocks: who has it, what overlaps it, how full is everything. Answered from memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from controller.consistency import Consistency
from controller.hosts import no_host
from controller.ipam.holders import HolderKind
from controller.ipam.routed import BlockSpace
from controller.networks import Networks
from controller.pools import Pools
from controller.requests import Caller, RepairRequest
from controller.state import State
from controller.views import AddressHolder, BlockUse, CheckReport, HeldPort, SubnetHolder, Utilisation
from kvnet import keys
from kvnet.claims import ClaimKind, PortHold
from kvnet.model import Address, Cidr, Driver, Network, Subnet, Versioned

OF_NETWORKS = frozenset({HolderKind.NETWORK, HolderKind.IN_FLIGHT})


class Ipam:
    def __init__(self, state: State, networks: Networks, pools: Pools, consistency: Consistency) -> None:
        self._state = state
        self._networks = networks
        self._pools = pools
        self._consistency = consistency

    def utilisation(self) -> Utilisation:
        networks = tuple((n, self._networks.use(n.value)) for n in self._networks.list())
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
        own = [
            SubnetHolder(
                block.cidr,
                "block",
                block.host,
                f"{block.cidr} of network {network.value.name}, {block.state}, {block.used} of {block.size} used",
            )
            for network in self._networks.list()
            for block in self.blocks(network.value)
            if block.cidr.version == cidr.version and block.cidr.overlaps(cidr)
        ]
        claims = [
            SubnetHolder(h.cidr, h.kind.value, self._name(h.kind, h.name), blocks.describe(h))
            if h.kind not in OF_NETWORKS or self._state.sees(h.name)
            else SubnetHolder(cidr, HolderKind.NETWORK.value, "", "a part of it is taken by what you do not see")
            for h in blocks.holders_of(cidr)
        ]
        return [*pools, *claims, *own]

    def blocks(self, network: Network) -> tuple[BlockUse, ...]:
        """Of a routed network, by address; empty for all others."""
        known = self._state.blocks_of(network.id)
        if not known:
            return ()
        claims = self._state.claims_of(network.id)
        taken = [address for address, claim in claims.items() if claim.value.kind is ClaimKind.ENDPOINT]
        space = self._state.space(network)
        used = Counter(space.block_around(a) for a in taken) if isinstance(space, BlockSpace) else Counter()
        return tuple(
            BlockUse(cidr, b.value.host, b.value.state.value, b.value.since, used[cidr], _size(cidr))
            for cidr, b in sorted(known.items(), key=lambda item: (item[0].version, item[0].network_address))
        )

    def ports(self, host: str) -> tuple[HeldPort, ...]:
        """The ports of a host that endpoints publish, by protocol and number.

        Raises:
            NotFound
        """
        name_of = self._state.networks.get
        found = [
            self._held(host, keys.parse_ports(keys.PORTS + name).protocol, hold, name_of(hold.network))
            for name, bucket in self._state.ports.items.items()
            if name.startswith(f"{host}/")
            for hold in bucket.value.held
        ]
        if not found and self._state.hosts.get(host) is None:
            raise no_host(host, self._state.hosts.items)
        return tuple(sorted(found, key=lambda p: (p.protocol, p.host_port, str(p.host_address or ""))))

    def _held(self, host: str, protocol: str, hold: PortHold, network: Versioned[Network] | None) -> HeldPort:
        endpoint = self._state.endpoints_of(hold.network).get(hold.endpoint)
        mapping = (protocol, hold.port, hold.address)
        ports = endpoint.value.ports if endpoint is not None else ()
        return HeldPort(
            host=host,
            protocol=protocol,
            host_port=hold.port,
            host_address=hold.address,
            network=hold.network,
            network_name=network.value.name if network is not None else hold.network,
            endpoint=hold.endpoint,
            endpoint_name=endpoint.value.name if endpoint is not None else "",
            port=next((p.port for p in ports if (p.protocol, p.host_port, p.host_address) == mapping), None),
        )

    async def check(self) -> CheckReport:
        """Raises: StoreUnavailable, StoreBroken."""
        return await self._consistency.report()

    async def repair(self, caller: Caller, asked: RepairRequest | None = None) -> CheckReport:
        """Raises: PreconditionFailed, StoreUnavailable, OutcomeUnknown, StoreBroken."""
        return await self._consistency.repair_all(caller, asked)

    def _networks_with(self, address: Address) -> Iterator[tuple[Versioned[Network], Subnet]]:
        for network in self._networks.list():
            subnet = network.value.subnet_of(address)
            if subnet is not None:
                yield network, subnet

    def _holder(self, network: Versioned[Network], subnet: Subnet, address: Address) -> AddressHolder:
        spec = network.value
        block = next((b for b in self.blocks(spec) if address in b.cidr), None)
        claim = self._state.claims_of(spec.id).get(address)
        if claim is not None:
            one = claim.value
            endpoint = self._state.endpoints_of(spec.id).get(one.holder) if one.kind is ClaimKind.ENDPOINT else None
            return AddressHolder(address, one.kind.value, spec, one.holder, one.since, one.until, endpoint, block)
        kind, holder = self._unclaimed(spec, subnet, address)
        since = None if kind in ("free", "host") else spec.created_at
        return AddressHolder(address, kind, spec, holder, since, block=block)

    def _unclaimed(self, network: Network, subnet: Subnet, address: Address) -> tuple[str, str]:
        """What an address is that nobody claimed, and whose."""
        space = self._state.space(network)
        if isinstance(space, BlockSpace):
            cidr = space.block_around(address)
            fixed = None if cidr is None else space.fixed_in(cidr, address)
            if fixed is not None:
                return str(fixed.facts["kind"]), ""
        host = self._state.host_addresses.host_of(address) if network.driver is Driver.TRANSPARENT else ""
        return ("host", host) if host else _fixed(subnet, address)

    def _name(self, kind: HolderKind, name: str) -> str:
        network = self._state.networks.get(name) if kind is HolderKind.NETWORK else None
        return network.value.name if network else name


def _size(cidr: Cidr) -> int:
    """Without the first address, the host's gateway and, of IPv4, the last."""
    return cidr.num_addresses - (3 if cidr.version == 4 else 2)


def _fixed(subnet: Subnet, address: Address) -> tuple[str, str]:
    if address == subnet.gateway:
        return "gateway", ""
    if address == subnet.cidr.network_address:
        return "network", ""
    if address.version == 4 and address == subnet.cidr.broadcast_address:
        return "broadcast", ""
    named = next((name for name, reserved in subnet.reserved.items() if reserved == address), None)
    return ("free", "") if named is None else ("reservation", named)
