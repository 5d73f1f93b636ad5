"""Namespaces: made, entered and left without a fork; the host's surroundings; what is missing is said."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from datapath.objects import AddAddress, Bridge, CreateLink, InterfaceAddress, ReplaceRoute, Route
from kvnet.errors import MissingCapability, NamespaceNotFound, NameTaken, NotFound, Unfit
from lab import namespaces as lab_namespaces
from tests.lab.kernel.bed import Bed
from worker.kernel import namespaces
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


def current() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_a_name_or_a_path_is_resolved(netns: Path) -> None:
    assert namespaces.resolve("host") == str(netns)
    assert namespaces.resolve(str(netns)) == str(netns)


@pytest.mark.parametrize(
    "text", ["nobody", "../../etc/passwd", "/etc/passwd", "", "a b", "/proc/self/ns/mnt", "host/.."]
)
def test_what_is_no_namespace_is_refused(netns: Path, text: str) -> None:
    with pytest.raises(NamespaceNotFound) as caught:
        namespaces.resolve(text)
    assert caught.value.fix


def test_a_pipe_in_the_place_of_a_namespace_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert not namespaces.is_namespace(str(pipe))


def test_the_thread_comes_back_also_after_an_error(netns: Path) -> None:
    home = current()

    def fail() -> None:
        assert current() != home
        raise KeyError("inside")

    with pytest.raises(KeyError):
        lab_namespaces.call(netns, fail)
    assert current() == home


def test_a_name_is_made_once(netns: Path) -> None:
    with pytest.raises(NameTaken):
        lab_namespaces.create(netns.name)
    lab_namespaces.destroy(netns)
    lab_namespaces.destroy(netns)


async def test_surroundings_name_what_others_use_and_leave_out_ours(bed: Bed) -> None:
    kernel = bed.kernels["h1"]
    bridge = Bridge("kvb0000000000aa", bytes.fromhex("026b00000001"), 1450, True)
    subnet = Route(bytes([10, 1, 0, 0]), 24, bridge.name)
    address = AddAddress(InterfaceAddress(bridge.name, bytes([10, 1, 0, 1]), 24))
    assert await kernel.apply([CreateLink(bridge), address, ReplaceRoute(subnet)]) == []

    found = await kernel.surroundings()

    ranges = {used.cidr: used.source for used in found.used}
    for address_ in found.addresses:
        if not address_.address.is_link_local:
            assert ranges[address_.segment] == ranges[ip_network(address_.address)] == "address dev eth0"
    assert {str(entry.address) for entry in found.addresses} >= {"198.18.0.1", "fd00:198:18::1"}
    assert not [cidr for cidr in ranges if cidr.overlaps(ip_network("10.1.0.0/24"))]
    assert not [cidr for cidr in ranges if cidr.is_link_local or cidr.is_loopback or not cidr.prefixlen]
    assert found.mtu_of(IPv4Address("198.18.0.1")) == 1500
    assert found.kernel == os.uname().release
    with pytest.raises(NotFound) as caught:
        found.mtu_of(IPv4Address("192.0.2.1"))
    assert "198.18.0.1" in caught.value.fix


async def test_a_kernel_without_its_program_says_what_to_install(netns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVNET_NFT", "/nonexistent/nft")

    with pytest.raises(Unfit):
        await LinuxKernel.open(netns=str(netns))


async def test_a_kernel_in_a_namespace_that_is_none_is_not_opened() -> None:
    with pytest.raises(NamespaceNotFound):
        await LinuxKernel.open(netns="nobody")


def test_missing_capabilities_are_said_at_once_and_nothing_changes() -> None:
    """In a process of its own that has given its capabilities away."""
    program = (
        "import asyncio, sys\n"
        "from kvnet.errors import KvnetError\n"
        "from worker.kernel.linux import LinuxKernel\n"
        "try:\n"
        "    asyncio.run(LinuxKernel.open())\n"
        "except KvnetError as error:\n"
        "    print(error.code, '|', error.detail, '|', error.fix)\n"
    )
    libc = ctypes.CDLL(None, use_errno=True)

    def give_away() -> None:
        for capability in range(64):
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capset(header, data)

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, preexec_fn=give_away, check=False
    )

    assert done.stdout.startswith(MissingCapability.code), done.stderr
    assert "CAP_NET_ADMIN" in done.stdout
