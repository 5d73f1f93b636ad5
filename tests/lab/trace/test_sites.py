"""Traces where hosts are joined in other ways: a router between them, an IPv6 underlay, bridged uplinks, small MTUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab, open_lab, until

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

OVERLAY = {"name": "overlay", "subnets": [{"cidr": "10.1.0.0/24"}, {"cidr": "fd00:1::/64"}]}
TUNNELS = {
    "name": "tunnels",
    "driver": "routed",
    "cross_segment": "tunnel",
    "subnets": [{"cidr": "10.4.0.0/20"}, {"cidr": "fd00:4::/56"}],
}
PLAIN6 = {"name": "plain", "driver": "routed", "subnets": [{"cidr": "fd00:3::/56"}]}
BRIDGED = {
    "name": "bridged",
    "driver": "transparent",
    "uplink": "lan0",
    "uplink_mode": "bridge",
    "subnets": [{"cidr": "192.168.7.0/24"}],
}
SITES: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = {
    "a router between the hosts": ({"segments": {"h2": 1}}, (OVERLAY, TUNNELS)),
    "an IPv6 underlay": ({"family": 6}, (OVERLAY, TUNNELS, PLAIN6)),
    "uplinks in bridges": ({"lan": True}, (BRIDGED,)),
    "a host with small packets": ({"mtus": {"h2": 1400}}, (OVERLAY,)),
}


@pytest.mark.parametrize("site", SITES)
async def test_a_trace_and_a_packet_say_the_same_however_hosts_are_joined(tmp_path: Path, site: str) -> None:
    options, networks = SITES[site]
    async with open_lab(tmp_path, hosts=2, **options) as lab:
        await lab.start_controller()
        for name in lab.hosts:
            await lab.start_worker(name)
        for name in lab.hosts:
            await lab.until_ready(name)
        for network in networks:
            await lab.client.request("POST", "/v1/networks", body=network)
            for letter, host in (("a", "h1"), ("b", "h2"), ("c", "h1")):
                await lab.add_workload(f"{network['name']}-{letter}", host)
                await lab.attach(network["name"], f"{network['name']}-{letter}", wait_s=5.0)
        names = [network["name"] for network in networks]
        if {"overlay", "tunnels"} <= set(names):
            await lab.client.request("POST", "/v1/networks/overlay/peers/tunnels")

        for network in networks:
            families = {6 if ":" in subnet["cidr"] else 4 for subnet in network["subnets"]}
            pairs = [(f"{network['name']}-a", f"{network['name']}-{letter}") for letter in "bc"]
            for source, target in pairs:
                for family in families:
                    await _agree(lab, source, target, family)
        if {"overlay", "tunnels"} <= set(names):
            await _agree(lab, "overlay-a", "tunnels-b", 4)
            await _agree(lab, "tunnels-a", "overlay-b", 6)


async def _agree(lab: Lab, source: str, target: str, family: int) -> None:
    async def is_whole() -> bool:
        found = await lab.client.trace({"from": source, "to": target, "family": family})
        answer = await lab.ping(source, found["to"]["address"], timeout_s=0.5)
        return answer.ok and found["whole"] and found["complete"]

    await until(is_whole, f"{source} -> {target} by IPv{family} is whole, and a packet arrives", seconds=10)
