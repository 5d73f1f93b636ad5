"""Which kernel settings a device of ours needs, and whose a setting is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.names import host_mac
from datapath.objects import BRIDGE_MAC_PREFIX, Bridge, Link, Macvlan, Shim, Veth, Vxlan
from datapath.sysctls import HOST_SYSCTLS, device_of_sysctl, device_sysctls, sysctls_of

LINKS: list[Link] = [
    Bridge("kvb000000000001", b"", 1500, ipv6=True),
    Bridge("br-blue.7", b"", 1500, ipv6=False),
    Vxlan("kvx000000000001", 1, b"", 1450, "kvb000000000001"),
    Vxlan("kvx000000000002", 2, b"", 1450, ""),
    Veth("kve000000000001", 1500, "kvb000000000001"),
    Shim("kvs000000000001", "eth1", b"", 1500),
]


def settings_of(link: Link, **how: bool) -> dict[str, str]:
    return {path.rsplit("/", 1)[1]: value for path, value in device_sysctls(link, **how).items()}


def test_everything_that_may_be_wanted_of_a_device_is_read() -> None:
    for link in LINKS:
        for speaks_ipv6 in (False, True):
            for is_publishing in (False, True):
                wanted = device_sysctls(link, speaks_ipv6=speaks_ipv6, is_publishing=is_publishing)
                is_possible = not speaks_ipv6 or isinstance(link, Shim) or (isinstance(link, Vxlan) and not link.bridge)
                assert not is_possible or wanted.keys() <= sysctls_of(link)


def test_a_setting_is_its_devices_or_the_hosts() -> None:
    for link in LINKS:
        assert {device_of_sysctl(path) for path in sysctls_of(link)} == {link.name}
    assert {device_of_sysctl(path) for path in HOST_SYSCTLS} == {None}
    assert device_of_sysctl("net/core/somaxconn") is None


def test_an_interface_inside_a_workload_has_no_settings_on_the_host() -> None:
    assert device_sysctls(Macvlan("kvm0", "eth1", 1500)) == {}
    assert sysctls_of(Macvlan("kvm0", "eth1", 1500)) == frozenset()


def test_only_a_tunnel_that_routes_ipv6_speaks_it_and_never_believes_a_router() -> None:
    tunnel = LINKS[3]

    assert settings_of(tunnel) == {"disable_ipv6": "1"}
    assert settings_of(tunnel, speaks_ipv6=True) == {"disable_ipv6": "0", "accept_ra": "0", "autoconf": "0"}


@pytest.mark.parametrize("link", [link for link in LINKS if not isinstance(link, Bridge)])
def test_the_kernel_has_no_ipv6_and_no_settings_of_it_on_a_device_with_too_small_an_mtu(link: Link) -> None:
    small = replace(link, mtu=1279)

    assert not [path for path in device_sysctls(small) if "ipv6" in path]
    assert settings_of(replace(link, mtu=1280))["disable_ipv6"] == "1"


def test_loopback_goes_to_a_bridge_only_where_something_is_published() -> None:
    assert settings_of(LINKS[1]) == {"route_localnet": "0", "disable_ipv6": "1"}
    assert settings_of(LINKS[1], is_publishing=True) == {"route_localnet": "1", "disable_ipv6": "1"}


@given(st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=2, max_size=40))
def test_hosts_have_macs_of_their_own_in_a_network(names: set[str]) -> None:
    macs = {host_mac("0" * 12, name) for name in names}

    assert len(macs) == len(names)
    assert all(len(mac) == 6 and mac.startswith(BRIDGE_MAC_PREFIX) for mac in macs)
    assert macs.isdisjoint(host_mac("1" * 12, name) for name in names)
