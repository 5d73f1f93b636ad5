"""Hints: what changed by anybody's hand is told within a moment, and noise is not."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from datapath.objects import (
    Bridge,
    CreateLink,
    Hint,
    Neighbour,
    PortEntry,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceVtep,
    VtepEntry,
    Vxlan,
)
from lab import namespaces
from tests.lab.eye import everything
from tests.lab.kernel.bed import nft
from worker.kernel import messages as m
from worker.kernel.events import Events, HintCollector, Interest
from worker.kernel.linux import LinuxKernel
from worker.kernel.netlink import Message, Netlink
from worker.kernel.sysctls import read_sysctl, write_sysctl
from worker.kernel.vigil import PERIOD_S

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

BRIDGE = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
TUNNEL = Vxlan("kvx0000000000aa", 77, bytes([198, 18, 0, 1]), 1450, BRIDGE.name)
MAC = bytes.fromhex("020000000001")
PEER = bytes([198, 18, 0, 2])
WITHIN_SECONDS = 1.0
QUIET_SECONDS = 0.15


class Listener:
    """Collects hints in the background."""

    def __init__(self, hints: AsyncGenerator[Hint]) -> None:
        self._hints = hints
        self._waiting: asyncio.Future[Hint] = asyncio.ensure_future(anext(self._hints))

    async def next(self, within_s: float = WITHIN_SECONDS) -> Hint | None:
        done, _ = await asyncio.wait([self._waiting], timeout=within_s)
        if not done:
            return None
        hint = self._waiting.result()
        self._waiting = asyncio.ensure_future(anext(self._hints))
        return hint

    async def quiet(self) -> None:
        while await self.next(QUIET_SECONDS) is not None:
            pass

    async def close(self) -> None:
        self._waiting.cancel()
        await asyncio.wait([self._waiting])
        await self._hints.aclose()


@pytest.fixture
async def listener(kernel: LinuxKernel, netns: Path) -> AsyncIterator[Listener]:
    assert (
        await kernel.apply(
            [
                CreateLink(BRIDGE),
                CreateLink(TUNNEL),
                ReplaceVtep(VtepEntry(TUNNEL.name, MAC, PEER)),
                ReplacePort(PortEntry(TUNNEL.name, MAC)),
                ReplaceNeighbour(Neighbour(BRIDGE.name, bytes([10, 1, 0, 2]), MAC)),
            ]
        )
        == []
    )
    known = {index: name for name, index in everything(netns).links.items() if name.startswith(("kvb", "kvx"))}
    with closing(namespaces.call(netns, Events.open)) as events:
        made = Listener(HintCollector(events, Interest(known)).hints())
        await made.quiet()
        yield made
        await made.close()


def by_hand(netns: Path, *messages: Message) -> None:
    def run() -> None:
        with closing(Netlink()) as rtnetlink:
            assert rtnetlink.request(messages) == []

    namespaces.call(netns, run)


CHANGES = {
    "a neighbour went": ("bridge", lambda i: m.remove_neighbour(i[BRIDGE.name], bytes([10, 1, 0, 2]))),
    "a tunnel entry went": ("tunnel", lambda i: m.remove_vtep(i[TUNNEL.name], MAC, PEER)),
    "a port entry went": ("tunnel", lambda i: m.remove_port_entry(i[TUNNEL.name], MAC)),
    "the tunnel went": ("tunnel", lambda i: m.delete_link(i[TUNNEL.name])),
    "the bridge went down": ("bridge", lambda i: m.set_link(i[BRIDGE.name], up=False)),
    "an address came": ("bridge", lambda i: m.address(i[BRIDGE.name], bytes([10, 1, 0, 9]), 24)),
    "the tunnel left its bridge": ("tunnel", lambda i: m.set_link(i[TUNNEL.name], master=0)),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_ours_is_hinted_at(listener: Listener, netns: Path, change: str) -> None:
    what, message = CHANGES[change]
    by_hand(netns, message(everything(netns).links))

    hint = await listener.next()

    assert hint is not None
    assert {"bridge": BRIDGE.name, "tunnel": TUNNEL.name}[what] in hint.devices


async def test_a_new_device_of_ours_is_known_from_its_own_event(
    listener: Listener, kernel: LinuxKernel, netns: Path
) -> None:
    other = Bridge("kvb0000000000bb", bytes.fromhex("026b00000002"), 1450, True)
    await kernel.apply([CreateLink(other)])
    await listener.quiet()

    by_hand(netns, m.address(everything(netns).links[other.name], bytes([10, 2, 0, 1]), 24))

    hint = await listener.next()
    assert hint is not None
    assert hint.devices == {other.name}


async def test_an_address_of_the_hosts_own_is_the_underlays_business_and_told_now_and_then(
    listener: Listener, netns: Path
) -> None:
    loopback = 1
    hints = []
    for last in range(1, 20):
        by_hand(netns, m.address(loopback, bytes([192, 0, 2, last]), 32))
        hints.append(await listener.next(0.05))
    hints.append(await listener.next())

    told = [hint for hint in hints if hint is not None and hint.underlay]
    assert 0 < len(told) < 8, "there may be many of them, on a host with other programs"


async def test_neighbours_of_others_are_no_hint(listener: Listener, netns: Path) -> None:
    by_hand(netns, m.neighbour(1, bytes([192, 0, 2, 8]), MAC))

    assert await listener.next(QUIET_SECONDS) is None


async def test_a_chain_of_others_that_comes_to_the_forward_hook_and_leaves_it_is_hinted_at(
    listener: Listener, netns: Path
) -> None:
    nft(netns, "table inet site {\n chain c {\n type filter hook forward priority 0; policy drop;\n }\n}\n")
    come = await listener.next()
    await listener.quiet()
    nft(netns, "delete table inet site\n")
    gone = await listener.next()

    assert come == Hint(firewall=True)
    assert gone == Hint(firewall=True)


SETTINGS = {
    "net/ipv4/ip_forward": Hint(host=True),
    "net/ipv6/conf/all/forwarding": Hint(host=True),
    f"net/ipv6/conf/{BRIDGE.name}/accept_ra": Hint(frozenset({BRIDGE.name})),
    f"net/ipv4/conf/{BRIDGE.name}/route_localnet": Hint(frozenset({BRIDGE.name})),
    f"net/ipv6/conf/{TUNNEL.name}/disable_ipv6": Hint(frozenset({TUNNEL.name})),
}


@pytest.mark.parametrize("setting", SETTINGS)
async def test_a_setting_that_gives_no_event_is_noticed_within_a_second(
    kernel: LinuxKernel, netns: Path, setting: str
) -> None:
    await kernel.apply([CreateLink(BRIDGE), CreateLink(TUNNEL)])
    listener = Listener(kernel.hints())
    while await listener.next(2 * PERIOD_S) is not None:  # the watch has begun, and its own first events are over
        pass

    value = namespaces.call(netns, lambda: read_sysctl(setting))
    namespaces.call(netns, lambda: write_sysctl(setting, "1" if value == "0" else "0"))

    wanted = SETTINGS[setting]
    async with asyncio.timeout(WITHIN_SECONDS):
        hint = await listener.next()
        while hint is None or not (hint.devices >= wanted.devices and hint.host >= wanted.host):
            hint = await listener.next()
    await listener.close()


async def test_a_bridge_of_dockers_is_hinted_at_when_it_comes_and_goes_and_read(
    kernel: LinuxKernel, netns: Path
) -> None:
    name = "br-0123456789ab"
    listener = Listener(kernel.hints())
    while await listener.next(2 * PERIOD_S) is not None:
        pass

    async def until_known(is_there: bool) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            hint = await listener.next()
            while hint is None or not hint.host:
                hint = await listener.next()
        assert (await kernel.read()).dockers == ({name} if is_there else set())
        while (hint := await listener.next(QUIET_SECONDS)) is not None:
            assert not hint.host, "once"

    for words, is_there in (("add dev {} type bridge", True), ("set dev {} up", None), ("del dev {}", False)):
        run = ["nsenter", f"--net={netns}", "ip", "link", *words.format(name).split()]
        await asyncio.to_thread(subprocess.run, run, check=True, timeout=10)
        if is_there is not None:
            await until_known(is_there)
    await listener.close()


async def test_a_burst_is_one_hint(listener: Listener, netns: Path) -> None:
    bridge = everything(netns).links[BRIDGE.name]
    by_hand(netns, *(m.neighbour(bridge, bytes([10, 1, 1, last]), MAC) for last in range(200)))

    assert await listener.next() == Hint(frozenset({BRIDGE.name}))
    assert await listener.next(QUIET_SECONDS) is None


async def test_lost_events_are_a_hint_for_everything(kernel: LinuxKernel, netns: Path) -> None:
    await kernel.apply([CreateLink(BRIDGE)])
    bridge = everything(netns).links[BRIDGE.name]
    with closing(namespaces.call(netns, Events.open)) as events:
        events.route.setsockopt(1, 8, 2048)  # SOL_SOCKET, SO_RCVBUF: room for next to nothing
        by_hand(netns, *(m.neighbour(bridge, bytes([10, 1, 1, last]), MAC) for last in range(200)))
        listener = Listener(HintCollector(events, Interest({bridge: BRIDGE.name})).hints())

        assert await listener.next() == Hint()

        await listener.close()


async def test_own_changes_come_back_as_hints_too(kernel: LinuxKernel) -> None:
    hints = kernel.hints()
    waiting = asyncio.ensure_future(anext(hints))
    while not waiting.done():
        await kernel.apply([CreateLink(BRIDGE)])
        await asyncio.wait([waiting], timeout=0.05)

    assert BRIDGE.name in waiting.result().devices
    await hints.aclose()
