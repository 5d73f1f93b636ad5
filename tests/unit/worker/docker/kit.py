"""Docker's side of the plugin: the calls in Docker's order over a real socket, against a real controller.

`FakeDocker` does what libnetwork does, also when something fails: it rolls back, forgets, and repeats with an empty
body. The worker's endpoints are a stand-in, for theirs are other tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

from backends.open import open_store
from kvnet.errors import ControllerUnreachable, KvnetError, NotFound
from kvnet.wire import Endpoint, EndpointBody, EndpointPatchBody
from tests.api.under_test import Api, running
from worker.attachments import Phase, Record
from worker.catalogue import NetworkCatalogue
from worker.controller import HttpController
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.http import listen_for_docker
from worker.runtimes.docker.ledger import Ledger, OwnCalls
from worker.runtimes.docker.plugin import DockerPlugin
from worker.settings import DockerMode, DockerSettings, Removal, Settings
from worker.underlay import Underlay

DEADLINE_S = 10.0
DNS = IPv4Address("169.254.53.53")
UNDERLAY = IPv4Address("192.0.2.1")
MANY = "com.docker.network."


class DockerError(Exception):
    """What a user of `docker` reads."""


class Line:
    """The way to the controller: up, cut, or silent."""

    def __init__(self, controller: HttpController) -> None:
        self._controller = controller
        self.state = "up"
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*given: Any, **named: Any) -> Any:
            self.asked.append(name)
            if self.state == "cut":
                raise ControllerUnreachable("no answer from the controller", fix="start it")
            if self.state == "silent":
                await asyncio.Event().wait()
            return await getattr(self._controller, name)(*given, **named)

        return ask


class FakeWorkloads:
    """Endpoints at the real controller, interfaces by name only. It outlives the plugin, as what is on disk does."""

    def __init__(self, host: str, controller: Controller) -> None:
        self._host = host
        self._controller = controller
        self.known: dict[str, Record] = {}
        self.refuses: KvnetError | None = None
        self.removal_s = 0.0

    async def claim(self, network: str, body: EndpointBody, *, runtime: str) -> Record:
        id = secrets.token_hex(8)
        full: EndpointBody = {**body, "id": id, "host": self._host}
        made = await self._controller.create_endpoint(network, full)
        record = Record(id, network, body["name"], "", "", Phase.CLAIMED, 0.0, network_id=network, runtime=runtime)
        self.known[id] = replace(record, answer=cast("dict[str, Any]", made))
        return self.known[id]

    async def call_it(self, endpoint: str, external: str) -> Record:
        return self._kept(endpoint, external=external)

    async def hand_over(self, endpoint: str, netns: str, routes: Sequence[str] = ()) -> Record:
        if self.refuses is not None:
            raise self.refuses
        interface = f"kvh{endpoint[:11]}"
        return self._kept(endpoint, netns=netns, interface=interface, phase=Phase.ATTACHED, routes=tuple(routes))

    async def take_back(self, endpoint: str) -> None:
        if endpoint in self.known:
            self._kept(endpoint, netns="", interface="", phase=Phase.CLAIMED, routes=())

    async def change(self, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        record = self.known[endpoint]
        changed = await self._controller.update_endpoint(record.network_id, endpoint, body)
        self._kept(endpoint, answer=cast("dict[str, Any]", changed))
        return changed

    async def release(self, endpoint: str) -> bool:
        record = self.known.get(endpoint)
        if record is None:
            return True
        if self.refuses is not None and record.phase is Phase.ATTACHED:
            raise self.refuses
        self._kept(endpoint, phase=Phase.DETACHING)  # first of all, as the worker does
        await asyncio.sleep(self.removal_s)
        try:
            await self._controller.delete_endpoint(record.network_id, endpoint)
        except NotFound:
            pass
        except ControllerUnreachable:
            return False
        self.known.pop(endpoint, None)
        return True

    async def settle_debts(self) -> None:
        """As the worker does when the controller is back."""
        for record in self.owed:
            await self.release(record.endpoint)

    @property
    def owed(self) -> list[Record]:
        return [record for record in self.known.values() if record.phase is Phase.DETACHING]

    def records(self) -> Sequence[Record]:
        return list(self.known.values())

    def record(self, endpoint: str) -> Record | None:
        return self.known.get(endpoint)

    def lost(self) -> Sequence[Record]:
        return []

    async def settle(self, endpoint: str) -> Record:
        return self.known[endpoint]

    async def add_route(self, endpoint: str, destination: str) -> Record:
        return self._kept(endpoint, routes=(*self.known[endpoint].routes, destination))

    def _kept(self, endpoint: str, **changes: Any) -> Record:
        if endpoint not in self.known:
            raise NotFound(f"no endpoint {endpoint}")
        self.known[endpoint] = replace(self.known[endpoint], **changes)
        return self.known[endpoint]


@dataclass
class Reply:
    status: int
    json: dict[str, Any]

    @property
    def error(self) -> str:
        assert self.json.get("Err", "") == self.json.get("Error", "")
        return str(self.json.get("Err", ""))


class Caller:
    """One keep-alive connection, as Go's client has it: an empty Host, no content type."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, method: str, body: Any = None, *, verb: str = "POST") -> Reply:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
        reader, writer = self._free.pop() if self._free else await asyncio.open_unix_connection(str(self._path))
        head = (
            f"{verb} /{method} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len(raw)}\r\n"
        )
        writer.write(f"{head}Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n".encode() + raw)
        async with asyncio.timeout(DEADLINE_S):
            status, answer, is_kept = await read_reply(reader)
        if is_kept:
            self._free.append((reader, writer))
        else:
            writer.close()
        return Reply(status, json.loads(answer))

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()
        self._free.clear()


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), body, headers.get("connection") != "close"


