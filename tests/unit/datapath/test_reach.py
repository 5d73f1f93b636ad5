"""Whom a packet reaches in every kind of network, case by case and for any cluster in any order of events."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.desired import veth_name
from datapath.fabric import Drop, Path
from datapath.fake import Flow
from datapath.names import bridge_of, vxlan_name
from datapath.objects import Gate, Uplink
from kvnet.model import CrossSegment, Driver, Endpoint, Host, Network, PublishedPort, UplinkMode
from tests.unit.datapath.clusters import ADDRESSES_PER_NETWORK, World, endpoint, host, namespace_of, network
from tests.unit.datapath.damage import WITHIN_A_NETWORK, inflict
from tests.unit.datapath.oracle import assert_as_promised, assert_published, is_at

relaxed = settings(deadline=None, max_examples=30)


def world_of(*networks: Network, hosts: int = 2, each: int = 2) -> World:
    """On every host so many endpoints of every network, built."""
    world = World()
    for number in range(hosts):
        world.add_host(host(number))
    for net in networks:
        world.add_network(net)
        for number in range(hosts):
            for i in range(each):
                world.add(endpoint(net, number * each + i, f"h{number}"))
    world.settle()
    return world


def of(world: World, net: Network, on: str) -> list[Endpoint]:
    return sorted((e for e in world.endpoints[net.id].values() if e.host == on), key=lambda e: e.id)


def asked(world: World, source: Endpoint, to: str | Endpoint, **how: Any) -> Path | Drop:
    address = to.addresses[0] if isinstance(to, Endpoint) else ip_address(to)
    return world.fabric.reaches(source.host, namespace_of(source), address.packed, **how)


def test_without_icc_workloads_reach_their_gateway_and_the_outside_but_not_each_other_on_any_host() -> None:
    net = network(1, icc=False)
    world = world_of(net)
    source, next_door = of(world, net, "h0")

    assert isinstance(asked(world, source, next_door), Drop)
    assert isinstance(asked(world, source, of(world, net, "h1")[0]), Drop)
    assert isinstance(asked(world, source, "10.1.0.1"), Path)
    assert isinstance(asked(world, source, "203.0.113.9"), Path)


def test_peered_networks_meet_through_the_senders_host_and_the_receivers_network() -> None:
    one, other = network(1, peers=("000000000002",)), network(2, peers=("000000000001",))
    world = world_of(one, other)
    target = of(world, other, "h1")[0]

    outcome = asked(world, of(world, one, "h0")[0], target)

    assert is_at(outcome, target)
    assert f"h0/{bridge_of(other)}" in outcome.hops
    assert vxlan_name(other.id) in outcome.hops
    assert_as_promised(world)


def test_a_routed_network_takes_no_tunnel_on_one_segment() -> None:
    net = network(1, driver=Driver.ROUTED, ipv6=False)
    world = world_of(net)
    target = of(world, net, "h1")[0]

    outcome = asked(world, of(world, net, "h0")[0], target)

    assert is_at(outcome, target)
    assert isinstance(outcome, Path)
    assert not any(hop.startswith("kvx") for hop in outcome.hops)
    assert outcome.source == of(world, net, "h0")[0].addresses[0].packed
    assert_as_promised(world)


def segmented(number: int) -> Host:
    return Host(f"h{number}", ip_address(f"192.168.{number}.1"), 1500, segment=ip_network(f"192.168.{number}.0/24"))


def test_a_routed_network_crosses_a_router_in_a_tunnel_of_its_own_or_not_at_all() -> None:
    for cross_segment, promised in ((CrossSegment.TUNNEL, True), (CrossSegment.REFUSE, False)):
        net = network(1, driver=Driver.ROUTED, ipv6=cross_segment is CrossSegment.TUNNEL, cross_segment=cross_segment)
        world = World()
        for number in range(2):
            world.add_host(segmented(number))
        world.add_network(net)
        for number in range(2):
            world.add(endpoint(net, number, f"h{number}"))
        world.settle()
        source, target = of(world, net, "h0")[0], of(world, net, "h1")[0]

        for address in target.addresses:
            outcome = world.fabric.reaches("h0", namespace_of(source), address.packed)
            assert is_at(outcome, target) == promised, outcome


def test_macvlans_reach_each_other_and_the_wire_but_not_their_host_unless_it_has_a_shim() -> None:
    for shim in (False, True):
        net = network(1, driver=Driver.TRANSPARENT, ipv6=False, uplink="lan0", shim=shim)
        world = world_of(net)
        for number in range(2):
            uplink = world.kernels[f"h{number}"].tables.uplinks["lan0"]
            blocks = [(bytes((10, 1, 0, 200 + number)), 24)]
            world.kernels[f"h{number}"].set_uplink(uplink, blocks=blocks)
        world.fabric.machines["wire-lan0"] = {ip_address("10.1.0.1").packed: "router"}
        world.settle()
        source, next_door = of(world, net, "h0")

        assert is_at(asked(world, source, next_door), next_door)
        assert is_at(asked(world, source, of(world, net, "h1")[0]), of(world, net, "h1")[0])
        assert isinstance(asked(world, source, "10.1.0.201"), Path), "another host is on the wire"
        assert isinstance(asked(world, source, "10.1.0.200"), Path) == shim
        assert isinstance(world.fabric.from_host("h0", source.addresses[0].packed), Path) == shim
        assert isinstance(outcome := asked(world, source, "203.0.113.9"), Path), outcome
        assert outcome.at == "outside"
        assert is_at(world.fabric.from_lan("wire-lan0", source.addresses[0].packed), source)


def test_both_ways_of_standing_on_a_bridge_reach_the_wire() -> None:
    for uplink in ("lan2", "br0"):
        net = network(1, driver=Driver.TRANSPARENT, uplink=uplink, uplink_mode=UplinkMode.BRIDGE)
        world = world_of(net)
        source, target = of(world, net, "h0")[0], of(world, net, "h1")[1]

        assert is_at(asked(world, source, target), target)
        assert is_at(world.fabric.from_lan(f"wire-{uplink}", source.addresses[0].packed), source)
        for record in (*of(world, net, "h0"), *of(world, net, "h1")):
            world.remove(record)
        world.settle()
        assert world.kernels["h0"].tables.uplinks[uplink].bridge == ""


def test_a_published_port_is_reached_from_everywhere_and_ends_with_its_connections() -> None:
    nets = network(1, ipv6=False), network(2, ipv6=False), network(3, ipv6=False, icc=False, driver=Driver.BRIDGE)
    world = world_of(*nets)
    for net, number in zip(nets, (80, 81, 82), strict=True):
        record = of(world, net, "h0")[0]
        world.add(replace(record, ports=(PublishedPort(8080, host_port=number),)))
    world.settle()
    assert_published(world)
    record = of(world, nets[0], "h0")[0]
    kernel = world.kernels["h0"]
    outcome = asked(world, record, "192.168.7.1", port=80)
    assert is_at(outcome, record), "even from itself"
    flow = (record.addresses[0].packed, 6, 8080)
    kernel.tables.flows |= {Flow(*flow), Flow(record.addresses[0].packed, 6, 22)}

    world.add(replace(record, ports=()))
    world.settle()

    assert isinstance(outcome := world.fabric.from_outside(ip_address("192.168.7.1").packed, port=80), Path)
    assert outcome.at == "h0"
    assert kernel.tables.flows == {Flow(record.addresses[0].packed, 6, 22)}


def test_a_gate_that_drops_is_opened_for_what_is_ours_and_closed_when_nothing_is() -> None:
    net = network(1)
    world = world_of(net)
    kernel = world.kernels["h0"]
    source, next_door = of(world, net, "h0")
    kernel.set_gate(Gate("legacy", 4))
    kernel.tables.bridge_calls_iptables = True
    assert isinstance(asked(world, source, "203.0.113.9"), Drop)
    assert isinstance(asked(world, source, next_door), Drop)

    world.settle()

    assert isinstance(asked(world, source, "203.0.113.9"), Path)
    assert isinstance(asked(world, source, next_door), Path)
    for record in of(world, net, "h0"):
        world.remove(record)
    world.settle()
    assert kernel.tables.gates == {Gate("legacy", 4): False}


def test_an_uplink_that_is_missing_leaves_its_network_as_it_is_until_it_is_back() -> None:
    net, other = network(1, driver=Driver.TRANSPARENT, uplink="lan0"), network(2)
    world = world_of(net, other)
    world.kernels["h0"].remove_uplink("lan0")
    world.settle()
    assert veth_name(of(world, other, "h0")[0].id) in world.kernels["h0"].tables.links

    world.kernels["h0"].set_uplink(Uplink("lan0", 1500, True, b"\x02\xaa\x00\x00\x00\x09"))
    world.settle()

    assert_as_promised(world)


# --- any cluster


@st.composite
def clusters(draw: st.DrawFn) -> World:
    """One segment, networks of every kind with any options, some of them peered, some ports published."""
    world = World()
    for number in range(draw(st.integers(1, 3))):
        world.add_host(host(number))
    count = draw(st.integers(1, 4))
    chosen = [draw(_networks(number)) for number in range(1, count + 1)]
    can = [net for net in chosen if net.driver is not Driver.TRANSPARENT and not net.internal]
    pairs = [(a, b) for i, a in enumerate(can) for b in can[:i] if draw(st.integers(0, 2)) == 0]
    for net in chosen:
        peers = tuple(sorted({b.id for a, b in pairs if a is net} | {a.id for a, b in pairs if b is net}))
        world.add_network(replace(net, peers=peers))
    for number in range(draw(st.integers(0, 6))):
        on = draw(st.sampled_from(sorted(world.hosts)))
        world.add(endpoint(world.networks[draw(st.sampled_from(sorted(world.networks)))], number, on))
    return world


@st.composite
def _networks(draw: st.DrawFn, number: int) -> Network:
    driver = draw(st.sampled_from(Driver))
    changes: dict[str, Any] = {}
    if driver is Driver.TRANSPARENT:
        at = ["lan0", "lan1", "lan2", "br0"][number % 4]  # each its own
        mode = UplinkMode.BRIDGE if at in ("lan2", "br0") else UplinkMode.MACVLAN
        changes = {"uplink": at, "uplink_mode": mode, "shim": mode is UplinkMode.MACVLAN and draw(st.booleans())}
    else:
        changes = {"internal": draw(st.booleans()), "icc": draw(st.integers(0, 3)) > 0}
    if driver is Driver.ROUTED:
        changes["cross_segment"] = CrossSegment.TUNNEL
    return network(number, driver=driver, ipv6=draw(st.booleans()), **changes)


def _add(world: World, data: st.DataObject) -> None:
    net = world.networks[data.draw(st.sampled_from(sorted(world.networks)))]
    record = endpoint(
        net, data.draw(st.integers(0, ADDRESSES_PER_NETWORK - 1)), data.draw(st.sampled_from(sorted(world.hosts)))
    )
    taken = {address for other in world.endpoints[net.id].values() for address in other.addresses}
    if not taken.isdisjoint(record.addresses) or record.id in world.endpoints[net.id]:
        return
    used = {
        p.host_port
        for all_ in world.endpoints.values()
        for e in all_.values()
        if e.host == record.host
        for p in e.ports
    }
    number = data.draw(st.integers(20000, 20020))
    publishes = net.driver is not Driver.TRANSPARENT and not net.internal and number not in used
    if publishes and data.draw(st.booleans()):
        record = replace(record, ports=(PublishedPort(8080, host_port=number),))
    world.add(record)


def _move(world: World, record: Endpoint, to: str) -> None:
    """In a routed network the workload gets an address of the other host's block."""
    if world.networks[record.network].driver is Driver.ROUTED:
        again = endpoint(world.networks[record.network], int(record.name[1:]), to)
        world.remove(record)
        taken = {a for e in world.endpoints[record.network].values() for a in e.addresses}
        if taken.isdisjoint(again.addresses):
            world.add(again)
    else:
        world.move(replace(record, ports=()), to)


