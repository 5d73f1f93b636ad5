#!/usr/bin/env python
"""Walks through the product as a service of the test cluster: `docker compose run --rm smoke`.

It reaches controllers over HTTP, the hosts' workers over their sockets (volumes), and workloads through the ports that
kvnet publishes on the hosts. The hosts' first workloads (`w1`) are what it attaches. It takes back all that it makes,
and ends with 0 if everything was as it must be.
"""

import asyncio
import os
import secrets
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from kvnet.client import Client
from kvnet.errors import KvnetError, NetworkInUse
from kvnet.local import WorkerClient
from kvnet.tls import Trust
from kvnet.wire import Endpoint

SOCKETS = Path("/hosts")  # <host>/worker.sock
WORKLOAD = "/run/netns/w1"  # on every host
CONTROLLER = os.environ.get("KVNET_CONTROLLER", "http://controller:7480")
CONTROLLERS = tuple(CONTROLLER.replace("//controller:", f"//{name}:") for name in ("controller-1", "controller-2"))
GREETER_PORT = 8080
SOON_S = 15.0
PAUSE_S = 0.2
FETCH_TIMEOUT_S = 5.0


class Failed(Exception):
    """Something is not as it must be; says what."""


def say(what: str) -> None:
    print(f"smoke: {what}", flush=True)


def client_of(url: str) -> Client:
    """As an admin, where the cluster asks for one (docker-compose.secured.yml)."""
    token = os.environ.get("KVNET_TOKEN_FILE")
    trust = Trust(os.environ.get("KVNET_CA", ""))
    return Client(url, token=Path(token).read_text().strip() if token else "", trust=trust)


async def soon(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(SOON_S):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        raise Failed(f"not within {SOON_S:g} s: {what}") from None
    say(what)


def fetch(url: str) -> str:
    """What is said there; "" if nobody answers, or not well."""
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as reply:
            return str(reply.read(1000).decode().strip())
    except OSError:
        return ""


async def attach(network: str, hosts: list[str]) -> dict[str, Endpoint]:
    """The first workload of every host, with its web server on a port of the host's that is free."""
    made = {}
    for host in hosts:
        worker = WorkerClient(str(SOCKETS / host / "worker.sock"))
        answer = await worker.attach(network, WORKLOAD, f"smoke-{host}", ports=[{"port": GREETER_PORT}], wait_s=10)
        made[host] = answer["endpoint"]
        say(f"smoke-{host} is {made[host]['address']} and {made[host]['address6']}")
    return made


async def talk(endpoints: dict[str, Endpoint]) -> None:
    """Everybody asks everybody else, by name and by both addresses, and is asked through the host's port."""
    for host, endpoint in endpoints.items():
        port = endpoint["ports"][0]["host_port"]
        for other, target in endpoints.items():
            if other == host:
                continue
            for name in (target["name"], target["address"], target["address6"]):

                async def answers(url: str = f"http://{host}:{port}/ask/{name}", other: str = other) -> bool:
                    return await asyncio.to_thread(fetch, url) == f"hello from w1 on {other}"

                await soon(answers, f"{host}:{port} leads to {endpoint['name']}, which reaches {name} on {other}")


async def take_back(client: Client, network: str, hosts: list[str]) -> None:
    for host in hosts:
        await WorkerClient(str(SOCKETS / host / "worker.sock")).detach(network=network, netns=WORKLOAD)

    async def is_empty() -> bool:
        return not [endpoint async for endpoint in client.endpoints(network=network)]

    await soon(is_empty, "no endpoint is left")
    await client.delete_network(network)
    say("the network is deleted")


async def walk(client: Client) -> None:
    hosts = [host["name"] async for host in client.hosts() if (SOCKETS / host["name"]).is_dir()]
    if len(hosts) < 2:
        raise Failed(f"two hosts are needed, and there is {hosts}")
    name = f"smoke-{secrets.token_hex(3)}"
    network = await client.create_network({"name": name, "driver": "overlay", "labels": {"made-by": "smoke"}})
    say(f"network {name} has {', '.join(subnet['cidr'] for subnet in network['subnets'])}")
    try:
        endpoints = await attach(name, hosts)
        for url in CONTROLLERS:
            async with client_of(url) as other:
                told = {e["id"] async for e in other.endpoints(network=name)}
            if told != {endpoint["id"] for endpoint in endpoints.values()}:
                raise Failed(f"{url} tells of other endpoints: {told}")
        say("both controllers tell of them")
        await talk(endpoints)
        try:
            await client.delete_network(name)
            raise Failed("a network in use was deleted")
        except NetworkInUse as refusal:
            say(f"deleting it is refused: {refusal.detail}")
    finally:
        await take_back(client, name, hosts)
    report = await client.check()
    if not report["ok"]:
        raise Failed(f"kvnet check: {report['findings']}")
    say("kvnet check finds nothing")


async def main() -> None:
    started = time.monotonic()
    async with client_of(CONTROLLER) as client:
        await walk(client)
    say(f"all is well ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* (Failed, KvnetError, OSError) as failures:
        for failure in failures.exceptions:
            print(f"smoke: FAILED: {failure}", file=sys.stderr)
        sys.exit(1)
