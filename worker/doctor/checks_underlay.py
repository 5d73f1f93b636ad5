"""The link that tunnels go over: there, large enough, and theirs alone. Judged from what the kernel lists."""

from __future__ import annotations

from collections.abc import Iterator

from datapath.objects import VXLAN_OVERHEAD_IPV4, VXLAN_OVERHEAD_IPV6, VXLAN_PORT
from worker.doctor.facts import Link, UnderlayFacts
from worker.doctor.report import Check, fail, ok, skipped, unknown, warn

# Kernels before ea64d8d6c675 (5.7, and stable 4.19.119, 5.4.36) send wrong UDP checksums for encapsulated packets.
FIXED_CHECKSUMS = (5, 7)
# Virtual NICs that are known to break the checksums of tunnelled packets.
SUSPICIOUS_DRIVERS = frozenset({"vmxnet3"})
MANY_CHECKSUM_ERRORS = 10
SMALLEST_MTU = 1280


def check_underlay(facts: UnderlayFacts) -> Iterator[Check]:
    yield _address(facts)
    if facts.device is not None:
        yield _is_up(facts.device)
        yield _mtu(facts, facts.device)
    yield _peers(facts)
    yield _networks(facts)
    yield _port(facts)
    yield from _checksums(facts)


def _address(facts: UnderlayFacts) -> Check:
    if facts.address is None:
        told = f"no link has the underlay {facts.wanted}" if facts.wanted else "no link has an address to use"
        why = "other hosts send this host's tunnels to it"
        return fail("underlay.address", told, why, "give a link that address, or the worker another --underlay")
    if facts.device is None:
        return fail(
            "underlay.address",
            f"no link of this host has {facts.address}",
            "other hosts send this host's tunnels to it",
            "give it back to its link, or the worker another --underlay",
        )
    if facts.wanted is None:
        found = f"{facts.address} on {facts.device.name}, by the default route; a worker is told with --underlay"
        return ok("underlay.address", found)
    return ok("underlay.address", f"{facts.address} on {facts.device.name}")


def _is_up(device: Link) -> Check:
    if not device.is_up:
        why = "nothing leaves by it"
        return fail("underlay.link", f"{device.name} is down", why, f"ip link set {device.name} up")
    if not device.has_carrier:
        return fail(
            "underlay.link", f"{device.name} has no carrier", "nothing leaves by it", "look at its cable or port"
        )
    return ok("underlay.link", f"{device.name} is up")


def _mtu(facts: UnderlayFacts, device: Link) -> Check:
    overhead = VXLAN_OVERHEAD_IPV4 if facts.address is not None and facts.address.version == 4 else VXLAN_OVERHEAD_IPV6
    inside = device.mtu - overhead
    if inside < SMALLEST_MTU:
        why = f"overlay networks would get {inside}, and IPv6 needs {SMALLEST_MTU}"
        fix = f"ip link set {device.name} mtu {SMALLEST_MTU + overhead} or more"
        return fail("underlay.mtu", f"{device.name} has an MTU of {device.mtu}", why, fix)
    return ok("underlay.mtu", f"{device.mtu} on {device.name}: {inside} inside overlay networks")


def _peers(facts: UnderlayFacts) -> Check:
    if facts.peers is None:
        return skipped("underlay.peers", "what other hosts have is known to a running worker only")
    if facts.address is None or facts.device is None:
        return unknown("underlay.peers", "without an underlay of its own there is nothing to compare")
    strangers = [p.name for p in facts.peers if p.underlay.version != facts.address.version]
    if strangers:
        found = f"{len(strangers)} of {len(facts.peers)} hosts have an underlay of the other IP version: "
        why = "no tunnel leads from one version to the other"
        fix = "give all workers an --underlay of the same version"
        return fail("underlay.peers", found + _some(strangers), why, fix)
    others = {peer.name: peer.mtu for peer in facts.peers if peer.mtu != facts.device.mtu}
    if others:
        smallest = min([*others.values(), facts.device.mtu])
        shown = _some([f"{name}: {mtu}" for name, mtu in sorted(others.items(), key=lambda one: one[1])])
        why = f"networks get what fits through the smallest ({smallest}); is what is between them as large as both say?"
        fix = "make them the same, or try it: kvnet connectivity test --hosts-only"
        return warn("underlay.peers", f"other hosts' MTUs differ from {facts.device.mtu}: {shown}", why, fix)
    many = f"{len(facts.peers)} other hosts, all" if len(facts.peers) != 1 else "1 other host,"
    return ok("underlay.peers", f"{many} of the same IP version and MTU")


