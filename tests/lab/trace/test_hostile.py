"""What a workload puts into its own namespace is looked at by root: it must not get hold of who looks."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import namespaces
from worker.kernel.firewall import find_nft
from worker.kernel.other_rules import MOST_TABLES, OtherRules
from worker.kernel.sight import is_listening, settings

pytestmark = pytest.mark.kernel

NETFILTER, NFTABLES, NEW_TABLE, BATCH_BEGIN, BATCH_END = 12, 10, 10 << 8, 0x10, 0x11
REQUEST, ACKNOWLEDGE, CREATE, IPV4 = 0x1, 0x4, 0x400, 2


@pytest.fixture
def netns() -> Iterator[Path]:
    made = namespaces.create("hostile")
    try:
        yield made
    finally:
        namespaces.destroy(made)


def make_table(name: str) -> None:
    """As `nft` never would: the kernel takes any name."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), 1) + text + bytes(-len(text) % 4)
    begin, end = (message(kind, REQUEST, struct.pack(">BBH", 0, 0, NFTABLES)) for kind in (BATCH_BEGIN, BATCH_END))
    table = message(NEW_TABLE, REQUEST | ACKNOWLEDGE | CREATE, struct.pack(">BBH", IPV4, 0, 0) + attribute)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as netlink:
        netlink.sendto(begin + table + end, (0, 0))
        assert struct.unpack_from("=i", netlink.recv(4096), 16) == (0,)


def message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def tables() -> str:
    done = subprocess.run([find_nft(), "list", "tables"], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout


@pytest.mark.parametrize("name", ["good; add table ip taken", "-f/etc/hostname", "good\nadd table ip taken"])
def test_the_name_of_a_table_is_never_a_command(netns: Path, name: str) -> None:
    def looked() -> tuple[str, str, list[str]]:
        make_table("good")
        make_table(name)
        before, rules = tables(), OtherRules(find_nft())
        rules.chains()
        return before, tables(), rules.unread

    before, after, unread = namespaces.call(netns, looked)

    assert after == before
    assert unread == [f"nft: a ip table called {name!r}"]


def test_very_many_tables_are_told_and_not_all_read(netns: Path) -> None:
    def looked() -> list[str]:
        for number in range(MOST_TABLES + 3):
            make_table(f"t{number}")
        rules = OtherRules(find_nft(), largest=100_000)
        rules.chains()
        return rules.unread

    assert namespaces.call(netns, looked)[0] == f"nft: 3 of {MOST_TABLES + 3} tables"


def test_a_listing_that_is_larger_than_it_may_be_is_not_kept(netns: Path) -> None:
    def looked() -> list[str]:
        make_table("t")
        rules = OtherRules(find_nft(), largest=20)
        assert rules.chains() == []
        return rules.unread

    assert namespaces.call(netns, looked) == ["nft -j list tables: too long"]


@pytest.mark.parametrize(
    "path",
    [
        "kernel/core_pattern",
        "net/ipv6/conf/all/stable_secret",
        "/etc/hostname",
        "net/ipv4/conf/../../../kernel/core_pattern",
        "net/ipv4/conf/../rp_filter",
        "net/ipv4/ip_forward\0",
    ],
)
def test_only_settings_that_a_way_depends_on_are_read(path: str) -> None:
    assert settings([path]) == {}


def test_the_settings_that_a_way_depends_on_are_read() -> None:
    wanted = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/lo/rp_filter"]

    assert list(settings(wanted)) == wanted


@pytest.mark.parametrize("what", ["../tcp", "unix/1", "tcp/", "tcp/-1", "route/80"])
def test_nothing_but_ports_is_asked_for(what: str) -> None:
    assert is_listening(what) is None
