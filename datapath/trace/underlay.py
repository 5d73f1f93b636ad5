"""Hops between hosts, and those where a host routes: the underlay, the host's routes, what it forwards at all."""

from __future__ import annotations

from ipaddress import ip_address

from datapath.drivers.routed import are_adjacent
from datapath.names import bridge_of, vxlan_name
from datapath.objects import VXLAN_OVERHEAD_IPV4, VXLAN_OVERHEAD_IPV6, Bridge, Route, Vxlan
from datapath.packing import contains
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6
from datapath.trace.asking import RP_FILTER_ALL
from datapath.trace.case import End
from datapath.trace.hop import Draft, Hop, Side, Weight, mended
from datapath.trace.links import MTU_REASON
from datapath.trace.seen import SeenLink, SeenWay, Sight
from kvnet.model import Host, Network

STRICT = "1"
KNOWN_FOR_GOOD = ("permanent", "noarp")


def underlay(side: Side, network: Network, other: Side) -> Hop:
    """How this host reaches the other one, outside of every network of kvnet's."""
    own, peer = side.case.hosts[side.host], side.case.hosts[other.host]
    draft = Draft(side, "underlay", f"{side.host} -> {other.host}")
    draft.expect(f"{peer.underlay} from {own.underlay}")
    sight = side.sight
    if sight is None:
        return draft.hop()
    seen = next((w for w in sight.ways if w.to == str(peer.underlay)), None)
    if seen is None:
        draft.is_known = False
        return draft.hop()
    draft.see(_told(seen))
    is_own_there = any(a.address == str(own.underlay) for a in sight.addresses)
    if not is_own_there:
        reason = "other hosts send to this address, and this host's tunnels send from it"
        fix = f"give {side.host} the address back, or restart its worker with another --underlay"
        draft.differ("underlay-missing", "underlay address", own.underlay, "not there", reason, fix)
    if seen.kind == "unicast":
        _compare_way(draft, side, seen, own, peer)
        _compare_mtu(draft, side, network, seen, own)
        _compare_neighbour(draft, sight, seen, peer, other)
    elif is_own_there and (down := _down(sight, str(own.underlay))):
        reason = f"the underlay's link is down, so {side.host} has no way to {other.host}"
        draft.differ("underlay-down", down, "up", "down", reason, f"ip link set {down} up, on {side.host}")
    elif is_own_there:
        found = "no route" if seen.kind == "none" else f"a {seen.kind} route"
        reason = f"{side.host} has no way to {other.host}, so nothing of any network reaches it"
        fix = f"ip route get {peer.underlay} on {side.host} shows it; the underlay's routes are not kvnet's"
        draft.differ("no-underlay-route", "route", "a way", found, reason, fix)
    return draft.hop()


def _down(sight: Sight, address: str) -> str:
    """The link that has the address, if it is down: its routes are gone with that."""
    links = (sight.link(a.device) for a in sight.addresses if a.address == address)
    return next((link.name for link in links if link is not None and not link.up), "")


def forwarding(side: Side, entrances: tuple[str, ...], way_back: str = "") -> Hop:
    """Whether the host passes on what is not for itself. `entrances`: devices that it comes in by.

    `way_back`: the address that it comes from, for the kernel's check of sources.
    """
    path = FORWARD_IPV4 if side.case.version == 4 else FORWARD_IPV6
    draft = Draft(side, "forwarding", path)
    draft.expect(f"{path} 1")
    sight = side.sight
    if sight is None:
        return draft.hop()
    found = sight.settings.get(path, "unknown")
    draft.see(f"{path} {found}")
    if found == "0":
        reason = "the host passes nothing on between its interfaces; something switched it off"
        draft.differ("not-forwarding", path, "1", "0", reason, mended(side))
    if side.case.version == 4 and way_back:
        _compare_reverse(draft, sight, entrances, way_back)
    return draft.hop()


def route(side: Side, end: End) -> Hop | None:
    """The host's route to an endpoint: over its network's bridge, or by the host that has its block."""
    wanted = _wanted_route(side, end)
    draft = Draft(side, "route", f"{end.address} on {side.host}", end.network.id)
    if wanted is None:
        return None
    draft.expect(_words(wanted, str(end.address)))
    sight = side.sight
    seen = next((w for w in sight.ways if w.to == str(end.address)), None) if sight is not None else None
    if seen is None:
        draft.is_known = False
        return draft.hop()
    draft.see(_told(seen))
    via = str(ip_address(wanted.gateway)) if wanted.gateway else ""
    is_same = seen.kind == "unicast" and seen.gateway == via and wanted.device in ("", seen.device)
    if not is_same:
        found = _told(seen) if seen.kind == "unicast" else "no route" if seen.kind == "none" else seen.kind
        reason = f"{side.host} sends what is for {end} elsewhere"
        draft.differ("wrong-route", "route", draft.wanted[0], found, reason, mended(side))
    return draft.hop()