def _networks(facts: UnderlayFacts) -> Check:
    if facts.networks is None:
        return skipped("underlay.networks", "which networks are here is known to a running worker only")
    if facts.device is None:
        return unknown("underlay.networks", "there is no underlay to compare with")
    smallest = min([facts.device.mtu, *(peer.mtu for peer in facts.peers or ())])
    large = [n for n in facts.networks if n.mtu is not None and n.mtu + n.overhead > smallest]
    if large:
        found = _some([f"{n.name} ({n.mtu} and {n.overhead} of headers)" for n in large])
        why = f"they do not fit through links of {smallest}: packets are fragmented, or lost"
        fix = f"kvnet network update {large[0].name} --mtu {smallest - large[0].overhead}, or raise the links' MTU"
        return warn("underlay.networks", f"networks with too large an MTU: {found}", why, fix)
    return ok(
        "underlay.networks",
        f"{len(facts.networks)} network{'s' * (len(facts.networks) != 1)} here: what they send fits",
    )


def _port(facts: UnderlayFacts) -> Check:
    """Devices of kvnet's share one socket; what has another one on the port, or all VNIs of it, is in the way."""
    others = [link for link in facts.links if link.kind == "vxlan" and not link.is_ours and link.port == VXLAN_PORT]
    why = f"kvnet's tunnels use UDP port {VXLAN_PORT}, and cannot if something else has it"
    external = [link.name for link in others if link.is_external]
    if external:
        found = f"the VXLAN device {external[0]} takes every segment of UDP port {VXLAN_PORT}"
        fix = (
            f"move it to another port (of flannel: Backend Port; of Cilium: tunnel-port), or: ip link del {external[0]}"
        )
        return fail("underlay.port", found, why, fix)
    programs = [holder for holder in facts.holders or () if holder.program]
    if programs:
        found = (
            f"{programs[0].program} (pid {programs[0].pid}) listens on UDP port {VXLAN_PORT} at {programs[0].address}"
        )
        return fail("underlay.port", found, why, f"stop it, or give it another port (pid {programs[0].pid})")
    if others:
        shared = _some([f"{link.name} (VNI {link.vni})" for link in others])
        found = f"VXLAN devices of somebody else's share the port: {shared}"
        return warn(
            "underlay.port", found, "a network whose VNI is one of theirs cannot be built", "ip -d link show type vxlan"
        )
    if facts.holders is None:
        return unknown("underlay.port", "who has UDP ports cannot be read", "run it as root: sudo kvnet doctor")
    ours = sum(link.kind == "vxlan" and link.is_ours for link in facts.links)
    told = f"{ours} tunnel{'s' * (ours != 1)} of kvnet" if ours else "free"
    return ok("underlay.port", f"UDP port {VXLAN_PORT}: {told}")


def _checksums(facts: UnderlayFacts) -> Iterator[Check]:
    """Wrong checksums of tunnelled packets: small pings pass, everything else hangs."""
    if facts.device is None:
        return
    tx = facts.offloads.get("tx-udp_tnl-csum-segmentation") or facts.offloads.get("tx-udp_tnl-segmentation")
    fix = f"ethtool -K {facts.device.name} tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off; if that does "
    fix += "not help: tx off"
    if not facts.offloads:
        yield unknown("underlay.offload", "its offloads cannot be read")
    elif tx and facts.kernel < FIXED_CHECKSUMS:
        why = f"Linux before {'.'.join(map(str, FIXED_CHECKSUMS))} sends wrong checksums in tunnels over such a link"
        yield warn("underlay.offload", f"{facts.device.name} segments tunnelled packets itself", why, fix)
    elif tx and facts.driver in SUSPICIOUS_DRIVERS:
        why = "it is known to spoil the checksums of tunnelled packets: connections hang, pings pass"
        yield warn(
            "underlay.offload", f"{facts.device.name} ({facts.driver}) segments tunnelled packets itself", why, fix
        )
    else:
        yield ok(
            "underlay.offload",
            f"{facts.driver or facts.device.kind or facts.device.name}: nothing that is known to fail",
        )
    if facts.checksum_errors >= MANY_CHECKSUM_ERRORS:
        why = "packets with a wrong UDP checksum are dropped: some other host's link spoils them, or something between"
        fix = (
            "on the hosts that send here: ethtool -K DEVICE tx-udp_tnl-segmentation off, and see whether it still grows"
        )
        yield warn(
            "underlay.checksums", f"{facts.checksum_errors} UDP packets with a wrong checksum since the start", why, fix
        )
    else:
        yield ok("underlay.checksums", f"{facts.checksum_errors} UDP packets with a wrong checksum since the start")


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