@dataclass
class Container:
    """What Docker knows of an endpoint."""

    network: str
    endpoint: str
    pool: str
    pool6: str
    address: str
    address6: str
    sandbox: str
    joined: dict[str, Any]

    @property
    def ids(self) -> dict[str, str]:
        return {"NetworkID": self.network, "EndpointID": self.endpoint}


@dataclass
class DockerNetwork:
    id: str
    pools: list[tuple[str, str, list[str]]]  # pool, gateway, addresses kept free
    internal: bool


@dataclass
class FakeDocker:
    """libnetwork's order of calls. `before`: done before every call."""

    caller: Caller
    before: Callable[[], Awaitable[None]] | None = None
    calls: list[str] = field(default_factory=list)

    async def ask(self, method: str, body: Any = None) -> dict[str, Any]:
        if self.before is not None:
            await self.before()
        self.calls.append(method)
        reply = await self.caller.call(method, body)
        if reply.status != 200:
            raise DockerError(f"{method}: {reply.error}")
        if reply.error:
            raise DockerError(f"remote: {reply.error}")
        return reply.json

    async def try_to(self, method: str, body: Any) -> None:
        """Docker logs it and goes on."""
        with contextlib.suppress(DockerError):
            await self.ask(method, body)

    async def create(
        self,
        *,
        subnets: Sequence[str] = ("",),
        ip_range: str = "",
        gateway: str = "",
        aux: dict[str, str] | None = None,
        options: dict[str, Any] | None = None,
        ipam_options: dict[str, str] | None = None,
        internal: bool = False,
        ipv6: bool = False,
        space: str = "kvnet",
    ) -> DockerNetwork:
        """`docker network create`. A subnet "6": an automatic one of IPv6."""
        network = DockerNetwork(secrets.token_hex(32), [], internal)
        data: dict[str, list[dict[str, Any]]] = {"IPv4Data": [], "IPv6Data": []}
        try:
            for subnet in subnets:
                pool = await self._pool(subnet, ip_range, gateway, aux or {}, ipam_options or {}, network)
                pool["AddressSpace"] = space
                data["IPv6Data" if ":" in pool["Pool"] else "IPv4Data"].append(pool)
            more = {MANY + "internal": True} if internal else {}
            generic = {MANY + "generic": options or {}, MANY + "enable_ipv6": ipv6}
            await self.ask("NetworkDriver.CreateNetwork", {"NetworkID": network.id, "Options": generic | more, **data})
        except DockerError:
            await self._let_go(network)
            raise
        return network

    async def _pool(
        self,
        subnet: str,
        ip_range: str,
        gateway: str,
        aux: dict[str, str],
        ipam_options: dict[str, str],
        network: DockerNetwork,
    ) -> dict[str, Any]:
        is_6 = subnet == "6" or ":" in subnet
        asked = {
            "AddressSpace": "kvnet",
            "Pool": "" if subnet == "6" else subnet,
            "SubPool": "" if is_6 else ip_range,
            "Options": ipam_options,
            "V6": is_6,
        }
        pool = await self.ask("IpamDriver.RequestPool", asked)
        length = pool["Pool"].partition("/")[2]
        network.pools.append((pool["PoolID"], "", []))
        way = {"RequestAddressType": MANY + "gateway"}
        given = await self.ask(
            "IpamDriver.RequestAddress",
            {"PoolID": pool["PoolID"], "Address": "" if is_6 else gateway, "Options": way},
        )
        network.pools[-1] = (pool["PoolID"], given["Address"].partition("/")[0], [])
        data = {"Pool": pool["Pool"], "Gateway": given["Address"]}
        if aux and not is_6:
            for address in aux.values():
                await self.ask(
                    "IpamDriver.RequestAddress", {"PoolID": pool["PoolID"], "Address": address, "Options": None}
                )
                network.pools[-1][2].append(address)
            data["AuxAddresses"] = {name: f"{address}/{length}" for name, address in aux.items()}
        return data

    async def _let_go(self, network: DockerNetwork) -> None:
        for pool, gateway, kept in network.pools:
            for address in (gateway, *kept):
                if address:
                    await self.try_to("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": address})
            await self.try_to("IpamDriver.ReleasePool", {"PoolID": pool})

    async def remove(self, network: DockerNetwork) -> None:
        await self._let_go(network)
        await self.try_to("NetworkDriver.DeleteNetwork", {"NetworkID": network.id})

    async def run(
        self,
        network: DockerNetwork,
        *,
        ip: str = "",
        ip6: str = "",
        mac: str = "",
        name: str = "",
        sandbox: str = "",
        ports: list[dict[str, Any]] | None = None,
    ) -> Container:
        """What `docker run` asks of the drivers."""
        mac = mac or ":".join(["02", "42", *(secrets.token_hex(1) for _ in range(4))])
        pool = next((p for p, _, _ in network.pools if ":" not in p), "")
        pool6 = next((p for p, _, _ in network.pools if ":" in p), "")
        options = {MANY + "endpoint.macaddress": mac} | ({MANY + "endpoint.name": name} if name else {})
        found = {}
        try:
            for this, wanted in ((pool, ip), (pool6, ip6)):
                if this:
                    asked = {"PoolID": this, "Address": wanted, "Options": options}
                    found[this] = (await self.ask("IpamDriver.RequestAddress", asked))["Address"]
            interface = {"Address": found.get(pool, ""), "AddressIPv6": found.get(pool6, ""), "MacAddress": mac}
            ids = {"NetworkID": network.id, "EndpointID": secrets.token_hex(32)}
            made = await self.ask("NetworkDriver.CreateEndpoint", {**ids, "Interface": interface, "Options": {}})
            assert not any((made.get("Interface") or {}).values()), "Docker refuses what it had chosen itself"
        except DockerError:
            await self._give_back(found)
            raise
        bare = {p: address.partition("/")[0] for p, address in found.items()}
        sandbox = sandbox or f"/var/run/docker/netns/{secrets.token_hex(6)}"
        container = Container(
            network.id, ids["EndpointID"], pool, pool6, bare.get(pool, ""), bare.get(pool6, ""), sandbox, {}
        )
        try:
            container.joined = await self.ask("NetworkDriver.Join", {**ids, "SandboxKey": sandbox, "Options": {}})
            if "Gateway" in container.joined:
                publish = {MANY + "portmap": ports or []}
                await self.ask("NetworkDriver.ProgramExternalConnectivity", {**ids, "Options": publish})
            await self.ask("NetworkDriver.EndpointOperInfo", ids)
        except DockerError:
            await self.stop(container, leaves=bool(container.joined))
            raise
        return container

    async def stop(self, container: Container, *, leaves: bool = True) -> None:
        if leaves:
            if "Gateway" in container.joined:
                await self.try_to("NetworkDriver.RevokeExternalConnectivity", container.ids)
            await self.try_to("NetworkDriver.Leave", container.ids)
        await self.try_to("NetworkDriver.DeleteEndpoint", container.ids)
        await self._give_back({container.pool: container.address, container.pool6: container.address6})

    async def _give_back(self, found: dict[str, str]) -> None:
        for pool, address in found.items():
            if pool and address:
                asked = {"PoolID": pool, "Address": address.partition("/")[0]}
                await self.try_to("IpamDriver.ReleaseAddress", asked)


