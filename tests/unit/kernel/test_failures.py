"""What the kernel refused, in words with a way out."""

from __future__ import annotations

import errno

import pytest

from datapath.objects import (
    Bridge,
    CreateLink,
    Enslave,
    Enslavement,
    Failure,
    Link,
    Macvlan,
    Neighbour,
    Operation,
    ReplaceNeighbour,
    ReplaceVtep,
    Shim,
    Veth,
    VtepEntry,
    Vxlan,
)
from worker.kernel.failures import failure, told
from worker.kernel.netlink import ANSWER_LOST

MAC = bytes.fromhex("026b00000001")
NEIGHBOUR = ReplaceNeighbour(Neighbour("kvb0", bytes([10, 0, 0, 2]), MAC))


def tell(operation: Operation, number: int, text: str = "") -> Failure:
    return failure(operation, told(operation, number, text))


LINKS: list[tuple[Link, str]] = [
    (Bridge("kvb0", MAC, 1500, True), "bridge"),
    (Vxlan("kvx0", 7, bytes(4), 1450, "kvb0"), "vxlan"),
    (Veth("kve0", 1500, "kvb0"), "veth"),
    (Macvlan("kvm0", "eth0", 1500), "macvlan"),
    (Shim("kvs0", "eth0", MAC, 1500), "macvlan"),
]


@pytest.mark.parametrize("text", ["", "Unknown device type"])
@pytest.mark.parametrize(("link", "module"), LINKS)
def test_a_kind_that_the_kernel_lacks_names_its_module(link: Link, module: str, text: str) -> None:
    refused = tell(CreateLink(link), errno.EOPNOTSUPP, text)

    assert refused.code == "kernel-lacks"
    assert f"modprobe {module}" in refused.reason


def test_what_else_is_not_supported_is_told_as_the_kernel_says_it() -> None:
    refused = tell(CreateLink(LINKS[1][0]), errno.EOPNOTSUPP, "IPv6 is not there")

    assert (refused.code, refused.reason) == ("kernel-refused", "IPv6 is not there")


@pytest.mark.parametrize("operation", [CreateLink(LINKS[2][0]), Enslave(Enslavement("eth0", "kvb0"))])
def test_a_full_bridge_says_what_to_do(operation: Operation) -> None:
    refused = tell(operation, errno.EXFULL)

    assert refused.code == "bridge-full"
    assert "kvb0 has 1,023 ports" in refused.reason


@pytest.mark.parametrize(("address", "family"), [(bytes(4), "ipv4"), (bytes(16), "ipv6")])
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.E2BIG])
def test_a_full_neighbour_table_names_its_limit(address: bytes, family: str, number: int) -> None:
    refused = tell(ReplaceNeighbour(Neighbour("kvb0", address, MAC)), number)

    assert refused.code == "neighbours-full"
    assert f"sysctl -w net.{family}.neigh.default.gc_thresh3=" in refused.reason


def test_a_lost_answer_is_no_full_table() -> None:
    assert tell(NEIGHBOUR, errno.ENOBUFS, ANSWER_LOST).code == "kernel-refused"
    assert tell(ReplaceVtep(VtepEntry("kvx0", MAC, bytes(4))), errno.ENOBUFS).code == "kernel-refused"


def test_what_the_kernel_does_not_explain_has_the_errors_own_words() -> None:
    assert tell(NEIGHBOUR, errno.EPERM).reason == "Operation not permitted"
    assert failure(NEIGHBOUR, OSError(errno.EIO, "odd")).reason == "odd"
