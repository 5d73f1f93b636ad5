"""Published ports through real workers: reached from everywhere, refused where a program listens, gone with the end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from kvnet.errors import PortTaken
from lab import namespaces
from lab.lab import Lab, until
from tests.lab.worker.bench import attached, until_answers, until_silent, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
WEB = {"port": 8080, "host_port": 8880}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """`web` on h1 publishes port 8880; the world is outside."""
    async with workers(tmp_path, outside=True) as made:
        await made.client.create_network({"name": "front", "driver": "overlay"})
        ports = [WEB, {"port": 8081, "host_port": 8881, "protocol": "udp"}]
        await attached(made, "front", {"web": "h1"}, ports=ports)
        yield made


@contextmanager
def listening(lab: Lab, host: str, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    with namespaces.open_socket(lab.hosts[host].netns, socket.AF_INET, kind, 0) as server:
        server.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        yield


async def test_a_published_port_is_reached_from_everywhere(lab: Lab) -> None:
    await lab.client.create_network({"name": "other", "driver": "bridge"})
    await attached(lab, "front", {"near": "h1", "far": "h2"})
    await attached(lab, "other", {"stranger": "h1"})
    h1 = lab.hosts["h1"].port
    for where in ("outside", "h2", "h1", "near", "far", "stranger", "web"):
        await until_answers(lab, where, str(h1.underlay4), 8880)
    for where in ("outside", "h2", "h1", "stranger"):
        await until_answers(lab, where, str(h1.underlay6), 8880)
    await until_answers(lab, "h1", "127.0.0.1", 8880)
    seen = await lab.call("outside", str(h1.underlay4), 8881, protocol="udp")
    assert seen.split()[0] == str(lab.around["outside"].address), "the workload sees who calls"
    assert not await lab.answers("h2", "127.0.0.1", 8880)
    await lab.detach("front", "web")
    await until_silent(lab, "outside", str(h1.underlay4), 8880)


async def test_a_port_that_a_program_on_the_host_has_is_refused_and_named(lab: Lab) -> None:
    await lab.add_workload("late", "h1")
    with listening(lab, "h1", 9090), pytest.raises(PortTaken) as refusal:
        await lab.attach("front", "late", ports=[{"port": 80, "host_port": 9090}])
    assert f"pid {os.getpid()}" in str(refusal.value)
    assert [e["name"] async for e in lab.client.endpoints(host="h1")] == ["web"]
    await lab.attach("front", "late", ports=[{"port": 80, "host_port": 9090}])


async def test_a_udp_port_that_a_program_has_is_another_one_than_the_tcp_port(lab: Lab) -> None:
    await lab.add_workload("late", "h1")
    with listening(lab, "h1", 9090, socket.SOCK_DGRAM):
        await lab.attach("front", "late", ports=[{"port": 80, "host_port": 9090}])
        await lab.detach("front", "late")
        with pytest.raises(PortTaken):
            await lab.attach("front", "late", ports=[{"port": 80, "host_port": 9090, "protocol": "udp"}])


async def test_a_port_that_another_workload_has_names_it(lab: Lab) -> None:
    await lab.add_workload("late", "h1")
    with pytest.raises(PortTaken, match="web"):
        await lab.attach("front", "late", ports=[WEB])


async def test_a_free_port_is_chosen_where_none_is_given(lab: Lab) -> None:
    await lab.add_workload("late", "h1", serve=True)
    answer = await lab.attach("front", "late", ports=[{"port": 8080}])
    (port,) = answer["endpoint"]["ports"]
    assert port["host_port"] >= 49152
    await until_answers(lab, "outside", str(lab.hosts["h1"].port.underlay4), port["host_port"])


async def test_a_running_workloads_ports_come_and_go_with_a_patch(lab: Lab) -> None:
    web, host = lab.workloads["web"].endpoints["front"]["id"], str(lab.hosts["h1"].port.underlay4)
    await until_answers(lab, "outside", host, 8880)

    more = [WEB, {"port": 8080, "host_port": 8890}]
    await lab.client.update_endpoint("front", web, {"ports": more})
    await until_answers(lab, "outside", host, 8890)
    await until_answers(lab, "outside", host, 8880)

    await lab.client.update_endpoint("front", web, {"ports": [{"port": 8080, "host_port": 8891}]})
    for gone in (8880, 8890):
        await until_silent(lab, "outside", host, gone)
    await until_answers(lab, "outside", host, 8891)

    await lab.add_workload("late", "h2", serve=True)
    await lab.attach("front", "late", ports=[WEB])
    await lab.client.update_endpoint("front", web, {"ports": [], "name": "www", "gateway_priority": 9})
    await until_silent(lab, "outside", host, 8891)
    assert await lab.answers("late", str(lab.workloads["web"].endpoints["front"]["address"]))
    await lab.client.update_endpoint("front", web, {"ports": [WEB]})
    await until_answers(lab, "outside", host, 8880)
    await lab.detach("front", "web")
    await until_silent(lab, "outside", host, 8880)
    assert (await lab.client.check())["ok"]


@pytest.mark.parametrize("version", [4, 6])
async def test_a_udp_client_that_kept_sending_reaches_who_publishes_the_port_next(lab: Lab, version: int) -> None:
    h1 = lab.hosts["h1"].port
    host = str(h1.underlay4 if version == 4 else h1.underlay6)
    web = lab.workloads["web"].endpoints["front"]["id"]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with namespaces.open_socket(lab.netns_of("outside"), family, socket.SOCK_DGRAM, 0) as client:
        client.setblocking(False)
        client.connect((host, 8899))

        async def hears() -> bool:
            return await answered(client)

        for _ in range(3):
            assert not await hears(), "nobody publishes it"
        await lab.client.update_endpoint(
            "front", web, {"ports": [WEB, {"port": 8081, "host_port": 8899, "protocol": "udp"}]}
        )
        await until(hears, "the same socket is answered", seconds=3)


async def answered(client: socket.socket) -> bool:
    """Whether one more datagram of this socket's gets an answer soon."""
    try:
        client.send(b"?")
        async with asyncio.timeout(0.1):
            return bool(await asyncio.get_running_loop().sock_recv(client, 100))
    except (OSError, TimeoutError):
        return False


async def test_a_port_works_when_attach_returns_also_on_an_address_that_was_just_given_back(lab: Lab) -> None:
    await lab.add_workload("again", "h1", serve=True)
    host = str(lab.hosts["h1"].port.underlay4)
    network = (await lab.client.get_network("front"))["subnets"][0]["cidr"]
    address = str(ip_network(network)[77])
    ports = [{"port": 8080, "host_port": 8900}]
    await lab.attach("front", "again", address=address, ports=ports)
    await until_answers(lab, "outside", host, 8900)  # its program is up now
    for _ in range(10):
        await lab.detach("front", "again")
        made = await lab.attach("front", "again", address=address, reuse=True, ports=ports)
        assert made["endpoint"]["address"] == address
        assert await lab.answers("outside", host, 8900), "at the first call"
