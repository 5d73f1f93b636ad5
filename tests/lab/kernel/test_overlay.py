"""Two hosts, one overlay: what the planner wants, the kernel has, and packets arrive."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import pytest

from datapath.objects import BRIDGE_PREFIX, VXLAN_PREFIX
from lab import namespaces
from lab.ping import ping
from tests.lab.eye import look
from tests.lab.kernel.bed import Bed, network
from worker.kernel import messages as m
from worker.kernel.netlink import Message, Netlink

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


async def pair(bed: Bed) -> str:
    """Two workloads of one network, c1 on h1 and c2 on h2; returns the network's id."""
    net = network(7)
    bed.add(net, "c1", "h1", 2)
    bed.add(net, "c2", "h2", 3)
    assert await bed.converge() == []
    return net.id


@pytest.mark.parametrize("address", ["10.7.0.3", "fd00:7::3"])
async def test_the_first_packet_reaches_another_host_without_any_flooding(bed: Bed, address: str) -> None:
    await pair(bed)

    assert await bed.ping("c1", address)
    assert not [f for f in look(bed.netns["h1"]).forwarding if f[1] == "00:00:00:00:00:00"], "nobody floods"


async def test_a_workload_reaches_its_gateway_in_both_families(bed: Bed) -> None:
    await pair(bed)

    assert await bed.ping("c1", "10.7.0.1")
    assert await bed.ping("c1", "fd00:7::1")


async def test_a_second_pass_finds_nothing_to_do(bed: Bed) -> None:
    id_ = await pair(bed)

    for host in ("h1", "h2"):
        assert (await bed.planned(host)).operations == ()
        assert (await bed.planned(host, id_)).operations == ()


async def test_an_mtu_that_is_too_small_for_ipv6_is_one_for_ipv4(bed: Bed) -> None:
    net = network(7)
    net = replace(net, subnets=net.subnets[:1], mtu=1200)
    bed.add(net, "c1", "h1", 2)
    bed.add(net, "c2", "h2", 3)

    assert await bed.converge() == []

    assert await bed.ping("c1", "10.7.0.3")
    assert (await bed.planned("h1", net.id)).operations == ()


async def test_another_library_sees_what_the_planner_wanted(bed: Bed) -> None:
    id_ = await pair(bed)
    bridge, tunnel = f"{BRIDGE_PREFIX}{id_}", f"{VXLAN_PREFIX}{id_}"

    seen = look(bed.netns["h1"])

    assert {(bridge, "10.7.0.1"), (bridge, "fd00:7::1")} <= seen.addresses
    assert {(bridge, "10.7.0.0/24"), (bridge, "fd00:7::/64")} <= seen.routes
    assert (bridge, "10.7.0.3", "02:00:00:13:8f:03") in seen.neighbours
    assert (tunnel, "02:00:00:13:8f:03", "198.18.0.2") in seen.forwarding


async def test_the_last_workload_takes_the_network_with_it(bed: Bed) -> None:
    await pair(bed)
    for endpoint in [e for es in bed.endpoints.values() for e in es.values() if e.host == "h2"]:
        bed.remove(endpoint)

    assert await bed.converge() == []

    assert not look(bed.netns["h2"]).links
    assert not [n for n in look(bed.netns["h1"]).neighbours if "10.7.0.3" in n]
    assert (await bed.planned("h2")).operations == ()


def by_hand(bed: Bed, host: str, *messages: Message) -> None:
    """As somebody with `ip` would: through a socket of its own."""

    def run() -> None:
        with closing(Netlink()) as rtnetlink:
            assert rtnetlink.request(messages) == []

    namespaces.call(bed.netns[host], run)


