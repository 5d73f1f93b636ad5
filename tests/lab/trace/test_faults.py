"""Faults that an administrator, or another program, makes on the real kernel: each is found where it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from datapath.names import veth_name
from datapath.trace.case import Flow, Standing
from datapath.trace.hop import Weight
from datapath.trace.trace import Trace, trace
from kvnet.model import Endpoint
from tests.lab.kernel.bed import Bed, network, nft
from tests.lab.trace.tracing import case_of, command, shown, sight, traced

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

BRIDGE, TUNNEL = "kvb000000000007", "kvx000000000007"
A, B = "02:00:00:13:8f:02", "02:00:00:13:8f:03"
WRONG = "02:de:ad:be:ef:01"


@dataclass(frozen=True)
class Fault:
    """`where`: a host, or a workload. `commands`: what is done there; `rules`: of nft. `host`, `kind`, `code`: of the
    finding. `passes`: packets that a ping sends are not lost by it."""

    name: str
    where: str
    commands: tuple[str, ...]
    host: str
    kind: str
    code: str
    rules: str = ""
    passes: bool = False

    def __str__(self) -> str:
        return self.name


def drop(family: str, hook: str, rule: str) -> str:
    return (
        f"table {family} site {{\n chain c {{\n type filter hook {hook} priority 0; policy accept;\n {rule}\n }}\n}}\n"
    )


PORT_A, PORT_B = veth_name("c1-n7"), veth_name("c2-n7")
FAULTS = [
    Fault(
        "tunnel entry gone", "h1", (f"bridge fdb del {B} dev {TUNNEL} self",), "h1", "vxlan fdb", "vxlan-fdb-missing"
    ),
    Fault("bridge entry gone", "h1", (f"bridge fdb del {B} dev {TUNNEL} master",), "h1", "fdb", "fdb-missing"),
    Fault(
        "bridge entry gone there",
        "h2",
        (f"bridge fdb del {B} dev {PORT_B} master",),
        "h2",
        "fdb",
        "fdb-not-static",
        passes=True,
    ),
    Fault(
        "tunnel entry to elsewhere",
        "h1",
        (f"bridge fdb replace {B} dev {TUNNEL} dst 198.18.0.9 self permanent",),
        "h1",
        "vxlan fdb",
        "wrong-vxlan-fdb",
    ),
    Fault(
        "entry is the bridge's own",
        "h2",
        (f"bridge fdb replace {B} dev {PORT_B} master permanent",),
        "h2",
        "fdb",
        "fdb-local",
    ),
    Fault(
        "wrong neighbour",
        "h1",
        (f"ip neigh replace 10.7.0.3 lladdr {WRONG} dev {BRIDGE} nud permanent",),
        "h1",
        "neighbour",
        "wrong-neighbour",
    ),
    Fault("neighbour gone", "h1", (f"ip neigh del 10.7.0.3 dev {BRIDGE}",), "h1", "neighbour", "neighbour-missing"),
    Fault(
        "wrong neighbour in the workload",
        "c1",
        (f"ip neigh replace 10.7.0.3 lladdr {WRONG} dev eth0 nud permanent",),
        "h1",
        "neighbour",
        "wrong-neighbour",
    ),
    Fault(
        "ports isolated",
        "h1",
        (f"bridge link set dev {PORT_A} isolated on", f"bridge link set dev {TUNNEL} isolated on"),
        "h1",
        "port",
        "port-isolation",
    ),
    Fault(
        "tunnel isolated there",
        "h2",
        (f"bridge link set dev {TUNNEL} isolated on",),
        "h2",
        "vxlan",
        "port-isolation",
        passes=True,
    ),
    Fault("port in no bridge", "h1", (f"ip link set {PORT_A} nomaster",), "h1", "port", "wrong-bridge"),
    Fault("MTU of the tunnel", "h2", (f"ip link set {TUNNEL} mtu 1300",), "h2", "vxlan", "wrong-mtu", passes=True),
    Fault("MTU of the port", "h1", (f"ip link set {PORT_A} mtu 1000",), "h1", "port", "wrong-mtu", passes=True),
    Fault("MTU in the workload", "c1", ("ip link set eth0 mtu 9000",), "h1", "workload", "wrong-mtu", passes=True),
    Fault("MTU of the underlay", "h2", ("ip link set eth0 mtu 1400",), "h2", "underlay", "underlay-mtu", passes=True),
    Fault(
        "MTU of a route",
        "h1",
        ("ip route add 198.18.0.2 dev eth0 mtu 1300",),
        "h1",
        "underlay",
        "underlay-mtu",
        passes=True,
    ),
    Fault("underlay blackhole", "h1", ("ip route add blackhole 198.18.0.2",), "h1", "underlay", "no-underlay-route"),
    Fault(
        "underlay unreachable", "h2", ("ip route add unreachable 198.18.0.1",), "h2", "underlay", "no-underlay-route"
    ),
    Fault("no underlay route", "h1", ("ip route flush table main",), "h1", "underlay", "no-underlay-route"),
    Fault(
        "underlay over the tunnel",
        "h1",
        (f"ip route add 198.18.0.2 dev {BRIDGE}",),
        "h1",
        "underlay",
        "wrong-underlay-route",
    ),
    Fault(
        "static underlay neighbour",
        "h1",
        (f"ip neigh replace 198.18.0.2 lladdr {WRONG} dev eth0 nud permanent",),
        "h1",
        "underlay",
        "wrong-underlay-neighbour",
    ),
    Fault("underlay address gone", "h2", ("ip addr flush dev eth0",), "h2", "underlay", "underlay-missing"),
    Fault("bridge down", "h1", (f"ip link set {BRIDGE} down",), "h1", "bridge", "interface-down"),
    Fault("tunnel down", "h2", (f"ip link set {TUNNEL} down",), "h2", "vxlan", "interface-down"),
    Fault("port down", "h2", (f"ip link set {PORT_B} down",), "h2", "port", "interface-down"),
    Fault("workload's interface down", "c2", ("ip link set eth0 down",), "h2", "workload", "interface-down"),
    Fault("underlay down", "h2", ("ip link set eth0 down",), "h2", "underlay", "underlay-down"),
    Fault(
        "wrong VNI",
        "h2",
        (
            f"ip link del {TUNNEL}",
            f"ip link add {TUNNEL} type vxlan id 99 local 198.18.0.2 dstport 4789 nolearning",
            f"ip link set {TUNNEL} master {BRIDGE} mtu 1450 up",
        ),
        "h2",
        "vxlan",
        "wrong-vni",
    ),
    Fault(
        "wrong VNI here",
        "h1",
        (
            f"ip link del {TUNNEL}",
            f"ip link add {TUNNEL} type vxlan id 99 local 198.18.0.1 dstport 4789 nolearning",
            f"ip link set {TUNNEL} master {BRIDGE} mtu 1450 up",
        ),
        "h1",
        "vxlan",
        "wrong-vni",
    ),
    Fault(
        "wrong UDP port",
        "h1",
        (
            f"ip link del {TUNNEL}",
            f"ip link add {TUNNEL} type vxlan id 5007 local 198.18.0.1 dstport 8472 nolearning",
            f"ip link set {TUNNEL} master {BRIDGE} mtu 1450 up",
            f"bridge link set dev {TUNNEL} neigh_suppress on learning off",
            f"bridge fdb replace {B} dev {TUNNEL} master static",
            f"bridge fdb append {B} dev {TUNNEL} dst 198.18.0.2",
        ),
        "h1",
        "vxlan",
        "wrong-port",
    ),
    Fault("tunnel gone", "h1", (f"ip link del {TUNNEL}",), "h1", "vxlan", "interface-missing"),
    Fault(
        "a foreign link of the name",
        "h1",
        (f"ip link del {TUNNEL}", f"ip link add {TUNNEL} type bridge"),
        "h1",
        "vxlan",
        "foreign-object",
    ),
    Fault(
        "stale address",
        "c2",
        ("ip addr del 10.7.0.3/24 dev eth0", "ip addr add 10.7.0.99/24 dev eth0"),
        "h2",
        "workload",
        "stale-address",
    ),
    Fault("address gone", "c1", ("ip addr del 10.7.0.2/24 dev eth0",), "h1", "workload", "address-missing"),
    Fault(
        "interface renamed",
        "c1",
        ("ip link set eth0 down", "ip link set eth0 name net9", "ip link set net9 up"),
        "h1",
        "workload",
        "interface-renamed",
        passes=True,
    ),
    Fault("interface gone", "c2", ("ip link del eth0",), "h2", "port", "interface-missing"),
    Fault("blackhole in the workload", "c1", ("ip route add blackhole 10.7.0.3",), "h1", "route", "no-route"),
    Fault(
        "forwarded frames dropped",
        "h1",
        (),
        "h1",
        "other firewalls",
        "dropped-by-others",
        drop("bridge", "forward", f"ether daddr {B} drop"),
    ),
    Fault(
        "one destination dropped",
        "h2",
        (),
        "h2",
        "other firewalls",
        "dropped-by-others",
        drop("bridge", "forward", "ip daddr 10.7.0.3 drop"),
    ),
    Fault(
        "questions for addresses dropped",
        "h1",
        (),
        "h1",
        "other firewalls",
        "dropped-by-others",
        drop("bridge", "prerouting", "ether type arp drop"),
    ),
    Fault(
        "tunnel's packets dropped at the link",
        "h2",
        (),
        "h2",
        "other firewalls",
        "dropped-by-others",
        drop("inet", "ingress device eth0", "udp dport 4789 drop"),
    ),
    Fault(
        "tunnel's packets dropped on the way out",
        "h1",
        (),
        "h1",
        "other firewalls",
        "dropped-by-others",
        drop("inet", "output", "udp dport 4789 drop"),
    ),
    Fault(
        "tunnel's packets dropped on the way in",
        "h2",
        (),
        "h2",
        "other firewalls",
        "dropped-by-others",
        drop("ip", "input", "ip saddr 198.18.0.1 udp dport 4789 reject"),
    ),
    Fault(
        "dropped before anything",
        "h2",
        (),
        "h2",
        "other firewalls",
        "dropped-by-others",
        drop("inet", "prerouting", "meta l4proto udp th dport { 53, 4789 } counter drop"),
    ),
    Fault(
        "bridged frames dropped by forward",
        "h1",
        (),
        "h1",
        "other firewalls",
        "dropped-by-others",
        drop("inet", "forward", 'iifname "kvb*" ip daddr 10.7.0.0/24 drop'),
    ),
    Fault(
        "answers dropped",
        "h1",
        (),
        "h1",
        "other firewalls",
        "dropped-by-others",
        drop("bridge", "forward", "ip saddr 10.7.0.3 drop"),
    ),
    Fault(
        "the workload's own firewall",
        "c2",
        (),
        "h2",
        "workload",
        "dropped-inside",
        drop("inet", "input", "icmp type echo-request drop\n ip protocol icmp drop"),
    ),
]


async def pair(bed: Bed) -> tuple[Endpoint, Endpoint]:
    net = network(7)
    ends = bed.add(net, "c1", "h1", 2), bed.add(net, "c2", "h2", 3)
    assert await bed.converge() == []
    return ends


def found_at(found: Trace) -> tuple[str, str, str] | None:
    finding = found.finding
    return None if finding is None else (finding[0].host, finding[0].kind, finding[1].code)


@pytest.mark.parametrize("family", [4, 6])
async def test_where_nothing_is_wrong_nothing_is_found(bed: Bed, family: int) -> None:
    a, b = await pair(bed)

    before = await traced(bed, a, b, family=family)
    assert await bed.ping("c1", str(b.addresses[family == 6]))
    after = await traced(bed, a, b, family=family)

    for found in (before, after):
        assert found.finding is None, shown(found)
        assert found.is_complete, shown(found)
        assert not [text for seen in found.sights.values() for text in seen.unread]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_fault_is_found_where_it_is(bed: Bed, fault: Fault) -> None:
    a, b = await pair(bed)
    netns = bed.netns.get(fault.where) or bed.workloads[fault.where]
    for text in fault.commands:
        await command(netns, text)
    if fault.rules:
        nft(netns, fault.rules)

    assert await bed.reaches("c1", "10.7.0.3") == fault.passes
    found = await traced(bed, a, b)

    assert found_at(found) == (fault.host, fault.kind, fault.code), shown(found)


async def test_what_somebody_made_in_place_of_kvnets_is_not_said_to_mend_itself(bed: Bed) -> None:
    a, b = await pair(bed)
    for text in next(fault for fault in FAULTS if fault.name == "wrong VNI").commands:
        await command(bed.netns["h2"], text)

    found = await traced(bed, a, b)

    assert found.finding is not None
    assert f"ip link del {TUNNEL}" in found.finding[1].fix
    assert "foreign-object" in [difference.code for difference in found.finding[0].differences]


async def test_a_host_whose_worker_is_dead_is_found_and_the_rest_is_told(bed: Bed) -> None:
    a, b = await pair(bed)
    case = case_of(bed, a, b)
    case = replace(case, standing={**case.standing, "h1": Standing(bed.hosts["h1"], is_alive=False)})

    found = trace(case, {"h2": await sight(bed, case, "h2")})

    assert found_at(found) == ("h1", "worker", "worker-dead")
    assert all(hop.is_known for hop in found.hops if hop.host == "h2")
    assert any(not hop.is_known and "VNI 5007" in hop.wanted for hop in found.hops), shown(found)


async def test_behind_a_dead_worker_a_fault_is_found_by_looking_there(bed: Bed) -> None:
    a, b = await pair(bed)
    await command(bed.netns["h1"], f"bridge fdb del {B} dev {TUNNEL} self")
    case = case_of(bed, a, b)
    case = replace(case, standing={**case.standing, "h1": Standing(bed.hosts["h1"], is_alive=False)})
    here = replace(await sight(bed, case, "h1"), mode="here")

    found = trace(case, {"h1": here, "h2": await sight(bed, case, "h2")})

    assert found_at(found) == ("h1", "vxlan fdb", "vxlan-fdb-missing"), shown(found)
    assert "start the worker of h1" in found.finding[1].fix if found.finding else False


async def test_a_service_that_does_not_listen_is_found(bed: Bed) -> None:
    a, b = await pair(bed)

    found = await traced(bed, a, b, flow=Flow("tcp", 8080))

    assert found_at(found) == ("h2", "workload", "nobody-listens"), shown(found)


async def test_a_rule_that_is_not_understood_is_told_as_possible_only(bed: Bed) -> None:
    a, b = await pair(bed)
    nft(bed.netns["h1"], drop("bridge", "forward", "ip daddr 10.7.0.3 limit rate over 1000/second drop"))

    found = await traced(bed, a, b)

    assert found_at(found) == ("h1", "other firewalls", "perhaps-dropped"), shown(found)
    assert found.finding is not None
    assert found.finding[1].weight is Weight.NOTE


async def test_a_rule_about_somebody_else_is_no_finding(bed: Bed) -> None:
    a, b = await pair(bed)
    nft(
        bed.netns["h1"], drop("bridge", "forward", "ip daddr 10.7.0.4 drop\n ether type arp accept\n udp dport 53 drop")
    )
    nft(bed.netns["h2"], drop("inet", "input", "tcp dport 22 drop\n udp dport 4790 drop\n iifname lo drop"))

    found = await traced(bed, a, b)

    assert found.finding is None, shown(found)


async def test_what_a_workload_learned_about_the_way_is_no_fault_of_its_own(bed: Bed) -> None:
    a, b = await pair(bed)
    await command(bed.netns["h1"], "ip route add 198.18.0.2 dev eth0 mtu 1300")
    assert not await bed.ping("c1", "10.7.0.3", payload=1400)
    narrow = await traced(bed, a, b)
    await command(bed.netns["h1"], "ip route del 198.18.0.2 dev eth0")
    wide = await traced(bed, a, b)

    assert found_at(narrow) == ("h1", "underlay", "underlay-mtu"), shown(narrow)
    assert wide.finding is None, shown(wide)
    assert "told that 1250 bytes pass" in shown(wide)