@dataclass
class Host:
    """A host whose Docker is served. `restart` is a kill and a new worker, with what is on disk."""

    name: str
    settings: Settings
    state: StateDir
    line: Line
    workloads: FakeWorkloads
    catalogue: NetworkCatalogue
    said: io.StringIO = field(default_factory=io.StringIO)
    own: OwnCalls = field(default_factory=OwnCalls)
    failed_starts: int = 0

    async def start(self) -> None:
        self.log = Log(self.said)
        self.ledger = Ledger(self.state, self.log)
        self.ledger.load()
        self.listening = await listen_for_docker(self.settings.docker.plugin, {})
        self.plugin = DockerPlugin(
            self.listening,
            self.settings,
            self.workloads,
            self.catalogue,
            self.line,  # type: ignore[arg-type]
            self.ledger,
            self.own,
            underlay=lambda: UNDERLAY,
            on_failed_start=self._count_failed_start,
            time=Time(rng=random.Random(1)),
            log=self.log,
        )
        self.caller = Caller(self.settings.docker.plugin)
        self.docker = FakeDocker(self.caller)
        self.task = asyncio.create_task(self.plugin.run())

    def _count_failed_start(self) -> None:
        self.failed_starts += 1

    async def stop(self) -> None:
        self.caller.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.listening.close()

    async def restart(self) -> None:
        docker = self.docker
        await self.stop()
        await self.start()
        docker.caller = self.caller
        self.docker = docker

    async def name_it(self, network: DockerNetwork, name: str) -> str:
        """As the follower does on Docker's event; returns our id."""
        binding = self.ledger.binding(network.id)
        assert binding is not None
        await self.line.name_network(binding.network, {"name": name})
        return binding.network

    async def made(self, name: str, **more: Any) -> DockerNetwork:
        network = await self.docker.create(**more)
        await self.name_it(network, name)
        return network


