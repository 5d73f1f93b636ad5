"""Hops that are links of a host's: ports, bridges, tunnels, uplinks."""

from __future__ import annotations

from ipaddress import ip_address

from datapath.names import veth_name, vxlan_name
from datapath.objects import Bridge, Veth, Vxlan
from datapath.trace.case import End
from datapath.trace.hop import Draft, Hop, Side, Weight, mended, updown
from datapath.trace.seen import SeenLink
from kvnet.model import Network

MTU_REASON = (
    "larger packets than the smallest MTU on the way are lost or cut, small ones pass: pings work, transfers hang"
)


def port(side: Side, end: End) -> Hop | None:
    """The host's half of an endpoint's interface. None where it should have none."""
    wanted = side.wanted.links.get(veth_name(end.id))
    if not isinstance(wanted, Veth):
        return None
    draft = Draft(side, "port", wanted.name, end.network.id)
    ideal = SeenLink(
        wanted.name, "veth", True, True, wanted.mtu, "", wanted.bridge, isolated=wanted.isolated, hairpin=wanted.hairpin
    )
    inside = side.sight.inside(end.id) if side.sight is not None else None
    is_lost = inside is not None and inside.state in ("gone", "another")  # and both halves with the namespace
    weight = Weight.SYMPTOM if is_lost else Weight.BREAKS
    seen = _link(draft, ideal, f"the host's half of {end}'s interface", weight)
    if seen is None:
        return draft.hop()
    fix = _mend(side, seen)
    draft.compare("interface-down", "", "up", updown(seen.up), "nothing passes a port that is down", fix)
    _compare_master(draft, wanted.bridge, seen)
    _compare_isolation(draft, seen, is_wanted=wanted.isolated)
    _compare_mtu(draft, wanted.mtu, seen)
    return draft.hop()


def bridge(side: Side, network: Network, name: str) -> Hop:
    wanted = side.wanted.links.get(name)
    draft = Draft(side, "bridge", name, network.id)
    if not isinstance(wanted, Bridge):
        return _others_bridge(draft, name)
    ideal = SeenLink(name, "bridge", True, True, wanted.mtu, wanted.mac.hex(":"))
    seen = _link(draft, ideal, f"the bridge of network {network.name}")
    if seen is None:
        return draft.hop()
    fix = _mend(side, seen)
    reason = "a bridge that is down forwards nothing, and loses all its neighbours"
    draft.compare("interface-down", "", "up", updown(seen.up), reason, fix)
    reason = "workloads send to the gateway's MAC, which this bridge then does not take for its own"
    draft.compare("wrong-mac", "MAC", wanted.mac.hex(":"), seen.mac, reason, fix)
    _compare_mtu(draft, wanted.mtu, seen)
    return draft.hop()


def _others_bridge(draft: Draft, name: str) -> Hop:
    """An operator's bridge, which gets nothing from kvnet but ports."""
    seen = _link(draft, SeenLink(name, "bridge", True, True, 0, ""), "the operator's bridge", is_kvnets=False)
    if seen is not None:
        reason = "it is the operator's, so kvnet does not touch it"
        draft.compare("interface-down", "", "up", updown(seen.up), reason, f"ip link set {name} up")
    return draft.hop()


def gateway(side: Side, network: Network, name: str, address: str) -> Hop:
    """The host's own address in the network, to which workloads send what is for others."""
    draft = Draft(side, "gateway", address, network.id)
    draft.expect(f"{address} on {name}")
    if side.sight is None:
        return draft.hop()
    holders = [seen for seen in side.sight.addresses if seen.address == address]
    draft.see(", ".join(f"{address} on {seen.device}" for seen in holders) or "not there")
    if all(seen.device != name for seen in holders):
        found = ", ".join(seen.device for seen in holders) or "not there"
        reason = "nobody on this host answers for the gateway, so nothing leaves the network"
        draft.differ("gateway-missing", "gateway address", f"on {name}", found, reason, mended(side))
    return draft.hop()


def tunnel(side: Side, network: Network) -> Hop | None:
    name = vxlan_name(network.id)
    wanted = side.wanted.links.get(name)
    if not isinstance(wanted, Vxlan):
        return None
    draft = Draft(side, "vxlan", name, network.id)
    seen = _link(draft, _ideal_tunnel(wanted), f"the tunnel of network {network.name}")
    if seen is None:
        return draft.hop()
    fix = _mend(side, seen)
    draft.compare("interface-down", "", "up", updown(seen.up), "nothing passes a tunnel that is down", fix)
    reason = "hosts with different VNIs do not take each other's packets"
    draft.compare("wrong-vni", "VNI", wanted.vni, seen.vni, reason, fix)
    reason = "it sends from an address that other hosts do not know, or that this one does not have"
    draft.compare("wrong-local", "local", str(ip_address(wanted.local)), seen.local or "none", reason, fix)
    draft.compare("wrong-port", "port", wanted.port, seen.port, "the other hosts listen on another UDP port", fix)
    if wanted.bridge:
        _compare_master(draft, wanted.bridge, seen)
        _compare_isolation(draft, seen, is_wanted=wanted.isolated)
        if not seen.suppress:
            reason = "the bridge then asks over the tunnel, where nobody answers, instead of answering itself"
            draft.differ("no-suppression", "neighbour suppression", "on", "off", reason, fix)
    elif wanted.mac and seen.mac != wanted.mac.hex(":"):
        reason = "the other hosts send to the MAC that belongs to this host and network"
        draft.differ("wrong-mac", "MAC", wanted.mac.hex(":"), seen.mac, reason, fix)
    if seen.learning:
        reason = "it may learn a wrong place for a MAC from what it receives"
        draft.differ("learning", "learning", "off", "on", reason, fix, Weight.NOTE)
    _compare_mtu(draft, wanted.mtu, seen)
    return draft.hop()


