"""Interfaces straight on an uplink: born in the workload's namespace, found there again, and gone with it."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.objects import ContainerSide, CreateLink, DeleteLink, HostState, Macvlan, Route, Scope, Shim, UpdateLink
from datapath.plan import plan
from lab import namespaces
from lab.ping import ping
from tests.lab.eye import everything
from tests.lab.kernel.physical import BEHIND, BEHIND6, UPLINK, cable, give, raw, tell
from worker.kernel import messages as m
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

MAC = bytes.fromhex("0200000000c1")
LINK = Macvlan("kvm0000000000c1", UPLINK, 1500)
SHIM = Shim("kvs0000000000aa", UPLINK, bytes.fromhex("026b00000001"), 1500)


@pytest.fixture
def workload() -> Iterator[Path]:
    path = namespaces.create("workload")
    yield path
    namespaces.destroy(path)


@pytest.fixture
def lan(netns: Path) -> Iterator[Path]:
    path = namespaces.create("lan")
    cable(netns, path, addresses=(f"{BEHIND}/24", f"{BEHIND6}/64"))
    yield path
    namespaces.destroy(path)


def side(workload: Path, last: int = 2, interface: str = "eth0", **changes: object) -> ContainerSide:
    addresses = ((bytes([192, 0, 2, last]), 24), (ip_address(f"2001:db8::{last}").packed, 64))
    gateways = (ip_address(BEHIND).packed, ip_address(BEHIND6).packed)
    made = ContainerSide(str(workload), interface, MAC, 1500, addresses, gateways)
    return replace(made, **changes)  # type: ignore[arg-type]


def where(workload: Path) -> Scope:
    return Scope(inside={LINK.name: (str(workload), "eth0")}, uplinks=frozenset({UPLINK}))


async def answers(netns: Path, address: str) -> bool:
    opener = partial(namespaces.open_socket, netns)
    return any([(await ping(opener, ip_address(address), timeout_s=0.5)).ok for _ in range(4)])


async def test_a_workload_on_the_uplink_reaches_the_physical_network(
    kernel: LinuxKernel, workload: Path, lan: Path
) -> None:
    assert await kernel.apply([CreateLink(LINK, side(workload))]) == []

    assert await answers(workload, BEHIND)
    assert await answers(workload, BEHIND6)


async def test_it_is_read_back_where_it_is_said_to_be(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    assert await kernel.apply([CreateLink(LINK, side(workload))]) == []

    for scope in (where(workload), replace(where(workload), network="0000000000aa")):
        state = await kernel.read(scope)
        assert state.links == {LINK.name: LINK}
        found = state.containers[LINK.name]
        assert (found.netns, found.interface, found.mac) == (str(workload), "eth0", MAC)
        wanted = HostState(links={LINK.name: LINK}, containers={LINK.name: side(workload)})
        assert plan(replace(wanted, sysctls=state.sysctls), state).operations == ()
    assert (await kernel.read()).links == {}, "nobody said where to look"


async def test_repeating_it_keeps_the_interface(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    operations = [CreateLink(LINK, side(workload))]
    assert await kernel.apply(operations) == []
    before = everything(workload)

    assert await kernel.apply(operations) == []

    assert everything(workload) == before


async def test_one_of_ours_that_is_not_right_is_made_anew(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    other = bytes.fromhex("0200000000c9")
    assert await kernel.apply([CreateLink(LINK, side(workload, mac=other))]) == []

    assert await kernel.apply([CreateLink(LINK, side(workload))]) == []

    assert (await kernel.read(where(workload))).containers[LINK.name].mac == MAC


async def test_an_interface_of_somebody_else_is_left_alone(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    cable(workload, lan, "eth0", addresses=())
    before = everything(workload)

    (failure,) = await kernel.apply([CreateLink(LINK, side(workload)), DeleteLink(LINK, side(workload))])

    assert failure.reason == f"{workload} has an interface eth0 already"
    assert everything(workload) == before
    assert LINK.name not in (await kernel.read(where(workload))).links


async def test_it_is_deleted_where_it_is_and_nothing_stays(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    assert await kernel.apply([CreateLink(LINK, side(workload))]) == []

    nameless = replace(side(workload), mac=b"")
    assert await kernel.apply([DeleteLink(LINK, nameless), DeleteLink(LINK, nameless)]) == []

    assert everything(workload).links.keys() == {"lo"}
    assert (await kernel.read(where(workload))).links == {}


@pytest.mark.parametrize("path", ["/run/netns/nobody", "/proc/999999/ns/net", "/etc/hostname", "/etc/hostname/net"])
async def test_a_namespace_that_is_gone_took_it_along(kernel: LinuxKernel, lan: Path, path: str) -> None:
    assert await kernel.apply([DeleteLink(LINK, side(Path(path)))]) == []
    assert (await kernel.read(where(Path(path)))).links == {}

    (failure,) = await kernel.apply([CreateLink(LINK, side(Path(path)))])
    assert failure.code == "namespace-gone"
    assert path in failure.reason


async def test_many_go_together(kernel: LinuxKernel, lan: Path) -> None:
    """One by one it takes 18 ms each."""
    workloads = [namespaces.create(f"many{number}") for number in range(50)]
    try:
        ends = [
            (replace(LINK, name=f"kvm{number:012x}"), side(path, mac=bytes([2, 0, 0, 0, 0, number]), gateways=()))
            for number, path in enumerate(workloads)
        ]
        assert await kernel.apply([CreateLink(link, inner) for link, inner in ends]) == []
        doomed = [DeleteLink(link, inner) for link, inner in ends]

        started = time.perf_counter()
        assert await kernel.apply([*doomed, DeleteLink(LINK, side(Path("/run/netns/nobody")))]) == []
        assert time.perf_counter() - started <= 0.75

        assert await kernel.apply(doomed) == []
        assert all(everything(path).links.keys() == {"lo"} for path in workloads)
    finally:
        for path in workloads:
            namespaces.destroy(path)


async def test_a_macvlan_without_a_place_cannot_be_deleted(kernel: LinuxKernel) -> None:
    (failure,) = await kernel.apply([DeleteLink(LINK)])

    assert "without its workload's namespace" in failure.reason


async def test_an_uplink_that_is_missing_is_named(kernel: LinuxKernel, workload: Path) -> None:
    failures = await kernel.apply([CreateLink(LINK, side(workload)), CreateLink(SHIM)])

    assert [failure.code for failure in failures] == ["uplink-missing", "uplink-missing"]
    assert "this host has no interface up0" in failures[0].reason
    assert failures[0].errno == errno.ENODEV
    assert everything(workload).links.keys() == {"lo"}


async def test_what_cannot_be_configured_is_removed_again(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    unreachable = side(workload, gateways=(bytes([198, 51, 100, 1]),))

    (failure,) = await kernel.apply([CreateLink(LINK, unreachable)])

    assert "default route" in failure.reason
    assert everything(workload).links.keys() == {"lo"}


async def test_its_size_follows(kernel: LinuxKernel, workload: Path, lan: Path) -> None:
    assert await kernel.apply([CreateLink(LINK, side(workload))]) == []
    smaller = replace(LINK, mtu=1400)

    assert await kernel.apply([UpdateLink(smaller, LINK, side(workload, mtu=1400))]) == []

    assert (await kernel.read(where(workload))).links == {LINK.name: smaller}


async def test_a_host_reaches_its_own_workloads_through_its_shim(
    kernel: LinuxKernel, netns: Path, workload: Path, lan: Path
) -> None:
    give(netns, UPLINK, "192.0.2.10/24")
    assert await kernel.apply([CreateLink(LINK, side(workload))]) == []
    assert not await answers(netns, "192.0.2.2"), "an uplink cannot"

    route = Route(bytes([192, 0, 2, 2]), 32, SHIM.name, source=bytes([192, 0, 2, 10]))
    wanted = HostState(
        links={LINK.name: LINK, SHIM.name: SHIM},
        routes=frozenset({route}),
        containers={LINK.name: side(workload)},
    )
    assert await kernel.apply(plan(wanted, await kernel.read(where(workload))).operations) == []

    assert await answers(netns, "192.0.2.2")
    for scope in (where(workload), replace(where(workload), network="0000000000aa")):
        state = await kernel.read(scope)
        assert (state.links, state.routes) == (wanted.links, wanted.routes)
        assert plan(replace(wanted, sysctls=state.sysctls), state).operations == ()


async def test_a_shim_that_was_changed_is_brought_back(kernel: LinuxKernel, netns: Path, lan: Path) -> None:
    assert await kernel.apply([CreateLink(SHIM)]) == []
    index = everything(netns).links[SHIM.name]
    tell(netns, m.set_link(index, mtu=1300, mac=bytes.fromhex("020000000077"), up=False))
    drifted = (await kernel.read()).links[SHIM.name]
    assert drifted == replace(SHIM, mtu=1300, mac=bytes.fromhex("020000000077"), up=False)

    assert await kernel.apply([UpdateLink(SHIM, drifted)]) == []

    assert (await kernel.read()).links == {SHIM.name: SHIM}


async def test_the_uplink_is_as_it_was_afterwards(kernel: LinuxKernel, netns: Path, workload: Path, lan: Path) -> None:
    give(netns, UPLINK, "192.0.2.10/24")
    before = raw(netns)

    assert await kernel.apply([CreateLink(LINK, side(workload)), CreateLink(SHIM)]) == []
    assert raw(netns) != before
    assert await kernel.apply([DeleteLink(LINK, side(workload)), DeleteLink(SHIM)]) == []

    assert raw(netns) == before
