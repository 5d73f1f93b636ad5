"""Interfaces that another program moves, on a real kernel; this test plays that program as libnetwork does it.

It moves the device into the workload's namespace, renames it, gives it addresses and routes, and brings it up; when the
workload leaves, it takes it down, names it as before and moves it back. Read and done with another library than ours.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from datapath.names import handed_name
from kvnet.wire import NetworkBody
from lab import namespaces
from lab.crowd import Member, open_crowd
from lab.lab import Lab, open_lab, until
from lab.surroundings import LAN, LAN_UPLINK
from tests.lab.eye import by_hand
from worker.attachments import Phase, Record

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
DNS = "169.254.53.53"
KINDS: Mapping[str, NetworkBody] = {
    "overlay": {"driver": "overlay"},
    "bridge": {"driver": "bridge"},
    "routed": {"driver": "routed"},
    "port of the uplink's bridge": {"driver": "transparent", "uplink": LAN_UPLINK, "uplink_mode": "bridge"},
    "macvlan": {"driver": "transparent", "uplink": LAN_UPLINK, "uplink_mode": "macvlan"},
}
LOCAL = ("bridge",)  # kinds that do not reach other hosts


@asynccontextmanager
async def two_hosts(directory: Path, body: NetworkBody) -> AsyncIterator[tuple[Lab, Mapping[str, Member]]]:
    async with open_lab(directory, hosts=2, lan=body["driver"] == "transparent") as lab:
        await lab.start_controller()
        async with open_crowd(lab) as crowd:
            await make(lab, body)
            yield lab, crowd


async def make(lab: Lab, body: NetworkBody) -> None:
    """One network, and namespaces for who is moved into and for a plain workload: on the other host, if it crosses."""
    wanted: NetworkBody = {**body, "name": "net"}
    if body["driver"] == "transparent":
        wanted["subnets"] = [{"cidr": str(LAN), "gateway": str(lab.around["lan"].address)}]
    await lab.client.create_network(wanted)
    await lab.add_workload("moved", "h1")
    await lab.add_workload("other", "h1" if body["driver"] in LOCAL else "h2")


async def attach_other(lab: Lab, crowd: Mapping[str, Member]) -> str:
    other = lab.workloads["other"]
    made = await crowd[other.host].ask("attach", network="net", netns=str(other.netns), name="other")
    return str(made["endpoint"]["address"])


async def handed_over(lab: Lab, member: Member) -> Record:
    workloads = member.worker.workloads
    record = await workloads.claim("net", {"name": "moved"}, runtime="docker")
    return await workloads.hand_over(record.endpoint, str(lab.workloads["moved"].netns), [f"{DNS}/32"])


def names(netns: Path) -> set[str]:
    return by_hand(netns, lambda ip: {link.get_attr("IFLA_IFNAME") for link in ip.get_links()})


def move_in(lab: Lab, member: Member, record: Record, name: str = "eth0") -> None:
    host, workload = lab.hosts["h1"].netns, lab.workloads["moved"].netns
    descriptor = os.open(workload, os.O_RDONLY)
    try:
        by_hand(host, lambda ip: ip.link("set", index=_index(ip, record.interface), net_ns_fd=descriptor))
    finally:
        os.close(descriptor)
    by_hand(workload, lambda ip: _configure(ip, member, record, name))


def _configure(ip: Any, member: Member, record: Record, name: str) -> None:
    index = _index(ip, record.interface)
    ip.link("set", index=index, state="down")
    ip.link("set", index=index, ifname=name, address=record.answer["mac"])
    tables = member.worker.view.tables(record.network_id)
    assert tables is not None
    network = tables.network
    assert network is not None
    blocks = [b for b in tables.known_blocks() if b.host == "h1"]
    for text in record.answer["addresses"]:
        subnet = next(s for s in network.subnets if str(s.cidr.network_address).count(":") == text.count(":"))
        block = next((b for b in blocks if b.cidr.version == subnet.cidr.version), None)
        length = block.cidr.prefixlen if block is not None else subnet.cidr.prefixlen
        ip.addr("add", index=index, address=text, prefixlen=length, flags=0x02)
        ip.link("set", index=index, state="up")
        gateway = block.gateway if block is not None else subnet.gateway
        ip.route("add", dst="default" if ":" not in text else "::/0", gateway=str(gateway), oif=index)
    ip.route("add", dst=f"{DNS}/32", oif=index, scope=253)


def move_back(lab: Lab, record: Record, name: str = "eth0") -> None:
    """One that is gone is only logged there."""
    host, workload = lab.hosts["h1"].netns, lab.workloads["moved"].netns
    descriptor = os.open(host, os.O_RDONLY)

    def back(ip: Any) -> None:
        if not ip.link_lookup(ifname=name):
            return
        index = _index(ip, name)
        ip.link("set", index=index, state="down")
        ip.link("set", index=index, ifname=handed_name(record.endpoint))
        ip.link("set", index=index, net_ns_fd=descriptor)

    try:
        by_hand(workload, back)
    finally:
        os.close(descriptor)


def _index(ip: Any, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def routes(netns: Path) -> set[str]:
    def seen(ip: Any) -> set[str]:
        return {str(r.get_attr("RTA_DST") or "default") for r in ip.get_routes(family=2, table=254)}

    return by_hand(netns, seen)


def ours(netns: Path) -> set[str]:
    return {name for name in names(netns) if name.startswith(("kve", "kt", "kvb", "kvx", "kvs"))}


async def until_reached(lab: Lab, address: str, what: str, seconds: float = 2.0) -> None:
    async def is_reached() -> bool:
        return (await lab.ping("moved", address, timeout_s=0.3)).ok

    await until(is_reached, what, seconds=seconds)


@pytest.mark.parametrize("kind", KINDS)
async def test_it_works_where_it_was_moved_is_repaired_there_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    async with two_hosts(tmp_path, KINDS[kind]) as (lab, crowd):
        member, workload = crowd["h1"], lab.workloads["moved"].netns
        workloads, host = member.worker.workloads, lab.hosts["h1"].netns

        record = await handed_over(lab, member)  # the first of its network on the host
        before = by_hand(host, lambda ip: ip.get_links(_index(ip, record.interface))[0])
        assert before.get_attr("IFLA_ADDRESS") == record.answer["mac"]
        assert before["state"] == "down"
        other = await attach_other(lab, crowd)
        move_in(lab, member, record)
        await until_reached(lab, other, "what was moved reaches the other")

        record = await workloads.settle(record.endpoint)
        assert record.interface == "eth0"
        assert (await member.ask("plan"))["operations"] == []
        _break(lab, member, record)
        await until(lambda: _is_there(workload), "the interface is back in its namespace", seconds=2.0)
        await until_reached(lab, other, "it works again")
        assert {DNS, "default"} <= routes(workload)

        move_back(lab, record)
        await workloads.take_back(record.endpoint)
        assert not {name for name in names(host) if name.startswith(("kve", "kt")) and kind not in LOCAL}
        assert "eth0" not in names(workload)
        again = await workloads.hand_over(record.endpoint, str(workload))
        assert again.interface in names(host)
        move_in(lab, member, again, "eth1")
        await until_reached(lab, other, "handed over again, it works")

        assert await workloads.release(record.endpoint)
        assert [e["name"] async for e in lab.client.endpoints()] == ["other"]
        await until(lambda: _is_clean(lab, kind), "nothing of it is left on the host", seconds=5.0)
        assert "eth1" not in names(workload)


async def _is_there(workload: Path) -> bool:
    return "eth0" in names(workload)


async def _is_clean(lab: Lab, kind: str) -> bool:
    left = ours(lab.hosts["h1"].netns)
    if kind in LOCAL:  # the other one is here too
        return len([name for name in left if name.startswith("kve")]) == 1
    return not left


def _break(lab: Lab, member: Member, record: Record) -> None:
    """Somebody deletes what of it is on the host, or the whole of it, which no event tells."""
    if record.is_inside:
        by_hand(lab.workloads["moved"].netns, lambda ip: ip.link("del", index=_index(ip, "eth0")))
        member.worker.reconciler.touch([record.network_id], read=True)
    else:
        by_hand(lab.hosts["h1"].netns, lambda ip: ip.link("del", index=_index(ip, record.device)))


@pytest.mark.parametrize("kind", ["overlay", "macvlan"])
async def test_a_worker_that_comes_back_leaves_a_moved_interface_alone_and_finds_it(tmp_path: Path, kind: str) -> None:
    async with open_lab(tmp_path, hosts=2, lan=True) as lab:
        await lab.start_controller()
        async with open_crowd(lab) as crowd:
            await make(lab, KINDS[kind])
            record = await handed_over(lab, crowd["h1"])
            other = await attach_other(lab, crowd)
            move_in(lab, crowd["h1"], record)
            index = by_hand(lab.workloads["moved"].netns, lambda ip: _index(ip, "eth0"))
            await until_reached(lab, other, "what was moved reaches the other")
        async with open_crowd(lab) as crowd:
            workloads = crowd["h1"].worker.workloads

            async def is_settled() -> bool:
                known = workloads.record(record.endpoint)
                return known is not None and (known.phase, known.interface) == (Phase.ATTACHED, "eth0")

            await until(is_settled, "the new worker has found it", seconds=5.0)
            assert by_hand(lab.workloads["moved"].netns, lambda ip: _index(ip, "eth0")) == index
            await until_reached(lab, other, "it reaches the other still")
            assert (await crowd["h1"].ask("plan"))["operations"] == []


async def test_a_container_that_is_gone_stays_until_docker_says_so(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, KINDS["overlay"]) as (lab, crowd):
        workloads = crowd["h1"].worker.workloads
        record = await handed_over(lab, crowd["h1"])
        move_in(lab, crowd["h1"], record)
        await workloads.settle(record.endpoint)
        namespaces.destroy(lab.workloads["moved"].netns)

        async def is_lost() -> bool:
            return [r.endpoint for r in workloads.lost()] == [record.endpoint]

        await until(is_lost, "the worker sees that it is gone", seconds=5.0)
        assert [e["name"] async for e in lab.client.endpoints()] == ["moved"]
        assert await workloads.release(record.endpoint)
        assert [e["name"] async for e in lab.client.endpoints()] == []


async def test_a_route_is_added_inside_a_running_workload(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, KINDS["overlay"]) as (lab, crowd):
        workloads, workload = crowd["h1"].worker.workloads, lab.workloads["moved"].netns
        record = await handed_over(lab, crowd["h1"])
        move_in(lab, crowd["h1"], record)
        for _ in range(2):
            record = await workloads.add_route(record.endpoint, "192.0.2.1/32")
        assert "192.0.2.1" in routes(workload)
        assert record.routes == (f"{DNS}/32", "192.0.2.1/32")
