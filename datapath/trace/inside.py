"""Hops inside a workload's namespace: its interface, its way to the other end, and whom it knows there."""

from __future__ import annotations

from ipaddress import ip_address

from datapath.names import macvlan_name, veth_name
from datapath.objects import ContainerSide, Ip
from datapath.packing import contains
from datapath.trace.case import Case, End, is_macvlan
from datapath.trace.hop import Draft, Hop, Side, Weight, mended, updown
from datapath.trace.links import MTU_REASON
from datapath.trace.seen import SeenInside, SeenLink, SeenWay

ABSENT = {
    "not-attached": "nothing has an interface for it on this host",
    "waiting": "its interface waits on the host for its runtime to move it into the workload",
    "gone": "the namespace that it was attached to is gone",
    "another": "another namespace is under the path that it was attached to",
    "unreadable": "the namespace cannot be looked into",
}


def interface(side: Side, end: End) -> Hop:
    draft = Draft(side, "workload", str(end), end.network.id)
    wanted = _side(side, end)
    inside = side.sight.inside(end.id) if side.sight is not None else None
    draft.expect(f"{wanted.interface} with {end.address}" if wanted and wanted.interface else f"{end.address}")
    if inside is None:
        draft.is_known = False
        return draft.hop()
    if inside.state in ABSENT:
        return _absent(draft, end, inside)
    link = _own_link(draft, end, inside)
    if link is not None:
        _compare(draft, end, inside, link, wanted)
    _note_drops(draft, end, inside)
    return draft.hop()


def way(side: Side, case: Case, end: End, other: End) -> Hop | None:
    """How the workload sends to the other end."""
    inside = side.sight.inside(end.id) if side.sight is not None else None
    wanted = _side(side, end)
    draft = Draft(side, "route", f"{other.address} in {end}", end.network.id)
    if inside is not None and inside.state != "ok":
        return None  # told by the hop before
    hop = _next_hop(wanted, other.address.packed) if wanted is not None else None
    device = wanted.interface if wanted is not None and wanted.interface else "its interface"
    via = f" via {ip_address(hop)}" if hop else ""
    draft.expect(f"{other.address}{via} dev {device}")
    if hop is None and wanted is not None:
        reason = (
            f"{end} gets no way to {other.address}: {end.network.name} is internal, or has no gateway of this family"
        )
        draft.differ("no-way", "route", "a way", "none is made", reason, "attach it to a network that leads there")
    seen = next((w for w in inside.ways if w.to == str(other.address)), None) if inside is not None else None
    if seen is None:
        draft.is_known = bool(draft.differences)
        return draft.hop()
    draft.see(_told(seen))
    if wanted is not None and hop is not None:
        _compare_way(draft, end, seen, wanted, hop)
    return draft.hop()


def near(side: Side, case: Case, end: End, other: End) -> Hop | None:
    """Whom the workload's own stack knows under the address that it sends to next."""
    inside = side.sight.inside(end.id) if side.sight is not None else None
    wanted = _side(side, end)
    if inside is None or inside.state != "ok" or wanted is None:
        return None
    hop = _next_hop(wanted, other.address.packed)
    if hop is None:
        return None
    text = str(ip_address(hop)) if hop else str(other.address)
    mac = end.network.gateway_mac if hop else other.endpoint.mac
    is_known_mac = not (hop and end.network.driver == "transparent")
    draft = Draft(side, "neighbour", f"{text} in {end}", end.network.id)
    draft.expect(f"{text} is at {mac}, or will be asked for" if is_known_mac else f"{text} answers")
    seen = next((n for n in inside.neighbours if n.address == text and n.device == inside.interface), None)
    if seen is None:
        draft.see("not asked for yet")
        return draft.hop()
    draft.see(f"{text} is at {seen.mac} ({seen.state})" if seen.mac else f"{text} {seen.state}")
    fix = f"{_within(side, inside.netns)} ip neigh del {text} dev {inside.interface}"
    if seen.state == "failed":
        draft.see("it was asked for and nobody answered; it is asked again with the next packet")
    if is_known_mac and seen.mac and seen.mac != mac:
        is_told_so = _is_told_so(side, text, seen.mac)
        reason = f"the workload sends to a MAC that is not {'the gateway' if hop else other}'s"
        reason += ": the bridge told it so" if is_told_so else ""
        weight = Weight.SYMPTOM if is_told_so else Weight.BREAKS
        draft.differ("wrong-neighbour", "neighbour", mac, seen.mac, reason, fix, weight)
    return draft.hop()


def _side(side: Side, end: End) -> ContainerSide | None:
    name = macvlan_name(end.id) if is_macvlan(end.network) else veth_name(end.id)
    return side.wanted.containers.get(name)