def _compare_way(draft: Draft, side: Side, seen: SeenWay, own: Host, peer: Host) -> None:
    sight = side.sight
    devices = {a.device for a in sight.addresses if a.address == str(own.underlay)} if sight is not None else set()
    fix = f"'ip route get {peer.underlay}' on {side.host} shows it; the underlay's routes are not kvnet's"
    if seen.device.startswith(("kvb", "kvx", "kvs")):
        reason = "the way to the other host leads into a network of kvnet's own"
        draft.differ("wrong-underlay-route", "route", "over the underlay", seen.device, reason, fix)
    elif seen.gateway and own.segment is not None and are_adjacent(own, peer):
        reason = f"{peer.name} is on the same segment ({own.segment}), and is sent to through a gateway"
        draft.differ("wrong-underlay-route", "route", "on the link", f"via {seen.gateway}", reason, fix)
    elif devices and seen.device not in devices and own.segment is not None and are_adjacent(own, peer):
        reason = f"the underlay's address is on {', '.join(sorted(devices))}"
        draft.differ("wrong-underlay-route", "route", " or ".join(sorted(devices)), seen.device, reason, fix)
    link = sight.link(seen.device) if sight is not None else None
    if link is not None and not (link.up and link.works):
        found = "down" if not link.up else "no carrier"
        fix = f"ip link set {seen.device} up, on {side.host}"
        if link.up:
            fix = f"see to the cable of {seen.device} on {side.host}, and to what is at its other end"
        draft.differ("underlay-down", seen.device, "up", found, "nothing leaves the host there", fix)


def _compare_mtu(draft: Draft, side: Side, network: Network, seen: SeenWay, own: Host) -> None:
    """What a whole packet of the network takes on the underlay."""
    tunnel = side.wanted.links.get(vxlan_name(network.id))
    bridge = side.wanted.links.get(bridge_of(network))
    inner = getattr(tunnel if isinstance(tunnel, Vxlan) else bridge, "mtu", 0)
    if not inner:  # a routed network that only a peer reaches from here: the packets are as large as the peer's
        inner = max((link.mtu for link in side.wanted.links.values() if isinstance(link, Bridge)), default=0)
    overhead = (VXLAN_OVERHEAD_IPV4 if own.underlay.version == 4 else VXLAN_OVERHEAD_IPV6) if tunnel else 0
    link = side.sight.link(seen.device) if side.sight is not None else None
    there = min([value for value in (seen.mtu, link.mtu if link is not None else 0) if value], default=0)
    if not inner or not there:
        return
    draft.expect(f"MTU {inner + overhead} or more")
    draft.see(f"MTU {there}")
    if there < inner + overhead:
        reason = f"packets of {network.name} are {inner + overhead} bytes there. {MTU_REASON}"
        where = "the route" if seen.mtu and seen.mtu == there else seen.device
        fix = f"raise the MTU of {where} on {side.host}"
        if seen.forgotten_s:
            where = "the way"
            reason = f"something on the way has said that no more than {there} bytes pass. {reason}"
            fix = f"find the narrow link (tracepath), then 'ip route flush cache' on {side.host}: it remembers for "
            fix += f"{seen.forgotten_s:.0f} s more"
        fix += f"; or lower the network's: kvnet network update {network.name} --mtu {there - overhead}"
        draft.differ("underlay-mtu", f"MTU of {where}", f"{inner + overhead} or more", there, reason, fix)


def _compare_neighbour(draft: Draft, sight: Sight, seen: SeenWay, peer: Host, other: Side) -> None:
    hop = seen.gateway or seen.to
    known = next((n for n in sight.neighbours if (n.device, n.address) == (seen.device, hop)), None)
    if known is None:
        return
    if known.state == "failed" and other.sight is None:
        draft.see(f"{hop} does not answer")
        reason = f"{hop} was asked for on the underlay and did not answer: the other host or the wire is down"
        fix = f"see whether {peer.name} is up, and the wire between the hosts"
        draft.differ("underlay-no-answer", "neighbour", "answers", "no answer", reason, fix, Weight.SYMPTOM)
    mac = _mac_of(other, str(peer.underlay))
    if not seen.gateway and mac and known.mac and known.mac != mac and known.state in KNOWN_FOR_GOOD:
        reason = f"a static neighbour has another MAC for {peer.name} than it has"
        fix = f"ip neigh del {hop} dev {seen.device}, on {draft.side.host}"
        draft.differ("wrong-underlay-neighbour", "neighbour", mac, known.mac, reason, fix)


def _mac_of(other: Side, address: str) -> str:
    sight = other.sight
    device = next((a.device for a in sight.addresses if a.address == address), "") if sight is not None else ""
    link: SeenLink | None = sight.link(device) if sight is not None else None
    return link.mac if link is not None else ""


def _compare_reverse(draft: Draft, sight: Sight, entrances: tuple[str, ...], source: str) -> None:
    """Strict reverse path filtering drops what comes in elsewhere than its source would be sent to."""
    back = next((w for w in sight.ways if w.to == source), None)
    for device in entrances:
        values = (sight.settings.get(RP_FILTER_ALL, "0"), sight.settings.get(f"net/ipv4/conf/{device}/rp_filter", "0"))
        if max(values) == STRICT and back is not None and back.kind == "unicast" and back.device != device:
            reason = f"{source} comes in by {device} and would be sent to over {back.device}: rp_filter drops it"
            fix = f"sysctl -w net.ipv4.conf.{device}.rp_filter=2 on {draft.side.host} (and conf.all if that is 1)"
            draft.differ("rp-filter", f"rp_filter of {device}", "0 or 2", "1", reason, fix)


def _wanted_route(side: Side, end: End) -> Route | None:
    to = end.address.packed
    found = [r for r in side.wanted.routes if contains(r.destination, r.prefix_length, to)]
    return max(found, key=lambda r: r.prefix_length, default=None)


def _words(wanted: Route, to: str) -> str:
    via = f" via {ip_address(wanted.gateway)}" if wanted.gateway else ""
    return f"{to}{via}{f' dev {wanted.device}' if wanted.device else ''}"


def _told(seen: SeenWay) -> str:
    if seen.kind != "unicast":
        return "no route" if seen.kind == "none" else f"{seen.to} {seen.kind}"
    return f"{seen.to}{f' via {seen.gateway}' if seen.gateway else ''} dev {seen.device}"
