"""What an operator is told of networks that cannot be built as asked."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from datapath.conditions import findings
from datapath.drivers import DRIVERS
from kvnet.model import Driver, Network, Subnet, UplinkMode
from tests.unit.datapath.clusters import endpoint, host, network
from tests.unit.datapath.views import block, placed, view_of

OVERLAY = network(1)
ROUTED = network(1, driver=Driver.ROUTED, ipv6=False)


def codes(of: Network, mtus: tuple[int, int] = (1500, 1500)) -> list[str]:
    hosts = [host(number, mtu=mtu) for number, mtu in enumerate(mtus)]
    blocks = [block(of, "10.1.0.0/26", "h0"), block(of, "10.1.0.64/26", "h1")]
    endpoints = [placed(of, 0, "h0"), placed(of, 60, "h1")]
    return [finding.code for finding in findings(view_of([of], endpoints, hosts=hosts, blocks=blocks))]


def test_every_driver_can_be_built() -> None:
    assert set(DRIVERS) == set(Driver)


@pytest.mark.parametrize(
    ("of", "mtus", "told"),
    [
        (OVERLAY, (1500, 1500), []),
        (OVERLAY, (1500, 1329), ["mtu-impossible"]),  # 1279 is too little for IPv6
        (network(1, ipv6=False), (1500, 1329), []),
        (network(1, ipv6=False), (1500, 600), ["mtu-impossible"]),
        (replace(OVERLAY, mtu=1450), (1500, 1500), []),
        (replace(OVERLAY, mtu=1451), (1500, 1500), ["mtu-impossible"]),
        (replace(OVERLAY, mtu=1450), (9000, 1400), ["mtu-impossible"]),
        (replace(ROUTED, mtu=1500), (1500, 1500), []),
        (replace(ROUTED, mtu=1501), (1500, 9000), ["mtu-impossible"]),
        (network(1, driver=Driver.BRIDGE, mtu=9000), (1500, 1500), []),
    ],
)
def test_an_mtu_that_the_hosts_links_do_not_carry_is_told(of: Network, mtus: tuple[int, int], told: list[str]) -> None:
    assert codes(of, mtus) == told


def test_the_numbers_are_in_the_words() -> None:
    view = view_of([replace(OVERLAY, mtu=9000)], [placed(OVERLAY, 0, "h0")])

    (finding,) = findings(view)
    assert "9000" in finding.detail
    assert "1450" in finding.detail


@pytest.mark.parametrize(
    ("driver", "mode", "limit"),
    [
        (Driver.OVERLAY, UplinkMode.MACVLAN, 1022),  # the tunnel is a port too
        (Driver.BRIDGE, UplinkMode.MACVLAN, 1023),
        (Driver.TRANSPARENT, UplinkMode.BRIDGE, 1022),
        (Driver.TRANSPARENT, UplinkMode.MACVLAN, None),
    ],
)
def test_more_endpoints_than_a_bridge_has_ports_are_told(driver: Driver, mode: UplinkMode, limit: int | None) -> None:
    of = replace(
        network(1, driver=driver, ipv6=False),
        subnets=(Subnet(ip_network("10.0.0.0/16"), ip_address("10.0.0.1")),),
        uplink_mode=mode,
        uplink="eth1",
    )
    many = [
        replace(endpoint(of, 0, "h0", id=f"e{n}", mac=n), addresses=(ip_address("10.0.1.0") + n,)) for n in range(1024)
    ]

    def told(count: int) -> list[str]:
        return [finding.code for finding in findings(view_of([of], many[:count]))]

    if limit is None:
        assert told(1024) == []
    else:
        assert told(limit) == []
        assert told(limit + 1) == ["bridge-full"]


def test_a_network_that_is_here_for_its_peers_is_told_about_too() -> None:
    other = replace(network(2), peers=(OVERLAY.id,))
    visited = replace(OVERLAY, peers=(other.id,), vni=None)
    view = view_of([visited, other], [placed(other, 0, "h0"), placed(visited, 0, "h1")])

    assert [(finding.network, finding.code) for finding in findings(view)] == [(OVERLAY.id, "vni-missing")]
