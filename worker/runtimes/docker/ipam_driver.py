"""Docker's IPAM calls. They name neither network nor endpoint, so both are known by what was told before.

A pool is known by its subnet, an endpoint by its MAC, which Docker chooses before it asks for addresses: the first call
claims the endpoint with both its addresses, the second is told the other one. Nothing is claimed that a network to come
might not get, and what never became an endpoint is given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from datapath.drivers.places import place_of
from kvnet.errors import AddressTaken, Invalid, NotFound
from kvnet.model import Address, Cidr, Network, Subnet
from kvnet.rules import NAME
from kvnet.wire import EndpointBody
from worker.attachments import Phase, Record
from worker.runtimes.docker.departures import Departures
from worker.runtimes.docker.ledger import Ledger, Want
from worker.runtimes.docker.patience import Patience
from worker.runtimes.docker.pools import Pools, described
from worker.runtimes.docker.ports import ADDRESS_SPACE, Catalogue, Workloads
from worker.runtimes.docker.wire import AddressRequest, PoolRequest

RUNTIME = "docker"


class IpamDriver:
    def __init__(
        self,
        workloads: Workloads,
        catalogue: Catalogue,
        ledger: Ledger,
        pools: Pools,
        departures: Departures,
        patience: Patience,
    ) -> None:
        self._workloads = workloads
        self._departures = departures
        self._catalogue = catalogue
        self._ledger = ledger
        self._pools = pools
        self._patience = patience

    async def capabilities(self) -> Mapping[str, Any]:
        """A MAC of its own tells the endpoints apart, and what is on disk needs no replay."""
        return {"RequiresMACAddress": True, "RequiresRequestReplay": False}

    async def address_spaces(self) -> Mapping[str, Any]:
        return {"LocalDefaultAddressSpace": ADDRESS_SPACE, "GlobalDefaultAddressSpace": ADDRESS_SPACE}

    async def request_pool(self, request: PoolRequest) -> Mapping[str, Any]:
        await self._pools.forget_old()
        want = await self._pools.request(request)
        return {"PoolID": want.cidr, "Pool": want.cidr, "Data": {}}

    async def release_pool(self, pool: str) -> Mapping[str, Any]:
        await self._pools.release(pool)
        return {}

    async def request_address(self, request: AddressRequest) -> Mapping[str, Any]:
        pool = ip_network(request.pool)
        wanted = ip_address(request.address) if request.address else None
        if wanted is not None and (wanted.version != pool.version or wanted not in pool):
            raise Invalid(f"{wanted} is not inside {pool}", fix="choose an address of the network's subnet")
        if request.is_gateway:
            return _answer(await self._gateway(request, pool, wanted), pool.prefixlen)
        if not request.mac:
            return _answer(await self._kept_free(request, pool, wanted), pool.prefixlen)
        network = await self._patience.network(self._pools.network_of(request.pool))
        record = await self._claimed(network, request, pool)
        found = _address_in(record, pool)
        if found is None:
            raise NotFound(
                f"the network {described(network)} gives its endpoints no IPv{pool.version} address",
                fix="see 'kvnet network inspect'",
            )
        return _answer(found, place_of(network, found).prefix_length)

    async def release_address(self, pool: str, address: str) -> Mapping[str, Any]:
        """Gateways and addresses kept free go with their network; a container's with its endpoint, or with this."""
        bound = self._ledger.bound_to(pool)
        for record in self._workloads.records():
            is_here = record.runtime == RUNTIME and record.phase is not Phase.DETACHING
            is_his = bound is None or record.network_id in ("", bound.network)
            if is_here and is_his and address in record.answer.get("addresses", ()):
                await self._departures.until_gone(record.endpoint)
        return {}

    # gateways and addresses that are kept free

    async def _gateway(self, request: AddressRequest, pool: Cidr, wanted: Address | None) -> Address:
        want = self._ledger.want(request.pool)
        if want is not None and want.hold:
            await self._ledger.keep(replace(want, gateway=request.address, is_used=True))
            return wanted or pool.network_address + 1
        network, subnet = self._existing(request.pool, want)
        if subnet.gateway is None:  # every block has its own, or the physical network has
            return wanted or pool.network_address + 1
        if wanted not in (None, subnet.gateway):
            raise AddressTaken(
                f"the gateway of the network {described(network)} in {pool} is {subnet.gateway}, not {wanted}",
                fix=f"leave --gateway out, or give {subnet.gateway}",
            )
        return subnet.gateway

    async def _kept_free(self, request: AddressRequest, pool: Cidr, wanted: Address | None) -> Address:
        if wanted is None:
            raise Invalid("Docker named neither a MAC nor an address", fix="give --aux-address NAME=ADDRESS")
        want = self._ledger.want(request.pool)
        if want is None or not want.hold:
            network, subnet = self._existing(request.pool, want)
            if wanted not in subnet.reserved.values():
                raise AddressTaken(
                    f"the network {described(network)} is there already and does not keep {wanted} free",
                    fix=f"'kvnet ipam reserve' it in {described(network)}, or leave --aux-address out",
                )
            return wanted
        if request.address == (want.gateway or str(pool.network_address + 1)):
            raise AddressTaken(f"{wanted} is the gateway", fix="give another --gateway or --aux-address")
        if request.address in want.reserved:
            return wanted
        await self._ledger.keep(replace(want, reserved=(*want.reserved, request.address), is_used=True))
        return wanted

    def _existing(self, pool: str, want: Want | None) -> tuple[Network, Subnet]:
        bound = self._ledger.bound_to(pool)
        known = self._catalogue.networks.get(bound.network) if bound is not None else None
        network = known.value if known is not None else self._catalogue.of_subnet(pool)
        if network is None:
            raise NotFound(f"{pool} is no pool of this host's Docker", fix="run the command again")
        return network, next(subnet for subnet in network.subnets if str(subnet.cidr) == pool)

    # containers

    async def _claimed(self, network: Network, request: AddressRequest, pool: Cidr) -> Record:
        former = self._unbound(network.id, request.mac)
        if former is None:
            return await self._claim(network, request, pool)
        if request.address in ("", str(_address_in(former, pool) or "")):
            return former
        if pool.version == 6:
            await self._workloads.change(former.endpoint, {"address6": request.address})
            return self._workloads.record(former.endpoint) or former
        # Of a start that was cut short, with the same MAC: this one wants something else.
        await self._workloads.release(former.endpoint)
        return await self._claim(network, request, pool)

    async def _claim(self, network: Network, request: AddressRequest, pool: Cidr) -> Record:
        name = request.name if NAME.match(request.name) else f"docker-{request.mac.replace(':', '')}"
        body: EndpointBody = {"name": name, "mac": request.mac}
        if request.address:
            body["reuse"] = True  # its last holder was most likely this container, a moment ago
            if pool.version == 4:
                body["address"] = request.address
            else:
                body["address6"] = request.address
        await self._patience.named(network.id)
        claim = partial(self._workloads.claim, network.id, body, runtime=RUNTIME)
        return await self._departures.give_way(lambda: self._patience.through(claim))

    def _unbound(self, network: str, mac: str) -> Record | None:
        """The endpoint that was claimed for this MAC and that Docker has not named yet."""
        for record in self._workloads.records():
            is_claim = record.runtime == RUNTIME and record.phase is Phase.CLAIMED and not record.external
            is_claim = is_claim and not self._departures.is_going(record.endpoint)
            if is_claim and record.network_id == network and record.answer.get("mac") == mac:
                return record
        return None


def _address_in(record: Record, pool: Cidr) -> Address | None:
    """Of the pool's family: kvnet may have chosen in another subnet of the same network."""
    found = [ip_address(text) for text in record.answer.get("addresses", ())]
    family = [address for address in found if address.version == pool.version]
    return next((address for address in family if address in pool), family[0] if family else None)


def _answer(address: Address, prefix_length: int) -> Mapping[str, Any]:
    return {"Address": f"{address}/{prefix_length}", "Data": {}}
