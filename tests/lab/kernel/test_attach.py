"""An interface in a workload's namespace: born there, configured there, or not there at all."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datapath.objects import Bridge, ContainerSide, CreateLink, DeleteLink, Scope, UpdateLink, Veth
from lab import namespaces
from tests.lab.eye import by_hand, everything
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
VETH = Veth("kve0000000000c1", 1450, BRIDGE.name)
MAC = bytes.fromhex("0200000000c1")
GATEWAY, GATEWAY6 = bytes([10, 1, 0, 1]), bytes([0xFD, *bytes(14), 1])


@pytest.fixture
def workload() -> Iterator[Path]:
    path = namespaces.create("workload")
    yield path
    namespaces.destroy(path)


def side(workload: Path, interface: str = "eth0", last: int = 2) -> ContainerSide:
    addresses = ((bytes([10, 1, 0, last]), 24), (bytes([0xFD, *bytes(14), last]), 64))
    return ContainerSide(str(workload), interface, MAC, 1450, addresses, (GATEWAY, GATEWAY6))


def setting(workload: Path, path: str) -> str:
    return namespaces.call(workload, lambda: Path("/proc/sys/net", path).read_text().strip())


async def test_an_attached_interface_is_ready_when_apply_returns(kernel: LinuxKernel, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []

    seen = everything(workload)
    assert {("eth0", "10.1.0.2"), ("eth0", "fd00::2"), ("lo", "127.0.0.1")} <= seen.addresses
    assert [r for r in seen.routes if r[1] == "default/0"] == [("eth0", "default/0")]
    assert setting(workload, "ipv6/conf/eth0/accept_ra") == "0"
    assert setting(workload, "ipv6/conf/eth0/accept_dad") == "0"
    assert (await kernel.read()).links[VETH.name] == VETH


async def test_a_network_without_ipv6_leaves_ipv6_off(kernel: LinuxKernel, workload: Path) -> None:
    only4 = replace(side(workload), addresses=((bytes([10, 1, 0, 2]), 24),), gateways=(GATEWAY,))

    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, only4)]) == []

    assert setting(workload, "ipv6/conf/eth0/disable_ipv6") == "1"


async def test_repeating_an_attachment_is_no_failure(kernel: LinuxKernel, workload: Path) -> None:
    operations = [CreateLink(BRIDGE), CreateLink(VETH, side(workload))]
    assert await kernel.apply(operations) == []
    before = everything(workload)

    assert await kernel.apply(operations) == []

    assert everything(workload) == before, "the same interface, not another one"


async def test_a_taken_interface_name_is_a_failure_and_nothing_stays(kernel: LinuxKernel, workload: Path) -> None:
    other = Veth("kve0000000000c2", 1450, BRIDGE.name)
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(other, side(workload, last=9))]) == []
    before = everything(workload)

    (failure,) = await kernel.apply([CreateLink(VETH, side(workload))])

    assert failure.errno == errno.EEXIST
    assert failure.reason == f"{workload} has an interface eth0 already"
    assert VETH.name not in (await kernel.read()).links
    assert everything(workload) == before


@pytest.mark.parametrize("path", ["/run/netns/nobody", "/etc/hostname", "/proc/self/ns/mnt", "/dev/null"])
async def test_a_namespace_that_is_none_is_a_failure(kernel: LinuxKernel, path: str) -> None:
    assert not await kernel.has_namespace(path)

    (failure,) = await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(Path(path)))])

    assert f"the workload's namespace {path} cannot be opened" in failure.reason
    assert failure.code == "namespace-gone"
    assert VETH.name not in (await kernel.read()).links


async def test_what_cannot_be_configured_is_removed_again(kernel: LinuxKernel, workload: Path) -> None:
    unreachable = replace(side(workload), gateways=(bytes([192, 0, 2, 1]),))

    (failure,) = await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, unreachable)])

    assert "default route" in failure.reason
    assert failure.errno == errno.ENETUNREACH
    assert VETH.name not in (await kernel.read()).links
    assert "eth0" not in everything(workload).links


async def test_an_interface_whose_workload_came_back_elsewhere_is_new(kernel: LinuxKernel, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []
    elsewhere = namespaces.create("elsewhere")
    try:
        assert await kernel.apply([CreateLink(VETH, side(elsewhere))]) == []

        assert "eth0" in everything(elsewhere).links
        assert "eth0" not in everything(workload).links
    finally:
        namespaces.destroy(elsewhere)


async def test_a_second_network_does_not_take_the_first_ones_way_out(kernel: LinuxKernel, workload: Path) -> None:
    second = Veth("kve0000000000c2", 1450, BRIDGE.name)
    addresses = ((bytes([10, 2, 0, 2]), 24),)
    other = ContainerSide(
        str(workload), "eth1", bytes.fromhex("0200000000c2"), 1450, addresses, (bytes([10, 2, 0, 1]),)
    )

    operations = [CreateLink(BRIDGE), CreateLink(VETH, side(workload)), CreateLink(second, other)]
    assert await kernel.apply(operations) == []

    seen = everything(workload)
    assert [r for r in seen.routes if r[1] == "default/0"] == [("eth0", "default/0")]
    assert ("eth1", "10.2.0.2") in seen.addresses


async def test_an_interface_without_a_known_namespace_is_not_made(kernel: LinuxKernel) -> None:
    (failure,) = await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH)])

    assert "without its workload's namespace" in failure.reason


async def test_an_interface_into_a_bridge_that_is_not_there_is_a_failure(kernel: LinuxKernel, workload: Path) -> None:
    (failure,) = await kernel.apply([CreateLink(VETH, side(workload))])

    assert failure.errno == errno.ENODEV
    assert not everything(workload).links.keys() - {"lo"}


async def test_an_interface_is_isolated_and_resized_in_place(kernel: LinuxKernel, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []
    wanted = replace(VETH, isolated=True, mtu=1400)

    assert await kernel.apply([UpdateLink(wanted, VETH)]) == []

    assert (await kernel.read()).links[VETH.name] == wanted


async def test_a_bridge_keeps_its_size_when_its_last_port_leaves(kernel: LinuxKernel, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []

    assert await kernel.apply([DeleteLink(VETH)]) == []

    assert (await kernel.read()).links == {BRIDGE.name: BRIDGE}


def defaults(workload: Path) -> set[tuple[str, str, int]]:
    """(interface, family, metric) of the default routes."""

    def read(ip: Any) -> set[tuple[str, str, int]]:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        return {
            (names[r.get_attr("RTA_OIF")], {2: "4", 10: "6"}[r["family"]], r.get_attr("RTA_PRIORITY") or 0)
            for family in (2, 10)
            for r in ip.get_routes(family=family, table=254)
            if not r["dst_len"] and r.get_attr("RTA_GATEWAY")
        }

    return by_hand(workload, read)


async def test_ways_out_of_several_networks_are_all_there_by_their_metrics(kernel: LinuxKernel, workload: Path) -> None:
    second = Veth("kve0000000000c2", 1450, BRIDGE.name)
    addresses = ((bytes([10, 2, 0, 2]), 24), (bytes([0xFD, 2, *bytes(13), 2]), 64))
    gateways = (bytes([10, 2, 0, 1]), bytes([0xFD, 2, *bytes(13), 1]))
    other = ContainerSide(str(workload), "eth1", bytes.fromhex("0200000000c2"), 1450, addresses, gateways, metric=100)
    first = replace(side(workload), metric=200)

    operations = [CreateLink(BRIDGE), CreateLink(VETH, first), CreateLink(second, other)]
    assert await kernel.apply(operations) == []
    assert await kernel.apply(operations) == []

    assert defaults(workload) == {("eth0", "4", 200), ("eth0", "6", 200), ("eth1", "4", 100), ("eth1", "6", 100)}


async def test_routes_of_a_workload_are_on_the_link_or_via_a_gateway(kernel: LinuxKernel, workload: Path) -> None:
    routes = (
        (bytes([10, 9, 0, 0]), 16, b""),
        (bytes([10, 8, 0, 0]), 16, GATEWAY),
        (bytes([0xFD, 9, *bytes(14)]), 32, b""),
        (bytes([0xFD, 8, *bytes(14)]), 32, GATEWAY6),
    )
    inner = replace(side(workload), gateways=(), routes=routes)

    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, inner)]) == []

    there = everything(workload).routes
    assert {("eth0", r) for r in ("10.9.0.0/16", "10.8.0.0/16", "fd09::/32", "fd08::/32")} <= there
    assert defaults(workload) == set()


@pytest.mark.parametrize("mtu", [1400, 1500])
async def test_the_workloads_half_follows_in_size(kernel: LinuxKernel, workload: Path, mtu: int) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []
    wanted = replace(VETH, mtu=mtu)

    assert await kernel.apply([UpdateLink(wanted, VETH, replace(side(workload), mtu=mtu))]) == []

    assert (await kernel.read()).links[VETH.name] == wanted
    assert inner_mtu(workload) == mtu


def inner_mtu(workload: Path) -> int:
    def read(ip: Any) -> int:
        return int(ip.get_links(ifname="eth0")[0].get_attr("IFLA_MTU"))

    return by_hand(workload, read)


async def test_a_size_that_the_kernel_refuses_is_a_failure_and_is_seen_again(
    kernel: LinuxKernel, workload: Path
) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []
    absurd = replace(VETH, mtu=10)

    (failure,) = await kernel.apply([UpdateLink(absurd, VETH, replace(side(workload), mtu=10))])

    assert failure.errno == errno.EINVAL
    assert (await kernel.read()).links[VETH.name] == VETH, "the host's half shows that there is work left"


async def test_the_size_of_a_workload_that_is_gone_is_no_failure(kernel: LinuxKernel, workload: Path) -> None:
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(VETH, side(workload))]) == []
    wanted = replace(VETH, mtu=1400)

    assert await kernel.apply([UpdateLink(wanted, VETH, side(Path("/run/netns/nobody")))]) == []

    assert (await kernel.read()).links[VETH.name] == wanted


async def test_a_port_sends_back_where_it_came_from_only_if_asked(kernel: LinuxKernel, workload: Path) -> None:
    hairpin = replace(VETH, hairpin=True)
    assert await kernel.apply([CreateLink(BRIDGE), CreateLink(hairpin, side(workload))]) == []
    assert (await kernel.read()).links[VETH.name] == hairpin

    assert await kernel.apply([UpdateLink(VETH, hairpin)]) == []
    assert (await kernel.read(Scope("0000000000aa"))).links[VETH.name] == VETH
