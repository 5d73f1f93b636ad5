"""The users of a soak: each does one thing after the other, as its seed chooses, and notes what it was told.

They attach and detach workloads, make and remove networks and endpoints through any controller, change labels and
ports, and peer networks; often they want the same names, addresses and ports. Every call is bounded. Never judges
anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from kvnet.client import Client
from kvnet.errors import KvnetError
from kvnet.local import WorkerClient
from kvnet.wire import EndpointBody, NetworkBody, PortBody
from tests.soak.ledger import (
    UNSURE,
    Endpoint,
    Ledger,
    Network,
    Outcome,
    Standing,
    addresses_of,
    outcome_of,
    ports_of,
    ports_text,
)
from tests.soak.site import Soaked

PATIENCE_S = 25.0
REST_S = (0.02, 0.35)
RESOLVE_EVERY_S = 2.0
MOST_ENDPOINTS, MOST_NETWORKS = 36, 8
MOST_LEFT = 12
NAMES = tuple(f"contested-{number}" for number in range(4))
BLOCKS = ("10.77.0.0/24", "10.77.0.0/25", "10.77.0.128/25", "10.77.0.0/23")
HOST_PORTS = range(20000, 20006)
DRIVERS = ("overlay", "bridge", "routed")
LABEL, PROBE = "soak", "probe"
WEIGHTS = {
    "attach": 30,
    "detach": 18,
    "vanish": 5,
    "create-endpoint": 8,
    "delete-endpoint": 9,
    "update-endpoint": 8,
    "publish": 8,
    "create-network": 6,
    "delete-network": 5,
    "update-network": 4,
    "peer": 5,
    "unpeer": 3,
}


@dataclass(slots=True)
class Failed(Exception):
    """An operation was not acknowledged; what is known of it."""

    outcome: Outcome


class User:
    """`number` makes its names its own."""

    def __init__(self, number: int, site: Soaked, ledger: Ledger, rng: random.Random) -> None:
        self._number = number
        self._site = site
        self._ledger = ledger
        self._rng = rng
        self._made = 0
        self._left: list[str] = []  # workloads whose attach was refused: nothing may be in them later on

    async def run(self, is_over: Callable[[], bool]) -> None:
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not is_over():
            kind = self._rng.choices(kinds, weights)[0]
            if kind in ("attach", "create-endpoint") and len(self._living()) >= MOST_ENDPOINTS:
                kind = "detach"
            await getattr(self, kind.replace("-", "_"))()
            await asyncio.sleep(self._rng.uniform(*REST_S))

    # endpoints

    async def attach(self, network: Network | None = None, host: str = "") -> Endpoint | None:
        network, host = network or self._pick_network(), host or self._rng.choice(self._site.hosts)
        if network is None:
            return None
        name, id_ = self._name("w"), f"{self._rng.getrandbits(64):016x}"
        options: dict[str, Any] = {"id": id_}
        if self._rng.random() < 0.3:
            options["ports"] = self._ports()
        if network.cidrs and self._rng.random() < 0.15:
            options["address"] = self._contested_address(network)
        workload = await self._site.lab.add_workload(name, host)
        local = self._local(host)
        try:
            async with self._asked("attach", id_, host=host, network=network.id, **options) as (op, told):
                answer = await local.attach(network=network.id, netns=str(workload.netns), name=name, **options)
                told.append(answer["endpoint"])
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                self._ledger.endpoints[id_] = Endpoint(id_, name, network, host, name, standing=Standing.DOUBTFUL)
            else:
                await self._leave(name)
            return None
        return self._note_endpoint(op, told[0], network, host, name)

    async def _leave(self, workload: str) -> None:
        self._left.append(workload)
        if len(self._left) > MOST_LEFT:
            await self._site.lab.remove_workload(self._left.pop(0))

    async def create_endpoint(self) -> None:
        network, host = self._pick_network(), self._rng.choice(self._site.hosts)
        if network is None:
            return
        name, id_ = self._name("e"), f"{self._rng.getrandbits(64):016x}"
        body: EndpointBody = {"id": id_, "host": host, "name": name}
        if network.cidrs and self._rng.random() < 0.2:
            body["address"] = self._contested_address(network)
        try:
            asked = self._asked("create-endpoint", id_, network=network.id, body=body)
            async with asked as (op, told), self._client() as client:
                told.append(await client.create_endpoint(network.id, body))
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                self._ledger.may_appear.add(id_)
                self._ledger.endpoints[id_] = Endpoint(id_, name, network, host, standing=Standing.DOUBTFUL)
            return
        self._note_endpoint(op, told[0], network, host, "")

    def _note_endpoint(self, op: int, told: dict[str, Any], network: Network, host: str, workload: str) -> Endpoint:
        made = Endpoint(told["id"], told["name"], network, host, workload, tuple(told["addresses"]))
        self._ledger.endpoints[made.id] = made
        self._ledger.acquired(op, made.id, addresses_of(made))
        self._published(op, made, told["ports"])
        return made

    def _published(self, op: int, endpoint: Endpoint, ports: list[Any]) -> None:
        endpoint.ports, endpoint.held = [ports_text(ports)], ports_of(endpoint, ports)
        endpoint.generation += 1
        self._ledger.acquired(op, endpoint.publisher, endpoint.held)

    async def detach(self) -> None:
        found = self._pick([e for e in self._ledger.idle_endpoints() if e.workload and not e.network.is_stage])
        found = found or self._pick([e for e in self._ledger.idle_endpoints() if e.workload])
        if found is not None:
            await self.end("detach", found)

    async def delete_endpoint(self) -> None:
        found = self._pick(self._ledger.idle_endpoints())
        if found is not None:
            await self.end("delete-endpoint", found)

    async def vanish(self) -> None:
        """The workload ends, and nobody is told."""
        found = self._pick([e for e in self._ledger.idle_endpoints() if e.workload])
        if found is not None:
            op = self._ledger.begin("vanish", found.id)
            self._release(op, found)
            found.standing = Standing.GONE
            await self._forget_workload(found)
            self._ledger.end("vanish", op, Outcome.ACKNOWLEDGED)

    async def end(self, kind: str, endpoint: Endpoint) -> None:
        """Detach it, or delete it through a controller. It stays doubtful until one of them is acknowledged."""
        endpoint.busy = True
        try:
            async with self._asked(kind, endpoint.id) as (op, told):
                self._release(op, endpoint)
                endpoint.standing = Standing.DOUBTFUL
                if kind == "detach":
                    told.append(await self._local(endpoint.host).detach(id=endpoint.id))
                else:
                    async with self._client() as client:
                        await self._unless_gone(client.delete_endpoint(endpoint.network.id, endpoint.id))
        except Failed:
            return
        finally:
            endpoint.busy = False
        endpoint.standing = Standing.GONE
        await self._forget_workload(endpoint)

    def _release(self, op: int, endpoint: Endpoint) -> None:
        self._ledger.releases(op, endpoint.id, addresses_of(endpoint))
        self._ledger.releases(op, endpoint.publisher, endpoint.held)

    async def _forget_workload(self, endpoint: Endpoint) -> None:
        if endpoint.workload in self._site.lab.workloads:
            await self._site.lab.remove_workload(endpoint.workload)

    async def update_endpoint(self) -> None:
        found = self._pick(self._ledger.idle_endpoints())
        if found is None:
            return
        found.busy = True
        value = self._name("v")
        try:
            async with self._asked("update-endpoint", found.id, label=value), self._client() as client:
                await client.update_endpoint(found.network.id, found.id, {"labels": {LABEL: value}})
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                found.labels.append(value)
        else:
            found.labels[0] = value
        finally:
            found.busy = False

    async def publish(self) -> None:
        """Other ports. Once an answer was lost, nothing is certain of this one's ports any more: it is left alone."""
        found = self._pick([e for e in self._ledger.idle_endpoints() if e.workload and len(e.ports) == 1])
        if found is None:
            return
        found.busy = True
        ports = self._ports() if self._rng.random() < 0.7 else []
        told: list[Any] = []
        try:
            async with self._asked("publish", found.id, ports=ports) as (op, told):
                self._ledger.releases(op, found.publisher, found.held)
                async with self._client() as client:
                    told.append(await client.update_endpoint(found.network.id, found.id, {"ports": ports}))
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                found.ports.append(UNSURE)
        else:
            self._published(op, found, told[0]["ports"])
        finally:
            found.busy = False

    # networks

    async def create_network(self) -> None:
        if len([n for n in self._ledger.networks.values() if n.standing is not Standing.GONE]) >= MOST_NETWORKS:
            return await self.delete_network()
        id_, driver = f"{self._rng.getrandbits(48):012x}", self._rng.choice(DRIVERS)
        name = self._rng.choice(NAMES) if self._rng.random() < 0.4 else self._name("n")
        body: NetworkBody = {"id": id_, "name": name, "driver": driver}
        if self._rng.random() < 0.3:
            body["subnets"] = [{"cidr": self._rng.choice(BLOCKS)}]
        elif driver != "routed":
            body["prefix_length"] = 26  # small: addresses come round again
        try:
            async with self._asked("create-network", id_, body=body) as (op, told), self._client() as client:
                told.append(await client.create_network(body))
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                self._ledger.may_appear.add(id_)
                self._ledger.networks[id_] = Network(id_, name, driver, standing=Standing.DOUBTFUL)
            return None
        made = Network(id_, name, driver, tuple(subnet["cidr"] for subnet in told[0]["subnets"]))
        self._ledger.networks[id_] = made
        self._ledger.acquired(op, id_, [f"name {name}", *(f"subnet {cidr}" for cidr in made.cidrs)])
        return None

    async def delete_network(self) -> None:
        living = [n for n in self._ledger.idle_networks() if not n.is_stage]
        empty = [network for network in living if not self._ledger.of_network(network)]
        found = self._pick(empty if empty and self._rng.random() < 0.8 else living)
        if found is not None:
            await self.end_network(found)

    async def end_network(self, network: Network) -> None:
        network.busy = True
        was = network.standing
        network.standing = Standing.DOUBTFUL
        try:
            async with self._asked("delete-network", network.id) as (op, _):
                things = [f"name {network.name}", *(f"subnet {cidr}" for cidr in network.cidrs)]
                self._ledger.releases(op, network.id, things)
                async with self._client() as client:
                    await self._unless_gone(client.delete_network(network.id))
        except Failed as failure:
            if failure.outcome is Outcome.REFUSED:
                network.standing = was
            return
        finally:
            network.busy = False
        network.standing = Standing.GONE
        for pair in [pair for pair in self._ledger.peers if network.id in pair]:
            del self._ledger.peers[pair]

    async def update_network(self) -> None:
        found = self._pick(self._ledger.idle_networks())
        if found is None:
            return
        value = self._name("v")
        found.busy = True
        try:
            async with self._asked("update-network", found.id, label=value), self._client() as client:
                await client.update_network(found.id, {"labels": {LABEL: value}})
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                found.labels.append(value)
        else:
            found.labels[0] = value
        finally:
            found.busy = False

    async def peer(self) -> None:
        await self._peering("peer", is_peer=True)

    async def unpeer(self) -> None:
        await self._peering("unpeer", is_peer=False)

    async def _peering(self, kind: str, *, is_peer: bool) -> None:
        idle = self._ledger.idle_networks()
        if len(idle) < 2:
            return
        one, other = self._rng.sample(idle, 2)
        pair = frozenset((one.id, other.id))
        if not is_peer:
            known = [p for p, is_there in self._ledger.peers.items() if is_there and p <= {n.id for n in idle}]
            if not known:
                return
            pair = self._rng.choice(known)
            one, other = (self._ledger.networks[id_] for id_ in sorted(pair))
        one.busy = other.busy = True
        try:
            async with self._asked(kind, one.id, peer=other.id), self._client() as client:
                call = client.peer_networks if is_peer else client.unpeer_networks
                await call(one.id, other.id)
        except Failed as failure:
            if failure.outcome is Outcome.UNKNOWN:
                self._ledger.peers[pair] = None
        else:
            # What was unknown once may still happen at any time.
            if self._ledger.peers.get(pair, False) is not None:
                self._ledger.peers[pair] = is_peer
        finally:
            one.busy = other.busy = False

    # what lost its answer

    async def resolve(self, is_over: Callable[[], bool]) -> None:
        """A careful user asks again until it is told that what it does not want is gone."""
        while not is_over():
            await self.resolve_once()
            await asyncio.sleep(RESOLVE_EVERY_S)

    async def resolve_once(self, *, empties: bool = False) -> int:
        """How many are doubtful afterwards. `empties`: networks that must go lose their endpoints first."""
        for endpoint in self._ledger.idle_endpoints(Standing.DOUBTFUL):
            await self.end("detach" if endpoint.workload else "delete-endpoint", endpoint)
        for network in self._ledger.idle_networks(Standing.DOUBTFUL):
            for endpoint in self._ledger.of_network(network) if empties else ():
                await self.end("detach" if endpoint.workload else "delete-endpoint", endpoint)
            if not self._ledger.of_network(network):
                await self.end_network(network)
        endpoints = [e.standing for e in self._ledger.endpoints.values()]
        networks = [n.standing for n in self._ledger.networks.values()]
        return (endpoints + networks).count(Standing.DOUBTFUL)

    # what is asked of those who were hit by a fault

    async def is_served_by(self, name: str) -> bool:
        """A host attaches a workload and detaches it again; a controller carries out a change."""
        stage = [network for network in self._ledger.networks.values() if network.is_stage]
        if name in self._site.lab.hosts:
            made = await self.attach(self._rng.choice(stage), name)
            if made is not None:
                await self.end("detach", made)
            return made is not None
        value = self._name("probe")
        network = stage[0]
        controller = next(c for c in self._site.controllers if c.name == name)
        try:
            async with self._asked("update-network", network.id, label=value), controller.client as client:
                await client.update_network(network.id, {"labels": {PROBE: value}})
        except Failed:
            return False
        return True

    # how

    @asynccontextmanager
    async def _asked(self, kind: str, owner: str, **asked: Any) -> AsyncIterator[tuple[int, list[Any]]]:
        """Notes the question and what came of it. Raises: Failed, whatever it failed with."""
        op = self._ledger.begin(kind, owner, **asked)
        told: list[Any] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield op, told
        except (KvnetError, TimeoutError, OSError) as error:
            outcome = outcome_of(error)
            self._ledger.refused(kind, error)
            self._ledger.end(kind, op, outcome, f"{getattr(error, 'code', type(error).__name__)}: {error}"[:300])
            raise Failed(outcome) from error
        self._ledger.end(kind, op, Outcome.ACKNOWLEDGED, told[0] if told else None)

    async def _unless_gone(self, deletion: Awaitable[Any]) -> None:
        """What is not there any more is what was asked for."""
        try:
            await deletion
        except KvnetError as error:
            if error.code != "not-found":
                raise

    def _client(self) -> Client:
        return self._rng.choice(self._site.controllers).client

    def _local(self, host: str) -> WorkerClient:
        return WorkerClient(str(self._site.lab.hosts[host].socket), timeout_s=PATIENCE_S)

    def _living(self) -> list[Endpoint]:
        return [e for e in self._ledger.endpoints.values() if e.standing is not Standing.GONE]

    def _pick(self, found: list[Any]) -> Any:
        return self._rng.choice(found) if found else None

    def _pick_network(self) -> Network | None:
        found: Network | None = self._pick([n for n in self._ledger.networks.values() if n.standing is Standing.LIVE])
        return found

    def _name(self, letter: str) -> str:
        self._made += 1
        return f"{letter}{self._number}-{self._made}"

    def _ports(self) -> list[PortBody]:
        port: PortBody = {"port": 80, "protocol": self._rng.choice(("tcp", "udp"))}
        if self._rng.random() < 0.5:
            port["host_port"] = self._rng.choice(HOST_PORTS)
        return [port]

    def _contested_address(self, network: Network) -> str:
        return str(ip_network(network.cidrs[0])[self._rng.randint(40, 44)])
