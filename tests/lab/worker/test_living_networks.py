"""What a change of a living network does on the hosts, and that the workloads that run do not notice."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from kvnet.wire import NetworkPatchBody
from lab import namespaces
from lab.lab import Lab, until
from tests.lab.worker.bench import QUICK_S, attached, until_answers, until_silent, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

PACE_S = 0.01
SIOCGIFMTU = 0x8921


@asynccontextmanager
async def unnoticed(lab: Lab, where: str, address: str) -> AsyncIterator[None]:
    """Every echo request of `where` is answered as long as the context lasts, through the interface that it had."""
    before = interfaces(lab, where)
    ended = asyncio.Event()
    lost: list[str] = []

    async def pinging() -> int:
        sent = 0
        while not ended.is_set():
            answer = await lab.ping(where, address)
            sent += 1
            lost.extend([] if answer.ok else [answer.reason])
            with suppress(TimeoutError):  # a reply may be there at once: without a pause nobody else would have a turn
                await asyncio.wait_for(ended.wait(), PACE_S)
        return sent

    async with asyncio.TaskGroup() as group:
        pings = group.create_task(pinging())
        try:
            yield
        finally:
            ended.set()
    assert pings.result() > 0
    assert lost == []
    assert interfaces(lab, where) == before


def interfaces(lab: Lab, workload: str) -> list[tuple[int, str]]:
    return namespaces.call(lab.netns_of(workload), socket.if_nameindex)


def mtu_of(lab: Lab, workload: str, interface: str = "eth0") -> int:
    def read() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            asked = struct.pack("16si12x", interface.encode(), 0)
            return int(struct.unpack("16si12x", fcntl.ioctl(any_socket, SIOCGIFMTU, asked))[1])

    return namespaces.call(lab.netns_of(workload), read)


async def patched(lab: Lab, network: str, patch: NetworkPatchBody) -> None:
    made = await lab.client.update_network(network, patch)
    await lab.until_applied(made["id"], made["version"])


async def until_nothing_to_change(lab: Lab) -> None:
    async def is_done() -> bool:
        return all([(await host.local.plan())["operations"] == [] for host in lab.hosts.values()])

    await until(is_done, "no worker would change anything", seconds=QUICK_S)


@pytest.mark.parametrize("driver", ["overlay", "bridge", "routed"])
async def test_a_subnet_grows_under_running_workloads(tmp_path: Path, driver: str) -> None:
    other = "h1" if driver == "bridge" else "h2"
    async with workers(tmp_path) as lab:
        subnets = [{"cidr": "10.60.0.0/25"}, {"cidr": "fd60::/64"}]
        await lab.client.create_network({"name": "n", "driver": driver, "subnets": subnets})  # type: ignore[typeddict-item]
        await attached(lab, "n", {"c1": "h1", "c2": other})
        await until_answers(lab, "c1", lab.address_of("c2", "n"))

        async with unnoticed(lab, "c1", lab.address_of("c2", "n")):
            grown = [{"cidr": "10.60.0.0/23"}, {"cidr": "fd60::/64"}]
            await patched(lab, "n", {"subnets": grown})  # type: ignore[typeddict-item]
            await attached(lab, "n", {"c3": other}, address="10.60.1.77")
            await until_answers(lab, "c1", "10.60.1.77")
        assert lab.address_of("c3", "n") == "10.60.1.77"
        await until_answers(lab, "c3", lab.address_of("c1", "n"))
        await until_answers(lab, "c3", lab.address_of("c1", "n", 6)) if driver != "routed" else None
        await until_nothing_to_change(lab)


async def test_one_more_subnet_is_reached_from_the_others(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "n", "subnets": [{"cidr": "10.61.0.0/24"}]})
        await attached(lab, "n", {"c1": "h1", "c2": "h2"})
        await until_answers(lab, "c1", lab.address_of("c2", "n"))

        async with unnoticed(lab, "c1", lab.address_of("c2", "n")):
            both = [{"cidr": "10.61.0.0/24"}, {"cidr": "10.62.0.0/24"}]
            await patched(lab, "n", {"subnets": both})  # type: ignore[typeddict-item]
            await attached(lab, "n", {"c3": "h2"}, address="10.62.0.9")
            await until_answers(lab, "c1", "10.62.0.9")
            await until_answers(lab, "c3", lab.address_of("c1", "n"))
        await lab.detach("n", "c3")
        await patched(lab, "n", {"subnets": both[:1]})  # type: ignore[typeddict-item]
        await until_nothing_to_change(lab)


async def test_the_mtu_follows_in_workloads_that_run_and_back(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "n"})
        await attached(lab, "n", {"c1": "h1", "c2": "h2"})
        derived = mtu_of(lab, "c1")

        async with unnoticed(lab, "c1", lab.address_of("c2", "n")):
            for asked, wanted in ((1300, 1300), (None, derived)):
                await patched(lab, "n", {"mtu": asked})
                assert (mtu_of(lab, "c1"), mtu_of(lab, "c2")) == (wanted, wanted)
        await until_nothing_to_change(lab)


async def test_icc_is_switched_off_and_on_again(tmp_path: Path) -> None:
    async with workers(tmp_path, outside=True) as lab:
        await lab.client.create_network({"name": "n"})
        await attached(lab, "n", {"c1": "h1", "c2": "h2", "c3": "h1"})
        others = [lab.address_of(name, "n", family) for name in ("c2", "c3") for family in (4, 6)]
        for address in others:
            await until_answers(lab, "c1", address)

        async with unnoticed(lab, "c1", str(lab.around["outside"].address)):
            await patched(lab, "n", {"icc": False})
            for address in others:
                await until_silent(lab, "c1", address)
            await patched(lab, "n", {"icc": True})
            for address in others:
                await until_answers(lab, "c1", address)
        await until_nothing_to_change(lab)


async def test_masquerading_is_switched_off_and_on_again(tmp_path: Path) -> None:
    """The world has no way back to addresses of kvnet's: what is answered was masqueraded."""
    async with workers(tmp_path, outside=True) as lab:
        await lab.client.create_network({"name": "n"})
        await attached(lab, "n", {"c1": "h1"})
        world = str(lab.around["outside"].address)
        await until_answers(lab, "c1", world)
        await patched(lab, "n", {"masquerade": False})
        await until_silent(lab, "c1", world)
        await patched(lab, "n", {"masquerade": True})
        await until_answers(lab, "c1", world)


async def test_later_attachments_have_the_prefix_and_the_binding_of_now(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "n"})
        await attached(lab, "n", {"c1": "h1"})
        await patched(lab, "n", {"interface_prefix": "web", "host_binding": "127.0.0.1"})
        await attached(lab, "n", {"c2": "h1"}, ports=[{"port": 8080, "host_port": 9090}])

        assert [name for _, name in interfaces(lab, "c1")] == ["lo", "eth0"]
        assert [name for _, name in interfaces(lab, "c2")] == ["lo", "web0"]
        await until_answers(lab, "h1", "127.0.0.1", 9090)
        assert not await lab.answers("h2", str(lab.hosts["h1"].port.underlay), 9090)
