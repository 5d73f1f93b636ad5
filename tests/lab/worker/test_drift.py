"""Whatever of ours somebody removes or changes is back within a second, whichever kind of object it is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.worker.bench import attached, until_answers, workers
from worker.kernel.firewall import find_nft

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
REPAIR_S = 1.0
PATH = f"{Path(find_nft()).parent}:{os.environ['PATH']}"
SYSFS = "mount -t sysfs none /sys && "
SLACK_S = 2.0  # of a busy machine, on top
# {b}, {x}: bridge and tunnel of the overlay; {r}: the routed network's bridge; {v}: a port of the overlay's bridge.
DAMAGES = {
    "a tunnel": "ip link del {x}",
    "a bridge": "ip link del {b}",
    "a port out of its bridge": "ip link set {v} nomaster",
    "a bridge that is down": "ip link set {b} down",
    "a bridge's address": "ip address flush dev {b}",
    "a bridge's MAC": "ip link set {b} address 02:00:00:00:00:01",
    "an MTU": "ip link set {b} mtu 1300",
    "routes": "ip route flush proto 222",
    "neighbours": "ip neighbour flush dev {b} nud permanent",
    "a tunnel's learning": "bridge link set dev {x} learning on neigh_suppress off",
    "isolation": "bridge link set dev {v} isolated on",
    "forwarding entries": "bridge fdb show dev {x} | while read m r; do bridge fdb del $m dev {x} self; done",
    "the firewall": "nft flush ruleset",
    "a rule": "nft flush chain inet kvnet forward",
    "forwarding of IPv4": "sysctl -w net.ipv4.ip_forward=0",
    "forwarding of IPv6": "sysctl -w net.ipv6.conf.all.forwarding=0",
    "a device's setting": "sysctl -w net.ipv6.conf.{b}.accept_ra=1",
}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """An overlay and a routed network on two hosts; c1 publishes a port."""
    async with workers(tmp_path) as made:
        await made.client.create_network({"name": "over", "driver": "overlay"})
        await made.client.create_network({"name": "plain", "driver": "routed"})
        await attached(made, "over", {"c1": "h1"}, ports=[{"port": 8080, "host_port": 8880}])
        await attached(made, "over", {"c2": "h2"})
        await attached(made, "plain", {"c1": "h1", "c2": "h2"})
        await until_answers(made, "c1", made.address_of("c2", "over"))
        await until_answers(made, "c1", made.address_of("c2", "plain"))
        yield made


async def test_every_kind_of_damage_is_repaired(lab: Lab) -> None:
    names = {
        "b": f"kvb{lab.workloads['c1'].endpoints['over']['network']}",
        "x": f"kvx{lab.workloads['c1'].endpoints['over']['network']}",
        "r": f"kvb{lab.workloads['c1'].endpoints['plain']['network']}",
    }
    slow: list[str] = []
    for what, command in DAMAGES.items():
        port = shell(lab, f"ip -br link show master {names['b']}").split("@")[0].split()[0]
        before = look(lab)
        shell(lab, command.format(**names, v=next(w for w in ports_of(lab, names["b"]) if w.startswith("kve")) or port))
        began = time.monotonic()

        now, at = await look_until(lab, before, began + REPAIR_S + SLACK_S)
        assert now.splitlines() == before.splitlines(), f"{what} is not repaired"
        if at - began > REPAIR_S:
            slow.append(f"{what}: {at - began:.1f} s")
    assert not slow
    for network in ("over", "plain"):
        await until_answers(lab, "c1", lab.address_of("c2", network))
    await until_answers(lab, "h2", str(lab.hosts["h1"].port.underlay), 8880)


async def test_a_bridge_that_docker_makes_is_soon_in_the_firewall_and_as_soon_out_of_it(lab: Lab) -> None:
    there = "nft list set inet kvnet dockers | grep -c br-0123456789ab"
    for command, wanted in (("ip link add br-0123456789ab type bridge", "1"), ("ip link del br-0123456789ab", "0")):
        shell(lab, command)
        deadline = time.monotonic() + REPAIR_S + SLACK_S
        while shell(lab, there).strip() != wanted:
            assert time.monotonic() < deadline, command
            await asyncio.sleep(0)
    await until_answers(lab, "h2", str(lab.hosts["h1"].port.underlay), 8880)


async def look_until(lab: Lab, wanted: str, deadline: float) -> tuple[str, float]:
    """The first look that is the wanted one, or the last before the deadline, and when it began: one takes a while."""
    while True:
        at = time.monotonic()
        now = look(lab)
        if now == wanted or at > deadline:
            return now, at
        await asyncio.sleep(0)


def ports_of(lab: Lab, bridge: str) -> list[str]:
    return [line.split("@")[0].split()[0] for line in shell(lab, f"ip -br link show master {bridge}").splitlines()]


def look(lab: Lab) -> str:
    """What h1 has, without what differs from one making to the next: indexes, counters, ages, handles."""
    flags = " ".join(f"$link/brport/{flag}" for flag in ("isolated", "learning", "neigh_suppress"))
    commands = (
        "ip -br link | sed 's/@[a-z0-9]*//' | awk '/^(kvx|kve)/ {print $1, $2} /^kvb/ {print $1, $2, $3}' | sort",
        f"for link in /sys/class/net/kv*; do echo $link $(cat $link/mtu {flags} 2>/dev/null); done",
        "ip -br address | sed 's/ *fe80[^ ]*//; s/ *$//' | sort",  # the kernel's own
        "ip -4 route show proto 222 | sort",
        "ip -6 route show proto 222 | sort",
        "ip neighbour show nud permanent | grep kvb | sort",
        "bridge fdb show | grep -e kvx -e kve | grep -v -e 33:33 -e 01:00 -e permanent$ | sort",
        "nft -s list ruleset | grep -v elements.*expires",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
        "sysctl -a 2>/dev/null | grep -e 'conf.kvb.*accept_ra ' -e 'conf.kvb.*disable_ipv6'",
    )
    return "\n".join(shell(lab, command) for command in commands)


def shell(lab: Lab, command: str) -> str:
    line = ["nsenter", f"--net={lab.netns_of('h1')}", "unshare", "-m", "sh", "-c", SYSFS + command]
    done = subprocess.run(
        line, check=False, capture_output=True, timeout=10, text=True, env=os.environ | {"PATH": PATH}
    )
    assert "not found" not in done.stderr, done.stderr  # else nothing would be damaged, nor seen
    return done.stdout
