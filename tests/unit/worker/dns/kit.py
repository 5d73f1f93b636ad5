"""A small cluster's knowledge without a store, a resolver of the host's that answers what it is told, and questions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from kvnet.model import Block, Driver, Endpoint, Host, Network, Subnet
from worker.attachments import Phase, Record
from worker.dns.askers import Listing
from worker.dns.server import Sockets, open_sockets
from worker.dns.service import NameService
from worker.log import Log
from worker.ports import Time

HERE, THERE = "h1", "h2"
LOOPBACK = IPv4Address("127.0.0.1")
SECONDS = 5.0
LENGTH = struct.Struct("!H")


@dataclass
class Cluster:
    """The `Knowledge` port, and what is attached on the host `HERE`. Workloads are told by name."""

    listed: dict[str, Listing] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    is_complete: bool = True
    own: Host | None = field(default_factory=lambda: Host(HERE, ip_address("192.0.2.1"), 1500))
    versions: dict[str, int] = field(default_factory=dict)

    def networks(self) -> Iterable[str]:
        return self.listed.keys()

    def listing(self, network_id: str) -> Listing | None:
        return self.listed.get(network_id)

    def version(self, endpoint: Endpoint) -> int:
        return self.versions.get(endpoint.id, 0)

    def add_network(self, name: str, *cidrs: str, blocks: tuple[Block, ...] = (), **options: Any) -> Network:
        number = len(self.listed) + 1
        nets = [ip_network(cidr) for cidr in cidrs or (f"10.{number}.0.0/24", f"fd00:{number}::/64")]
        subnets = tuple(Subnet(net, net.network_address + 1) for net in nets)
        driver = options.pop("driver", Driver.OVERLAY)
        made = Network(f"{number:012x}", name, driver, subnets, 0.0, vni=number, **options)
        self.listed[made.id] = Listing(made, {}, blocks, True, 0)
        return made

    def add(self, network: Network, name: str, number: int, host: str = HERE, **more: Any) -> Endpoint:
        """With the addresses of that number, or `at`; what is on this host is attached as the workload of its name."""
        workload = more.pop("workload", name)
        own = tuple(subnet.cidr.network_address + number for subnet in network.subnets)
        addresses = tuple(map(ip_address, more.pop("at", ()))) or own
        mac = f"02:00:00:00:{int(network.id, 16):02x}:{number:02x}"
        id_ = f"{network.name}-{name}-{number}".lower()
        made = Endpoint(id_, network.id, host, name, addresses, mac, 0.0, **more)
        self._change(network.id, {**self.listed[network.id].endpoints, made.id: made})
        if host == HERE:
            self.records[made.id] = record(made, workload)
        return made

    def remove(self, endpoint: Endpoint) -> None:
        left = {id_: e for id_, e in self.listed[endpoint.network].endpoints.items() if id_ != endpoint.id}
        self._change(endpoint.network, left)
        self.records.pop(endpoint.id, None)

    def _change(self, network_id: str, endpoints: Mapping[str, Endpoint]) -> None:
        before = self.listed[network_id]
        self.listed[network_id] = replace(before, endpoints=endpoints, mark=int(str(before.mark)) + 1)


def record(endpoint: Endpoint, workload: str, **more: Any) -> Record:
    there = {"runtime": "netns", **more}
    return Record(
        endpoint.id,
        endpoint.network,
        endpoint.name,
        f"/run/netns/{workload}",
        "eth0",
        Phase.ATTACHED,
        0.0,
        network_id=endpoint.network,
        identity=f"boot:4:{workload}",
        **there,
    )


@dataclass
class Upstream:
    """A resolver of the host's, on 127.0.0.1. `known`: what it answers; any other name is NXDOMAIN.

    `silent`: it hears and says nothing. `cut`: over UDP it only says that the answer is too long for that.
    """

    known: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    port: int = 0
    silent: bool = False
    cut: bool = False
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    heard: list[tuple[str, str]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    def answer(self, data: bytes, *, over_tcp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        asked = query.question[0]
        name, kind = asked.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(asked.rdtype)
        self.heard.append((name, kind))
        self.ids.append(query.id)
        if self.silent:
            return None
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(self.rcode)
        if self.cut and not over_tcp:
            response.flags |= dns.flags.TC
        elif (name, kind) in self.known:
            response.answer.append(dns.rrset.from_text_list(asked.name, 60, "IN", kind, self.known[name, kind]))
        elif self.rcode == dns.rcode.NOERROR and not any(known == name for known, _ in self.known):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self.upstream.answer(data, over_tcp=False)
        if answer is not None:
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def upstream(**options: Any) -> AsyncIterator[Upstream]:
    made = Upstream(**options)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
        answer = made.answer(await reader.readexactly(size), over_tcp=True)
        if answer is not None:
            writer.write(LENGTH.pack(len(answer)) + answer)
            await writer.drain()
        writer.close()

    ours = _sockets()
    made.port = ours.udp.getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(made), sock=ours.udp)
    server = await asyncio.start_server(converse, sock=ours.tcp)
    try:
        yield made
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


def _sockets() -> Sockets:
    """On a port that is free for both."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            return open_sockets("127.0.0.1", 0)
    raise AssertionError("no port is free")


@dataclass
class Running:
    """A name service on 127.0.0.1; whoever asks says where from, as the source address would."""

    service: NameService

    @property
    def port(self) -> int:
        return self.service.port

    async def ask(
        self, name: str, kind: str = "A", *, source: str, tcp: bool = False, **edns: Any
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **edns)
        answer = self.service.asked(query.to_wire(), source, tcp)
        wire = answer if isinstance(answer, bytes) or answer is None else await answer
        assert wire is not None
        response = dns.message.from_wire(wire)
        assert query.is_response(response)
        return response


def texts(response: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in response.answer for item in rrset]


@asynccontextmanager
async def running(
    directory: Path,
    cluster: Cluster,
    *,
    resolvers: Iterable[str] = (),
    address: IPv4Address = LOOPBACK,
    port: int = 0,
    resolver_port: int = 53,
    time: Time | None = None,
) -> AsyncIterator[Running]:
    """`resolvers`: the host's, for what is not ours."""
    resolv_conf = directory / "resolv.conf"
    if not resolv_conf.exists():
        resolv_conf.write_text("".join(f"nameserver {place}\n" for place in resolvers))
    service = NameService(
        address,
        HERE,
        cluster,
        lambda: cluster.records.values(),
        time=time or Time(),
        log=Log(),
        resolv_conf=resolv_conf,
        namespace_files=directory / "netns",
        port=port,
        resolver_port=resolver_port,
    )
    task = asyncio.create_task(service.run())
    await until(lambda: service.is_answering or bool(port and service.conditions))
    try:
        yield Running(service)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - of somebody who tells nobody
            await asyncio.sleep(0.005)


async def over_udp(port: int, data: bytes, *, source: str = "127.0.0.1") -> bytes:
    """One exchange through real sockets. Raises: TimeoutError: no answer."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours:
        ours.bind((source, 0))
        ours.connect(("127.0.0.1", port))
        async with asyncio.timeout(SECONDS):
            await loop.sock_sendall(ours, data)
            return await loop.sock_recv(ours, 65_535)
