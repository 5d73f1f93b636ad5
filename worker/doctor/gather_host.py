"""Reads what this host has: settings, links, who holds the tunnels' port, rules. Reads only.

Blocks, so it is called in a thread. What cannot be read is left out, or told as None; nothing raises.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from datapath.objects import BRIDGE_PREFIX, VXLAN_PORT
from datapath.rules.ruleset import Chain
from kvnet.errors import Unfit
from kvnet.model import Address
from worker.doctor.checks_settings import BRIDGE_NF, DISABLED_IPV6, FORWARDING, RP_ALL, THRESHOLD
from worker.doctor.ethtool import driver_of, features_of
from worker.doctor.facts import FirewallFacts, Holder, Link, SettingsFacts
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.firewall import find_nft
from worker.kernel.netlink import Netlink, attributes
from worker.kernel.other_rules import OtherRules
from worker.kernel.pressure import refused_neighbours
from worker.kernel.rules import TABLE
from worker.kernel.sysctls import read_sysctl

IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
IFLA_VXLAN_COLLECT_METADATA = 25
PROC = Path("/proc")
RTF_DEFAULT_BY_RA = 0x00010000 | 0x00040000  # RTF_DEFAULT, RTF_ADDRCONF (linux/ipv6_route.h)


def links() -> list[Link]:
    rtnetlink = Netlink(small=True)
    try:
        return [_link(body) for body in rtnetlink.dump(m.dump_links())]
    finally:
        rtnetlink.close()


def _link(body: bytes) -> Link:
    device = dump.device(body)
    flags = m.LINK.unpack_from(body)[3]
    data: Mapping[int, bytes] = {}
    if device.kind == "vxlan":
        info = attributes(device.fields.get(m.IFLA_LINKINFO, b""), 0)
        data = attributes(info.get(m.IFLA_INFO_DATA, b""), 0)
    return Link(
        device.name,
        device.kind,
        device.mtu,
        bool(flags & IFF_UP),
        bool(flags & IFF_LOWER_UP),
        device.is_ours,
        device.vni,
        int.from_bytes(data.get(m.IFLA_VXLAN_PORT, b""), "big") if data else None,
        data.get(IFLA_VXLAN_COLLECT_METADATA, b"\0")[:1] == b"\1",
    )


def settings(underlay_device: str) -> SettingsFacts:
    wanted = [*FORWARDING.values(), RP_ALL, *BRIDGE_NF, *THRESHOLD.values(), DISABLED_IPV6]
    if underlay_device:
        wanted += [f"net/ipv4/conf/{underlay_device}/rp_filter", f"net/ipv6/conf/{underlay_device}/accept_ra"]
    values = {path: value for path in wanted if (value := _setting(path)) is not None}
    if underlay_device and underlay_device in _devices_with_advertised_routes():
        values[f"has_ra_route/{underlay_device}"] = "1"
    return SettingsFacts(values, underlay_device, _neighbours(), refused_neighbours())


def _setting(path: str) -> str | None:
    try:
        return read_sysctl(path)
    except OSError:
        return None


def _devices_with_advertised_routes() -> set[str]:
    """Whose default route came with a router's advertisement."""
    lines = _lines(PROC / "self/net/ipv6_route")
    rows = (line.split() for line in lines)
    return {row[9] for row in rows if len(row) > 9 and int(row[8], 16) & RTF_DEFAULT_BY_RA == RTF_DEFAULT_BY_RA}


def _neighbours() -> dict[int, int]:
    """Entries that count against the limit: permanent ones do not. Of this namespace only."""
    found = {}
    rtnetlink = Netlink(small=True)
    try:
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            with contextlib.suppress(OSError):
                bodies = rtnetlink.dump(m.dump_neighbours(family))
                found[version] = sum(not body[8] & (m.NUD_PERMANENT | m.NUD_NOARP) for body in bodies)
    finally:
        rtnetlink.close()
    return found


def holders() -> list[Holder] | None:
    """Who has the tunnels' UDP port. A socket without a process that can be seen is the kernel's own."""
    found: dict[int, str] = {}
    for name in ("udp", "udp6"):
        for line in _lines(PROC / f"self/net/{name}")[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if int(port, 16) == VXLAN_PORT:
                found[int(fields[9])] = _address(address)
    programs_of = _processes({inode for inode in found if inode}) if any(found) else {}
    return [Holder(where, *programs_of.get(inode, ("", 0))) for inode, where in found.items()]


def _address(text: str) -> str:
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    return str(ip_address(b"".join(words)))


def _processes(inodes: set[int]) -> dict[int, tuple[str, int]]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, tuple[str, int]] = {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(descriptor))
                    if inode is not None:
                        found[inode] = ((folder / "comm").read_text().strip(), int(folder.name))
    return found


def checksum_errors() -> int:
    """Of UDP, both versions, since the namespace began."""
    count = 0
    rows = [line.split() for line in _lines(PROC / "self/net/snmp") if line.startswith("Udp:")]
    if len(rows) == 2 and "InCsumErrors" in rows[0]:
        count += int(rows[1][rows[0].index("InCsumErrors")])
    for line in _lines(PROC / "self/net/snmp6"):
        name, _, value = line.partition(" ")
        if name == "Udp6InCsumErrors":
            count += int(value)
    return count


def offloads(device: str) -> tuple[dict[str, bool], str]:
    """Which are on, by the kernel's names, and the device's driver."""
    return features_of(device), driver_of(device)


def default_source(version: int = 4) -> Address | None:
    """The address that this host would use for the world: no packet is sent by asking."""
    family, somewhere = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            asked.connect((somewhere, 9))
            return ip_address(asked.getsockname()[0])
    except OSError:
        return None


def firewall(underlay_device: str, environment: Mapping[str, str] = os.environ) -> FirewallFacts:
    try:
        rules = OtherRules(find_nft(environment), environment, with_own=True)
    except Unfit as error:
        return FirewallFacts(None, problem=error.detail, underlay_device=underlay_device)
    chains = rules.chains()
    if rules.is_blind:
        problem = "; ".join(rules.unread) if os.geteuid() == 0 else "rules are shown to root only"
        return FirewallFacts(None, problem=problem, underlay_device=underlay_device)
    return FirewallFacts(chains, tuple(rules.unread), underlay_device=underlay_device)


def own_tables(chains: Iterable[Chain]) -> Sequence[str]:
    return list(dict.fromkeys(f"{chain.family} {chain.table}" for chain in chains if chain.table == TABLE))


def has_networks(found: Iterable[Link]) -> bool:
    return any(link.is_ours and link.name.startswith(BRIDGE_PREFIX) for link in found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