def _change_an_option(world: World, data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(sorted(world.networks)))
    net = world.networks[chosen]
    if net.driver is not Driver.TRANSPARENT:
        option = data.draw(st.sampled_from(["icc", "masquerade", "mtu"]))
        value: Any = data.draw(st.sampled_from([None, 1400])) if option == "mtu" else data.draw(st.booleans())
        world.networks[chosen] = replace(net, **{option: value})


def _unpeer(world: World, data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(sorted(world.networks)))
    for id_, net in list(world.networks.items()):
        peers = () if id_ == chosen else tuple(peer for peer in net.peers if peer != chosen)
        world.networks[id_] = replace(net, peers=peers)


def _crash(world: World, name: str) -> None:
    """The host restarts: nothing of the kernel's state survives, its workloads come back."""
    kernel = world.kernels[name]
    for path in list(kernel.tables.namespaces):
        kernel.remove_namespace(path)
        kernel.add_namespace(path)
    inflict(kernel, [(WITHIN_A_NETWORK[0], n) for n in range(40)])
    kernel.set_firewall(None)


EVENTS = ["add", "add", "add", "remove", "move", "option", "unpeer", "crash", "harm", "pass", "part"]


@given(world=clusters(), data=st.data())
@relaxed
def test_any_order_of_events_ends_as_promised(world: World, data: st.DataObject) -> None:
    hosts = sorted(world.hosts)
    for _ in range(data.draw(st.integers(2, 20))):
        event = data.draw(st.sampled_from(EVENTS))
        on = data.draw(st.sampled_from(hosts))
        everyone = sorted((e for records in world.endpoints.values() for e in records.values()), key=lambda e: e.id)
        if event == "add":
            _add(world, data)
        elif event == "option":
            _change_an_option(world, data)
        elif event == "unpeer":
            _unpeer(world, data)
        elif event == "crash":
            _crash(world, on)
        elif event == "harm":
            inflict(world.kernels[on], [(data.draw(st.sampled_from(WITHIN_A_NETWORK)), data.draw(st.integers(0, 999)))])
        elif event == "pass":
            world.look_after(on)
        elif event == "part":
            world.look_after(on, data.draw(st.sampled_from(sorted(world.networks))))
        elif everyone:
            chosen = data.draw(st.sampled_from(everyone))
            world.remove(chosen) if event == "remove" else _move(world, chosen, on)

    world.settle()
    assert_as_promised(world)
    assert_published(world)
