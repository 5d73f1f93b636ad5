"""Stands in for the controller where a worker asks for endpoints and networks: the same store, no HTTP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import cast

from backends.memory import MemoryStore
from backends.store import (
    Absent,
    Delete,
    Present,
    Put,
)
from kvnet import codec, keys
from kvnet.errors import (
    ControllerUnreachable,
    IdTaken,
    NotFound,
    OutcomeUnknown,
)
from kvnet.model import Address, Driver, Endpoint, Network, PublishedPort, Subnet
from kvnet.request import current
from kvnet.wire import Endpoint as EndpointJson
from kvnet.wire import EndpointBody, EndpointPatchBody, Hold, HoldBody, NameBody, NetworkBody, PortBody
from kvnet.wire import Network as NetworkJson
from tests.unit.worker.life import EPOCH, NET, Life, Outages


class FakeController:
    """Creates and deletes endpoints in the store the way the real one does."""

    def __init__(self, store: MemoryStore, life: Life, outages: Outages, lock: asyncio.Lock) -> None:
        self.requests: list[str] = []
        self.removers: dict[str, str] = {}
        self.inquiries = 0
        self.slow_to_know = 0  # so many times it has not heard yet who removed something
        self._lock = lock  # in place of the real one's checks on addresses
        self._store = store
        self._life = life
        self._outages = outages
        self._next_port = 61000

    async def create_endpoint(self, network: str, body: EndpointBody, *, wait_s: float = 0.0) -> EndpointJson:
        self._enter(f"create {body['id']}")
        async with self._lock:
            made = await self._create(await self._network(network), body)
        self._leave()
        return made

    async def update_endpoint(self, network: str, endpoint: str, body: EndpointPatchBody) -> EndpointJson:
        self._enter(f"update {endpoint}")
        async with self._lock:
            found = await self._network(network)
            there = await self._store.get(keys.endpoint(found.id, endpoint))
            if there is None:
                raise NotFound(f"no endpoint {endpoint}")
            before = codec.decode(Endpoint, there.value)
            after = self._patched(before, body)
            version = there.version
            if after != before:
                put = Put(keys.endpoint(found.id, endpoint), _stamped(codec.encode(after)))
                version = await self._store.commit([Present(keys.endpoint(found.id, endpoint))], [put])
        self._leave()
        return shown(after, found, version)

    def _patched(self, before: Endpoint, body: EndpointPatchBody) -> Endpoint:
        labels = {**before.labels, **(body.get("labels") or {})} if "labels" in body else before.labels
        return replace(
            before,
            name=body.get("name", before.name),
            hostname=body.get("hostname", before.hostname),
            aliases=tuple(body.get("aliases") or ()) if "aliases" in body else before.aliases,
            labels={name: value for name, value in labels.items() if value is not None},
            ports=tuple(self._port(port) for port in body.get("ports") or ()) if "ports" in body else before.ports,
            gateway_priority=body.get("gateway_priority", before.gateway_priority),
        )

    async def hold_subnet(self, body: HoldBody) -> Hold:
        self._enter("hold")
        raise NotImplementedError("no test of the worker's hands asks for one")

    async def release_hold(self, hold: str) -> None:
        self._enter(f"release hold {hold}")

    async def create_network(self, body: NetworkBody) -> NetworkJson:
        self._enter("create network")
        raise NotImplementedError("no test of the worker's hands asks for one")

    async def name_network(self, network: str, body: NameBody) -> NetworkJson:
        self._enter(f"name {network}")
        raise NotImplementedError("no test of the worker's hands asks for it")

    async def delete_network(self, network: str) -> None:
        self._enter(f"delete network {network}")

    async def removed_by(self, network: str, names: Sequence[str]) -> Sequence[str]:
        self.inquiries += 1
        if self._outages.controller:
            raise ControllerUnreachable("it is away")
        if self.slow_to_know:
            self.slow_to_know -= 1
            return ["" for _ in names]
        return [self.removers.get(name, "") for name in names]

    async def answers(self) -> bool:
        return not self._outages.controller

    async def delete_endpoint(self, network: str, endpoint: str, *, version: int | None = None) -> None:
        self._enter(f"delete {endpoint}")
        self.removers[endpoint] = current().request_id
        found = await self._network(network)
        if await self._store.get(keys.endpoint(found.id, endpoint)) is None:
            raise NotFound(f"no endpoint {endpoint}")
        await remove_endpoint(self._store, found.id, endpoint)
        self._leave()

    async def _create(self, network: Network, body: EndpointBody) -> EndpointJson:
        there = await self._store.get(keys.endpoint(network.id, body["id"]))
        if there is not None:
            known = codec.decode(Endpoint, there.value)
            if (known.host, known.name) != (body["host"], body["name"]):
                raise IdTaken(f"{known.id} is somebody else's")
            return shown(known, network, there.version)
        endpoint = Endpoint(
            id=body["id"],
            network=network.id,
            host=body["host"],
            name=body["name"],
            addresses=await self._addresses(network),
            mac=body.get("mac") or _mac(body["id"]),
            created_at=EPOCH,
            ports=tuple(self._port(port) for port in body.get("ports", ())),
            gateway_priority=body.get("gateway_priority", 0),
        )
        return shown(endpoint, network, await add_endpoint(self._store, endpoint))

    def _enter(self, request: str) -> None:
        self._life.step()
        self.requests.append(request)
        if self._outages.controller:
            raise ControllerUnreachable("no answer")

    def _leave(self) -> None:
        self._life.step()
        if self._outages.answers_lost:
            raise OutcomeUnknown("the answer was lost")

    async def _network(self, wanted: str) -> Network:
        for entry in (await self._store.list(keys.NETWORKS)).entries:
            network = codec.decode(Network, entry.value)
            if wanted in (network.id, network.name):
                return network
        raise NotFound(f"no network {wanted}")

    def _port(self, port: PortBody) -> PublishedPort:
        chosen = port.get("host_port")
        if chosen is None:
            chosen, self._next_port = self._next_port, self._next_port + 1
        return PublishedPort(port["port"], port.get("protocol", "tcp"), chosen)

    async def _addresses(self, network: Network) -> tuple[Address, ...]:
        entries = (await self._store.list(keys.endpoints(network.id))).entries
        taken = {a for entry in entries for a in codec.decode(Endpoint, entry.value).addresses}
        found: list[Address] = []
        for subnet in network.subnets:
            hosts = (subnet.cidr[number] for number in range(2, 250))
            found.append(next(a for a in hosts if a not in taken))
        return tuple(found)


async def add_endpoint(store: MemoryStore, endpoint: Endpoint) -> int:
    return await store.commit(
        [Absent(keys.endpoint(endpoint.network, endpoint.id)), Present(keys.network(endpoint.network))],
        [
            Put(keys.endpoint(endpoint.network, endpoint.id), _stamped(codec.encode(endpoint))),
            Put(keys.local(endpoint.host, endpoint.id), endpoint.network.encode()),
        ],
    )


async def remove_endpoint(store: MemoryStore, network: str, endpoint: str) -> None:
    entry = await store.get(keys.endpoint(network, endpoint))
    assert entry is not None
    host = codec.decode(Endpoint, entry.value).host
    await store.commit([], [Delete(keys.endpoint(network, endpoint)), Delete(keys.local(host, endpoint))])


def shown(endpoint: Endpoint, network: Network, version: int) -> EndpointJson:
    plain = {**codec.to_json(endpoint), "network_name": network.name, "version": version}
    plain["address"] = str(endpoint.address) if endpoint.address else None
    plain["address6"] = str(endpoint.address6) if endpoint.address6 else None
    return cast(EndpointJson, plain)


def _mac(endpoint_id: str) -> str:
    rng = random.Random(endpoint_id)
    return ":".join(["02", *(f"{rng.randrange(256):02x}" for _ in range(5))])


def overlay(network_id: str = NET, name: str = "my-net", vni: int = 4242, octet: int = 1) -> Network:
    subnets = (
        Subnet(ip_network(f"10.{octet}.0.0/24"), IPv4Address(f"10.{octet}.0.1")),
        Subnet(ip_network(f"fd00:{octet}::/64"), IPv6Address(f"fd00:{octet}::1")),
    )
    return Network(network_id, name, Driver.OVERLAY, subnets, EPOCH, vni=vni)


def _stamped(data: bytes) -> bytes:
    return codec.stamped(data, current().request_id)
