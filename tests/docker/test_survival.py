"""Workers, daemons and whole hosts die and come back: nothing leaks, and who runs does not lose a packet by it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lab.docker_hosts import DockerFailed
from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 2}
FORGOTTEN_S = 45.0  # what Docker has never told the worker about is given up half a minute after its birth
COUNTED = re.compile(r"(\d+) packets transmitted, (\d+) packets received")


@asynccontextmanager
async def no_packet_lost(site: Site, host: str, container: str, target: str) -> AsyncIterator[None]:
    """Between its beginning and its end, and a moment longer."""
    await site.until_reaches(host, container, target)
    await site.inside(host, container, f"ping -q -i 0.05 {target} >/tmp/pings 2>&1 & echo $! >/tmp/pid")
    yield
    await site.until_reaches(host, container, target)
    await site.inside(
        host, container, "kill -INT $(cat /tmp/pid); while kill -0 $(cat /tmp/pid); do :; done 2>/dev/null"
    )
    told = COUNTED.search(await site.inside(host, container, "cat /tmp/pings"))
    assert told is not None
    sent, answered = int(told[1]), int(told[2])
    assert sent > 10
    assert answered >= sent - 1, f"of {sent} only {answered}"  # the last one may be on its way


async def pair(site: Site, options: str = "", network_options: str = "") -> tuple[str, str]:
    """`ann` on h1 and `bob` on h2; their addresses."""
    await site.create("h1", "net", network_options)
    await site.until_listed("net")
    await site.run("h1", "ann", "net", options)
    await site.run("h2", "bob", "net", options)
    return await site.address("h1", "ann", "net"), await site.address("h2", "bob", "net")


async def test_the_worker_dies_and_comes_back_under_running_containers(site: Site) -> None:
    _, b = await pair(site)
    async with no_packet_lost(site, "h1", "ann", b):
        for host in ("h1", "h2"):
            await site.kill_worker(host)
            await site.start_worker(host)
    await site.until_named("h1", "ann", "bob", [b])


async def test_the_worker_dies_while_containers_start(site: Site) -> None:
    await site.create("h1", "net")
    await site.until_listed("net")

    async def run(number: int) -> bool:
        try:
            await site.run("h1", f"c{number}", "net")
        except DockerFailed:
            return False
        return True

    starting = [asyncio.ensure_future(run(number)) for number in range(8)]
    for _ in range(2):
        await asyncio.sleep(0.3)  # in the middle of them
        await site.kill_worker("h1")
        await site.start_worker("h1")
    started = await asyncio.gather(*starting)

    await site.run("h1", "c99", "net")  # and now all is well
    running = [f"c{number}" for number, is_up in enumerate(started) if is_up]
    for name in running:
        await site.until_reaches("h1", "c99", name)
    await site.until(lambda: _has(site, "net", len(running) + 1), f"{len(running) + 1} endpoints", seconds=FORGOTTEN_S)


async def _has(site: Site, network: str, count: int) -> bool:
    return len(await site.endpoints(network)) == count


async def test_the_worker_dies_while_containers_stop(site: Site) -> None:
    await site.create("h1", "net")
    for number in range(6):
        await site.run("h1", f"c{number}", "net")

    removing = [asyncio.ensure_future(site.docker("h1", f"rm -f c{number}")) for number in range(6)]
    await asyncio.sleep(0.1)  # in the middle of them
    await site.kill_worker("h1")
    await site.start_worker("h1")
    await asyncio.gather(*removing)

    await site.until(lambda: _has(site, "net", 0), "no endpoint is left", seconds=FORGOTTEN_S)
    await site.until_kernel_empty("h1")


async def test_containers_that_went_while_nobody_listened(site: Site) -> None:
    """Without a socket unit Docker forgets an endpoint whose driver is away, and never tells."""
    await site.kill_worker("h1")
    await site.lab.start_worker("h1", activated=False)
    await site.lab.lab.until_ready("h1")
    await site.create("h1", "net")
    await site.until_listed("net")
    await site.run("h1", "gone", "net")
    await site.kill_worker("h1")

    await site.docker("h1", "rm -f gone", seconds=90.0)
    assert len(await site.endpoints("net")) == 1

    await site.start_worker("h1")
    await site.until(lambda: _has(site, "net", 0), "its endpoint is gone", seconds=FORGOTTEN_S)
    await site.until_kernel_empty("h1")


async def test_dockerd_dies_and_its_containers_live_on(site: Site) -> None:
    for host in site.hosts.values():
        await host.stop()
        await host.start(**{"live-restore": True})
    try:
        a, b = await pair(site)
        async with no_packet_lost(site, "h1", "ann", b):
            await site.hosts["h2"].kill()
            await site.hosts["h2"].start()
            await site.hosts["h1"].stop()
            await site.hosts["h1"].start()
        await site.until_named("h1", "ann", "bob", [b])
        assert await site.address("h2", "bob", "net") == b
        await site.run("h2", "cat", "net")
        await site.until_reaches("h2", "cat", a)
    finally:
        for host in site.hosts.values():
            await host.stop()
            await host.start(**{"live-restore": False})


async def test_dockerd_dies_with_its_containers(site: Site) -> None:
    await pair(site, "--restart=always")
    await site.run("h2", "once", "net")

    await site.hosts["h2"].kill()
    await site.hosts["h2"].start()

    async def is_back() -> bool:
        return "Up" in await site.docker("h2", "ps --filter name=^bob$ --format {{.Status}}")

    await site.until(is_back, "what is to be restarted runs again", seconds=15)
    await site.until_reaches("h1", "ann", "bob")
    await site.until(lambda: _has(site, "net", 2), "ann and bob have an endpoint, once has none", seconds=FORGOTTEN_S)
    await site.docker("h2", "start once")
    await site.until_reaches("h1", "ann", "once")


async def test_dockerd_restarts_in_order(site: Site) -> None:
    await pair(site, "--restart=always")
    await site.hosts["h2"].stop()
    await site.hosts["h2"].start()
    await site.until_reaches("h1", "ann", "bob")
    await site.until(lambda: _has(site, "net", 2), "two endpoints")


@pytest.mark.parametrize("order", ["worker first", "dockerd first", "controller last"])
async def test_a_host_reboots(site: Site, order: str) -> None:
    await pair(site, "--restart=always --network-alias twin")
    lab = site.lab.lab
    if order == "controller last":
        assert lab.controller is not None
        await lab.controller.kill()
    host = await site.lab.reboot("h2")
    if order == "dockerd first":
        host.listen()  # what the socket unit does before either is started
        starting = asyncio.ensure_future(host.start())
        await asyncio.sleep(1.0)  # it waits for the plugin
        await site.lab.start_worker("h2")
        await starting
    else:
        await site.lab.start_worker("h2")
        await host.start()
    if order == "controller last":
        await lab.start_controller()
        await site.until(lambda: _are_up(site, "h2", {"bob"}), "what Docker gave up runs", seconds=15)
    await lab.until_ready("h2")

    await site.until_reaches("h1", "ann", "bob")
    await site.until_reaches("h2", "bob", "ann")
    await site.until(lambda: _has(site, "net", 2), "two endpoints", seconds=FORGOTTEN_S)


async def test_what_docker_tried_once_at_its_boot_is_started_when_the_controller_is_back(site: Site) -> None:
    await site.create("h2", "net", "--subnet 10.20.0.0/24")
    await site.until_listed("net")
    await site.run("h1", "ann", "net")
    await site.run("h2", "bob", "net", "--restart=always -p 8081:8080")
    await site.run("h2", "cat", "net", "--restart=unless-stopped")
    await site.run("h2", "off", "net", "--restart=unless-stopped")
    await site.run("h2", "once", "net")
    await site.docker("h2", "stop off")
    lab = site.lab.lab
    assert lab.controller is not None
    await lab.controller.kill()
    host = await site.lab.reboot("h2")
    await site.lab.start_worker("h2")
    await host.start()

    await asyncio.sleep(12.0)  # longer than any call of Docker's waits
    for name in ("bob", "cat"):
        told = await site.docker("h2", f"inspect -f '{{{{.State.Status}}}} {{{{.State.Error}}}}' {name}")
        assert told.startswith("exited "), told
        assert "remote: " in told, told  # of engine 29, after words of its own

    await lab.start_controller()
    await site.until(lambda: _are_up(site, "h2", {"bob", "cat"}), "what is to be kept running runs", seconds=15)
    await site.until_reaches("h1", "ann", "bob")
    await site.until_reaches("h2", "cat", "ann")
    await site.until(lambda: _has(site, "net", 3), "three endpoints", seconds=FORGOTTEN_S)


async def test_what_crashes_while_the_controller_is_away_comes_back_with_it(site: Site) -> None:
    await pair(site, "--restart=always")
    lab = site.lab.lab
    assert lab.controller is not None
    await lab.controller.kill()
    await site.docker("h2", "exec -d bob kill -TERM 1")

    async def is_down() -> bool:
        return "exited" in await site.docker("h2", "inspect -f {{.State.Status}} bob")

    await site.until(is_down, "Docker has given it up", seconds=60)
    await lab.start_controller()
    await site.until(lambda: _are_up(site, "h2", {"bob"}), "it runs again", seconds=15)
    await site.until_reaches("h1", "ann", "bob")
    await site.until(lambda: _has(site, "net", 2), "two endpoints", seconds=FORGOTTEN_S)


async def _are_up(site: Site, host: str, names: set[str]) -> bool:
    return set((await site.docker(host, "ps --format {{.Names}}")).split()) == names


async def test_dockerd_boots_at_once_without_controller_and_store(site: Site) -> None:
    await pair(site)
    lab = site.lab.lab
    assert lab.controller is not None
    await site.docker("h2", "rm -f bob")
    await site.hosts["h2"].stop()
    await lab.controller.kill()
    try:
        async with asyncio.timeout(5.0):
            await site.hosts["h2"].start()
        assert "net" in await site.listed("h2")
    finally:
        await lab.start_controller()
    await site.run("h2", "cat", "net")
    await site.until_reaches("h1", "ann", "cat")
