"""What a fake kernel would answer to the question of a trace, and a trace over a world of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import ip_address

from datapath.fake_tables import Interface, Tables
from datapath.objects import Bridge, Ip, Uplink, Veth, Vxlan
from datapath.packing import contains
from datapath.trace.asking import question
from datapath.trace.case import Case, End, Flow, Standing
from datapath.trace.firewall import relevant
from datapath.trace.seen import (
    Question,
    SeenAddress,
    SeenDrop,
    SeenEntry,
    SeenInside,
    SeenLink,
    SeenNeighbour,
    SeenNetwork,
    SeenWay,
    Sight,
)
from datapath.trace.trace import Trace, trace
from kvnet.model import Endpoint
from tests.unit.datapath.clusters import World, namespace_of

UNDERLAY_DEVICE, ROUTER = "eth0", {4: "192.168.7.254", 6: "fd99::fe"}


def case_of(world: World, a: Endpoint, b: Endpoint, family: int) -> Case:
    ends = []
    for endpoint in (a, b):
        address = next(address for address in endpoint.addresses if address.version == family)
        ends.append(End(endpoint, world.networks[endpoint.network], address))
    carried = {
        host: frozenset(id_ for id_, es in world.endpoints.items() if any(e.host == host for e in es.values()))
        for host in world.hosts
    }
    return Case(
        ends[0],
        ends[0] if a.id == b.id else ends[1],
        Flow(),
        world.hosts,
        {host: Standing(world.hosts[host]) for host in {a.host, b.host}},
        world.networks,
        world.endpoints,
        world.blocks(),
        carried=carried,
    )


def traced(world: World, a: Endpoint, b: Endpoint, family: int, *, blind: Collection[str] = ()) -> Trace:
    case = case_of(world, a, b, family)
    return trace(case, sights(world, case, blind=blind))


def sights(world: World, case: Case, *, blind: Collection[str] = ()) -> dict[str, Sight]:
    return {host: sight(world, case, host) for host in case.own_hosts if host not in blind}


def sight(world: World, case: Case, host: str) -> Sight:
    asked, tables = question(case, host), world.kernels[host].tables
    underlay = next(iter(tables.underlay), b"")
    ends = [ip_address(end).packed for end in asked.ends]
    links = [_link(tables, name) for name in asked.devices if name in tables.links or name in tables.uplinks]
    mtu = world.hosts[host].mtu
    links.append(SeenLink(UNDERLAY_DEVICE, "", up=True, works=True, mtu=mtu, mac=f"02:ee:00:00:00:{int(host[1:]):02x}"))
    firewall = tables.firewall
    return Sight(
        host,
        networks=tuple(SeenNetwork(network.id, 0, 0) for network in case.own_networks),
        insides=tuple(_inside(world, host, inner.endpoint, asked) for inner in asked.inner),
        links=tuple(links),
        addresses=(*_addresses(tables, asked), SeenAddress(UNDERLAY_DEVICE, _ip(underlay), 24)),
        entries=tuple(_entries(tables, asked)),
        neighbours=tuple(
            SeenNeighbour(device, _ip(address), mac.hex(":"), "permanent")
            for (device, address), mac in tables.neighbours.items()
            if _ip(address) in asked.addresses
        ),
        ways=tuple(_way(tables, way.to, way.source) for way in asked.ways),
        settings=tables.sysctls,
        rules=None if firewall is None else relevant(firewall, asked.devices, ends),
        drops=tuple(_drops(tables, asked, case.version)),
    )


def _drops(tables: Tables, asked: Question, family: int) -> list[SeenDrop]:
    """FORWARD chains without our rule drop what is routed, and with br_netfilter what is bridged."""
    crossings = [c for c in asked.crossings if (c.layer, c.hook) == ("ip", "forward")]
    meeting = [c for c in crossings if not c.given or tables.bridge_calls_iptables]
    closed = [gate for gate, is_open in tables.gates.items() if gate.family == family and not is_open]
    found = [(c, gate) for c in meeting for gate in closed]
    return [SeenDrop(c.name, f"ip{family}", f"filter {gate.flavour}", "FORWARD", "policy drop") for c, gate in found]


def _link(tables: Tables, name: str) -> SeenLink:
    found = tables.links.get(name) or tables.uplinks[name]
    match found:
        case Bridge():
            return SeenLink(name, "bridge", found.up, True, found.mtu, found.mac.hex(":"))
        case Vxlan():
            return SeenLink(
                name,
                "vxlan",
                found.up,
                True,
                found.mtu,
                found.mac.hex(":"),
                found.bridge,
                vni=found.vni,
                local=_ip(found.local),
                port=found.port,
                learning=found.learning,
                suppress=found.suppress,
                isolated=found.isolated,
            )
        case Veth():
            master = found.bridge
            return SeenLink(name, "veth", found.up, True, found.mtu, "", master, isolated=found.isolated)
        case Uplink():
            kind = "bridge" if found.is_bridge else ""
            return SeenLink(name, kind, found.up, found.up, found.mtu, found.mac.hex(":"), found.bridge)
    return SeenLink(name, "macvlan", True, True, found.mtu, "")


def _addresses(tables: Tables, asked: Question) -> list[SeenAddress]:
    own = [(a.device, a.address, a.prefix_length) for a in tables.addresses]
    own += [(name, address, length) for name, blocks in tables.uplink_blocks.items() for address, length in blocks]
    told = [SeenAddress(device, _ip(address), length) for device, address, length in own]
    return [a for a in told if a.address in asked.addresses or a.device in asked.devices]


def _entries(tables: Tables, asked: Question) -> list[SeenEntry]:
    found = [SeenEntry(port, mac.hex(":")) for (_, mac), port in tables.ports.items()]
    found += [SeenEntry(d, mac.hex(":"), _ip(r)) for (d, mac), remotes in tables.vteps.items() for r in remotes]
    return [entry for entry in found if entry.mac in asked.macs]


def _way(tables: Tables, to: str, source: str) -> SeenWay:
    packed = ip_address(to).packed
    routes = [r for r in tables.routes.values() if contains(r.destination, r.prefix_length, packed)]
    best = max(routes, key=lambda r: r.prefix_length, default=None)
    if best is not None:
        via = _ip(best.gateway) if best.gateway else ""
        return SeenWay(to, "unicast", best.device or UNDERLAY_DEVICE, via, asked_from=source)
    is_near = any(contains(block, length, packed) for block, length in tables.on_link)
    return SeenWay(to, "unicast", UNDERLAY_DEVICE, "" if is_near else ROUTER[ip_address(to).version], asked_from=source)


def _inside(world: World, host: str, endpoint: str, asked: Question) -> SeenInside:
    attachment = world.attachments[host].get(endpoint)
    if attachment is None:
        return SeenInside(endpoint, "not-attached")
    known = SeenInside(endpoint, "gone", attachment.netns, attachment.interface, order=attachment.order)
    interfaces = world.kernels[host].tables.namespaces.get(attachment.netns)
    if interfaces is None:
        return known
    interface = interfaces.get(attachment.interface)
    loopback = SeenLink("lo", "", up=True, works=True, mtu=65536, mac="")
    if interface is None:
        return replace(known, state="no-interface", links=(loopback,))
    side = interface.side
    link = SeenLink(side.interface, "", up=True, works=True, mtu=side.mtu, mac=side.mac.hex(":"))
    inner = next(one for one in asked.inner if one.endpoint == endpoint)
    return replace(
        known,
        state="ok",
        links=(link, loopback),
        addresses=tuple(SeenAddress(side.interface, _ip(address), length) for address, length in side.addresses),
        ways=tuple(_way_inside(interface, way.to) for way in inner.ways),
        neighbours=tuple(
            SeenNeighbour(side.interface, _ip(address), mac.hex(":"), "reachable")
            for address, mac in interface.cache.items()
        ),
    )


def _way_inside(interface: Interface, to: str) -> SeenWay:
    side, packed = interface.side, ip_address(to).packed
    if any(address == packed for address, _ in side.addresses):
        return SeenWay(to, "local", "lo")
    found: list[tuple[int, Ip]] = [(n, b"") for a, n in side.addresses if contains(a, n, packed)]
    found += [(n, hop) for a, n, hop in side.routes if contains(a, n, packed)]
    found += [(-1, hop) for hop in side.gateways if len(hop) == len(packed)]
    if not found:
        return SeenWay(to, "none")
    hop = max(found, key=lambda way: way[0])[1]
    return SeenWay(to, "unicast", side.interface, _ip(hop) if hop else "")


def path_of(endpoint: Endpoint) -> str:
    return namespace_of(endpoint)


def _ip(packed: bytes) -> str:
    return str(ip_address(packed)) if packed else ""
