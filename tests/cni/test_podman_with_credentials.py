"""Podman, by CNI and by netavark, on hosts that joined over TLS and have a token of their own and no store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kvnet.wire import Endpoint
from lab.lab import Lab, until
from tests.cni.calling import Programs
from tests.cni.podman import PODMAN4, PODMAN5, Podman, PodmanFailed, Release
from tests.lab.eye import everything
from tests.lab.security.joined import Joined, joined, refusals

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]
CAPABILITIES = {"portMappings": True, "aliases": True, "mac": True, "ips": True}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Joined]:
    """The network `pods` is an admin's; h1 may make networks, h2 may not."""
    async with joined(tmp_path, grants={"h1": ["docker"]}) as made:
        await made.lab.client.create_network(
            {"name": "pods", "driver": "overlay", "subnets": [{"cidr": "10.90.0.0/24"}]}
        )
        yield made


async def podmen(
    stack: AsyncExitStack, lab: Lab, folders: pytest.TempPathFactory, programs: Programs, release: Release
) -> list[Podman]:
    made = list[Podman]()
    for name, host in lab.hosts.items():
        made.append(await Podman.on(host.netns, folders.mktemp(name) / "p", programs, release))
        stack.push_async_callback(made[-1].close)
    return made


def list_network(podmen: Sequence[Podman], lab: Lab, name: str, **more: object) -> None:
    """On each host, as an operator writes it for CNI."""
    for podman, host in zip(podmen, lab.hosts.values(), strict=True):
        podman.list_network(
            name, {"type": "kvnet-cni", "socket": str(host.socket), "capabilities": CAPABILITIES, **more}
        )


async def endpoints(lab: Lab) -> dict[str, Endpoint]:
    return {endpoint["name"]: endpoint async for endpoint in lab.client.endpoints()}


async def test_containers_by_cni_reach_each_other_and_go_without_a_trace(
    site: Joined, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = site.lab
    async with AsyncExitStack() as stack:
        one, two = await podmen(stack, lab, tmp_path_factory, programs, PODMAN4)
        list_network((one, two), lab, "pods")
        await one.run("web", "--network", "pods:alias=shop", "-p", "8890:8080")
        await two.run("client", "--network", "pods")

        web = (await endpoints(lab))["web"]
        assert (web["host"], [port["host_port"] for port in web["ports"]]) == ("h1", [8890])
        for name in ("web", "shop", str(web["address"])):
            assert await two.do("exec", "client", "wget", "-qO-", f"http://{name}:8080")
        changes = (await lab.client.journal(network="pods"))["items"]
        assert {one["actor"] for one in changes if one["kind"] == "endpoint.created"} == {"host:h1", "host:h2"}

        await one.remove_all()
        await two.remove_all()
        await until_bare(lab)
    assert refusals(lab) == []


async def test_a_host_whose_token_was_removed_starts_no_container_and_what_runs_goes_on(
    site: Joined, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = site.lab
    async with AsyncExitStack() as stack:
        one, two = await podmen(stack, lab, tmp_path_factory, programs, PODMAN4)
        list_network((one, two), lab, "pods")
        list_network((one, two), lab, "fresh", create={"driver": "overlay"})
        await one.run("web", "--network", "pods")
        await two.run("client", "--network", "pods")
        with pytest.raises(PodmanFailed, match="kvnet host join-token HOST --docker"):
            await two.run("early", "--network", "fresh")
        (token,) = [one["id"] for one in await lab.client.tokens() if one["host"] == "h2" and one["role"] == "host"]
        await lab.client.delete_token(token)

        with pytest.raises(PodmanFailed, match="credential"):
            await two.run("late", "--network", "pods")
        assert await two.do("exec", "client", "wget", "-qO-", "http://web:8080")
        assert set(await endpoints(lab)) == {"web", "client"}


async def test_by_netavark_a_host_with_the_grant_makes_networks_and_another_one_is_told_how_to_get_it(
    site: Joined, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = site.lab
    async with AsyncExitStack() as stack:
        one, two = await podmen(stack, lab, tmp_path_factory, programs, PODMAN5)
        options = {name: ("-o", f"socket={host.socket}") for name, host in lab.hosts.items()}
        create = ("network", "create", "--driver", "kvnet")
        await one.do(*create, *options["h1"], "--subnet", "10.97.0.0/24", "shop")
        await one.do(*create, *options["h1"], "pods")
        for network in ("shop", "mine"):
            with pytest.raises(PodmanFailed, match="kvnet host join-token HOST --docker"):
                await two.do(*create, *options["h2"], network)
        assert {network["name"] async for network in lab.client.networks()} == {"pods", "shop"}

        site.grants["h2"] = ["docker"]
        done = await site.join("h2", "--replace")
        assert done.returncode == 0, done.stderr
        worker = lab.hosts["h2"].worker
        assert worker is not None
        await worker.stop()
        await site.start("h2")
        await two.do(*create, *options["h2"], "shop")
        await one.run("web", "--network", "shop:alias=store", "-p", "8891:8080")
        await two.run("client", "--network", "shop")
        for name in ("web", "store"):
            assert await two.do("exec", "client", "wget", "-qO-", f"http://{name}:8080")

        await one.remove_all()
        await two.remove_all()
        await until_bare(lab)


async def until_bare(lab: Lab) -> None:
    async def is_bare() -> bool:
        links = [name for host in lab.hosts.values() for name in everything(host.netns).links]
        return await endpoints(lab) == {} and not [name for name in links if name.startswith("kve")]

    await until(is_bare, "nothing is left", seconds=10.0)
