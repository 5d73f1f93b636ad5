"""Turns the kernel's events into hints of what to look at again.

An event is never believed, only taken as a reason to look: own changes come back like everybody's, and a burst loses
events. A hint names devices of ours; when events were lost it names everything. Events about other devices are noise.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from typing import NamedTuple

from datapath.objects import PROTOCOL, Hint
from worker.kernel import messages as m
from worker.kernel.dump import PREFIXES
from worker.kernel.netlink import (
    HEADER,
    HEADER_SIZE,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    RECEIVE_BYTES,
    attribute_list,
    attributes,
    open_socket,
    widen,
)
from worker.kernel.nftables import GENERIC, NEWGEN, SUBSYSTEM, TABLE_NAME
from worker.kernel.rules import TABLE

# linux/rtnetlink.h RTNLGRP_: link 1, neighbour 3, IPv4 address 5 and route 7, IPv6 address 9 and route 11
ROUTE_GROUPS = sum(1 << (group - 1) for group in (1, 3, 5, 7, 9, 11))
NFTABLES_GROUP = 1 << 6  # NFNLGRP_NFTABLES = 7
# The default buffer holds 256 forwarding events; this one held all of 30,000.
EVENT_BUFFER = 16 << 20
DEBOUNCE_S = 0.03
DATAGRAMS_A_TURN = 200  # about half a millisecond: the loop has others to serve
NETFILTER_SUBSYSTEM_MASK = 0xFF00
OUR_TABLE = TABLE.encode() + b"\0"
RTM_LINKS = (m.RTM_NEWLINK, m.RTM_DELLINK)
RTM_ADDRESSES = (m.RTM_NEWADDR, m.RTM_DELADDR)
RTM_ROUTES = (m.RTM_NEWROUTE, m.RTM_DELROUTE)
RTM_NEIGHBOURS = (m.RTM_NEWNEIGH, m.RTM_DELNEIGH)
STATIC = m.NUD_PERMANENT | m.NUD_NOARP


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


class Noticed:
    """What was noticed since the last hint. Pure but for its memory: bytes in, a hint out.

    `known` are our devices by index; it follows the links' own events.
    """

    def __init__(self, known: dict[int, str]) -> None:
        self._known = known
        self._devices: set[str] = set()
        self._everything = False
        self._firewall = False

    @property
    def is_any(self) -> bool:
        return bool(self._devices) or self._everything or self._firewall

    def taken(self) -> Hint:
        """The hint, and forget it."""
        devices = frozenset() if self._everything or not self._devices else frozenset(self._devices)
        hint = Hint() if self._everything else Hint(devices, self._firewall)
        self._devices.clear()
        self._everything = self._firewall = False
        return hint

    def lost(self) -> None:
        self._everything = True

    def datagram(self, data: bytes) -> None:
        offset = 0
        while offset + HEADER_SIZE <= len(data):
            length, kind, _, _, _ = HEADER.unpack_from(data, offset)
            if length < HEADER_SIZE:
                return
            if kind & NETFILTER_SUBSYSTEM_MASK == SUBSYSTEM:
                self._rule(kind, data[offset + HEADER_SIZE : offset + length])
            else:
                self._object(kind, data[offset + HEADER_SIZE : offset + length])
            offset += (length + 3) & ~3

    def _rule(self, kind: int, body: bytes) -> None:
        if kind & 0xFF != NEWGEN and attributes(body, GENERIC.size).get(TABLE_NAME) == OUR_TABLE:
            self._firewall = True

    def _object(self, kind: int, body: bytes) -> None:
        if kind in RTM_NEIGHBOURS:
            family, index, state, flags, _ = m.NEIGHBOUR.unpack_from(body)
            is_learned = family == m.AF_BRIDGE and not state & STATIC and not flags & m.NTF_SELF
            if not (is_learned and kind == m.RTM_NEWNEIGH):
                self._notice(index)
        elif kind in RTM_LINKS:
            self._link(kind, body)
        elif kind in RTM_ADDRESSES:
            self._notice(m.ADDRESS.unpack_from(body)[4])
        elif kind in RTM_ROUTES:
            self._route(body)

    def _notice(self, index: int) -> None:
        name = self._known.get(index)
        if name is not None:
            self._devices.add(name)

    def _link(self, kind: int, body: bytes) -> None:
        family, _, index, _, _ = m.LINK.unpack_from(body)
        value = next((value for type_, value in attribute_list(body, m.LINK.size) if type_ == m.IFLA_IFNAME), b"")
        name = value.rstrip(b"\0").decode("utf-8", "replace")
        if name.startswith(PREFIXES):
            self._known[index] = name
        self._notice(index)
        # A port that leaves its bridge is told as a deletion too, in the bridge's family: the link is still there.
        if kind == m.RTM_DELLINK and family != m.AF_BRIDGE:
            self._known.pop(index, None)

    def _route(self, body: bytes) -> None:
        fields = attributes(body, m.ROUTE.size)
        index = m.U32.unpack_from(fields[m.RTA_OIF])[0] if m.RTA_OIF in fields else 0
        if index in self._known:
            self._notice(index)
        elif m.ROUTE.unpack_from(body)[5] == PROTOCOL:
            self._everything = True


class HintCollector:
    """Drains the events as they come and gives out hints, at most one in `DEBOUNCE_S`."""

    def __init__(self, events: Events, known: dict[int, str], debounce_s: float = DEBOUNCE_S) -> None:
        self._sockets = (events.route, events.nftables)
        self._noticed = Noticed(known)
        self._debounce_s = debounce_s
        self._something = asyncio.Event()

    async def hints(self) -> AsyncGenerator[Hint]:
        loop = asyncio.get_running_loop()
        for made in self._sockets:
            loop.add_reader(made.fileno(), self._drain, made)
        try:
            while True:
                await self._something.wait()
                await asyncio.sleep(self._debounce_s)
                self._something.clear()
                yield self._noticed.taken()
        finally:
            for made in self._sockets:
                loop.remove_reader(made.fileno())

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
