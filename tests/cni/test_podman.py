"""A real container runtime: Debian's podman with a list of ours, its containers on two hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from kvnet.wire import Endpoint
from lab.lab import Lab, until
from tests.cni.calling import Programs
from tests.cni.podman import Podman, PodmanFailed
from tests.lab.eye import everything
from tests.lab.worker.bench import until_answers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]
GREET = "exec nc -ll -p 8080 -e hostname"
CAPABILITIES = {"portMappings": True, "aliases": True, "mac": True, "ips": True}


@pytest.fixture(scope="module")
async def podmen(
    lab: Lab, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Podman]]:
    """One on each host, with the networks `pods` and `others`."""
    await lab.client.create_network({"name": "others", "driver": "overlay", "subnets": [{"cidr": "10.92.0.0/24"}]})
    made: dict[str, Podman] = {}
    async with AsyncExitStack() as stack:
        for name, host in lab.hosts.items():
            made[name] = await Podman.on(host.netns, tmp_path_factory.mktemp(name) / "p", programs)
            stack.push_async_callback(made[name].close)
            ours = {"type": "kvnet-cni", "socket": str(host.socket), "capabilities": CAPABILITIES}
            for network in ("pods", "others"):
                made[name].list_network(network, ours)
        yield made


@pytest.fixture(autouse=True)
async def clean(lab: Lab, podmen: dict[str, Podman]) -> AsyncIterator[None]:
    yield
    for podman in podmen.values():
        await podman.remove_all()
    assert await endpoints(lab) == {}
    for host in lab.hosts.values():
        assert not [name for name in everything(host.netns).links if name.startswith("kve")]


async def endpoints(lab: Lab) -> dict[str, Endpoint]:
    return {endpoint["name"]: endpoint async for endpoint in lab.client.endpoints()}


async def test_containers_of_two_hosts_reach_each_other(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("web", "--network", "pods")
    await podmen["h2"].run("client", "--network", "pods")

    web = (await endpoints(lab))["web"]
    shown = (await podmen["h1"].inspect("web"))["NetworkSettings"]["Networks"]["pods"]
    assert (shown["IPAddress"], shown["GlobalIPv6Address"]) == (web["address"], web["address6"])
    assert (shown["MacAddress"], shown["Gateway"]) == (web["mac"], "10.90.0.1")
    for address in web["addresses"]:
        assert await podmen["h2"].do("exec", "client", "ping", "-c", "1", "-W", "5", address)
    assert await podmen["h2"].do("exec", "client", "wget", "-qO-", f"http://{web['address']}:8080")


async def test_published_ports_are_kvnets_own(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("web", "--network", "pods", "-p", "8890:8080", command=GREET)
    await until_answers(lab, "outside", str(lab.hosts["h1"].port.underlay4), 8890)
    assert [port["host_port"] for port in (await endpoints(lab))["web"]["ports"]] == [8890]
    with pytest.raises(PodmanFailed, match="web"):
        await podmen["h1"].run("late", "--network", "pods", "-p", "8890:8080")


async def test_addresses_and_aliases_arrive(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("db", "--network", "pods:alias=store,ip=10.90.0.99,mac=02:00:00:00:00:77")
    db = (await endpoints(lab))["db"]
    assert "store" in db["aliases"]
    assert (db["address"], db["mac"]) == ("10.90.0.99", "02:00:00:00:00:77")
    with pytest.raises(PodmanFailed, match="in use by endpoint db"):
        await podmen["h2"].run("late", "--network", "pods:ip=10.90.0.99")


async def test_a_running_container_is_connected_and_disconnected(lab: Lab, podmen: dict[str, Podman]) -> None:
    podman = podmen["h1"]
    await podman.run("web", "--network", "pods")
    await podman.do("network", "connect", "others", "web")
    assert "10.92.0." in await podman.do("exec", "web", "ip", "-4", "addr", "show", "eth1")
    await podman.do("network", "disconnect", "others", "web")
    assert "eth1" not in await podman.do("exec", "web", "ip", "link")


async def test_a_container_that_starts_again_has_one_endpoint(lab: Lab, podmen: dict[str, Podman]) -> None:
    podman = podmen["h1"]
    await podman.run("web", "--network", "pods")
    first = (await endpoints(lab))["web"]
    await podman.do("restart", "--time", "0", "web")
    again = await endpoints(lab)
    assert list(again) == ["web"]
    assert again["web"]["id"] == first["id"]
    assert again["web"]["address"] in await podman.do("exec", "web", "ip", "addr")


async def test_a_container_that_was_killed_leaves_nothing(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("web", "--rm", "--network", "pods")
    await podmen["h1"].do("kill", "web")

    async def is_gone() -> bool:
        return not await endpoints(lab)

    await until(is_gone, "its endpoint is gone", seconds=10.0)


async def test_12_containers_start_at_once_on_two_hosts(lab: Lab, podmen: dict[str, Podman]) -> None:
    starts = [podmen["h1" if n % 2 else "h2"].run(f"c{n}", "--network", "pods") for n in range(12)]
    await asyncio.gather(*starts)
    made = await endpoints(lab)
    assert len({endpoint["address"] for endpoint in made.values()}) == 12


async def test_a_container_that_is_removed_while_the_worker_is_away_is_released_when_it_is_back(
    lab: Lab, podmen: dict[str, Podman]
) -> None:
    await podmen["h2"].run("web", "--network", "pods")
    worker = lab.hosts["h2"].worker
    assert worker is not None
    await worker.kill()
    with suppress(PodmanFailed):
        await podmen["h2"].do("rm", "--force", "--time", "0", "web")
    await lab.start_worker("h2")
    await lab.until_ready("h2")

    async def is_gone() -> bool:
        return not await endpoints(lab)

    await until(is_gone, "its endpoint is gone", seconds=10.0)


async def test_without_a_worker_podman_says_so(lab: Lab, podmen: dict[str, Podman]) -> None:
    worker = lab.hosts["h2"].worker
    assert worker is not None
    await worker.stop()
    try:
        with pytest.raises(PodmanFailed, match="no worker answers"):
            await podmen["h2"].run("web", "--network", "pods")
    finally:
        await lab.start_worker("h2")
        await lab.until_ready("h2")


async def test_containers_find_each_other_by_name_on_all_hosts(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("web", "--network", "pods:alias=shop")
    await podmen["h2"].run("client", "--network", "pods")
    web = (await endpoints(lab))["web"]
    assert "nameserver 169.254.53.53" in await podmen["h2"].do("exec", "client", "cat", "/etc/resolv.conf")
    for name in ("web", "shop", "web.pods"):
        found = await podmen["h2"].do("exec", "client", "nslookup", "-type=a", name)
        assert str(web["address"]) in found
        assert await podmen["h2"].do("exec", "client", "wget", "-qO-", f"http://{name}:8080")
