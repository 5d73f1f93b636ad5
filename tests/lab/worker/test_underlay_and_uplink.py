"""What a worker does when the host's own links and addresses change under it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.lab import Lab, until
from lab.surroundings import LAN, LAN_UPLINK
from tests.lab.worker.bench import attached, until_answers, until_condition, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


def ip(lab: Lab, where: str, *arguments: str) -> None:
    command = ["nsenter", f"--net={lab.netns_of(where)}", "ip", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=10)


async def test_an_underlay_address_that_moves_on_its_device_is_followed(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "net", "driver": "overlay"})
        await attached(lab, "net", {"c1": "h1", "c2": "h2"})
        await until_answers(lab, "c1", lab.address_of("c2", "net"))
        ip(lab, "h2", "address", "add", "198.18.0.77/20", "dev", "eth0")
        ip(lab, "h2", "address", "del", f"{lab.hosts['h2'].port.underlay}/20", "dev", "eth0")
        ip(lab, "h2", "address", "replace", "198.18.0.77/20", "dev", "eth0")  # it was a secondary one
        await until_answers(lab, "c1", lab.address_of("c2", "net"))
        assert (await lab.client.get_host("h2"))["underlay"] == "198.18.0.77"
        assert not (await lab.hosts["h2"].local.status())["conditions"]


async def test_an_underlay_that_is_gone_is_told_and_what_was_built_stays(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "net", "driver": "overlay"})
        await attached(lab, "net", {"c1": "h1", "c2": "h2"})
        own = str(lab.hosts["h2"].port.underlay)
        ip(lab, "h2", "address", "del", f"{own}/20", "dev", "eth0")
        assert own in await until_condition(lab, "h2", "underlay-missing")
        assert (await lab.client.get_host("h2"))["underlay"] == own
        assert (await lab.hosts["h2"].local.plan())["operations"] == []
        ip(lab, "h2", "address", "add", f"{own}/20", "dev", "eth0")
        await until_condition(lab, "h2", "underlay-missing", is_there=False)
        await until_answers(lab, "c1", lab.address_of("c2", "net"))


async def test_a_smaller_underlay_makes_the_networks_smaller(tmp_path: Path) -> None:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "net", "driver": "overlay"})
        await attached(lab, "net", {"c1": "h1", "c2": "h2"})
        ip(lab, "h2", "link", "set", "eth0", "mtu", "1400")

        async def is_smaller() -> bool:
            return (await lab.client.get_host("h2"))["mtu"] == 1400 and mtu_of(lab, "c1") == 1350

        await until(is_smaller, "the interface of c1 has an MTU of 1350", seconds=3.0)


async def test_an_uplink_that_goes_down_or_away_is_told(tmp_path: Path) -> None:
    async with workers(tmp_path, lan=True) as lab:
        subnet = {"cidr": str(LAN), "gateway": str(lab.around["lan"].address)}
        body = {"name": "lan", "driver": "transparent", "uplink": LAN_UPLINK, "subnets": [subnet]}
        await lab.client.create_network(body)  # type: ignore[arg-type]
        await attached(lab, "lan", {"c1": "h1"})
        ip(lab, "h1", "link", "set", LAN_UPLINK, "down")
        assert LAN_UPLINK in await until_condition(lab, "h1", "uplink-down")
        ip(lab, "h1", "link", "set", LAN_UPLINK, "up")
        await until_condition(lab, "h1", "uplink-down", is_there=False)
        ip(lab, "h1", "link", "del", LAN_UPLINK)
        assert LAN_UPLINK in await until_condition(lab, "h1", "uplink-missing")


def mtu_of(lab: Lab, workload: str) -> int:
    command = ["nsenter", f"--net={lab.netns_of(workload)}", "ip", "-o", "link", "show", "eth0"]
    text = subprocess.run(command, check=True, capture_output=True, timeout=10, text=True).stdout
    return int(text.split(" mtu ")[1].split()[0])
