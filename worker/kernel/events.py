"""Turns the kernel's events into hints of what to look at again.

An event is never believed, only taken as a reason to look: own changes come back like everybody's, and a burst loses
events. A hint names devices of ours and uplinks, routes of ours via peers, rules, or the host itself; when events were
lost it names everything. What others do among themselves is noise, but for what the way to other hosts hangs on.

The kernel is silent where a route of ours vanishes because somebody replaced it or its link went down: so those that
lead via peers are remembered, and what happens to their destination or to a link is taken for a reason to look.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncGenerator, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from datapath.names import is_of_docker
from datapath.objects import HANDED_PREFIX, Hint, Ip
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.netlink import (
    HEADER,
    HEADER_SIZE,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    RECEIVE_BYTES,
    attributes,
    open_socket,
    widen,
)
from worker.kernel.nftables import (
    BIG32,
    CHAIN_HOOK,
    CHAIN_NAME,
    DELCHAIN,
    GENERIC,
    NEWCHAINS,
    NEWGEN,
    NEWRULES,
    NFPROTO,
    RULE_CHAIN,
    SUBSYSTEM,
    TABLE_NAME,
)
from worker.kernel.rules import TABLE

# linux/rtnetlink.h RTNLGRP_: link 1, neighbour 3, IPv4 address 5 and route 7, IPv6 address 9 and route 11, and the
# settings of IPv4 and IPv6 (forwarding) 24, 25
ROUTE_GROUPS = sum(1 << (group - 1) for group in (1, 3, 5, 7, 9, 11, 24, 25))
NFTABLES_GROUP = 1 << 6  # NFNLGRP_NFTABLES = 7
# The default buffer holds 256 forwarding events; this one held all of 30,000.
EVENT_BUFFER = 16 << 20
DEBOUNCE_S = 0.03
# A transaction's rules come in one go, and until they are mended nothing is kept apart.
FIREWALL_DEBOUNCE_S = 0.003
UNDERLAY_S = 0.3  # between two hints about the host's own addresses and routes: others may change theirs all the time
DATAGRAMS_A_TURN = 200  # about half a millisecond: the loop has others to serve
NETFILTER_SUBSYSTEM_MASK = 0xFF00
OUR_TABLE = TABLE.encode() + b"\0"
RTM_LINKS = (m.RTM_NEWLINK, m.RTM_DELLINK)
RTM_ADDRESSES = (m.RTM_NEWADDR, m.RTM_DELADDR)
RTM_ROUTES = (m.RTM_NEWROUTE, m.RTM_DELROUTE)
RTM_NEIGHBOURS = (m.RTM_NEWNEIGH, m.RTM_DELNEIGH)
RTM_NETCONFS = (80, 81)
NETCONF_IFINDEX, NETCONF_FORWARDING, NETCONF_HEAD, NETCONF_ALL = 1, 2, 4, (1 << 32) - 1
STATIC = m.NUD_PERMANENT | m.NUD_NOARP
GATE_FAMILIES = (NFPROTO["ip"], NFPROTO["ip6"])
GATE_TABLE, GATE_CHAIN = b"filter\0", b"FORWARD\0"
HOOK_NUMBER, FORWARD_HOOK = 1, 2

Destination = tuple[Ip, int]


class Events(NamedTuple):
    """The sockets that events arrive on; opened in the kernel thread, so that they are in its namespace."""

    route: socket.socket
    nftables: socket.socket

    @classmethod
    def open(cls) -> Events:
        route = open_socket(NETLINK_ROUTE, groups=ROUTE_GROUPS)
        nftables = open_socket(NETLINK_NETFILTER, groups=NFTABLES_GROUP)
        for made in (route, nftables):
            widen(made, EVENT_BUFFER)
            made.setblocking(False)
        return cls(route, nftables)

    def close(self) -> None:
        self.route.close()
        self.nftables.close()


@dataclass(slots=True)
class Interest:
    """What is worth a hint beyond what the events tell themselves.

    devices: ours, by index. others: everybody else's names. uplinks: names of those that networks of ours stand on;
    whoever reads states keeps them. routes: destinations of routes of ours via peers. mtus: of everybody else's links,
    by index. All but `uplinks` follow the events from here on.
    """

    devices: dict[int, str] = field(default_factory=dict)
    others: dict[int, str] = field(default_factory=dict)
    uplinks: Set[str] = frozenset()
    routes: set[Destination] = field(default_factory=set)
    mtus: dict[int, bytes] = field(default_factory=dict)


class Noticed:
    """What was noticed since the last hint. Pure but for its memory: bytes in, a hint out."""

    def __init__(self, interest: Interest) -> None:
        self._interest = interest
        self._devices: set[str] = set()
        self._routes: set[Destination] = set()
        self._everything = False
        self._firewall = False
        self._host = False
        self._underlay = False

    @property
    def is_any(self) -> bool:
        return self._underlay or self.is_urgent

    @property
    def is_urgent(self) -> bool:
        """Something other than the underlay, which may wait for a moment."""
        return self._everything or self._firewall or self._host or bool(self._devices or self._routes)

    @property
    def is_firewall(self) -> bool:
        return self._firewall

    @property
    def is_underlay(self) -> bool:
        return self._underlay

    def taken(self, *, underlay: bool = True) -> Hint:
        """The hint, and forget it. Without `underlay` that part stays for the next one."""
        if self._everything:
            hint = Hint()
            self._underlay = False
        else:
            devices, routes = frozenset(self._devices), frozenset(self._routes)
            hint = Hint(devices, self._firewall, routes, self._host, self._underlay and underlay)
            self._underlay = self._underlay and not underlay
        self._devices.clear()
        self._routes.clear()
        self._everything = self._firewall = self._host = False
        return hint

    def lost(self) -> None:
        self._everything = True

    def add(self, hint: Hint) -> None:
        """What was noticed by other means than events."""
        self._devices |= hint.devices
        self._routes |= hint.routes
        self._firewall |= hint.firewall
        self._host |= hint.host
        self._underlay |= hint.underlay
        self._everything |= hint.is_everything

    def datagram(self, data: bytes) -> None:
        offset = 0
        while offset + HEADER_SIZE <= len(data):
            length, kind, _, _, _ = HEADER.unpack_from(data, offset)
            if length < HEADER_SIZE:
                return
            try:
                if kind & NETFILTER_SUBSYSTEM_MASK == SUBSYSTEM:
                    self._rule(kind & 0xFF, data[offset + HEADER_SIZE : offset + length])
                else:
                    self._object(kind, data[offset + HEADER_SIZE : offset + length])
            except (struct.error, LookupError):
                self.lost()  # whatever it was about has to be looked at
            offset += (length + 3) & ~3

    def _rule(self, kind: int, body: bytes) -> None:
        """Our tables, FORWARD chains of iptables, and whoever else comes to or leaves the forward hook."""
        if self._firewall or kind == NEWGEN:
            return
        fields = attributes(body, GENERIC.size)
        table = fields.get(TABLE_NAME)
        if table == OUR_TABLE:
            self._firewall = True
        elif kind in NEWCHAINS:
            hook = attributes(fields.get(CHAIN_HOOK, b""), 0).get(HOOK_NUMBER, bytes(4))
            is_unsaid = (
                kind == DELCHAIN and CHAIN_HOOK not in fields
            )  # newer kernels do not say what a chain was that goes
            is_gate = fields.get(CHAIN_NAME) == GATE_CHAIN
            self._firewall = is_unsaid or is_gate or BIG32.unpack(hook)[0] == FORWARD_HOOK
        elif table == GATE_TABLE and body[0] in GATE_FAMILIES:
            self._firewall = kind not in NEWRULES or fields.get(RULE_CHAIN) == GATE_CHAIN

    def _object(self, kind: int, body: bytes) -> None:
        if kind in RTM_NEIGHBOURS:
            family, index, state, flags, _ = m.NEIGHBOUR.unpack_from(body)
            is_learned = family == m.AF_BRIDGE and not state & STATIC and not flags & m.NTF_SELF
            if not (is_learned and kind == m.RTM_NEWNEIGH):
                self._notice(index)
        elif kind in RTM_LINKS:
            self._link(kind, body)
        elif kind in RTM_ADDRESSES:
            self._address(body)
        elif kind in RTM_ROUTES:
            self._route(kind, body)
        elif kind in RTM_NETCONFS:
            self._setting(body)

    def _notice(self, index: int) -> None:
        name = self._interest.devices.get(index)
        if name is not None:
            self._devices.add(name)

    def _link(self, kind: int, body: bytes) -> None:
        family, _, index, _, changed = m.LINK.unpack_from(body)
        devices, others = self._interest.devices, self._interest.others
        if family == m.AF_BRIDGE:  # its part as a port; one that leaves its bridge is told as a deletion there
            self._notice(index)
            self._uplink(others.get(index))
            return
        device = dump.device(body)
        if device.is_ours:
            devices[index] = device.name
            others.pop(index, None)
        self._notice(index)
        if index not in devices and not device.name.startswith(HANDED_PREFIX):
            before = others.get(index)  # its name until now, in case it was renamed
            self._uplink(before)
            self._uplink(device.name)
            self._docker(before, device.name if kind == m.RTM_NEWLINK else None)
            others[index] = device.name
            mtus, mtu = self._interest.mtus, device.fields.get(m.IFLA_MTU, b"")
            self._underlay |= mtus.get(index, mtu) != mtu  # what fits through tunnels follows from it
            mtus[index] = mtu
            if kind == m.RTM_DELLINK or changed & m.IFF_UP:
                # IPv4's routes over a link that goes down vanish without a word.
                self._underlay = True
                self._routes |= self._interest.routes
        if kind == m.RTM_DELLINK:
            devices.pop(index, None)
            others.pop(index, None)
            self._interest.mtus.pop(index, None)

    def _uplink(self, name: str | None) -> None:
        if name is not None and name in self._interest.uplinks:
            self._devices.add(name)

    def _docker(self, before: str | None, after: str | None) -> None:
        """A bridge of Docker's comes or goes, which is the firewall's business. What happens to its ports is not."""
        if before != after:
            self._host |= any(name is not None and is_of_docker(name) for name in (before, after))

    def _address(self, body: bytes) -> None:
        _, _, _, scope, index = m.ADDRESS.unpack_from(body)
        if index in self._interest.devices:
            self._notice(index)
        elif scope != dump.IFA_SCOPE_LINK:
            self._underlay = True
            self._uplink(self._interest.others.get(index))

    def _route(self, kind: int, body: bytes) -> None:
        if m.ROUTE.unpack_from(body)[4] not in (m.RT_TABLE_MAIN, 0):
            return
        fields = attributes(body, m.ROUTE.size)
        index = m.U32.unpack_from(fields[m.RTA_OIF])[0] if m.RTA_OIF in fields else 0
        destination = dump.destination(body)
        if dump.is_our_route(body):
            if index in self._interest.devices:
                self._notice(index)
                return
            self._routes.add(destination)
            if kind == m.RTM_NEWROUTE:
                self._interest.routes.add(destination)
        elif index in self._interest.devices:
            self._notice(index)
        else:
            self._underlay = True
            if destination in self._interest.routes:
                self._routes.add(destination)

    def _setting(self, body: bytes) -> None:
        """Forwarding, of all devices: that is what the host's own setting changes."""
        fields = attributes(body, NETCONF_HEAD)
        if NETCONF_FORWARDING in fields and m.U32.unpack_from(fields[NETCONF_IFINDEX])[0] == NETCONF_ALL:
            self._host = True


