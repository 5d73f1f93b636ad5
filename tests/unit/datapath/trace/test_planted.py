"""A difference that is planted at any one hop is found at that hop, and at no other; none is found where none is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.trace.hop import Hop, Verdict
from datapath.trace.seen import SeenDrop, SeenInside, SeenLink, SeenWay, Sight
from datapath.trace.trace import Trace, trace
from kvnet.model import CrossSegment, Driver, Endpoint, Network, UplinkMode
from tests.unit.datapath.clusters import World, endpoint, host, network
from tests.unit.datapath.trace.fakes import case_of, sights

relaxed = settings(deadline=None, max_examples=120)

PEERS = {"peers": ("000000000002",)}, {"peers": ("000000000001",)}
LAYOUTS: dict[str, list[Network]] = {
    "overlay": [network(1)],
    "overlay on IPv4 only": [network(1, ipv6=False)],
    "internal": [network(1, internal=True)],
    "routed": [network(1, driver=Driver.ROUTED, ipv6=False)],
    "routed through tunnels": [network(1, driver=Driver.ROUTED, cross_segment=CrossSegment.TUNNEL)],
    "bridge": [network(1, driver=Driver.BRIDGE)],
    "macvlan": [network(1, driver=Driver.TRANSPARENT, uplink="lan0")],
    "bridged uplink": [network(1, driver=Driver.TRANSPARENT, uplink="lan2", uplink_mode=UplinkMode.BRIDGE)],
    "operator's bridge": [network(1, driver=Driver.TRANSPARENT, uplink="br0", uplink_mode=UplinkMode.BRIDGE)],
    "peers": [network(1, **PEERS[0]), network(2, **PEERS[1])],
    "peer of a routed one": [network(1, **PEERS[0]), network(2, driver=Driver.ROUTED, ipv6=False, **PEERS[1])],
}
ON_ONE_HOST_ONLY = ("bridge",)


def built(layout: str, *, is_apart: bool) -> tuple[World, Endpoint, Endpoint]:
    world = World()
    for number in range(2):
        world.add_host(host(number))
    networks = LAYOUTS[layout]
    for net in networks:
        world.add_network(net)
    one = endpoint(networks[0], 1, "h0")
    other = endpoint(networks[-1], 2, "h1" if is_apart else "h0")
    for record in (one, other):
        world.add(record)
    world.settle()
    return world, one, other


cases = st.sampled_from(
    [(name, apart) for name in LAYOUTS for apart in (False, True) if not (apart and name in ON_ONE_HOST_ONLY)]
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_apart", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_where_nothing_is_wrong_nothing_is_found(layout: str, is_apart: bool, family: int) -> None:
    world, one, other = built(layout, is_apart=is_apart and layout not in ON_ONE_HOST_ONLY)
    if all(any(a.version == family for a in end.addresses) for end in (one, other)):
        case = case_of(world, one, other, family)

        found = trace(case, sights(world, case))

        assert found.finding is None
        assert {hop.verdict for hop in found.hops} == {Verdict.OK}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_apart", [False, True])
def test_every_fault_at_every_hop_is_found_there_and_nowhere_else(layout: str, is_apart: bool) -> None:
    world, one, other = built(layout, is_apart=is_apart and layout not in ON_ONE_HOST_ONLY)
    case = case_of(world, one, other, 4)
    seen = sights(world, case)
    for hop in trace(case, seen).hops:
        for number, fault in enumerate(FAULTS[hop.kind] if _may_be_wrong(hop) else ()):
            found = trace(case, {**seen, hop.host: fault(seen[hop.host], hop)})

            where = [_place(h) for h in found.hops if h.differences]
            assert where == [_place(hop)], f"fault {number} of {hop.kind}: {found.finding}"
            assert found.finding is not None


@relaxed
@given(cases, st.data())
def test_a_host_that_is_silent_hides_nothing_of_the_other(layout: tuple[str, bool], data: st.DataObject) -> None:
    world, one, other = built(layout[0], is_apart=layout[1])
    case = case_of(world, one, other, 4)
    seen = sights(world, case)
    silent = data.draw(st.sampled_from(sorted(seen)))

    found: Trace = trace(case, {h: sight for h, sight in seen.items() if h != silent}, {silent: "it is hung"})

    finding = found.finding
    assert finding is not None
    assert (finding[0].host, finding[1].code) == (silent, "worker-silent")
    whole = {_place(hop): hop for hop in trace(case, seen).hops}
    for hop in found.hops:
        assert hop.wanted, "what it should be is told without anybody's answer"
        if hop.host != silent and _place(hop) in whole and hop.host:
            assert hop.verdict is Verdict.OK


def _may_be_wrong(hop: Hop) -> bool:
    """In a workload no neighbour is as good as the right one."""
    return hop.kind in FAULTS and not (hop.kind == "neighbour" and " in " in hop.name)


def _place(hop: Hop) -> tuple[str, str, str]:
    return hop.host, hop.kind, hop.name


# --- what can be wrong, by kind of hop

Fault = Callable[[Sight, Hop], Sight]
STRANGE = "02:de:ad:be:ef:00"


def _link(**changes: object) -> Fault:
    def change(sight: Sight, hop: Hop) -> Sight:
        links = [replace(link, **changes) if link.name == hop.name else link for link in sight.links]
        return replace(sight, links=tuple(links))

    return change


def _inside(change: Callable[[SeenInside], SeenInside]) -> Fault:
    def changed(sight: Sight, hop: Hop) -> Sight:
        name = hop.name.rpartition("/")[2]
        return replace(sight, insides=tuple(change(i) if i.endpoint.endswith(name) else i for i in sight.insides))

    return changed


def _own(link: Callable[[SeenLink], SeenLink]) -> Fault:
    return _inside(lambda inside: replace(inside, links=(link(inside.links[0]), *inside.links[1:])))


def _way(change: Callable[[SeenWay], SeenWay]) -> Fault:
    def changed(sight: Sight, hop: Hop) -> Sight:
        to, _, where = hop.name.partition(" in ")
        if where:
            return _inside(lambda i: replace(i, ways=tuple(change(w) if w.to == to else w for w in i.ways)))(
                sight, replace(hop, name=where)
            )
        address = to.partition(" on ")[0]
        return replace(sight, ways=tuple(change(w) if w.to == address else w for w in sight.ways))

    return changed


def _neighbour(mac: str | None) -> Fault:
    def changed(sight: Sight, hop: Hop) -> Sight:
        address, _, device = hop.name.partition(" on ")
        others = [n for n in sight.neighbours if (n.address, n.device) != (address, device)]
        own = [n for n in sight.neighbours if (n.address, n.device) == (address, device)]
        return replace(sight, neighbours=(*others, *(replace(n, mac=mac) for n in own if mac)))

    return changed


def _entry(*, is_tunnel: bool, **changes: object) -> Fault:
    def changed(sight: Sight, hop: Hop) -> Sight:
        mac = hop.name.partition(" on ")[0]
        own = [e for e in sight.entries if e.mac == mac and bool(e.remote) == is_tunnel]
        others = tuple(e for e in sight.entries if e not in own)
        return replace(sight, entries=(*others, *(replace(e, **changes) for e in own if changes)))

    return changed


def _underlay(change: Callable[[SeenWay], SeenWay]) -> Fault:
    def changed(sight: Sight, hop: Hop) -> Sight:
        return replace(sight, ways=tuple(change(w) if w.asked_from else w for w in sight.ways))

    return changed


def _renamed(inside: SeenInside) -> SeenInside:
    return replace(inside, addresses=tuple(replace(a, address="10.250.0.1") for a in inside.addresses))


FAULTS: dict[str, list[Fault]] = {
    "port": [_link(up=False), _link(isolated=True), _link(mtu=900)],
    "bridge": [_link(up=False)],
    "vxlan": [_link(up=False), _link(vni=9), _link(local="192.0.2.1"), _link(port=8472), _link(mtu=900)],
    "uplink": [_link(up=False), _link(works=False, kind="")],
    "workload": [
        _own(lambda link: replace(link, up=False)),
        _own(lambda link: replace(link, mac=STRANGE)),
        _own(lambda link: replace(link, mtu=900)),
        _inside(_renamed),
    ],
    "neighbour": [_neighbour(None), _neighbour(STRANGE)],
    "route": [_way(lambda way: replace(way, kind="blackhole")), _way(lambda way: replace(way, gateway="192.0.2.77"))],
    "vxlan fdb": [_entry(is_tunnel=True), _entry(is_tunnel=True, remote="192.0.2.9")],
    "fdb": [_entry(is_tunnel=False, is_local=True), _entry(is_tunnel=False, device="kve000")],
    "firewall": [lambda sight, _: replace(sight, rules=None)],
    "other firewalls": [
        lambda sight, _: replace(sight, drops=(SeenDrop("there/bridge", "bridge", "site", "c", "drop"),)),
        lambda sight, _: replace(sight, drops=(SeenDrop("back/underlay-in", "ip", "site", "c", "drop", False),)),
    ],
    "underlay": [
        _underlay(lambda way: replace(way, kind="unreachable")),
        _underlay(lambda way: replace(way, mtu=1000)),
        _underlay(lambda way: replace(way, device="kvb000000000001")),
    ],
    "worker": [lambda sight, _: replace(sight, is_fenced=True), lambda sight, _: replace(sight, networks=())],
    "forwarding": [
        lambda sight, hop: replace(sight, settings={**sight.settings, hop.name: "0"}),
    ],
}
