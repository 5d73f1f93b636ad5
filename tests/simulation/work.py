"""What people and programs ask of the cluster: each action picks its objects from what there is when its turn comes.

An operation runs beside the steps that follow. What it was told goes into the ledger at once; what it may remove is
excused before it begins. It may be refused, and must not break; only errors that the product promises are expected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from controller.changing import NetworkPatch
from controller.cluster import Cluster
from controller.endpoint_patching import EndpointPatch
from controller.requests import (
    Caller,
    EndpointRequest,
    Features,
    HoldRequest,
    NetworkRequest,
    PortRequest,
    ReservationRequest,
    SubnetRequest,
)
from kvnet import keys
from kvnet.errors import KvnetError, NotFound, OutcomeUnknown
from kvnet.http import Lost, NotSent
from kvnet.model import Endpoint, Network
from tests.simulation.station import Station
from tests.simulation.world import World
from worker.requests import AttachRequest, DetachRequest

T = TypeVar("T")

ANSWER_S = 30.0
ATTACH_S = 60.0
MAX_NETWORKS = 8
MAX_ENDPOINTS = 40


class Work:
    def __init__(self, world: World) -> None:
        self.world = world
        self.open: dict[str, str] = {}  # operations under way
        self.lost: set[str] = set()  # keys of those without an answer: somebody may be at them still, for ever
        self.attached: dict[str, tuple[str, str]] = {}  # acknowledged: endpoint -> (host, namespace)
        self.detaching: set[str] = set()
        self.by_hand: set[str] = set()  # endpoints that are made without a workload
        self._number = 0

    def do(self, action: str) -> None:
        getattr(self, f"_{action}")()

    # networks

    def _create_network(self) -> None:
        rng, world = self.world.rng, self.world
        if len(world.judge.networks) >= MAX_NETWORKS:
            return
        network_id, name = world.fresh_id(12), world.fresh("net") if rng.random() < 0.9 else "common"
        driver = rng.choice(("overlay", "overlay", "overlay", "routed", "bridge"))
        subnets: tuple[SubnetRequest, ...] = ()
        if rng.random() < 0.5:
            length = rng.choice((24, 26, 28)) if driver != "routed" else 24
            subnets = (SubnetRequest(f"10.{rng.randrange(1, 4)}.{rng.randrange(3)}.0/{length}"),)
        request = NetworkRequest(
            name,
            driver,
            subnets,
            internal=driver != "routed" and rng.random() < 0.2,
            ipv6=rng.choice((None, False)) if driver != "routed" else None,
            id=network_id,
            features=Features(icc=False) if driver != "routed" and rng.random() < 0.1 else Features(),
        )
        key = keys.network(network_id)

        async def run() -> None:
            await self._ask(lambda cluster: cluster.networks.create(request, self._caller()))
            self.world.ledger.made(key, f"create {name}")

        self._begin(f"create network {network_id} {name} {driver}", run)

    def _delete_network(self) -> None:
        network = self._network()
        if network is None:
            return
        key = keys.network(network.id)
        in_use = any(one.network == network.id for one in self.world.judge.endpoints.values())
        if in_use and self.world.rng.random() < 0.8:
            return
        is_settled = self._is_settled(key)
        self.world.ledger.may_go(key)

        async def run() -> None:
            await self._ask(lambda cluster: cluster.networks.delete(network.id, self._caller()))
            if is_settled:
                self.world.ledger.removed(key, "delete network")

        self._begin(f"delete network {network.id}", run)

    def _change_network(self) -> None:
        network, rng = self._network(), self.world.rng
        if network is None:
            return
        key, label = keys.network(network.id), self.world.fresh("v")
        given: dict[str, Any] = rng.choice(
            ({"labels": {"team": label}}, {"mtu": rng.randrange(1280, 1400)}, {"flood": True})
        )
        fields = tuple(given)
        change = self.world.ledger.begins(key, fields)

        async def run() -> None:
            with self._settling(key, change, fields):
                made = await self._ask(
                    lambda cluster: cluster.updates.update(network.id, NetworkPatch(given), self._caller())
                )
            wanted = {name: getattr(made.value, name) for name in given}
            self.world.ledger.changed(key, change, wanted)

        self._begin(f"change network {network.id} {sorted(given)}", run, key)

    def _peer(self) -> None:
        one, other = self._network(), self._network()
        if one is None or other is None or one.id == other.id:
            return
        if other.id in one.peers:
            self._begin(
                f"unpeer {one.id} {other.id}",
                lambda: self._ask(lambda cluster: cluster.peering.unpeer(one.id, other.id, self._caller())),
            )
        else:
            self._begin(
                f"peer {one.id} {other.id}",
                lambda: self._ask(lambda cluster: cluster.peering.peer(one.id, other.id, self._caller())),
            )

    # endpoints made by hand

    def _endpoint_request(self, name: str, endpoint_id: str) -> EndpointRequest:
        rng = self.world.rng
        ports: tuple[PortRequest, ...] = ()
        if rng.random() < 0.25:
            host_port = rng.choice((None, None, 8080, 8081))
            ports = (PortRequest(80, host_port=host_port),)
        host = rng.choice(self.world.stations).name
        return EndpointRequest(host, name, endpoint_id, ports=ports)

    def _create_endpoint(self) -> None:
        network = self._network()
        if network is None or self._is_full():
            return
        endpoint_id, name = self.world.fresh_id(16), self.world.fresh("e")
        request = self._endpoint_request(name, endpoint_id)
        if self.world.rng.random() < 0.3:
            address = self._some_address(network)
            request = EndpointRequest(
                request.host, name, endpoint_id, address=address, reuse=self.world.rng.random() < 0.3
            )
        key = keys.endpoint(network.id, endpoint_id)
        self.by_hand.add(endpoint_id)
        times = 2 if self.world.rng.random() < 0.2 else 1  # somebody is impatient, and asks again somewhere else

        async def run() -> None:
            await self._ask(lambda cluster: cluster.endpoints.create(network.id, request, self._caller()))
            self.world.ledger.made(key, f"create {name}")

        for _ in range(times):
            self._begin(f"create endpoint {endpoint_id} in {network.id} on {request.host}", run, key)

    def _create_many(self) -> None:
        network = self._network()
        if network is None or self._is_full():
            return
        requests = [
            self._endpoint_request(self.world.fresh("e"), self.world.fresh_id(16))
            for _ in range(self.world.rng.randrange(2, 6))
        ]
        self.by_hand.update(request.id or "" for request in requests)

        async def run() -> None:
            outcomes = await self._ask(
                lambda cluster: cluster.endpoints.create_many(network.id, requests, self._caller())
            )
            for request, outcome in zip(requests, outcomes, strict=True):
                if not isinstance(outcome, KvnetError):
                    self.world.ledger.made(keys.endpoint(network.id, request.id or ""), "create many")

        self._begin(f"create {len(requests)} endpoints in {network.id}", run)

    def _delete_endpoint(self) -> None:
        endpoint = self._endpoint()
        if endpoint is None:
            return
        key = keys.endpoint(endpoint.network, endpoint.id)
        is_settled = self._is_settled(key)
        self.world.ledger.may_go(key)
        self.detaching.add(endpoint.id)

        async def run() -> None:
            await self._ask(lambda cluster: cluster.endpoints.delete(endpoint.network, endpoint.id, self._caller()))
            if is_settled:
                self.world.ledger.removed(key, "delete endpoint")

        self._begin(f"delete endpoint {endpoint.id}", run)

    def _change_endpoint(self) -> None:
        endpoint, rng = self._endpoint(), self.world.rng
        if endpoint is None:
            return
        key, text = keys.endpoint(endpoint.network, endpoint.id), self.world.fresh("a")
        ports: tuple[PortRequest, ...] | None = None
        given: dict[str, Any] = {}
        match rng.randrange(4):
            case 0:
                given = {"aliases": (text,)}
            case 1:
                given = {"labels": {"app": text}}
            case 2:
                ports = (PortRequest(rng.choice((80, 443))),) if rng.random() < 0.7 else ()
            case 3:
                network = self.world.judge.networks.get(endpoint.network)
                given = {"address": self._some_address(network)} if network is not None else {"name": text}
        patch = EndpointPatch(given, ports)
        fields = ("addresses",) if "address" in given else tuple(given) or ("ports",)
        change = self.world.ledger.begins(key, fields)

        async def run() -> None:
            with self._settling(key, change, fields):
                made = await self._ask(
                    lambda cluster: cluster.endpoints.update(endpoint.network, endpoint.id, patch, self._caller(), None)
                )
            named = [name for name in ("aliases", "labels") if name in given]
            wanted = {name: getattr(made.value, name) for name in named}
            wanted |= {"addresses": made.value.addresses} if "address" in given else {}
            wanted |= {"ports": made.value.ports} if ports is not None else {}
            self.world.ledger.changed(key, change, wanted)

        self._begin(f"change endpoint {endpoint.id} {sorted(given) or 'ports'}", run, key)

    # workloads

    def _attach(self) -> None:
        station, network, rng = self._station(), self._network(), self.world.rng
        if station is None or network is None or self._is_full():
            return
        paths = station.machine.namespaces
        path = station.machine.start_workload() if not paths or rng.random() < 0.8 else rng.choice(paths)
        endpoint_id, name = self.world.fresh_id(16), self.world.fresh("w")
        more: dict[str, Any] = {}
        if rng.random() < 0.25:
            more["ports"] = ({"port": 80, **rng.choice(({}, {}, {"host_port": 8080}))},)
        request = AttachRequest(network.id, path, name, id=endpoint_id, **more)
        key = keys.endpoint(network.id, endpoint_id)
        identity = f"{station.machine.host.boot_id}:{station.machine.host.serials[path]}"

        async def run() -> None:
            answer = await station.ask(ATTACH_S, lambda worker: worker.attacher.attach(request))
            self._note_attached(station, path, identity, answer, key)

        self._begin(f"attach {endpoint_id} to {network.id} in {path}", run)

    def _note_attached(self, station: Station, path: str, identity: str, answer: dict[str, Any], key: str) -> None:
        endpoint = answer["endpoint"]["id"]
        if endpoint in self.detaching or self._identity(station, path) != identity:
            return  # its workload is gone by the time that anybody hears of it
        self.attached[endpoint] = (station.name, path)
        self.world.ledger.made(key, "attach")
        host = station.machine.host
        inside = host.tables.namespaces.get(path, {}).get(answer["interface"])
        if inside is None and not station.machine.is_meddled:
            self.world.fail(f"{endpoint} was attached, and there is no {answer['interface']} in {path}")

    def _detach(self) -> None:
        records = sorted(one for one in self.attached if one not in self.detaching)
        if not records:
            return
        endpoint = self.world.rng.choice(records)
        host, _ = self.attached[endpoint]
        station = self.world.station(host)
        self._excuse(endpoint)

        async def run() -> None:
            answer = await station.ask(ATTACH_S, lambda worker: worker.attacher.detach(DetachRequest(id=endpoint)))
            if endpoint in answer["detached"]:
                self.attached.pop(endpoint, None)

        self._begin(f"detach {endpoint} on {host}", run)

    def _end_workload(self) -> None:
        station = self._station(running=False)
        if station is None or not station.machine.namespaces:
            return
        path = self.world.rng.choice(station.machine.namespaces)
        self.end_workload(station, path)
        self.world.note(f"workload {path} ends")

    def end_workload(self, station: Station, path: str) -> None:
        for endpoint, place in list(self.attached.items()):
            if place == (station.name, path):
                self._excuse(endpoint)
                del self.attached[endpoint]
        station.machine.host.remove_namespace(path)

    def _excuse(self, endpoint: str) -> None:
        self.detaching.add(endpoint)
        for key in list(self.world.ledger.kept):
            if key.startswith(keys.ENDPOINTS) and key.endswith(f"/{endpoint}"):
                self.world.ledger.may_go(key)

    # the rest

    def _reserve(self) -> None:
        network = self._network()
        if network is None:
            return
        name = self.world.fresh("r")
        request = ReservationRequest(name, self._some_address(network) if self.world.rng.random() < 0.5 else None)

        async def run() -> None:
            await self._ask(lambda cluster: cluster.reservations.create(network.id, request, self._caller()))

        self._begin(f"reserve {name} in {network.id}", run)

    def _release_reservation(self) -> None:
        network = self._network()
        if network is None:
            return

        async def run() -> None:
            def first(cluster: Cluster) -> Awaitable[None]:
                found = [one for one in cluster.reservations.list(network.id) if one.version]
                if not found:
                    raise NotFound("no reservation")
                return cluster.reservations.delete(network.id, found[0].name, self._caller())

            await self._ask(first)

        self._begin(f"release a reservation in {network.id}", run)

    def _hold(self) -> None:
        """As a Docker daemon does: a subnet first, then the network, and its name last, unless it dies in between."""
        rng = self.world.rng
        host, name, goes_on = rng.choice(self.world.stations).name, self.world.fresh("docker"), rng.random() < 0.7

        async def run() -> None:
            held = await self._ask(lambda cluster: cluster.holds.create(HoldRequest(host), self._caller()))
            if goes_on:
                request = NetworkRequest(name, holds=(held.id,))
                made = await self._ask(lambda cluster: cluster.networks.create(request, self._caller()))
                self.world.ledger.made(keys.network(made.value.id), "create of a hold")

        self._begin(f"hold for {name}", run)

    def _remove_host(self) -> None:
        stations = [station for station in self.world.stations if not station.is_running]
        if not stations:
            return
        station = self.world.rng.choice(stations)
        self.world.ledger.evicted.add(station.name)

        async def run() -> None:
            await self._ask(lambda cluster: cluster.hosts.delete(station.name, self._caller(), force=True))

        self._begin(f"remove host {station.name}", run)

    def _check(self) -> None:
        self._begin("check --repair", lambda: self._ask(lambda cluster: cluster.ipam.repair(self._caller())))

    # helpers

    def _begin(self, what: str, run: Callable[[], Awaitable[Any]], key: str = "") -> None:
        self._number += 1
        name = f"#{self._number} {what}"
        self.open[name] = key
        self.world.note(name)
        self.world.operators.context().run(self.world.loop.create_task, self._run(name, run, key))

    async def _run(self, name: str, run: Callable[[], Awaitable[Any]], key: str) -> None:
        outcome = "done"
        try:
            await run()
        except KvnetError as error:
            outcome = f"{error.code}: {error.detail}"
        except (Lost, NotSent) as error:
            outcome = f"{type(error).__name__}: {error}"
            self.lost.add(key)
        except Exception as error:  # noqa: BLE001 - no operation may raise anything else
            outcome = f"unexpected {error!r}"
            self.world.fail(f"{name}: {error!r}")
        finally:
            self.open.pop(name, None)
        self.world.note(f"{name} -> {outcome[:160]}")

    async def _ask(self, work: Callable[[Cluster], Awaitable[T]]) -> T:
        rng = self.world.rng
        replica = rng.choice(self.world.replicas)
        return await replica.ask(self.world.operator_link(replica), ANSWER_S, work)

    def _caller(self) -> Caller:
        return Caller("operator", f"{self._number}", "simulation")

    def _is_settled(self, key: str) -> bool:
        """Its creation was acknowledged, and nobody asks for it again: who deletes it now deletes it for good."""
        return key in self.world.ledger.kept and key not in self.open.values() and key not in self.lost

    @contextmanager
    def _settling(self, key: str, change: int, fields: tuple[str, ...]) -> Iterator[None]:
        """A refusal that is one leaves everything as it was."""
        try:
            yield
        except KvnetError as error:
            if not isinstance(error, OutcomeUnknown):
                self.world.ledger.refused(key, change, fields)
            raise

    def _network(self) -> Network | None:
        networks = sorted(self.world.judge.networks.items())
        return self.world.rng.choice(networks)[1] if networks else None

    def _endpoint(self) -> Endpoint | None:
        endpoints = sorted(self.world.judge.endpoints.items())
        return self.world.rng.choice(endpoints)[1] if endpoints else None

    def _station(self, *, running: bool = True) -> Station | None:
        found = [station for station in self.world.stations if station.worker is not None or not running]
        return self.world.rng.choice(found) if found else None

    def _is_full(self) -> bool:
        return len(self.world.judge.endpoints) >= MAX_ENDPOINTS

    def _some_address(self, network: Network) -> str:
        """One of the first of its first subnet, so that many ask for the same."""
        return str(network.subnets[0].cidr[self.world.rng.randrange(2, 8)])

    @staticmethod
    def _identity(station: Station, path: str) -> str:
        host = station.machine.host
        serial = host.serials.get(path) if path in host.tables.namespaces else None
        return "" if serial is None else f"{host.boot_id}:{serial}"