def uplink(side: Side, network: Network, bridge_of_it: str) -> Hop:
    """The host's own link that a transparent network stands on. `bridge_of_it`: what it has to be a port of; or ""."""
    draft = Draft(side, "uplink", network.uplink, network.id)
    draft.expect("there, up")
    if side.sight is None:
        return draft.hop()
    seen = side.sight.link(network.uplink)
    fix = f"see 'ip link show {network.uplink}' on {side.host}; the physical network is not kvnet's"
    if seen is None:
        draft.see("not there")
        reason = "the workloads' interfaces stand on this link"
        draft.differ("uplink-missing", "uplink", "there", "not there", reason, fix)
        return draft.hop()
    works = seen.up and (seen.works or seen.kind == "bridge")
    draft.see("there, up" if works else f"there, {'no carrier' if seen.up else 'down'}")
    if not works:
        found = "no carrier" if seen.up else "down"
        draft.differ("uplink-down", "uplink", "up", found, "nothing reaches the physical network", fix)
    if bridge_of_it and bridge_of_it != network.uplink:
        _compare_master(draft, bridge_of_it, seen)
    return draft.hop()


def _ideal_tunnel(wanted: Vxlan) -> SeenLink:
    return SeenLink(
        wanted.name,
        "vxlan",
        up=True,
        works=True,
        mtu=wanted.mtu,
        mac=wanted.mac.hex(":"),
        master=wanted.bridge,
        vni=wanted.vni,
        local=str(ip_address(wanted.local)),
        port=wanted.port,
        suppress=True,
        isolated=wanted.isolated,
    )


def _link(
    draft: Draft, ideal: SeenLink, what: str, weight: Weight = Weight.BREAKS, *, is_kvnets: bool = True
) -> SeenLink | None:
    """What was seen of it; None where it is not there, which is then told. `is_kvnets`: it has to be made by kvnet.

    Where nobody looked it is as it should be, so that this is told, and no more.
    """
    sight, name, kind = draft.side.sight, ideal.name, ideal.kind
    if sight is None:
        return ideal
    draft.expect("there")
    seen = sight.link(name)
    if seen is None:
        draft.see("not there")
        draft.differ("interface-missing", what, "there", "not there", f"it is {what}", mended(draft.side), weight)
        return None
    draft.see("there")
    if seen.kind != kind:
        fix = f"remove or rename the foreign link {name}; kvnet never touches it"
        draft.differ("foreign-object", what, kind, seen.kind or "another kind", "it is not kvnet's", fix)
        return None
    if not seen.is_ours and is_kvnets:
        reason = f"somebody made {name} in place of kvnet's, which leaves it alone and keeps the network as it is"
        draft.differ(
            "foreign-object", what, "made by kvnet", "made by another", reason, _mend(draft.side, seen), Weight.NOTE
        )
    return seen


def _mend(side: Side, seen: SeenLink) -> str:
    """What kvnet did not make it does not touch."""
    if seen.is_ours or side.wanted.links.get(seen.name) is None:
        return mended(side)
    again = (
        mended(side) if side.sight is not None and side.sight.paused_s else f"the worker of {side.host} makes its own"
    )
    return f"it was not made by kvnet, and is never touched: 'ip link del {seen.name}' on {side.host}; then {again}"


def _compare_master(draft: Draft, wanted: str, seen: SeenLink) -> None:
    reason = "only ports of the network's bridge are of the network"
    draft.compare(
        "wrong-bridge", "in", wanted or "no bridge", seen.master or "no bridge", reason, _mend(draft.side, seen)
    )


def _compare_isolation(draft: Draft, seen: SeenLink, *, is_wanted: bool) -> None:
    words = {True: "isolated", False: "not isolated"}
    reason = (
        "between two isolated ports a bridge forwards nothing"
        if seen.isolated
        else "the workloads of a network without ICC could reach each other"
    )
    fix, weight = _mend(draft.side, seen), Weight.BREAKS if seen.isolated else Weight.NOTE
    draft.compare("port-isolation", "", words[is_wanted], words[seen.isolated], reason, fix, weight)


def _compare_mtu(draft: Draft, wanted: int, seen: SeenLink) -> None:
    draft.compare("wrong-mtu", "MTU", wanted, seen.mtu, MTU_REASON, _mend(draft.side, seen))
