"""Traces over a living cluster: every driver, faults that workers would repair, and hosts that do not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kvnet.errors import HostSilent
from lab import namespaces
from lab.lab import Lab, open_lab, until
from tests.lab.kernel.bed import nft
from tests.lab.trace.tracing import command

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

NETWORKS: tuple[dict[str, Any], ...] = (
    {"name": "overlay", "subnets": [{"cidr": "10.1.0.0/24"}, {"cidr": "fd00:1::/64"}]},
    {"name": "bridge", "driver": "bridge", "subnets": [{"cidr": "10.2.0.0/24"}]},
    {"name": "routed", "driver": "routed", "subnets": [{"cidr": "10.3.0.0/20"}]},
    {"name": "macvlan", "driver": "transparent", "uplink": "lan0", "subnets": [{"cidr": "192.168.7.0/24"}]},
    {"name": "lonely", "icc": False, "subnets": [{"cidr": "10.5.0.0/24"}]},
    {"name": "internal", "internal": True, "subnets": [{"cidr": "10.6.0.0/24"}]},
    {"name": "peer", "subnets": [{"cidr": "10.7.0.0/24"}, {"cidr": "fd00:7::/64"}]},
)
NEVER = {
    ("bridge-a", "bridge-b"): "hosts-apart",
    ("lonely-a", "lonely-b"): "icc-off",
    ("overlay-a", "internal-b"): "not-peers",
}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2, lan=True) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name)
        for name in made.hosts:
            await made.until_ready(name)
        yield made


async def populate(lab: Lab, *names: str) -> None:
    """Of each network three workloads: a and c on h1, b on h2."""
    for network in NETWORKS:
        if network["name"] in names:
            await lab.client.request("POST", "/v1/networks", body=network)
    for name in names:
        for letter, host in (("a", "h1"), ("b", "h2"), ("c", "h1")):
            await lab.add_workload(f"{name}-{letter}", host)
            await lab.attach(name, f"{name}-{letter}", wait_s=5.0)


async def trace(lab: Lab, source: str, target: str, **more: Any) -> dict[str, Any]:
    return await lab.client.trace({"from": source, "to": target, **more})


def told(found: dict[str, Any]) -> str:
    lines = [f"{h['number']} {h['host']} {h['kind']} {h['name']}: {h['desired']} | {h['found']}" for h in found["hops"]]
    return "\n".join([*lines, str(found["finding"]), str(found["unread"])])


def finding(found: dict[str, Any]) -> tuple[str | None, str, str] | None:
    first = found["finding"]
    return None if first is None else (first["host"], found["hops"][first["hop"] - 1]["kind"], first["code"])


async def test_in_every_kind_of_network_a_trace_and_a_packet_say_the_same(lab: Lab) -> None:
    await populate(lab, *(network["name"] for network in NETWORKS))
    await lab.client.request("POST", "/v1/networks/overlay/peers/peer")
    await lab.client.request("POST", "/v1/networks/routed/peers/peer")
    pairs = [(f"{n['name']}-a", f"{n['name']}-{letter}") for n in NETWORKS for letter in "bc"]
    pairs += [("overlay-a", "peer-b"), ("peer-a", "overlay-c"), ("routed-a", "peer-b"), ("peer-a", "routed-b")]
    pairs += list(NEVER)

    for source, target in dict.fromkeys(pairs):
        expected = NEVER.get((source, target)) or NEVER.get((source, target.replace("-c", "-b")))
        expected = None if expected == "hosts-apart" and target.endswith("c") else expected

        async def is_as_expected(source: str = source, target: str = target, expected: str | None = expected) -> bool:
            found = await trace(lab, source, target)
            answer = await lab.ping(source, found["to"]["address"], timeout_s=0.5)
            code = found["finding"]["code"] if found["finding"] else None
            return code == expected and answer.ok == (expected is None) and found["complete"]

        await until(is_as_expected, f"{source} -> {target} is {expected or 'whole'}", seconds=10)

    both = await trace(lab, "overlay/overlay-a", "peer/peer-b", family=6)
    assert both["whole"], told(both)


async def test_a_paused_host_keeps_a_fault_until_it_is_resumed_and_remembers_the_repair(lab: Lab) -> None:
    await populate(lab, "overlay")
    network = (await lab.client.get_network("overlay"))["id"]
    mac = lab.workloads["overlay-b"].endpoints["overlay"]["mac"]
    h1 = lab.hosts["h1"].netns

    paused = await lab.client.pause_repairs("h1", 120)
    await command(h1, f"bridge fdb del {mac} dev kvx{network} self")

    assert paused["paused"]
    found = await trace(lab, "overlay/overlay-a", "overlay/overlay-b")
    assert finding(found) == ("h1", "vxlan fdb", "vxlan-fdb-missing"), told(found)
    assert "kvnet host resume h1" in found["finding"]["fix"]
    assert not (await lab.ping("overlay-a", found["to"]["address"], timeout_s=0.5)).ok

    # Workloads come and go meanwhile, and the fault stays.
    await lab.add_workload("late", "h1")
    await lab.attach("overlay", "late")
    assert finding(await trace(lab, "overlay-a", "overlay-b")) == ("h1", "vxlan fdb", "vxlan-fdb-missing")

    async def is_told() -> bool:
        host = await lab.client.get_host("h1")
        return any(c["reason"] == "repairs-paused" for c in host["status"]["conditions"])

    await until(is_told, "the host says that its repairs are paused", seconds=5)

    assert not (await lab.client.resume_repairs("h1"))["paused"]

    async def is_whole() -> bool:
        return bool((await trace(lab, "overlay-a", "overlay-b"))["whole"])

    await until(is_whole, "it is repaired", seconds=5)
    found = await trace(lab, "overlay-a", "overlay-b")
    mended = [hop for hop in found["hops"] if hop["repairs"]]
    assert [hop["kind"] for hop in mended] == ["vxlan fdb"], mended
    assert mac in mended[0]["repairs"][0]["text"]


async def test_a_pause_ends_by_itself(lab: Lab) -> None:
    await populate(lab, "overlay")
    network = (await lab.client.get_network("overlay"))["id"]
    await lab.client.pause_repairs("h1", 2)
    await command(lab.hosts["h1"].netns, f"ip link set kvb{network} down")
    assert finding(await trace(lab, "overlay-a", "overlay-b")) == ("h1", "bridge", "interface-down")

    async def is_whole() -> bool:
        return bool((await trace(lab, "overlay-a", "overlay-b"))["whole"])

    await until(is_whole, "the pause is over and the bridge is up", seconds=6)


async def test_a_worker_that_is_stopped_is_found_and_the_other_host_is_told(lab: Lab) -> None:
    await populate(lab, "overlay")
    worker = lab.hosts["h2"].worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        found = await trace(lab, "overlay-a", "overlay-b")
        with pytest.raises(HostSilent):
            await lab.client.pause_repairs("h2", 10)
    finally:
        os.kill(worker.pid, signal.SIGCONT)

    assert finding(found) == ("h2", "worker", "worker-silent"), told(found)
    assert {hop["verdict"] for hop in found["hops"] if hop["host"] == "h1"} == {"ok"}, told(found)
    assert any(hop["verdict"] == "unknown" and hop["desired"] for hop in found["hops"])


async def test_without_a_worker_the_command_looks_at_this_host_itself(lab: Lab) -> None:
    await populate(lab, "overlay")
    network = (await lab.client.get_network("overlay"))["id"]
    mac = lab.workloads["overlay-b"].endpoints["overlay"]["mac"]
    h1 = lab.hosts["h1"]
    assert h1.worker is not None
    await h1.worker.kill()
    await command(h1.netns, f"bridge fdb del {mac} dev kvx{network} self")

    arguments = [
        sys.executable,
        "-m",
        "cli.main",
        "--controller",
        lab.controller_url,
        "trace",
        "overlay-a",
        "overlay-b",
    ]
    arguments += ["--here", "h1", "--state-dir", str(h1.state_dir)]
    status, output = namespaces.call(h1.netns, partial(_run, arguments))

    assert status == 1, output
    assert "vxlan-fdb-missing" in output
    assert "start the worker of h1" in output


async def test_what_is_not_attached_or_gone_is_told_as_that(lab: Lab) -> None:
    await populate(lab, "overlay")
    body = {"host": "h2", "name": "ghost"}
    await lab.client.request("POST", "/v1/networks/overlay/endpoints", body=body)
    await lab.client.pause_repairs("h2", 60)

    assert finding(await trace(lab, "overlay-a", "overlay/ghost")) == ("h2", "workload", "not-attached")

    namespaces.destroy(lab.workloads["overlay-b"].netns)
    assert finding(await trace(lab, "overlay-a", "overlay-b")) == ("h2", "workload", "gone")


async def test_where_hosts_route_what_stops_that_is_found(lab: Lab) -> None:
    await populate(lab, "overlay", "peer", "routed")
    await lab.client.request("POST", "/v1/networks/overlay/peers/peer")
    h1, h2, inside = lab.hosts["h1"].netns, lab.hosts["h2"].netns, lab.workloads["overlay-a"].netns
    for host in lab.hosts:
        await lab.client.pause_repairs(host, 300)

    async def peers() -> tuple[str | None, str, str] | None:
        return finding(await trace(lab, "overlay-a", "peer-b"))

    await command(h1, "sysctl -qw net.ipv4.ip_forward=0")
    assert await peers() == ("h1", "forwarding", "not-forwarding")
    await command(h1, "sysctl -qw net.ipv4.ip_forward=1")
    await command(inside, "ip route del default")
    assert await peers() == ("h1", "route", "no-route")
    await command(inside, "ip route add default via 10.1.0.1")
    chain = "type filter hook forward priority 5; policy drop;\n ip daddr 10.9.0.0/16 accept\n"
    nft(h1, f"table ip site {{\n chain f {{\n {chain} }}\n}}\n")
    assert await peers() == ("h1", "other firewalls", "dropped-by-others")
    nft(h1, "delete table ip site\n")
    nft(h1, "delete table inet kvnet\n")
    assert await peers() == ("h1", "other firewalls", "dropped-by-altered")

    address = lab.workloads["routed-a"].endpoints["routed"]["address"]
    await command(h2, "sysctl -qw net.ipv4.conf.eth0.rp_filter=1")
    await command(h2, f"ip route add {address}/32 dev kvdns")
    assert finding(await trace(lab, "routed-a", "routed-b")) == ("h2", "forwarding", "rp-filter")


def _run(arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr
