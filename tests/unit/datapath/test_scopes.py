"""Where to look for a network's objects in a kernel."""

from __future__ import annotations

from dataclasses import replace

from datapath.names import macvlan_name
from datapath.objects import Scope
from datapath.scopes import scope_of, whole_scope
from datapath.view import Attachment
from kvnet.model import Driver, UplinkMode
from tests.unit.datapath.clusters import endpoint, namespace_of, network
from tests.unit.datapath.views import range_of, view_of

NAMED = replace(network(1, ipv6=False), bridge_name="br-blue")
PHYSICAL = replace(network(2, driver=Driver.TRANSPARENT), uplink="eth1")
ON_UPLINK = endpoint(PHYSICAL, 0, "h0")
VIEW = view_of([NAMED, PHYSICAL], [endpoint(NAMED, 0, "h0"), ON_UPLINK, endpoint(PHYSICAL, 1, "h1")])
INSIDE = {macvlan_name(ON_UPLINK.id): (namespace_of(ON_UPLINK), "eth0")}
SUBNETS = frozenset({range_of("10.2.0.0/24"), range_of("fd00:2::/64")})


def test_a_network_says_its_bridge_its_ranges_and_its_uplink() -> None:
    assert scope_of(VIEW, NAMED.id) == Scope(NAMED.id, "br-blue", frozenset({range_of("10.1.0.0/24")}))
    assert scope_of(VIEW, PHYSICAL.id) == Scope(PHYSICAL.id, "", SUBNETS, frozenset({"eth1"}), INSIDE)


def test_a_network_that_is_not_known_is_looked_for_by_its_id() -> None:
    assert scope_of(VIEW, "ffffffffffff") == Scope("ffffffffffff")


def test_everything_is_all_of_them() -> None:
    ranges = SUBNETS | {range_of("10.1.0.0/24")}

    assert whole_scope(VIEW) == Scope("", "", ranges, frozenset({"eth1"}), INSIDE)


def test_only_interfaces_on_an_uplink_in_known_namespaces_are_looked_for_inside() -> None:
    unknown = replace(VIEW, attachments={ON_UPLINK.id: Attachment(ON_UPLINK.id, "", "")})
    bridged = replace(VIEW, networks={PHYSICAL.id: replace(PHYSICAL, uplink_mode=UplinkMode.BRIDGE)})

    assert not scope_of(unknown, PHYSICAL.id).inside
    assert not scope_of(bridged, PHYSICAL.id).inside
