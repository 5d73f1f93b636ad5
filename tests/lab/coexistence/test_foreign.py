"""What is not ours is as it was, and what others do to ours is repaired while packets flow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lab import namespaces
from tests.lab.coexistence.conftest import OUTSIDE, Shared, kept
from tests.lab.coexistence.fingerprint import fingerprint
from tests.lab.coexistence.programs import run, until
from tests.lab.kernel.bed import nft
from worker.kernel import messages as m
from worker.kernel.firewall import find_nft
from worker.kernel.netlink import Message, Netlink, attribute, nested
from worker.kernel.sysctls import write_sysctl

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

REPAIRED_SECONDS = 1.0
FOREIGN_TABLES = """
table inet mine {
  set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }
  }
  chain f {
    type filter hook forward priority 0; policy accept;
    ip saddr @s counter
  }
}
table ip nat {
  chain POSTROUTING {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 172.17.0.0/16 masquerade
  }
}
"""


async def test_a_foreign_flush_is_repaired_within_a_second_while_packets_flow(shared: Shared) -> None:
    async with kept(shared):
        await shared.until_all_pass(3 * REPAIRED_SECONDS)
        for _ in range(3):
            nft(shared.netns, "flush ruleset")
            start = asyncio.get_running_loop().time()
            await until(lambda: "kvnet" in run(shared.netns, find_nft(), "list", "tables"), "back", 5.0)
            await until_reached(shared)
            assert asyncio.get_running_loop().time() - start < REPAIRED_SECONDS
    assert shared.failures == []


async def until_reached(shared: Shared) -> None:
    async with asyncio.timeout(5.0):
        while not await shared.bed.ping("w1", OUTSIDE, timeout_s=0.2):
            pass


async def test_what_is_not_ours_is_byte_for_byte_the_same(shared: Shared, wrappers: Path) -> None:
    nft(shared.netns, FOREIGN_TABLES)
    run(shared.netns, wrappers / "bin" / "iptables-legacy", "-A", "FORWARD", "-s", "10.9.0.0/16", "-j", "DROP")
    namespaces.call(shared.netns, _foreign_things)
    before = fingerprint(shared.netns)
    rules = run(shared.netns, wrappers / "bin" / "iptables-legacy", "-S").splitlines()

    async with kept(shared):
        await shared.until_all_pass(3 * REPAIRED_SECONDS)
        assert fingerprint(shared.netns) == before
        during = run(shared.netns, wrappers / "bin" / "iptables-legacy", "-S").splitlines()
    assert [rule for rule in during if "--comment kvnet" not in rule] == rules
    assert len(during) == len(rules) + 1

    shared.bed.endpoints.clear()
    await shared.bed.converge("h1")
    assert fingerprint(shared.netns) == before
    assert run(shared.netns, wrappers / "bin" / "iptables-legacy", "-S").splitlines() == rules


def _foreign_things() -> None:
    """A bridge with an address, a route over it; forwarding is on already, as on a host of Docker's."""
    for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        write_sysctl(path, "1")
    rtnetlink = Netlink()
    made = Message(m.RTM_NEWLINK, m.CREATE, m.LINK.pack(0, 0, 0, m.IFF_UP, m.IFF_UP) + _named("docker0", b"bridge"))
    assert rtnetlink.request([made]) == []
    body = rtnetlink.get(m.get_link("docker0"))
    assert body is not None
    index = m.LINK.unpack_from(body)[2]
    assert rtnetlink.request([m.address(index, bytes([172, 17, 0, 1]), 16, prefix_route=True)]) == []
    rtnetlink.close()


def _named(name: str, kind: bytes) -> bytes:
    return attribute(m.IFLA_IFNAME, name.encode() + b"\0") + nested(m.IFLA_LINKINFO, attribute(1, kind))