@dataclass
class Cluster:
    api: Api
    directory: Path
    hosts: dict[str, Host] = field(default_factory=dict)

    async def get(self, path: str) -> list[dict[str, Any]]:
        answer = await self.api.get(path)
        assert answer.status_code == 200, answer.text
        return cast("list[dict[str, Any]]", answer.json()["items"])

    async def networks(self) -> list[dict[str, Any]]:
        return await self.get("/v1/networks")

    async def endpoints(self, network: str) -> list[dict[str, Any]]:
        """When those that were on their way out are out."""
        for host in self.hosts.values():
            await host.plugin.until_departed()
        return await self.get(f"/v1/networks/{network}/endpoints")

    async def leftovers(self) -> list[str]:
        networks = await self.networks()
        return [n["name"] for n in networks] + [h["cidr"] for h in await self.get("/v1/holds")]


@contextlib.asynccontextmanager
async def a_cluster(directory: Path, *names: str, removal: Removal = Removal.EVERYWHERE) -> AsyncIterator[Cluster]:
    """A controller with a store in memory, and hosts of these names whose Docker is served."""
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(running("memory://", cool_down_s=60.0))
        cluster = Cluster(api, directory)
        for name in names:
            folder = directory / name
            plugin = DockerSettings(DockerMode.AUTO, plugin=folder / "run" / "kvnet.sock", removal=removal)
            settings = Settings(api.url, name, Underlay(UNDERLAY), folder, docker=plugin, dns=DNS)
            state = StateDir.open(folder)
            stack.callback(state.close)
            controller = HttpController(api.url, time=Time())
            stack.push_async_callback(controller.close)
            line = Line(controller)
            store = await stack.enter_async_context(await open_store(api.url, sweeps=False))
            catalogue = NetworkCatalogue(store, time=Time())
            watching = asyncio.create_task(catalogue.run())
            stack.push_async_callback(_cancelled, watching)
            host = Host(name, settings, state, line, FakeWorkloads(name, cast(Controller, line)), catalogue)
            await host.start()
            stack.push_async_callback(host.stop)
            cluster.hosts[name] = host
        yield cluster


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)
