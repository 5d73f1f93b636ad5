"""What the command line makes of the subnets a network has and what is to be different about them."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.regroup import Regrouping, regrouped
from kvnet.errors import Invalid
from kvnet.wire import Network

FOUR, SIX = "10.1.0.0/24", "fd00:1::/64"


def network(*cidrs: str, **reserved: dict[str, str]) -> Network:
    subnets = [{"cidr": cidr, "range": None, "reserved": reserved.get(f"s{i}", {})} for i, cidr in enumerate(cidrs)]
    return cast(Network, {"name": "my-net", "subnets": subnets})


def test_what_is_not_named_is_only_told_by_its_cidr() -> None:
    assert regrouped(network(FOUR, SIX, s0={"a": "10.1.0.9"}), Regrouping(add=["10.9.0.0/24"])) == [
        {"cidr": FOUR},
        {"cidr": SIX},
        {"cidr": "10.9.0.0/24"},
    ]


def test_a_larger_block_takes_the_place_of_the_one_in_it() -> None:
    asked = Regrouping(grow=["10.1.0.0/22"], reserve={"p": "10.1.2.9"})
    assert regrouped(network(FOUR, SIX, s0={"a": "10.1.0.9"}), asked) == [
        {"cidr": "10.1.0.0/22", "reserved": {"a": "10.1.0.9", "p": "10.1.2.9"}},
        {"cidr": SIX},
    ]


def test_what_is_there_already_is_not_added_again() -> None:
    asked = Regrouping(add=[FOUR], grow=[SIX])
    assert regrouped(network(FOUR, SIX), asked) == [{"cidr": FOUR}, {"cidr": SIX}]


def test_a_range_is_lifted_by_naming_the_whole_subnet() -> None:
    assert regrouped(network(FOUR), Regrouping(ranges=["10.1.0.128/25"])) == [{"cidr": FOUR, "range": "10.1.0.128/25"}]
    assert regrouped(network(FOUR), Regrouping(ranges=[FOUR])) == [{"cidr": FOUR, "range": None}]


def test_reservations_come_and_go_where_they_lie() -> None:
    had = network(FOUR, SIX, s0={"a": "10.1.0.9"}, s1={"b": "fd00:1::9"})
    asked = Regrouping(unreserve=["a"], reserve={"c": "fd00:1::a"})
    assert regrouped(had, asked) == [
        {"cidr": FOUR, "reserved": {}},
        {"cidr": SIX, "reserved": {"b": "fd00:1::9", "c": "fd00:1::a"}},
    ]


def test_a_subnet_that_goes_takes_nothing_else_along_and_a_pool_gives_a_new_one() -> None:
    asked = Regrouping(remove=[FOUR], add_from=["default"])
    assert regrouped(network(FOUR, SIX), asked) == [{"cidr": SIX}, {"pool": "default"}]


def test_what_is_released_may_lie_in_a_subnet_that_goes() -> None:
    had = network(FOUR, SIX, s0={"a": "10.1.0.9", "both": "10.1.0.10"}, s1={"both": "fd00:1::9"})

    assert regrouped(had, Regrouping(remove=[FOUR], unreserve=["a"])) == [{"cidr": SIX}]
    assert regrouped(had, Regrouping(remove=[FOUR], unreserve=["both"])) == [{"cidr": SIX, "reserved": {}}]
    with pytest.raises(Invalid, match="no reserved address of that name"):
        regrouped(had, Regrouping(remove=[FOUR], unreserve=["c"]))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Regrouping(remove=["10.2.0.0/24"]), "has no such subnet"),
        (Regrouping(grow=["10.2.0.0/22"]), "contains no subnet of network my-net"),
        (Regrouping(grow=["10.1.0.1/22"]), "is no block of addresses"),
        (Regrouping(reserve={"p": "10.7.0.1"}), "lies in no subnet"),
        (Regrouping(reserve={"p": "banana"}), "lies in no subnet"),
        (Regrouping(ranges=["10.0.0.0/8"]), "lies in no subnet"),
        (Regrouping(unreserve=["p"]), "no reserved address of that name"),
    ],
)
def test_what_fits_nowhere_is_refused(asked: Regrouping, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        regrouped(network(FOUR, SIX), asked)


BLOCKS = [f"10.{n}.0.0/24" for n in range(1, 6)]


@settings(deadline=None)
@given(st.data())
def test_no_subnet_is_lost_and_none_invented(data: st.DataObject) -> None:
    have = data.draw(st.lists(st.sampled_from(BLOCKS), min_size=1, unique=True))
    removed = data.draw(st.lists(st.sampled_from(have), unique=True))
    left = [cidr for cidr in have if cidr not in removed]
    grown = data.draw(st.lists(st.sampled_from(left), unique=True)) if left else []
    added = data.draw(st.lists(st.sampled_from(BLOCKS), unique=True))
    asked = Regrouping(add=added, grow=[str(ip_network(cidr).supernet()) for cidr in grown], remove=removed)
    bodies: list[Any] = list(regrouped(network(*have), asked))

    told = [ip_network(body["cidr"]) for body in bodies]
    wanted = {ip_network(c).supernet() if c in grown else ip_network(c) for c in left}
    wanted |= {ip_network(cidr) for cidr in added}
    assert set(told) == wanted
    assert len(told) == len(set(told))
    assert [t for t in told if t in wanted][: len(left)] == told[: len(left)], "in the order they had"
