"""Docker's flat flags as subnets: each part finds its home."""

from __future__ import annotations

import pytest

from cli.subnets import SubnetOptions, arranged
from kvnet.errors import Invalid


def test_parts_go_to_the_subnet_that_contains_them() -> None:
    asked = SubnetOptions(
        ["10.1.0.0/24", "fd00:1::/64"],
        ["fd00:1::1", "10.1.0.254"],
        ["10.1.0.128/25"],
        {"printer": "10.1.0.9", "nas": "fd00:1::9"},
    )

    assert arranged(asked) == [
        {"cidr": "10.1.0.0/24", "gateway": "10.1.0.254", "range": "10.1.0.128/25", "reserved": {"printer": "10.1.0.9"}},
        {"cidr": "fd00:1::/64", "gateway": "fd00:1::1", "reserved": {"nas": "fd00:1::9"}},
    ]


def test_without_parts_nothing_but_the_cidr_is_asked_for() -> None:
    assert arranged(SubnetOptions(["10.1.0.0/24"], [], [], {})) == [{"cidr": "10.1.0.0/24"}]
    assert arranged(SubnetOptions([], [], [], {})) == []


def test_with_one_subnet_the_controller_says_what_is_wrong_with_a_part() -> None:
    assert arranged(SubnetOptions(["10.1.0.0/24"], ["nonsense"], [], {})) == [
        {"cidr": "10.1.0.0/24", "gateway": "nonsense"}
    ]


@pytest.mark.parametrize("subnets", [[], ["10.1.0.0/24", "10.2.0.0/24"]])
def test_a_part_without_a_home_is_refused(subnets: list[str]) -> None:
    with pytest.raises(Invalid, match=r"--gateway 10\.9\.0\.1 lies in no --subnet"):
        arranged(SubnetOptions(subnets, ["10.9.0.1"], [], {}))


def test_a_subnet_has_one_gateway() -> None:
    with pytest.raises(Invalid, match=r"has 10\.1\.0\.1 already"):
        arranged(SubnetOptions(["10.1.0.0/24"], ["10.1.0.1", "10.1.0.2"], [], {}))