def _absent(draft: Draft, end: End, inside: SeenInside) -> Hop:
    draft.see(inside.state.replace("-", " "))
    where = f"{ABSENT[inside.state]}{f' ({inside.netns})' if inside.netns else ''}"
    detail = f": {inside.detail}" if inside.detail else ""
    fixes = {
        "not-attached": f"attach a workload as it: kvnet attach {end.network.name} --netns NAMESPACE --name "
        f"{end.endpoint.name} --id {end.id}, on {draft.side.host}; or remove it: kvnet endpoint rm "
        f"{end.network.name} {end.endpoint.name}",
        "waiting": "its runtime (Docker) has to start the container; see its log",
        "unreadable": "see the worker's log",
    }
    fix = fixes.get(inside.state, f"start the workload anew; 'kvnet endpoint rm {end}' removes what is left of it")
    draft.differ(inside.state, "workload", "attached", inside.state.replace("-", " "), where + detail, fix)
    return draft.hop()


def _own_link(draft: Draft, end: End, inside: SeenInside) -> SeenLink | None:
    if inside.state == "ok":
        return inside.links[0]
    other = next((link for link in inside.links if link.mac == end.endpoint.mac), None)
    draft.see(f"{inside.interface} not there" + (f", its MAC is on {other.name}" if other else ""))
    if other is not None:
        reason = "the workload renamed it; kvnet does not find it, and makes it no second time"
        fix = f"{_within(draft.side, inside.netns)} ip link set {other.name} name {inside.interface}"
        draft.differ("interface-renamed", "interface", inside.interface, other.name, reason, fix, Weight.NOTE)
        return other
    reason = f"the workload has no interface {inside.interface}"
    fix = f"detach and attach it again; the namespace is {inside.netns}"
    sight = draft.side.sight
    if sight is not None and not is_macvlan(end.network) and sight.link(veth_name(end.id)) is None:
        fix = mended(draft.side)  # it makes both halves again
    draft.differ("interface-missing", "interface", inside.interface, "not there", reason, fix)
    return None


def _compare(draft: Draft, end: End, inside: SeenInside, link: SeenLink, wanted: ContainerSide | None) -> None:
    where = _within(draft.side, inside.netns)
    fix = f"{where} ip link set {link.name} up"
    reason = "an interface that is down neither sends nor receives, and has lost its routes"
    draft.compare("interface-down", link.name, "up", updown(link.up), reason, fix)
    reason = "what is for the recorded MAC is not taken, and what it sends comes from an unknown one"
    fix = f"{where} ip link set {link.name} address {end.endpoint.mac}"
    draft.compare("wrong-mac", "MAC", end.endpoint.mac, link.mac, reason, fix)
    _compare_addresses(draft, end, inside, link, where)
    if wanted is not None:
        fix = f"{where} ip link set {link.name} mtu {wanted.mtu}"
        draft.compare("wrong-mtu", "MTU", wanted.mtu, link.mtu, MTU_REASON, fix)
    if draft.side.case.is_itself:
        loopback = next((found for found in inside.links if found.name == "lo"), None)
        if loopback is not None:
            fix = f"{where} ip link set lo up"
            draft.compare("interface-down", "lo", "up", updown(loopback.up), "to itself a workload sends over lo", fix)
    if inside.is_listening is False:
        flow = draft.side.case.flow
        reason = f"nothing in {end} listens on {flow.protocol} port {flow.port}"
        draft.differ("nobody-listens", "port", f"{flow.protocol}/{flow.port}", "closed", reason, "start the service")


def _compare_addresses(draft: Draft, end: End, inside: SeenInside, link: SeenLink, where: str) -> None:
    """What it has of the traced family that is in one of the network's subnets."""
    blocks = [subnet.cidr for subnet in end.network.subnets]
    lengths = {a.address: a.prefix_length for a in inside.addresses if a.device == link.name}
    held = list(lengths)
    own = [a for a in held if any(ip_address(a) in b for b in blocks if b.version == ip_address(a).version)]
    family = [a for a in own if ip_address(a).version == end.address.version]
    recorded = {str(address) for address in end.endpoint.addresses}
    draft.expect(str(end.address))
    draft.see(" ".join(family) or "no address")
    length = draft.side.case.place(end).prefix_length
    stale = [a for a in family if a not in recorded]
    if str(end.address) not in family:
        reason = f"{end} does not have the address that the cluster has recorded for it"
        fix = f"{where} ip address add {end.address}/{length} dev {link.name}; or attach it anew"
        code, found = ("stale-address", ", ".join(stale)) if stale else ("address-missing", "none")
        draft.differ(code, "address", end.address, found, reason, fix)
    elif stale:
        reason = "it has an address in the network that is not its own: another endpoint may be given it"
        fix = f"{where} ip address del {stale[0]}/{lengths[stale[0]]} dev {link.name}"
        draft.differ("stale-address", "address", end.address, ", ".join(family), reason, fix, Weight.NOTE)


