"""The nftables tables: who reaches whom, and what happens when somebody changes them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from datapath.objects import (
    Firewall,
    Hint,
    Publication,
    SetFirewall,
)
from kvnet.errors import Unfit
from tests.lab.kernel.bed import nft
from worker.kernel.firewall import find_nft
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SOME = Firewall(
    bridges=frozenset({"kvb0000000000aa", "kvb0000000000bb"}),
    internal=frozenset({"kvb0000000000bb"}),
    subnets4=frozenset({(bytes([10, 1, 0, 0]), 24), (bytes([10, 1, 1, 0]), 24), (bytes([255, 255, 255, 0]), 24)}),
    subnets6=frozenset({(bytes([0xFD, *bytes(15)]), 64), (bytes([0xFD, *bytes(6), 1, *bytes(8)]), 64)}),
    vxlans=frozenset({"kvx0000000000aa"}),
    apart=frozenset({"kvx0000000000ab"}),
    dockers=frozenset({"docker0", "br-0123456789ab"}),
    gateway_macs=frozenset({bytes.fromhex("026b00000001")}),
    isolated=frozenset({"kvb0000000000bb"}),
    pairs=frozenset({("kvb0000000000aa", "br-lan.7"), ("br-lan.7", "kvb0000000000aa"), ("br-x", "br-x")}),
    within=frozenset(
        {
            ("kvb0000000000aa", (bytes([10, 1, 0, 0]), 16)),
            ("kvb0000000000aa", (bytes([198, 18, 0, 2]), 32)),
            ("br-lan.7", (bytes([10, 1, 0, 0]), 16)),
            ("br-lan.7", (bytes([0xFD, *bytes(15)]), 64)),
            ("br-lan.7", (bytes([0xFE, *bytes(14), 9]), 128)),
        }
    ),
    blocks=frozenset({(bytes([10, 1, 0, 0]), 24), (bytes([10, 1, 1, 0]), 24), (bytes([0xFD, *bytes(15)]), 64)}),
    publications=frozenset(
        {
            Publication(TCP, b"", 80, bytes([10, 1, 0, 2]), 8080),
            Publication(UDP, b"", 80, bytes([10, 1, 0, 2]), 8080),
            Publication(UDP, bytes([192, 0, 2, 1]), 53, bytes([10, 1, 0, 3]), 53),
            Publication(TCP, b"", 80, bytes([0xFD, *bytes(14), 2]), 8080),
            Publication(TCP, bytes([0xFD, *bytes(14), 7]), 65535, bytes([0xFD, *bytes(14), 2]), 1),
        }
    ),
)


async def content(kernel: LinuxKernel) -> Firewall | None:
    return (await kernel.read()).firewall


async def test_what_was_set_is_read_back(kernel: LinuxKernel) -> None:
    assert await content(kernel) is None, "no tables yet"

    assert await kernel.apply([SetFirewall(SOME)]) == []

    assert await content(kernel) == SOME


async def test_a_change_of_content_leaves_the_rules_sealed(kernel: LinuxKernel) -> None:
    await kernel.apply([SetFirewall(SOME)])
    less = Firewall(bridges=frozenset({"kvb0000000000aa"}), subnets4=frozenset({(bytes([10, 1, 0, 0]), 23)}))

    assert await kernel.apply([SetFirewall(less)]) == []
    assert await content(kernel) == less
    assert await kernel.apply([SetFirewall(Firewall())]) == []
    assert await content(kernel) == Firewall()


async def test_a_restarted_worker_finds_its_rules_intact(kernel: LinuxKernel, netns: Path) -> None:
    await kernel.apply([SetFirewall(SOME)])

    async with await LinuxKernel.open(netns=str(netns)) as again:
        assert await content(again) == SOME


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table inet kvnet",
        "delete table bridge kvnet",
        "add rule inet kvnet forward accept",
        "insert rule inet kvnet from_ours accept",
        "flush chain inet kvnet postrouting",
        "flush chain bridge kvnet forward",
        "add chain inet kvnet mine { type filter hook forward priority 0; policy drop; }",
        "add table inet kvnet { flags dormant; }",
        'delete element inet kvnet loops { "kvb0000000000aa" . "kvb0000000000aa" }',
        'add element inet kvnet same { "kvb0000000000aa" . "eth0" }',
        "delete element inet kvnet same4 { 10.1.0.0/24 . 10.1.0.0/24 }",
        "add element inet kvnet same4 { 10.1.0.0/24 . 10.9.0.0/24 }",
        'add element inet kvnet within4 { "br-x" . 10.9.0.1-10.9.0.5 }',
    ],
)
async def test_damage_is_seen_and_repaired(kernel: LinuxKernel, netns: Path, damage: str) -> None:
    await kernel.apply([SetFirewall(SOME)])
    nft(netns, damage)

    assert await content(kernel) is None

    assert await kernel.apply([SetFirewall(SOME)]) == []
    assert await content(kernel) == SOME


async def test_a_foreign_flush_is_hinted_at_at_once(kernel: LinuxKernel, netns: Path) -> None:
    await kernel.apply([SetFirewall(SOME)])
    hints = kernel.hints()
    waiting = asyncio.ensure_future(anext(hints))
    await _listening(kernel)

    nft(netns, "flush ruleset")

    async with asyncio.timeout(1.0):
        assert (await waiting) == Hint(firewall=True)
    await hints.aclose()


async def test_other_tables_are_left_alone_and_are_no_hint(kernel: LinuxKernel, netns: Path) -> None:
    foreign = "table ip docker {\n chain forward {\n type filter hook forward priority 0; policy accept;\n }\n}\n"
    nft(netns, foreign)
    before = nft(netns, "list table ip docker")

    await kernel.apply([SetFirewall(SOME)])
    await kernel.apply([SetFirewall(Firewall())])

    assert nft(netns, "list table ip docker") == before


@pytest.mark.parametrize("name", ['kvb"; flush ruleset; "', "kvb a", "kvb*", "kvb0 }", "kvb\n", "", "-x", "x" * 16])
async def test_a_name_that_could_break_out_of_the_rules_is_refused(kernel: LinuxKernel, netns: Path, name: str) -> None:
    nft(netns, "add table ip canary")

    (failure,) = await kernel.apply([SetFirewall(Firewall(bridges=frozenset({name})))])

    assert "cannot be the name of a device" in failure.reason
    assert "canary" in nft(netns, "list tables")


def test_a_missing_program_is_named_with_what_to_install() -> None:
    with pytest.raises(Unfit) as caught:
        find_nft({"PATH": "/nonexistent", "KVNET_NFT": "/nonexistent/nft"})
    assert "KVNET_NFT" in caught.value.detail


async def _listening(kernel: LinuxKernel) -> None:
    """Whatever ran in the kernel thread before this has opened its sockets."""
    for _ in range(3):
        await kernel.has_namespace("/proc/self/ns/net")
        await asyncio.sleep(0)
