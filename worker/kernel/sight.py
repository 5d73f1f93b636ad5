"""Reads what a trace asks of one namespace: links, forwarding entries, neighbours, ways, settings, whosever they are.

Unlike a pass, which sees what is marked ours, this sees what a packet would meet: an entry that somebody replaced by
hand is there, with what he wrote. Filtered to what was asked for, so that the answer stays small on a large host.
Reads only, on a socket of its own, in a thread of its own.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from datapath.trace.seen import SeenAddress, SeenEntry, SeenLink, SeenNeighbour, SeenWay, Way
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.netlink import Message, Netlink, attribute, attributes

SYSCTLS = Path("/proc/sys")
# What a trace looks at, and no other file: there are secrets among the settings.
READABLE = re.compile(
    r"net/(?:ipv4/ip_forward|ipv6/conf/all/forwarding|bridge/bridge-nf-call-ip6?tables|ipv4/conf/[^/\0]{1,15}/rp_filter)\Z"
)
LONGEST_SETTING = 64
PROTOCOLS = ("tcp", "udp")
FAMILIES = (m.AF_INET, m.AF_INET6)
MAC_BYTES = 6
HEAD = 12  # ndmsg
LISTENING, UNCONNECTED = "0A", "07"  # /proc/net/tcp, /proc/net/udp

# linux/rtnetlink.h
RTA_SRC, RTA_METRICS, RTAX_MTU, RTA_CACHEINFO = 2, 8, 2, 12
CACHE = struct.Struct("=IIi")  # the head of rta_cacheinfo: references, last use, expires
USER_HZ = 100
KINDS = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
KIND_OF_ERROR = {
    errno.EINVAL: "blackhole",
    errno.EHOSTUNREACH: "unreachable",
    errno.EACCES: "prohibit",
    errno.ENETUNREACH: "none",
}
# linux/neighbour.h
STATES = {
    1: "incomplete",
    2: "reachable",
    4: "stale",
    8: "delay",
    16: "probe",
    32: "failed",
    64: "noarp",
    128: "permanent",
}


class Namespace:
    """One network namespace, looked at through one socket; close it. The names of links are asked for once."""

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._names: dict[int, str] | None = None

    def close(self) -> None:
        self._rtnetlink.close()

    def names(self) -> Mapping[int, str]:
        if self._names is None:
            self._names = {found.index: found.name for found, _ in self._links()}
        return self._names

    def link(self, name: str) -> SeenLink | None:
        body = self._rtnetlink.get(m.get_link(name))
        return None if body is None else self._seen(dump.device(body), body)

    def links(self) -> list[SeenLink]:
        return [self._seen(found, body) for found, body in self._links()]

    def addresses(self, wanted: Collection[str] = (), devices: Collection[str] = ()) -> list[SeenAddress]:
        """Those that are wanted, and all of some devices; every one without either."""
        found = []
        for body in self._rtnetlink.dump(m.dump_addresses()):
            _, length, _, scope, index = m.ADDRESS.unpack_from(body)
            fields = attributes(body, m.ADDRESS.size)
            address = _ip(fields.get(m.IFA_LOCAL) or fields[m.IFA_ADDRESS])
            device = self.names().get(index, f"#{index}")
            is_all = not wanted and not devices
            if scope != dump.IFA_SCOPE_LINK and (is_all or address in wanted or device in devices):
                found.append(SeenAddress(device, address, length))
        return found

    def entries(self, links: Collection[SeenLink], macs: Collection[str]) -> list[SeenEntry]:
        """Of bridges with all their ports, and of what is in none of them, as far as they are about these MACs."""
        by_name = {name: index for index, name in self.names().items()}
        wanted = {bytes.fromhex(mac.replace(":", "")): mac for mac in macs}
        bridges = {link.name for link in links if link.kind == "bridge"}
        messages = [m.dump_forwarding(bridge=by_name[name]) for name in sorted(bridges) if name in by_name]
        loose = [link for link in links if link.name not in bridges and link.master not in bridges]
        messages += [m.dump_forwarding(port=by_name[link.name]) for link in loose if link.name in by_name]
        found = (entry for message in messages for entry in self._forwarding(message, wanted))
        return list(dict.fromkeys(found))

    def neighbours(self, devices: Collection[str], addresses: Collection[str]) -> list[SeenNeighbour]:
        by_name = {name: index for index, name in self.names().items()}
        wanted = frozenset(addresses)
        is_about = _any_of([ip_address(address).packed for address in wanted])
        found: list[SeenNeighbour] = []
        for device in devices:
            index = by_name.get(device)
            for family in FAMILIES if index is not None else ():
                for body in self._rtnetlink.dump(m.dump_neighbours(family, index or 0)):
                    neighbour = self._neighbour(body) if is_about(body) else None
                    if neighbour is not None and neighbour.address in wanted:
                        found.append(neighbour)
        return found

    def way(self, asked: Way) -> SeenWay:
        destination = ip_address(asked.to).packed
        head = m.ROUTE.pack(m.family_of(destination), 8 * len(destination), 0, 0, 0, 0, 0, 0, 0)
        body = head + attribute(m.RTA_DST, destination)
        if asked.source:
            source = ip_address(asked.source).packed
            head = m.ROUTE.pack(m.family_of(destination), 8 * len(destination), 8 * len(source), 0, 0, 0, 0, 0, 0)
            body = head + attribute(m.RTA_DST, destination) + attribute(RTA_SRC, source)
        try:
            answer = self._rtnetlink.get(Message(m.RTM_GETROUTE, 0, body))
        except OSError as error:
            return SeenWay(asked.to, KIND_OF_ERROR.get(error.errno or 0, "none"), asked_from=asked.source)
        return SeenWay(asked.to, "none", asked_from=asked.source) if answer is None else self._way(asked, answer)

    def _links(self) -> Iterator[tuple[dump.Device, bytes]]:
        return ((dump.device(body), body) for body in self._rtnetlink.dump(m.dump_links()))

    def _seen(self, found: dump.Device, body: bytes) -> SeenLink:
        names = self.names() if found.master or found.peer else {}
        info = attributes(found.fields.get(m.IFLA_LINKINFO, b""), 0)
        data = attributes(info.get(m.IFLA_INFO_DATA, b""), 0) if found.kind == "vxlan" else {}
        port = attributes(info.get(m.IFLA_INFO_SLAVE_DATA, b""), 0) if found.master else {}
        local = data.get(m.IFLA_VXLAN_LOCAL) or data.get(m.IFLA_VXLAN_LOCAL6) or b""
        return SeenLink(
            name=found.name,
            kind=found.kind,
            up=bool(m.LINK.unpack_from(body)[3] & m.IFF_UP),
            works=found.fields.get(m.IFLA_CARRIER) == m.ON,
            mtu=found.mtu,
            mac=found.mac.hex(":") if len(found.mac) == MAC_BYTES else "",
            master=dump.name_of(names, found.master),
            parent=dump.name_of(names, found.peer) if found.kind != "vxlan" else "",
            vni=found.vni or 0,
            local=_ip(local) if local else "",
            port=int.from_bytes(data.get(m.IFLA_VXLAN_PORT, b""), "big"),
            learning=data.get(m.IFLA_VXLAN_LEARNING) == m.ON or port.get(m.IFLA_BRPORT_LEARNING) == m.ON,
            suppress=port.get(m.IFLA_BRPORT_NEIGH_SUPPRESS) == m.ON,
            isolated=port.get(m.IFLA_BRPORT_ISOLATED) == m.ON,
            hairpin=port.get(m.IFLA_BRPORT_MODE) == m.ON,
            is_ours=found.is_ours,
        )

    def _forwarding(self, message: Message, wanted: Mapping[bytes, str]) -> Iterator[SeenEntry]:
        is_about = _any_of(wanted)
        for body in self._rtnetlink.dump(message):
            if not is_about(body):  # there may be tens of thousands
                continue
            fields = attributes(body, HEAD)
            mac = wanted.get(fields.get(m.NDA_LLADDR, b""))
            if mac is None:
                continue
            _, index, state, flags, _ = m.NEIGHBOUR.unpack_from(body)
            remote = fields.get(m.NDA_DST, b"")
            is_static = bool(state & (m.NUD_NOARP | m.NUD_PERMANENT))
            is_local = bool(state & m.NUD_PERMANENT) and not remote and m.NDA_MASTER in fields
            device = self.names().get(index, f"#{index}")
            if remote or not flags & m.NTF_SELF:
                yield SeenEntry(device, mac, _ip(remote) if remote else "", is_static, is_local)

    def _neighbour(self, body: bytes) -> SeenNeighbour | None:
        _, index, state, _, _ = m.NEIGHBOUR.unpack_from(body)
        fields = attributes(body, HEAD)
        if m.NDA_DST not in fields:
            return None
        mac = fields.get(m.NDA_LLADDR, b"").hex(":")
        return SeenNeighbour(
            self.names().get(index, f"#{index}"), _ip(fields[m.NDA_DST]), mac, STATES.get(state, "none")
        )

    def _way(self, asked: Way, body: bytes) -> SeenWay:
        kind = m.ROUTE.unpack_from(body)[7]
        fields = attributes(body, m.ROUTE.size)
        gateway = fields.get(m.RTA_GATEWAY) or fields.get(m.RTA_VIA, b"")[m.FAMILY.size :]
        index = m.U32.unpack(fields[m.RTA_OIF])[0] if m.RTA_OIF in fields else 0
        metrics = attributes(fields.get(RTA_METRICS, b""), 0)
        cached = fields.get(RTA_CACHEINFO, b"")
        expires = CACHE.unpack_from(cached)[2] if len(cached) >= CACHE.size else 0
        return SeenWay(
            to=asked.to,
            kind=KINDS.get(kind, str(kind)),
            device=self.names().get(index, f"#{index}") if index else "",
            gateway=_ip(gateway) if gateway else "",
            source=_ip(fields[m.RTA_PREFSRC]) if m.RTA_PREFSRC in fields else "",
            mtu=m.U32.unpack(metrics[RTAX_MTU])[0] if RTAX_MTU in metrics else 0,
            asked_from=asked.source,
            forgotten_s=max(expires, 0) / USER_HZ if RTAX_MTU in metrics else 0.0,
        )


def settings(paths: Iterable[str]) -> dict[str, str]:
    """Of the namespace that the calling thread is in; what is not there is left out."""
    found: dict[str, str] = {}
    for path in paths:
        if not READABLE.match(path) or "/../" in path:
            continue
        try:
            with open(SYSCTLS / path, "rb") as file:
                found[path] = file.read(LONGEST_SETTING).decode("ascii", "replace").strip()
        except OSError:
            continue
    return found


def _any_of(parts: Iterable[bytes]) -> Callable[[bytes], object]:
    """Whether a message has one of these in it: a quick look before it is taken apart."""
    return re.compile(b"|".join(map(re.escape, parts)) or b"(?!)", re.DOTALL).search


def _ip(packed: bytes) -> str:
    return str(ip_address(packed))


def is_listening(what: str) -> bool | None:
    """Whether anybody in the calling thread's namespace listens there ("tcp/80"). None: it cannot be told."""
    protocol, _, port = what.partition("/")
    if protocol not in PROTOCOLS or not port.isdecimal():
        return None
    wanted = f"{int(port):04X}"
    lines: list[str] = []
    for name in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/thread-self/net/{name}", encoding="ascii", errors="replace") as table:
                lines += list(table)[1:]
        except OSError:
            continue
    state = LISTENING if protocol == "tcp" else UNCONNECTED
    rows = (line.split() for line in lines)
    return any(len(row) > 3 and row[1].rpartition(":")[2] == wanted and row[3] == state for row in rows)