def _note_drops(draft: Draft, end: End, inside: SeenInside) -> None:
    """The workload's own firewall."""
    sight = draft.side.sight
    for drop in sight.drops if sight is not None else ():
        direction, _, place = drop.crossing.partition("/")
        ends = {"there": (draft.side.case.a, draft.side.case.b), "back": (draft.side.case.b, draft.side.case.a)}
        source, target = ends.get(direction, ends["there"])
        if (place == "inside-out" and source is end) or (place == "inside-in" and target is end):
            where = f"{drop.family} {drop.table} {drop.chain}"
            reason = (
                "the workload's own firewall drops it" if drop.is_certain else "the workload's firewall may drop it"
            )
            fix = f"change that rule in the namespace {inside.netns}"
            weight = Weight.BREAKS if drop.is_certain else Weight.NOTE
            draft.differ("dropped-inside", f"chain {where}", "lets it pass", drop.rule, reason, fix, weight)


def _next_hop(wanted: ContainerSide, to: Ip) -> Ip | None:
    """b"": on the link. None: no way is made."""
    found: list[tuple[int, Ip]] = [(n, b"") for a, n in wanted.addresses if contains(a, n, to)]
    found += [(n, hop) for a, n, hop in wanted.routes if contains(a, n, to)]
    found += [(-1, hop) for hop in wanted.gateways if len(hop) == len(to)]
    return max(found, key=lambda way: way[0])[1] if found else None


def _compare_way(draft: Draft, end: End, seen: SeenWay, wanted: ContainerSide, hop: Ip) -> None:
    via = str(ip_address(hop)) if hop else ""
    packed = ip_address(seen.to).packed
    led = (f"{ip_address(a)}/{n}" for a, n, _ in wanted.routes if contains(a, n, packed))
    to = next(led, "default") if hop else seen.to
    command = f"ip route replace {to}{f' via {via}' if via else ''} dev {wanted.interface}"
    fix = f"{_within(draft.side, wanted.netns)} {command}"
    if draft.side.case.is_itself:
        if seen.kind != "local":
            draft.differ("wrong-route", "route", "local", seen.kind, "its own address is not its own", fix)
        return
    if seen.kind != "unicast":
        found = "no route" if seen.kind == "none" else seen.kind
        reason = "the workload itself has no way there" if seen.kind == "none" else f"a {seen.kind} route swallows it"
        draft.differ("no-route", "route", f"via {via}" if via else "on the link", found, reason, fix)
        return
    if seen.device != wanted.interface:
        reason = "it leaves by another interface: with several networks the way out is that of one of them"
        draft.differ("wrong-device", "route", wanted.interface, seen.device, reason, fix)
    elif seen.gateway != via:
        reason = "it goes through another gateway than the network's"
        draft.differ("wrong-gateway", "route", via or "on the link", seen.gateway or "on the link", reason, fix)
    if seen.mtu and seen.mtu < wanted.mtu and not seen.forgotten_s:
        draft.differ("wrong-mtu", "MTU of the route", wanted.mtu, seen.mtu, MTU_REASON, fix)
    if seen.source and seen.device == wanted.interface and seen.source != str(end.address):
        reason = "it sends from an address that is not the recorded one, so answers go elsewhere"
        draft.differ("wrong-source", "source", end.address, seen.source, reason, fix)


def _within(side: Side, netns: str) -> str:
    """Before a command: where it is to be typed."""
    return f"on {side.host}: nsenter --net={netns}"


def _is_told_so(side: Side, address: str, mac: str) -> bool:
    seen = side.sight.neighbours if side.sight is not None else ()
    return any((n.address, n.mac) == (address, mac) for n in seen)


def _told(seen: SeenWay) -> str:
    if seen.kind not in ("unicast", "local"):
        return "no route" if seen.kind == "none" else f"{seen.to} {seen.kind}"
    via = f" via {seen.gateway}" if seen.gateway else ""
    # No fault by itself: what is sent is made to fit, and where it did not fit has a hop of its own.
    learned = f", told that {seen.mtu} bytes pass (for {seen.forgotten_s:.0f} s more)" if seen.forgotten_s else ""
    return f"{seen.to}{via} dev {seen.device}{learned}"
