"""A plan that is told before the change is the plan that the change brings: applying it gives the planned state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.fake import FakeKernel
from datapath.names import bridge_name, veth_name, vxlan_name
from datapath.objects import CreateLink, DeleteLink, HostState, ReplaceVtep, SetFirewall, UpdateLink
from datapath.plan import plan
from datapath.preview import HostPreview, Situation, preview
from datapath.words import describe, firewall_changes, tell
from kvnet.model import Block, Driver, Endpoint, Network, PublishedPort
from tests.unit.datapath.clusters import endpoint, host, network

HOSTS = {f"h{i}": host(i) for i in range(3)}


def situation(
    networks: Collection[Network], endpoints: Collection[Endpoint] = (), blocks: Mapping[str, Collection[Block]] = {}
) -> Situation:
    found = {n.id: {e.id: e for e in endpoints if e.network == n.id} for n in networks}
    return Situation(HOSTS, {n.id: n for n in networks}, found, blocks)


def by_host(previews: list[HostPreview]) -> dict[str, HostPreview]:
    return {one.host: one for one in previews}


def test_a_network_without_endpoints_changes_no_host() -> None:
    net = network(1)
    assert preview(situation([]), situation([net]), [net.id]) == []


def test_the_first_endpoint_on_a_host_brings_the_network_there_and_tells_the_others_where_it_is() -> None:
    net = network(1)
    there, new = endpoint(net, 1, "h1"), endpoint(net, 0, "h0")
    shown = by_host(preview(situation([net], [there]), situation([net], [there, new]), [net.id]))

    assert shown.keys() == {"h0", "h1"}
    made = {op.link.name for op in shown["h0"].operations if isinstance(op, CreateLink)}
    assert made == {bridge_name(net.id), vxlan_name(net.id), veth_name(new.id)}
    assert not [op for op in shown["h1"].operations if isinstance(op, CreateLink | DeleteLink)]
    assert [op.entry.device for op in shown["h1"].operations if isinstance(op, ReplaceVtep)] == [vxlan_name(net.id)]


def test_the_last_endpoint_takes_the_network_along_and_a_host_without_it_is_not_shown() -> None:
    net = network(1)
    last = endpoint(net, 0, "h0")
    shown = preview(situation([net], [last]), situation([net]), [net.id])

    assert [one.host for one in shown] == ["h0"]
    gone = {op.link.name for op in shown[0].operations if isinstance(op, DeleteLink)}
    assert gone == {bridge_name(net.id), vxlan_name(net.id), veth_name(last.id)}


def test_an_option_is_shown_where_it_takes_effect() -> None:
    net, held = network(1), [endpoint(network(1), i, f"h{i}") for i in range(2)]
    closed = replace(net, icc=False, mtu=1400)
    shown = by_host(preview(situation([net], held), situation([closed], held), [net.id]))

    assert shown.keys() == {"h0", "h1"}
    changed = [op for op in shown["h0"].operations if isinstance(op, UpdateLink)]
    assert {op.link.name for op in changed} == {bridge_name(net.id), vxlan_name(net.id), veth_name(held[0].id)}
    assert any("isolated: False -> True" in describe(op) and "mtu: 1450 -> 1400" in describe(op) for op in changed)


def test_what_a_published_port_changes_of_the_firewall_is_told_element_by_element() -> None:
    net, plain = network(1, ipv6=False), endpoint(network(1, ipv6=False), 0, "h0")
    published = replace(plain, ports=(PublishedPort(80, "tcp", 8080),))
    [shown] = preview(situation([net], [plain]), situation([net], [published]), [net.id])

    assert any(isinstance(op, SetFirewall) for op in shown.operations)
    assert shown.after.firewall is not None
    assert shown.before.firewall is not None
    lines = firewall_changes(shown.after.firewall, shown.before.firewall)
    assert lines == [("add", "publications", f"*:8080/tcp -> {plain.addresses[0]}:80")]


def test_what_will_be_wrong_afterwards_is_told() -> None:
    net = network(1)
    impossible = replace(net, mtu=9000)
    held = [endpoint(net, 0, "h0")]
    [shown] = preview(situation([net], held), situation([impossible], held), [net.id])

    assert [finding.code for finding in shown.found] == ["mtu-impossible"]


@st.composite
def situations(draw: st.DrawFn) -> tuple[Situation, Situation, list[str]]:
    """Two clusters that differ in one network: its endpoints, its options, or whether it is there at all."""
    drivers = (Driver.OVERLAY, Driver.BRIDGE, Driver.ROUTED)
    nets = [network(n, driver=draw(st.sampled_from(drivers)), ipv6=draw(st.booleans())) for n in (1, 2)]
    blocks = {
        n.id: [
            Block(n.id, ip_network(f"{c.network_address}/{c.max_prefixlen - 4}"), "h0", 0.0)
            for c in (s.cidr for s in n.subnets)
        ]
        for n in nets
        if n.driver is Driver.ROUTED
    }
    everyone = [
        endpoint(n, i, "h0" if n.driver is Driver.ROUTED else draw(st.sampled_from(sorted(HOSTS))))
        for n in nets
        for i in range(1, 4)
    ]
    changing = nets[0]
    others = [e for e in everyone if e.network != changing.id]
    own = [e for e in everyone if e.network == changing.id]
    changed = replace(
        changing,
        icc=draw(st.booleans()),
        masquerade=draw(st.booleans()),
        mtu=draw(st.sampled_from((None, 1400))),
        peers=(nets[1].id,) if draw(st.booleans()) else (),
    )
    other = replace(nets[1], peers=(changing.id,) if changed.peers else ())
    before = situation(nets, [*others, *draw(st.lists(st.sampled_from(own), unique_by=lambda e: e.id))], blocks)
    after = situation(
        [changed, other], [*others, *draw(st.lists(st.sampled_from(own), unique_by=lambda e: e.id))], blocks
    )
    return before, after, [changing.id]


@given(situations())
@settings(max_examples=60, deadline=None)
def test_applying_the_plan_gives_the_planned_state(told: tuple[Situation, Situation, list[str]]) -> None:
    before, after, networks = told
    for shown in preview(before, after, networks):
        kernel = FakeKernel(shown.host, [HOSTS[shown.host].underlay.packed])
        first = _attached(shown.before, before, shown.host)
        for side in first.containers.values():
            kernel.add_namespace(side.netns)
        assert kernel.execute(plan(first, kernel.state()).operations) == []
        for side in shown.after.containers.values():
            kernel.add_namespace(side.netns)

        assert kernel.execute(shown.operations) == []
        left = plan(shown.after, kernel.state())
        assert left.operations == ()
        assert left.conflicts == ()
        assert [tell(operation).text for operation in shown.operations]


def _attached(state: HostState, of: Situation, host: str) -> HostState:
    """The same state with the inner halves that a host knows and a preview does not."""
    everyone = {veth_name(e.id): e for found in of.endpoints.values() for e in found.values() if e.host == host}
    fresh = preview(replace(of, endpoints={id_: {} for id_ in of.endpoints}), of, list(of.networks))
    sides = next((one.after.containers for one in fresh if one.host == host), {})
    return replace(
        state, containers={name: side for name, side in sides.items() if name in state.links and name in everyone}
    )
