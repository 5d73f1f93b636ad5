"""Scrapes of real processes: what a worker and a controller tell, and that it does not grow with what they carry."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvnet.http import HttpClient, Target
from lab import namespaces
from lab.lab import Lab, open_lab, until
from tests.lab.eye import look
from worker.kernel.messages import delete_link
from worker.kernel.netlink import Netlink

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
NETWORK = "my-net"
PORT = 7482
MANY = 2000
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name, "--metrics", f"127.0.0.1:{PORT}")
        for name in made.hosts:
            await made.until_ready(name)
        await made.client.create_network({"name": NETWORK, "driver": "overlay", "subnets": [{"cidr": "10.77.0.0/16"}]})
        await made.add_workload("c1", "h1")
        await made.attach(NETWORK, "c1")
        yield made


def parsed(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def of_worker(lab: Lab, host: str, path: str = "/metrics", method: str = "GET") -> str:
    """Over HTTP, from the host itself."""
    connection = namespaces.open_socket(lab.hosts[host].netns, socket.AF_INET, socket.SOCK_STREAM, 0)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", PORT))
    reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body.decode()


async def of_controller(lab: Lab) -> str:
    client = HttpClient((Target.parse(f"unix://{lab.directory}/c.sock"),), {})
    try:
        return (await client.request("GET", "/metrics", b"", 10.0)).body.decode()
    finally:
        await client.close()


async def test_a_worker_tells_what_it_did(lab: Lab) -> None:
    found = parsed(await of_worker(lab, "h1"))

    assert found["kvnet_worker_ready", ()] == 1
    assert found["kvnet_worker_mode", (("mode", "live"),)] == 1
    assert found["kvnet_worker_attach_duration_seconds_count", (("runtime", "netns"),)] == 1
    assert found["kvnet_worker_operations_total", (("operation", "create_link"), ("result", "done"))] >= 3
    assert found["kvnet_worker_passes_total", (("kind", "part"), ("outcome", "done"))] >= 1
    assert found["kvnet_worker_kernel_objects", (("kind", "links"),)] >= 3
    wanted = found["kvnet_worker_network_wanted_revision", (("network", NETWORK),)]
    assert found["kvnet_worker_network_applied_revision", (("network", NETWORK),)] == wanted > 0
    assert found["kvnet_store_request_duration_seconds_count", (("op", "commit"),)] >= 1
    assert found["process_resident_memory_bytes", ()] > 1e7
    assert parsed((await lab.hosts["h1"].local.request({"op": "metrics"}))["text"]).keys() >= found.keys()
    assert await of_worker(lab, "h1", "/livez") == await of_worker(lab, "h1", "/readyz") == "ok\n"


async def test_what_somebody_undid_is_counted(lab: Lab) -> None:
    network = await lab.client.get_network(NETWORK)
    netns = lab.hosts["h1"].netns
    index = dict(look(netns).links)[f"kvx{network['id']}"]

    def delete() -> None:
        rtnetlink = Netlink(small=True)
        assert rtnetlink.one(delete_link(index)) is None
        rtnetlink.close()

    namespaces.call(netns, delete)

    async def is_mended() -> bool:
        found = parsed(await of_worker(lab, "h1"))
        return found.get(("kvnet_worker_repairs_total", (("operation", "create_link"),)), 0) >= 1

    await until(is_mended, "the repair is counted", seconds=5.0)


async def test_a_port_that_is_taken_is_told_at_the_start_and_nothing_is_left(lab: Lab) -> None:
    worker = lab.hosts["h2"].worker
    assert worker is not None
    await worker.stop()
    taken = namespaces.open_socket(lab.hosts["h2"].netns, socket.AF_INET, socket.SOCK_STREAM, 0)
    taken.bind(("127.0.0.1", PORT + 1))
    taken.listen()
    worker = await lab.start_worker("h2", "--metrics", f"127.0.0.1:{PORT + 1}")
    async with asyncio.timeout(10):
        assert await worker.child.wait() == 4
    taken.close()

    assert f"Error: 127.0.0.1:{PORT + 1} is in use by another program" in worker.last_words()
    assert "Fix: choose another one with --metrics HOST:PORT" in worker.last_words()
    assert not lab.hosts["h2"].socket.exists()


async def test_scrapes_do_not_grow_with_endpoints(lab: Lab) -> None:
    """Neither by what is carried nor by who asked for it."""
    first = await _created(lab, 1, MANY + 1)
    assert first == MANY
    await until_applied(lab)
    await of_controller(lab)  # a scrape is a request too, and counted by the next one
    before = (await settled(lab, "h1"), parsed(await of_controller(lab)).keys())
    await _created(lab, MANY + 1, 2 * MANY + 1)
    await until_applied(lab)
    after = (await settled(lab, "h1"), parsed(await of_controller(lab)).keys())

    assert len(after[0] - before[0]) <= 4, after[0] - before[0]
    # Whatever else was asked meanwhile has routes of its own, which are as many as the API has.
    more = {name for name in after[1] - before[1] if not name[0].startswith("kvnet_http_")}
    assert len(more) <= 4, more
    text = await of_worker(lab, "h1") + await of_controller(lab)
    assert "10.77." not in text
    assert "many-7" not in text
    assert "asked-by" not in text
    assert len(after[0]) < 600
    assert len(after[1]) < 600


async def until_applied(lab: Lab) -> None:
    async def is_applied() -> bool:
        return (await lab.client.network_convergence(NETWORK))["converged"]

    await until(is_applied, "both hosts have applied it", seconds=30.0)


async def settled(lab: Lab, host: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return set(parsed(await of_worker(lab, host)))


async def _created(lab: Lab, first: int, end: int) -> int:
    client = HttpClient((Target.parse(f"unix://{lab.directory}/c.sock"),), {"content-type": "application/json"})
    try:
        done = 0
        for start in range(first, end, 500):
            items = [
                {"name": f"many-{i}", "host": "h1" if i % 2 else "h2"} for i in range(start, min(start + 500, end))
            ]
            headers = {"x-request-id": f"asked-by-{start}"}
            path = f"/v1/networks/{NETWORK}/endpoints"
            reply = await client.request("POST", path, json.dumps({"items": items}).encode(), 60.0, headers)
            assert reply.status < 300, reply.body[:500]
            done += len(items)
        return done
    finally:
        await client.close()