DRIFTS = {
    "tunnel deleted": lambda i: [m.delete_link(i["vxlan"])],
    "bridge deleted": lambda i: [m.delete_link(i["bridge"])],
    "bridge down": lambda i: [m.set_link(i["bridge"], up=False)],
    "tunnel out of its bridge": lambda i: [m.set_link(i["vxlan"], master=0)],
    "interface out of its bridge": lambda i: [m.set_link(i["veth"], master=0)],
    "interface down": lambda i: [m.set_link(i["veth"], up=False)],
    "another size of packet": lambda i: [m.set_link(i["bridge"], mtu=1300), m.set_link(i["vxlan"], mtu=1300)],
    "another gateway MAC": lambda i: [m.set_link(i["bridge"], mac=bytes.fromhex("020102030405"))],
    "suppression off": lambda i: [m.set_port(i["vxlan"], learning=True, suppress=False, isolated=False)],
    "neighbour removed": lambda i: [m.remove_neighbour(i["bridge"], bytes([10, 7, 0, 3]))],
    "tunnel entry removed": lambda i: [
        m.remove_vtep(i["vxlan"], bytes.fromhex("020000138f03"), bytes([198, 18, 0, 2]))
    ],
    "tunnel entry elsewhere": lambda i: [m.vtep(i["vxlan"], bytes.fromhex("020000138f03"), bytes([198, 18, 0, 77]))],
    "port entry removed": lambda i: [m.remove_port_entry(i["vxlan"], bytes.fromhex("020000138f03"))],
    "gateway removed": lambda i: [m.address(i["bridge"], bytes([10, 7, 0, 1]), 24, remove=True)],
    "a stray entry": lambda i: [m.neighbour(i["bridge"], bytes([10, 7, 0, 99]), bytes.fromhex("020000000099"))],
}


@pytest.mark.parametrize("drift", DRIFTS)
async def test_drift_is_repaired_in_one_pass(bed: Bed, drift: str) -> None:
    id_ = await pair(bed)
    indexes = look(bed.netns["h1"]).links
    kinds = {"kvb": "bridge", "kvx": "vxlan", "kve": "veth"}
    by_hand(bed, "h1", *DRIFTS[drift]({kinds[name[:3]]: index for name, index in indexes.items()}))

    seen = await bed.planned("h1", id_)
    assert seen.operations, "reading just the network shows it"
    assert await bed.kernels["h1"].apply(seen.operations) == []

    assert (await bed.planned("h1")).operations == ()
    assert await bed.reaches("c1", "10.7.0.3")
    assert await bed.reaches("c1", "fd00:7::3")


async def test_a_moved_address_is_announced_to_the_workloads_that_know_the_old_mac(bed: Bed) -> None:
    net = network(7)
    bed.add(net, "c1", "h1", 2)
    old = bed.add(net, "c2", "h2", 3)
    bed.add(net, "c3", "h2", 4)
    assert await bed.converge() == []
    assert await bed.ping("c1", "10.7.0.3")
    assert await bed.ping("c1", "fd00:7::3")

    bed.remove(old)
    moved = replace(old, id="c2-again", host="h1", mac="02:00:00:00:aa:aa")
    bed.endpoints[net.id][moved.id] = moved
    bed.workloads["c2b"] = namespaces.create("w-c2b")
    bed.attachments["h1"][moved.id] = replace(
        bed.attachments["h1"]["c1-n7"], endpoint=moved.id, netns=str(bed.workloads["c2b"])
    )
    assert await bed.converge() == []

    assert await bed.ping("c1", "10.7.0.3", timeout_s=0.5)
    assert await bed.ping("c1", "fd00:7::3", timeout_s=0.5)


async def test_an_overlay_over_an_ipv6_underlay_carries_both_families(bed: Bed) -> None:
    for name, host in bed.hosts.items():
        bed.hosts[name] = replace(host, underlay=ip_address(f"fd00:198:18::{host.underlay.packed[-1]}"))
    await pair(bed)

    assert await bed.ping("c1", "10.7.0.3")
    assert await bed.ping("c1", "fd00:7::3")
    assert (await bed.planned("h1")).operations == ()


async def test_packets_of_the_full_size_cross(bed: Bed) -> None:
    await pair(bed)
    opener = partial(namespaces.open_socket, bed.workloads["c1"])
    headers = 28  # IPv4 and ICMP

    fits = await ping(opener, ip_address("10.7.0.3"), payload=1450 - headers)

    assert fits.ok


async def test_every_new_workload_may_send_the_moment_it_is_attached(bed: Bed) -> None:
    """The kernel finishes links and IPv6 addresses in work queues; `apply` returns after them."""
    net = network(7)
    bed.add(net, "target", "h2", 250)
    for number in range(2, 14):
        name = f"c{number}"
        bed.add(net, name, "h1", number)
        assert await bed.converge("h2", "h1") == []

        assert await bed.ping(name, f"fd00:7::{250:x}" if number % 2 else "10.7.0.250")
        assert await bed.ping(name, "fd00:7::1" if number % 2 else "10.7.0.1")
