"""Hops that are entries: where a MAC is, on a bridge and behind a tunnel, and whose an address is."""

from __future__ import annotations

from ipaddress import ip_address

from datapath.names import vxlan_name
from datapath.objects import Ip, Mac
from datapath.packing import FLOOD_MAC, packed_mac
from datapath.trace.case import End
from datapath.trace.hop import Draft, Hop, Side, Weight, mended
from datapath.trace.seen import SeenEntry
from kvnet.model import Network

UNUSABLE = ("failed", "incomplete", "none")


def neighbour(side: Side, network: Network, device: str, address: Ip, mac: Mac, what: str) -> Hop | None:
    """The static neighbour by which a host knows, and its bridge answers, whose an address is.

    None where the host should have none for it.
    """
    if all(n[:2] != (device, address) for n in side.wanted.neighbours):
        return None
    text, wanted = str(ip_address(address)), mac.hex(":")
    draft = Draft(side, "neighbour", f"{text} on {device}", network.id)
    draft.expect(f"{text} is at {wanted}")
    if side.sight is None:
        return draft.hop()
    seen = next((n for n in side.sight.neighbours if (n.device, n.address) == (device, text)), None)
    reason = f"{what} is not found by its address"
    if seen is None or not seen.mac:
        draft.see("not there")
        draft.differ("neighbour-missing", "neighbour", wanted, "not there", reason, mended(side))
        return draft.hop()
    draft.see(f"{text} is at {seen.mac}" + ("" if seen.state == "permanent" else f" ({seen.state})"))
    if seen.mac != wanted:
        reason = f"packets for {what} go to another MAC, which nobody there has"
        draft.differ("wrong-neighbour", "neighbour", wanted, seen.mac, reason, mended(side))
    elif seen.state != "permanent":
        reason = "it was not made by kvnet, and the kernel forgets it"
        draft.differ("neighbour-not-static", "neighbour", "permanent", seen.state, reason, mended(side), Weight.NOTE)
    return draft.hop()


def port_entry(side: Side, network: Network, bridge: str, end: End) -> Hop | None:
    """Behind which port of the bridge an endpoint's MAC is."""
    mac = packed_mac(end.endpoint.mac)
    wanted = next((entry.port for entry in side.wanted.ports if entry.mac == mac), None)
    if wanted is None:
        return None
    draft = Draft(side, "fdb", f"{end.endpoint.mac} on {bridge}", network.id)
    draft.expect(f"behind {wanted}")
    if side.sight is None:
        return draft.hop()
    seen = [entry for entry in side.sight.entries if _is_of(entry, end, bridge, side)]
    draft.see(", ".join(map(_told, seen)) or "not there")
    fix = mended(side)
    if not seen:
        reason = f"the bridge does not know where {end} is, and drops or floods what is for it"
        link = side.sight.link(wanted)
        is_replaced = link is not None and not link.is_ours and wanted in side.wanted.links
        is_lost = is_replaced or link is None or link.master != bridge  # entries go with their port
        weight = Weight.SYMPTOM if is_lost else Weight.BREAKS
        reason += f"; {wanted} {'was made anew by somebody else' if is_replaced else 'is no port of it'}" * is_lost
        draft.differ("fdb-missing", "forwarding entry", f"behind {wanted}", "not there", reason, fix, weight)
    elif any(entry.is_local for entry in seen):
        reason = "an entry that is `permanent` means the bridge itself: it swallows what is for that MAC"
        draft.differ("fdb-local", "forwarding entry", f"behind {wanted}", "the bridge's own", reason, fix)
    elif all(entry.device != wanted for entry in seen):
        reason = f"frames for {end} go out by another port"
        found = ", ".join(f"behind {entry.device}" for entry in seen)
        draft.differ("wrong-fdb", "forwarding entry", f"behind {wanted}", found, reason, fix)
    elif all(not entry.is_static for entry in seen):
        reason = "the bridge learned it, and forgets it after a while"
        draft.differ("fdb-not-static", "forwarding entry", "static", "learned", reason, fix, Weight.NOTE)
    return draft.hop()


def vtep(side: Side, network: Network, mac: Mac, what: str) -> Hop | None:
    """Behind which host's tunnel a MAC is."""
    device = vxlan_name(network.id)
    wanted = next((str(ip_address(v.remote)) for v in side.wanted.vteps if (v.device, v.mac) == (device, mac)), None)
    if wanted is None:
        return None
    text = mac.hex(":")
    draft = Draft(side, "vxlan fdb", f"{text} on {device}", network.id)
    draft.expect(f"behind {wanted}")
    if side.sight is None:
        return draft.hop()
    seen = [entry for entry in side.sight.entries if entry.remote and (entry.device, entry.mac) == (device, text)]
    found = ", ".join(f"behind {entry.remote}" for entry in seen) or "not there"
    draft.see(found)
    floods = any(v.mac == FLOOD_MAC for v in side.wanted.vteps)
    if not seen:
        reason = f"the tunnel does not know which host has {what}"
        reason += ": its frames go to all hosts of the network" if floods else ", and drops what is for it"
        draft.differ("vxlan-fdb-missing", "forwarding entry", f"behind {wanted}", found, reason, mended(side))
    elif all(entry.remote != wanted for entry in seen):
        reason = f"packets for {what} go to another host"
        draft.differ("wrong-vxlan-fdb", "forwarding entry", f"behind {wanted}", found, reason, mended(side))
    return draft.hop()


def _is_of(entry: SeenEntry, end: End, bridge: str, side: Side) -> bool:
    """Whether it is that MAC's on this bridge: of a port whose bridge is not known, it is taken for that."""
    if entry.remote or entry.mac != end.endpoint.mac:
        return False
    link = side.sight.link(entry.device) if side.sight is not None else None
    return link is None or link.master == bridge or entry.device == bridge


def _told(entry: SeenEntry) -> str:
    return f"behind {entry.device}" + ("" if entry.is_static else " (learned)")
