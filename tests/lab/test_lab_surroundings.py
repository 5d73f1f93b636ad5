"""What lies around the hosts of the lab: a router that knows no range of kvnet, a world, a physical network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lab import namespaces
from lab.lab import open_lab, until
from lab.surroundings import LAN_UPLINK

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


async def test_hosts_on_two_segments_and_the_world_reach_each_other_through_the_router(tmp_path: Path) -> None:
    async with open_lab(tmp_path, hosts=2, segments={"h2": 1}, outside=True) as lab:
        h1, h2, world = lab.hosts["h1"].port, lab.hosts["h2"].port, lab.around["outside"]
        assert h2.underlay not in (h1.underlay,)
        for address in (h2.underlay4, h2.underlay6, world.address, world.address6):
            assert (await lab.ping_from("h1", str(address))).ok
        assert (await lab.ping_from("outside", str(h1.underlay))).ok

        async def is_up() -> bool:
            return await lab.answers("h1", str(world.address))

        await until(is_up, "the world answers")
        assert await lab.call("h1", str(world.address)) == "hello from outside on outside"
        assert (await lab.call("h1", str(world.address6), 8081, protocol="udp")).split()[0] == str(h1.underlay6)


async def test_every_host_has_an_uplink_to_the_physical_network(tmp_path: Path) -> None:
    async with open_lab(tmp_path, hosts=2, lan=True, family=6) as lab:
        assert lab.hosts["h1"].port.underlay.version == 6
        gateway = str(lab.around["lan"].address)
        assert not (await lab.ping_from("h1", gateway, timeout_s=0.2)).ok, "an uplink has no address of its own"
        for host in ("h1", "h2"):
            assert LAN_UPLINK in namespaces.call(lab.netns_of(host), lambda: [n for _, n in socket.if_nameindex()])
