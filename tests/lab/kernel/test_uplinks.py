"""The host's own links that networks stand on: looked at, put into a bridge of ours, and left as they were."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.objects import (
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Enslave,
    Enslavement,
    Release,
    Scope,
    Uplink,
    Veth,
)
from lab import namespaces
from tests.lab.eye import everything
from tests.lab.kernel.physical import UPLINK, bridge, cable, give, raw, tell
from worker.kernel import messages as m
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

NETWORK = "0000000000aa"
BRIDGE = Bridge(f"kvb{NETWORK}", bytes.fromhex("026b00000001"), 1500, False)
ENTRY = Enslavement(UPLINK, BRIDGE.name)
SCOPE = Scope(uplinks=frozenset({UPLINK, "nothing"}))
SCOPES = [SCOPE, replace(SCOPE, network=NETWORK)]


@pytest.fixture
def lan(netns: Path) -> Iterator[Path]:
    path = namespaces.create("lan")
    cable(netns, path)
    yield path
    namespaces.destroy(path)


async def uplink(kernel: LinuxKernel, scope: Scope = SCOPE, name: str = UPLINK) -> Uplink:
    return (await kernel.read(scope)).uplinks[name]


@pytest.mark.parametrize("scope", SCOPES, ids=["all", "network"])
async def test_an_uplink_is_told_as_it_is(kernel: LinuxKernel, netns: Path, lan: Path, scope: Scope) -> None:
    found = await uplink(kernel, scope)
    assert found == Uplink(UPLINK, 1500, True, mac=found.mac)
    assert set((await kernel.read(scope)).uplinks) == {UPLINK}, "what is not there is not told"

    give(netns, UPLINK, "192.0.2.10/24")
    assert (await uplink(kernel, scope)).has_addresses

    index = everything(netns).links[UPLINK]
    tell(netns, m.set_link(index, up=False))
    assert not (await uplink(kernel, scope)).up
    assert (await kernel.read()).uplinks == {}, "nobody asked"


@pytest.mark.parametrize("scope", SCOPES, ids=["all", "network"])
async def test_an_uplink_without_a_carrier_is_down(kernel: LinuxKernel, lan: Path, scope: Scope) -> None:
    tell(lan, m.set_link(everything(lan).links[f"{UPLINK}-far"], up=False))

    assert not (await uplink(kernel, scope)).up


@pytest.mark.parametrize("scope", SCOPES, ids=["all", "network"])
async def test_an_uplink_is_enslaved_and_released_and_is_as_it_was(
    kernel: LinuxKernel, netns: Path, lan: Path, scope: Scope
) -> None:
    before = raw(netns)

    assert await kernel.apply([CreateLink(BRIDGE), Enslave(ENTRY), Enslave(ENTRY)]) == []
    state = await kernel.read(scope)
    assert state.enslaved == {ENTRY}
    assert state.uplinks[UPLINK].bridge == BRIDGE.name
    assert set(state.links) == {BRIDGE.name}

    assert await kernel.apply([Release(ENTRY), Release(ENTRY)]) == []
    assert (await kernel.read(scope)).enslaved == set()
    assert await kernel.apply([DeleteLink(BRIDGE), Release(ENTRY)]) == []
    assert raw(netns) == before


async def test_an_uplink_is_as_it_was_when_its_bridge_goes_at_once(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    before = raw(netns)

    assert await kernel.apply([CreateLink(BRIDGE), Enslave(ENTRY), DeleteLink(BRIDGE)]) == []

    assert raw(netns) == before


async def test_an_uplink_that_is_in_another_bridge_stays_there(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    bridge(netns, "br0")
    links = everything(netns).links
    tell(netns, m.set_link(links[UPLINK], master=links["br0"]))
    assert await kernel.apply([CreateLink(BRIDGE)]) == []

    (failure,) = await kernel.apply([Enslave(ENTRY), Release(ENTRY)])

    assert failure.errno == errno.EBUSY
    found = await uplink(kernel)
    assert found.bridge == "br0"


async def test_an_uplink_that_is_missing_is_named(kernel: LinuxKernel) -> None:
    (failure,) = await kernel.apply([CreateLink(BRIDGE), Enslave(ENTRY), Release(ENTRY)])

    assert failure.code == "uplink-missing"


async def test_a_link_that_an_operator_plugged_into_our_bridge_is_not_told_as_ours(
    kernel: LinuxKernel, netns: Path, lan: Path
) -> None:
    assert await kernel.apply([CreateLink(BRIDGE)]) == []
    links = everything(netns).links
    tell(netns, m.set_link(links[UPLINK], master=links[BRIDGE.name]))

    for scope in (Scope(), Scope(NETWORK)):
        state = await kernel.read(scope)
        assert (state.enslaved, set(state.links)) == (set(), {BRIDGE.name})


@pytest.fixture
def workloads() -> Iterator[list[Path]]:
    paths = [namespaces.create(f"w{number}") for number in range(2)]
    yield paths
    for path in paths:
        namespaces.destroy(path)


async def test_workloads_of_two_networks_in_an_operators_bridge_are_told_apart(
    kernel: LinuxKernel, netns: Path, workloads: list[Path]
) -> None:
    bridge(netns, "br0")
    before = raw(netns)
    veths = [Veth(f"kve{number:012x}", 1500, "br0", network=f"{number:012x}") for number in range(2)]
    sides = [
        ContainerSide(str(path), "eth0", bytes([2, 0, 0, 0, 0, n]), 1500, (), ()) for n, path in enumerate(workloads)
    ]
    assert await kernel.apply([CreateLink(v, side) for v, side in zip(veths, sides, strict=True)]) == []

    scope = Scope(uplinks=frozenset({"br0"}))
    state = await kernel.read(scope)
    assert state.links == {veth.name: veth for veth in veths}
    assert state.links[veths[1].name] == veths[1]
    assert state.uplinks["br0"].is_bridge
    assert state.uplinks["br0"].up
    for veth in veths:
        part = await kernel.read(replace(scope, network=veth.network))
        assert part.links == {veth.name: veth}
    tell(netns, m.set_link(everything(netns).links[veths[0].name], master=0))
    stray = await kernel.read(replace(scope, network=veths[0].network))
    assert stray.links == {veths[0].name: replace(veths[0], bridge="")}, "it is found again by memory"

    assert await kernel.apply([*map(DeleteLink, veths)]) == []
    assert raw(netns)["addresses"] == before["addresses"]
    assert everything(netns).links.keys() == {"lo", "br0"}


async def test_an_operators_bridge_is_told_as_up_while_it_has_no_ports(kernel: LinuxKernel, netns: Path) -> None:
    bridge(netns, "br0")

    assert (await uplink(kernel, Scope(uplinks=frozenset({"br0"})), "br0")).up


NAMED = Bridge("br-shop", bytes.fromhex("026b00000002"), 1500, True, network=NETWORK)


async def test_a_bridge_under_an_operators_name_is_ours(
    kernel: LinuxKernel, netns: Path, workloads: list[Path]
) -> None:
    veth = Veth("kve000000000001", 1500, NAMED.name, isolated=True, hairpin=True)
    side = ContainerSide(str(workloads[0]), "eth0", bytes.fromhex("020000000001"), 1500, (), ())
    assert await kernel.apply([CreateLink(NAMED), CreateLink(veth, side)]) == []

    for scope in (Scope(), Scope(NETWORK), Scope(NETWORK, bridge=NAMED.name)):
        state = await kernel.read(scope)
        assert state.links == {NAMED.name: NAMED, veth.name: veth}
        assert state.links[NAMED.name].network == NETWORK  # type: ignore[union-attr]
        assert NAMED.name not in state.foreign
    tell(netns, m.set_link(everything(netns).links[NAMED.name], mac=bytes.fromhex("020000000099")))
    assert NAMED.name in (await kernel.read()).links, "its alias tells"

    assert await kernel.apply([DeleteLink(veth), DeleteLink(NAMED)]) == []
    assert everything(netns).links.keys() == {"lo"}


async def test_a_foreign_bridge_under_the_name_that_a_network_wants_is_told_and_gets_nothing_of_ours(
    kernel: LinuxKernel, netns: Path, workloads: list[Path]
) -> None:
    bridge(netns, NAMED.name)
    before = everything(netns)
    veth = Veth("kve000000000001", 1500, NAMED.name)
    side = ContainerSide(str(workloads[0]), "eth0", bytes.fromhex("020000000001"), 1500, (), ())

    assert NAMED.name in (await kernel.read()).foreign
    assert NAMED.name in (await kernel.read(Scope(NETWORK, bridge=NAMED.name))).foreign
    failures = await kernel.apply([CreateLink(NAMED), CreateLink(veth, side), DeleteLink(NAMED)])

    assert [failure.is_foreign for failure in failures] == [True, False, True]
    assert everything(netns) == before
