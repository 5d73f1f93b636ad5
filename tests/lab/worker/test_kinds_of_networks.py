"""Every kind of network through real workers: who reaches whom across hosts, and who does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.lab import Lab
from lab.surroundings import LAN, LAN_UPLINK
from tests.lab.worker.bench import attached, until_answers, until_silent, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


async def test_without_icc_workloads_reach_the_world_and_not_each_other(tmp_path: Path) -> None:
    async with workers(tmp_path, outside=True) as lab:
        await lab.client.create_network({"name": "apart", "driver": "overlay", "icc": False})
        await attached(lab, "apart", {"c1": "h1", "c2": "h2", "c3": "h1"})
        for family in (4, 6):
            world = lab.around["outside"]
            await until_answers(lab, "c1", str(world.address if family == 4 else world.address6))
            for other in ("c2", "c3"):
                await until_silent(lab, "c1", lab.address_of(other, "apart", family))


async def test_an_internal_network_has_no_way_out_and_crosses_hosts(tmp_path: Path) -> None:
    async with workers(tmp_path, outside=True) as lab:
        await lab.client.create_network({"name": "inner", "driver": "overlay", "internal": True})
        await attached(lab, "inner", {"c1": "h1", "c2": "h2"})
        for family in (4, 6):
            await until_answers(lab, "c1", lab.address_of("c2", "inner", family))
        assert not await lab.answers("c1", str(lab.around["outside"].address))
        assert not (await lab.ping_from("c1", str(lab.hosts["h1"].port.underlay), timeout_s=0.3)).ok


async def test_peered_networks_reach_each_other_across_hosts_and_others_do_not(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        for name in ("a", "b", "c"):
            await lab.client.create_network({"name": name, "driver": "overlay"})
        await attached(lab, "a", {"a1": "h1"})
        await attached(lab, "b", {"b1": "h1", "b2": "h2"})
        await attached(lab, "c", {"c2": "h2"})
        assert not await lab.answers("a1", lab.address_of("b2", "b"))
        await lab.client.peer_networks("a", "b")
        for family in (4, 6):
            for other in ("b1", "b2"):
                await until_answers(lab, "a1", lab.address_of(other, "b", family))
            await until_answers(lab, "b2", lab.address_of("a1", "a", family))
            assert not await lab.answers("a1", lab.address_of("c2", "c", family))
        await lab.client.unpeer_networks("a", "b")
        await until_silent(lab, "a1", lab.address_of("b2", "b"))


@pytest.mark.parametrize("segments", [{}, {"h2": 1}], ids=["one segment", "two segments"])
async def test_a_routed_network_crosses_hosts(tmp_path: Path, segments: dict[str, int]) -> None:
    async with workers(tmp_path, segments=segments, outside=True) as lab:
        how = {"cross_segment": "tunnel"} if segments else {}
        await lab.client.create_network({"name": "plain", "driver": "routed", **how})
        await attached(lab, "plain", {"c1": "h1", "c2": "h2", "c3": "h1"})
        await until_answers(lab, "c1", lab.address_of("c2", "plain"))
        await until_answers(lab, "c1", lab.address_of("c3", "plain"))
        assert (await lab.call("c2", lab.address_of("c1", "plain"), 8081)).split()[0] == lab.address_of("c2", "plain")
        await until_answers(lab, "c1", str(lab.around["outside"].address))
        await lab.detach("plain", "c2")
        await until_silent(lab, "c1", "192.0.2.1")
        assert (await lab.hosts["h1"].local.plan())["operations"] == []


@pytest.mark.parametrize("mode", ["macvlan", "bridge"])
async def test_a_transparent_network_is_on_the_physical_one(tmp_path: Path, mode: str) -> None:
    async with workers(tmp_path, lan=True) as lab:
        await _lan(lab, uplink_mode=mode)
        await attached(lab, "lan", {"c1": "h1", "c2": "h2"})
        await until_answers(lab, "c1", lab.address_of("c2", "lan"))
        gone = lab.address_of("c1", "lan")
        assert (await lab.ping_from("lan", gone)).ok
        await lab.detach("lan", "c1")
        assert not (await lab.ping_from("lan", gone, timeout_s=0.3)).ok
        assert (await lab.hosts["h1"].local.plan())["operations"] == []


async def _lan(lab: Lab, **options: object) -> None:
    subnet = {"cidr": str(LAN), "gateway": str(lab.around["lan"].address)}
    body = {"name": "lan", "driver": "transparent", "uplink": LAN_UPLINK, "subnets": [subnet], **options}
    await lab.client.create_network(body)  # type: ignore[arg-type]
