"""What holds of any cluster: hosts agree with each other, and a host only has what concerns it.

Clusters are drawn with every driver, peers, blocks, options and hosts on two segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.conditions import findings
from datapath.desired import Memo, desired, host_state, merge
from datapath.names import bridge_of, macvlan_name, veth_name, vxlan_name
from datapath.objects import HostState, Neighbour, PortEntry, Route, Uplink, VtepEntry
from datapath.packing import packed_mac
from datapath.presence import is_built
from datapath.view import Attachment, HostView
from kvnet.model import (
    Block,
    Cidr,
    CrossSegment,
    Driver,
    Endpoint,
    Host,
    Network,
    PublishedPort,
    UplinkMode,
)
from tests.unit.datapath.clusters import namespace_of, network
from tests.unit.datapath.views import placed, range_of

NUMBERS = 40  # endpoints have the addresses from .10 on, so up to three blocks of /26 are in use
BLOCK_LENGTHS = {4: 26, 6: 122}


@dataclass(frozen=True)
class Drawn:
    hosts: Mapping[str, Host]
    networks: Mapping[str, Network]
    endpoints: Mapping[str, Mapping[str, Endpoint]]
    blocks: Mapping[str, list[Block]]
    attachments: Mapping[str, Mapping[str, Attachment]]

    def view(self, name: str) -> HostView:
        uplinks = {"eth1": Uplink("eth1", 1500, up=True), "br0": Uplink("br0", 1500, up=True, is_bridge=True)}
        return HostView(name, self.hosts, self.networks, self.endpoints, self.attachments[name], self.blocks, uplinks)

    def everyone(self) -> list[Endpoint]:
        return [record for records in self.endpoints.values() for record in records.values()]


@st.composite
def clusters(draw: st.DrawFn) -> Drawn:
    hosts = {
        f"h{n}": _host(n, draw(st.sampled_from([7, 7, 8])), draw(st.booleans())) for n in range(draw(st.integers(1, 4)))
    }
    networks = [draw(_networks(number)) for number in range(draw(st.integers(1, 4)))]
    networks = _peered(networks, draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)))))
    endpoints: dict[str, dict[str, Endpoint]] = {}
    blocks: dict[str, list[Block]] = {}
    for of in networks:
        owners = {n: draw(st.sampled_from(sorted(hosts))) for n in range(NUMBERS // 16)}
        placed = [
            _endpoint(of, number, owners, draw) for number in draw(st.sets(st.integers(0, NUMBERS - 1), max_size=6))
        ]
        endpoints[of.id] = {record.id: record for record in placed}
        if of.driver is Driver.ROUTED:
            blocks[of.id] = sorted({_block_of(of, a, e.host) for e in placed for a in e.addresses}, key=str)
    attachments: dict[str, dict[str, Attachment]] = {name: {} for name in hosts}
    for record in itertools.chain.from_iterable(records.values() for records in endpoints.values()):
        if draw(st.integers(0, 3)):
            attachments[record.host][record.id] = Attachment(record.id, namespace_of(record), "eth0")
    return Drawn(hosts, {of.id: of for of in networks}, endpoints, blocks, attachments)


def _host(number: int, segment: int, knows_segment: bool) -> Host:
    block = ip_network(f"192.168.{segment}.0/24") if knows_segment else None
    return Host(f"h{number}", ip_address(f"192.168.{segment}.{number + 1}"), 1500, segment=block)


@st.composite
def _networks(draw: st.DrawFn, number: int) -> Network:
    driver = draw(st.sampled_from(list(Driver)))
    changes: dict[str, Any] = {
        "internal": draw(st.booleans()),
        "icc": draw(st.booleans()),
        "masquerade": draw(st.booleans()),
        "bridge_name": draw(st.sampled_from(["", f"br-{number}"])),
    }
    if driver is Driver.ROUTED and draw(st.booleans()):
        changes |= {"cross_segment": CrossSegment.TUNNEL, "vni": 6000 + number}
    if driver is Driver.TRANSPARENT:
        mode = draw(st.sampled_from(list(UplinkMode)))
        uplink = draw(st.sampled_from(["eth1", "br0"])) if mode is UplinkMode.BRIDGE else "eth1"
        changes |= {"uplink": uplink, "uplink_mode": mode, "shim": draw(st.booleans()), "bridge_name": ""}
    return network(number, driver=driver, ipv6=draw(st.booleans()), **changes)


def _peered(networks: list[Network], pairs: set[tuple[int, int]]) -> list[Network]:
    found = {
        number: of for number, of in enumerate(networks) if of.driver is not Driver.TRANSPARENT and not of.internal
    }
    for one, other in sorted(pairs):
        if one < other and one in found and other in found:
            found[one] = replace(found[one], peers=(*found[one].peers, found[other].id))
            found[other] = replace(found[other], peers=(*found[other].peers, found[one].id))
    return [found.get(number, of) for number, of in enumerate(networks)]


def _endpoint(of: Network, number: int, owners: Mapping[int, str], draw: st.DrawFn) -> Endpoint:
    """On a routed network the host follows from the address: a block is one host's."""
    on = (
        owners[(number + 10) // 64 % len(owners)]
        if of.driver is Driver.ROUTED
        else draw(st.sampled_from(sorted(owners.values())))
    )
    made = placed(of, number, on)
    published = of.driver is not Driver.TRANSPARENT and not of.internal and draw(st.booleans())
    return replace(made, ports=(PublishedPort(80, host_port=8000 + number),)) if published else made


def _block_of(of: Network, address: Any, on: str) -> Block:
    return Block(of.id, ip_network(f"{address}/{BLOCK_LENGTHS[address.version]}", strict=False), on, 0.0)


def covers(route: Route, address: Any) -> bool:
    return len(route.destination) == len(address.packed) and address in _cidr(route)


def _cidr(route: Route) -> Cidr:
    return ip_network((route.destination, route.prefix_length))


@given(clusters())
@settings(max_examples=60, deadline=None)
def test_a_host_has_nothing_of_what_does_not_concern_it(drawn: Drawn) -> None:
    for name in drawn.hosts:
        view = drawn.view(name)
        here = {id_ for id_, of in drawn.networks.items() if is_built(view, of)}
        narrow = replace(
            view,
            networks={id_: of for id_, of in drawn.networks.items() if id_ in here},
            endpoints={id_: records for id_, records in drawn.endpoints.items() if id_ in here},
            blocks={id_: blocks for id_, blocks in drawn.blocks.items() if id_ in here},
        )
        assert desired(narrow) == desired(view)
        assert findings(narrow) == findings(view)


@given(clusters())
@settings(max_examples=60, deadline=None)
def test_the_whole_is_the_parts_of_its_networks_and_the_hosts_own(drawn: Drawn) -> None:
    for name in drawn.hosts:
        view, memo = drawn.view(name), Memo()
        own = {id_: {e.id: e for e in of.values() if e.host == name} for id_, of in drawn.endpoints.items()}
        parts = [desired(view, id_, memo) for id_ in drawn.networks]

        outline = host_state(replace(view, endpoints=own, attachments={}))

        assert merge([*parts, outline]) == desired(view) == merge([outline, *reversed(parts)])
        owned = [set(part.links) | {entry.port for entry in part.ports} for part in parts]
        assert sum(map(len, owned)) == len(set().union(*owned)), "two networks claim a device"


@given(clusters())
@settings(max_examples=100, deadline=None)
def test_every_local_workload_is_reached_on_paper(drawn: Drawn) -> None:
    for name in drawn.hosts:
        state = desired(drawn.view(name))
        for record in drawn.everyone():
            if record.host == name and record.id in drawn.attachments[name]:
                _assert_local(drawn.networks[record.network], record, state)


def _assert_local(of: Network, record: Endpoint, state: HostState) -> None:
    mac = packed_mac(record.mac)
    if of.driver is Driver.TRANSPARENT:
        assert {veth_name(record.id), macvlan_name(record.id)} & state.containers.keys()
        return
    veth, bridge = veth_name(record.id), bridge_of(of)
    assert PortEntry(veth, mac) in state.ports
    assert state.containers[veth].mac == mac
    for address in record.addresses:
        assert Neighbour(bridge, address.packed, mac) in state.neighbours
        ways = [route for route in state.routes if route.device == bridge and covers(route, address)]
        if of.driver is Driver.ROUTED or not of.internal:
            assert len(ways) == 1
            assert address.packed != ways[0].source
        else:
            assert not ways


@given(clusters())
@settings(max_examples=100, deadline=None)
def test_every_remote_workload_of_a_networks_host_is_reached_or_reported(drawn: Drawn) -> None:
    for name in drawn.hosts:
        view = drawn.view(name)
        state = desired(view)
        told = {(finding.network, finding.code) for finding in findings(view)}
        for record in drawn.everyone():
            of = drawn.networks[record.network]
            if record.host == name or not is_built(view, of):
                continue
            if of.driver is Driver.OVERLAY:
                _assert_behind_tunnel(of, record, drawn.hosts[record.host], state)
            elif of.driver is Driver.ROUTED:
                for address in record.addresses:
                    ways = [route for route in state.routes if covers(route, address) and route.gateway]
                    assert len(ways) == 1 or {(of.id, "peer-not-adjacent"), (of.id, "family-unreachable")} & told


def _assert_behind_tunnel(of: Network, record: Endpoint, peer: Host, state: HostState) -> None:
    tunnel, mac = vxlan_name(of.id), packed_mac(record.mac)
    assert VtepEntry(tunnel, mac, peer.underlay.packed) in state.vteps
    assert PortEntry(tunnel, mac) in state.ports
    assert {Neighbour(bridge_of(of), address.packed, mac) for address in record.addresses} <= state.neighbours


@given(clusters())
@settings(max_examples=100, deadline=None)
def test_a_block_is_behind_the_bridge_of_one_host_and_leads_there_from_all_others(drawn: Drawn) -> None:
    states = {name: desired(drawn.view(name)) for name in drawn.hosts}
    for network_id, blocks in drawn.blocks.items():
        bridge = bridge_of(drawn.networks[network_id])
        for block in blocks:
            ways = {name: _ways_to(block, state) for name, state in states.items()}
            assert {name for name, found in ways.items() if any(route.device == bridge for route in found)} == {
                block.host
            }
            assert all(len(found) <= 1 for found in ways.values())
            hops = {
                route.gateway
                for name, found in ways.items()
                if name != block.host
                for route in found
                if not route.device
            }
            assert hops <= {drawn.hosts[block.host].underlay.packed}


def _ways_to(block: Block, state: HostState) -> list[Route]:
    return [route for route in state.routes if (route.destination, route.prefix_length) == range_of(block.cidr)]


@given(clusters())
@settings(max_examples=100, deadline=None)
def test_peers_meet_on_every_host_that_carries_one_of_them(drawn: Drawn) -> None:
    for name in drawn.hosts:
        view = drawn.view(name)
        firewall = desired(view).firewall
        assert firewall is not None
        judged = {pair for pair in firewall.pairs if set(pair) <= firewall.bridges}
        assert {(b, a) for a, b in judged} == judged
        assert firewall.internal | firewall.isolated <= firewall.bridges
        assert {bridge for bridge, _ in firewall.within} <= firewall.bridges
        assert firewall.subnets4 | firewall.subnets6 <= firewall.blocks
        for of in drawn.networks.values():
            crossing = {Driver.OVERLAY, Driver.ROUTED}
            carried = any(e.host == name for e in drawn.endpoints[of.id].values())
            for peer in (drawn.networks[id_] for id_ in of.peers):
                if carried and {of.driver, peer.driver} <= crossing:
                    assert is_built(view, peer)
                bridges = (bridge_of(of), bridge_of(peer))
                assert (bridges in firewall.pairs) == (set(bridges) <= firewall.bridges)
