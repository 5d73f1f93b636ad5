"""Podman 5 with netavark 1.14, as Debian 13 has them: its networks are kvnet's, through the plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from kvnet.wire import Endpoint
from lab.lab import Lab
from tests.cni.calling import Programs
from tests.cni.podman import PODMAN5, Podman, PodmanFailed
from tests.lab.eye import everything
from tests.lab.worker.bench import until_answers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]
GREET = "exec nc -ll -p 8080 -e hostname"


@pytest.fixture(scope="module")
async def podmen(
    lab: Lab, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Podman]]:
    """One on each host; both have made the network `shop`."""
    made: dict[str, Podman] = {}
    async with AsyncExitStack() as stack:
        for name, host in lab.hosts.items():
            made[name] = await Podman.on(host.netns, tmp_path_factory.mktemp(name) / "p", programs, PODMAN5)
            stack.push_async_callback(made[name].close)
            await create(lab, made, name, "shop", "--subnet", "10.97.0.0/24")
        yield made


@pytest.fixture(autouse=True)
async def clean(lab: Lab, podmen: dict[str, Podman]) -> AsyncIterator[None]:
    yield
    for podman in podmen.values():
        await podman.remove_all()
    assert await endpoints(lab) == {}
    for host in lab.hosts.values():
        assert not [name for name in everything(host.netns).links if name.startswith("kve")]


async def create(lab: Lab, podmen: dict[str, Podman], host: str, name: str, *options: str) -> str:
    where = f"socket={lab.hosts[host].socket}"
    return await podmen[host].do("network", "create", "--driver", "kvnet", "-o", where, *options, name)


async def endpoints(lab: Lab) -> dict[str, Endpoint]:
    return {endpoint["name"]: endpoint async for endpoint in lab.client.endpoints()}


async def test_a_network_made_on_two_hosts_is_one_and_containers_find_each_other(
    lab: Lab, podmen: dict[str, Podman]
) -> None:
    await podmen["h1"].run("web", "--network", "shop:alias=store,ip=10.97.0.55", "-p", "8860:8080")
    await podmen["h2"].run("client", "--network", "shop")

    web = (await endpoints(lab))["web"]
    assert (web["address"], web["labels"]) == ("10.97.0.55", {"podman.container": web["labels"]["podman.container"]})
    shown = (await podmen["h1"].inspect("web"))["NetworkSettings"]["Networks"]["shop"]
    assert (shown["IPAddress"], shown["MacAddress"], shown["Gateway"]) == ("10.97.0.55", web["mac"], "10.97.0.1")
    for name in ("web", "store", "web.shop"):
        assert await podmen["h2"].do("exec", "client", "wget", "-qO-", f"http://{name}:8080")


async def test_published_ports_are_kvnets_own(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("web", "--network", "shop", "-p", "8860:8080", command=GREET)
    await until_answers(lab, "outside", str(lab.hosts["h1"].port.underlay4), 8860)


async def test_a_running_container_is_connected_and_disconnected(lab: Lab, podmen: dict[str, Podman]) -> None:
    podman = podmen["h1"]
    await create(lab, podmen, "h1", "more", "--ipv6", "-o", "driver=bridge")
    await podman.run("web", "--network", "shop")
    await podman.do("network", "connect", "more", "web")
    assert "inet6 fd" in await podman.do("exec", "web", "ip", "addr", "show", "eth1")
    await podman.do("network", "disconnect", "more", "web")
    assert "eth1" not in await podman.do("exec", "web", "ip", "link")
    await podman.do("network", "rm", "more")
    assert (await lab.client.get_network("more"))["endpoints"] == 0
    await lab.client.delete_network("more")


async def test_a_container_that_starts_again_has_one_endpoint(lab: Lab, podmen: dict[str, Podman]) -> None:
    await podmen["h1"].run("web", "--network", "shop")
    await podmen["h1"].do("restart", "--time", "0", "web")
    assert list(await endpoints(lab)) == ["web"]


async def test_what_cannot_be_is_told_by_podman(lab: Lab, podmen: dict[str, Podman]) -> None:
    with pytest.raises(PodmanFailed, match="did you mean 'mtu'"):
        await create(lab, podmen, "h1", "bad", "-o", "mtuu=1400")
    with pytest.raises(PodmanFailed, match="pods"):
        await create(lab, podmen, "h1", "bad", "--subnet", "10.90.0.0/25")
    await podmen["h1"].run("web", "--network", "shop:ip=10.97.0.55")
    with pytest.raises(PodmanFailed, match="in use by endpoint web"):
        await podmen["h2"].run("late", "--network", "shop:ip=10.97.0.55")
