"""Kernel settings that decide whether packets pass: judged from their values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from worker.doctor.facts import SettingsFacts
from worker.doctor.report import Check, fail, ok, skipped, unknown, warn

FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
RP_ALL = "net/ipv4/conf/all/rp_filter"
BRIDGE_NF = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
THRESHOLD = {4: "net/ipv4/neigh/default/gc_thresh3", 6: "net/ipv6/neigh/default/gc_thresh3"}
ROOMY = 4096
NEARLY_FULL = 0.8
DISABLED_IPV6 = "net/ipv6/conf/all/disable_ipv6"


def check_settings(facts: SettingsFacts) -> Iterator[Check]:
    values, device = facts.values, facts.underlay_device
    for family in (4, 6):
        yield _forwarding(values, family, is_needed=family in facts.forwarded)
    yield _reverse_path(values, device)
    yield _router_advertisements(values, device)
    yield _bridge_netfilter(values)
    for family in (4, 6):
        yield _neighbours(facts, family)


def name_of(path: str) -> str:
    return path.replace("/", ".")


def _forwarding(values: Mapping[str, str], family: int, *, is_needed: bool) -> Check:
    path = FORWARDING[family]
    id_ = f"settings.forwarding{family}"
    value = values.get(path)
    if value is None:
        return skipped(id_, f"there is no {name_of(path)}: this kernel has no IPv{family}")
    if value == "1":
        return ok(id_, f"{name_of(path)} = 1")
    if family == 6 and values.get(DISABLED_IPV6) == "1":
        return skipped(id_, "IPv6 is switched off on this host")
    if not is_needed:
        return ok(id_, f"{name_of(path)} = {value}; the worker sets it when a network needs it")
    why = "workloads reach nothing beyond their network without it; the worker sets it, and somebody sets it back"
    fix = f"sysctl -w {name_of(path)}=1, and look for who does: grep -r {name_of(path)} /etc/sysctl.conf /etc/sysctl.d"
    return fail(id_, f"{name_of(path)} = {value}", why, fix)


def _reverse_path(values: Mapping[str, str], device: str) -> Check:
    """The stricter of `all` and the device's own counts (Documentation/networking/ip-sysctl)."""
    own = values.get(f"net/ipv4/conf/{device}/rp_filter") if device else None
    known = [value for value in (values.get(RP_ALL), own) if value is not None and value.isdigit()]
    if not known:
        return unknown("settings.rp_filter", "it cannot be read")
    strictest = max(map(int, known))
    where = name_of(f"net/ipv4/conf/{device or 'all'}/rp_filter")
    if strictest != 1:
        return ok("settings.rp_filter", f"{strictest} on {device or 'all'}")
    why = "strict: where answers come in by another link than requests leave (two uplinks), they are dropped silently"
    return warn("settings.rp_filter", f"1 on {device or 'all'}", why, f"with two uplinks: sysctl -w {where}=2")


def _router_advertisements(values: Mapping[str, str], device: str) -> Check:
    path = f"net/ipv6/conf/{device}/accept_ra"
    value = values.get(path) if device else None
    if value is None or values.get(DISABLED_IPV6) == "1":
        return skipped("settings.accept_ra", "the underlay's link has no IPv6")
    if value == "1" and values.get(FORWARDING[6]) == "1" and values.get(f"has_ra_route/{device}") == "1":
        why = "with forwarding on, 1 means no: the default route from the router's advertisement runs out"
        return warn("settings.accept_ra", f"{name_of(path)} = 1", why, f"sysctl -w {name_of(path)}=2")
    return ok("settings.accept_ra", f"{value} on {device}")


def _bridge_netfilter(values: Mapping[str, str]) -> Check:
    found = {path: values[path] for path in BRIDGE_NF if path in values}
    if not found:
        return ok("settings.bridge_nf_call", "br_netfilter is not loaded: frames inside a network pass no firewall")
    if "1" in found.values():
        return ok("settings.bridge_nf_call", "1: frames inside a network pass iptables too; kvnet opens that for them")
    return ok("settings.bridge_nf_call", "0: frames inside a network pass no firewall")


def _neighbours(facts: SettingsFacts, family: int) -> Check:
    id_ = f"settings.neighbours{family}"
    refused = facts.refused_neighbours.get(f"ipv{family}", 0)
    limit = facts.values.get(THRESHOLD[family], "")
    fix = f"sysctl -w {name_of(THRESHOLD[family])}=16384 (and gc_thresh2=8192, gc_thresh1=2048), on the machine itself"
    why = "while the kernel's neighbour table is full, hosts and workloads are unreachable at random, in all namespaces"
    if not limit.isdigit():
        if refused:
            return warn(id_, f"refused {refused} times since the start; the limit can only be read outside", why, fix)
        return skipped(id_, "the limit is the machine's, and cannot be read in this namespace")
    count = facts.neighbours.get(family, 0)
    if count >= NEARLY_FULL * int(limit):
        return fail(id_, f"{count} of {limit} entries", why, fix)
    if refused:
        return warn(id_, f"full {refused} times since the start; now {count} of {limit}", why, fix)
    if int(limit) < ROOMY:
        found = f"room for {limit}, {count} used"
        return ok(id_, f"{found}; more than {int(int(limit) * NEARLY_FULL)} peers or workloads on this host need more")
    return ok(id_, f"room for {limit}, {count} used")