class HintCollector:
    """Drains the events as they come and gives out hints, at most one in `DEBOUNCE_S`."""

    def __init__(self, events: Events, interest: Interest, debounce_s: float = DEBOUNCE_S) -> None:
        self._sockets = (events.route, events.nftables)
        self._noticed = Noticed(interest)
        self._debounce_s = debounce_s
        self._something = asyncio.Event()

    def add(self, hint: Hint) -> None:
        """Something was noticed by other means than events."""
        self._noticed.add(hint)
        self._something.set()

    async def hints(self) -> AsyncGenerator[Hint]:
        loop = asyncio.get_running_loop()
        for made in self._sockets:
            loop.add_reader(made.fileno(), self._drain, made)
        next_underlay = loop.time()
        try:
            while True:
                await self._something.wait()
                await self._debounce()
                await self._until_urgent(next_underlay)
                self._something.clear()
                if not self._noticed.is_any:
                    continue
                # Never without it where there is nothing else: an empty hint means everything.
                with_underlay = not self._noticed.is_urgent or loop.time() >= next_underlay
                if self._noticed.is_underlay and with_underlay:
                    next_underlay = loop.time() + UNDERLAY_S
                yield self._noticed.taken(underlay=with_underlay)
                if self._noticed.is_any:
                    self._something.set()
        finally:
            for made in self._sockets:
                loop.remove_reader(made.fileno())

    async def _debounce(self) -> None:
        """Rules cut it short, also those that change meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._debounce_s
        while not self._noticed.is_firewall and (left := deadline - loop.time()) > 0:
            self._something.clear()
            with contextlib.suppress(TimeoutError):  # `wait_for` would lose a cancellation that comes with an event
                async with asyncio.timeout(left):
                    await self._something.wait()
        if self._noticed.is_firewall:
            await asyncio.sleep(FIREWALL_DEBOUNCE_S)

    async def _until_urgent(self, deadline: float) -> None:
        """The time has come, or something other than the underlay was noticed."""
        loop = asyncio.get_running_loop()
        while not self._noticed.is_urgent and (left := deadline - loop.time()) > 0:
            self._something.clear()
            with contextlib.suppress(TimeoutError):  # `wait_for` would lose a cancellation that comes with an event
                async with asyncio.timeout(left):
                    await self._something.wait()

    def _drain(self, made: socket.socket) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data = made.recv(RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._noticed.lost()
                continue
            self._noticed.datagram(data)
        if self._noticed.is_any:
            self._something.set()
