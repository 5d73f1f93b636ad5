"""Asks from inside a workload's namespace whether another endpoint is there: as the workload itself would.

Sockets are opened in the namespace and used from here: no process runs there, and nothing there is changed. Who does
not answer echo requests is asked by ARP or neighbour discovery, which no firewall of a workload's own keeps from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar

from kvnet.model import Address
from worker.kernel.namespaces import entered, open_namespace
from worker.kernel.rawsockets import open_raw
from worker.probing import frames
from worker.probing.echo import Echo, open_echo_socket
from worker.probing.frames import ARP, IPV4_HEADER, IPV6_HEADER, Kind, Mark
from worker.probing.volley import PACE_S

SMALL, FULL = 3, 2
ECHO_WAIT_S, NEIGHBOUR_WAIT_S = 1.0, 0.6
SILENT_AT_ONCE = 16
SIOCGIFMTU = 0x8921
IFREQ = struct.Struct("16s24s")
IPV6_UNICAST_HOPS = 16
LONGEST = 2048
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Goal:
    """Another endpoint to ask. `full`: the largest packet of its network. `on_link`: no router is between."""

    pair: int
    address: Address
    mac: bytes
    full: int
    on_link: bool


@dataclass(slots=True)
class Asked:
    """`neighbour`: whether it answered ARP or neighbour discovery; None = it was not asked that way."""

    sent: int = 0
    rtt_ms: list[float] = field(default_factory=list)
    full: int = 0
    full_sent: int = 0
    full_answered: int = 0
    neighbour: bool | None = None
    error: str = ""
    detail: str = ""

    def as_json(self, pair: int) -> dict[str, Any]:
        return {
            "pair": pair,
            "sent": self.sent,
            "rtt_ms": self.rtt_ms,
            "full": self.full,
            "full_sent": self.full_sent,
            "full_answered": self.full_answered,
            "neighbour": self.neighbour,
            "error": self.error,
            "detail": self.detail,
        }

    def note(self, error: OSError) -> None:
        self.error = errno.errorcode.get(error.errno or 0, "UNKNOWN")
        self.detail = error.strerror or str(error)


@dataclass(frozen=True, slots=True)
class Asker:
    """A workload's interface, as far as asking from it needs it."""

    netns: str
    interface: str
    number: int  # of its host in the test
    session: bytes


async def ask(asker: Asker, goals: Sequence[Goal], rng: random.Random) -> dict[int, Asked]:
    """By pair. Whatever goes wrong in that namespace is told per goal."""
    found = {goal.pair: Asked(full=goal.full) for goal in goals}
    for version in (4, 6):
        some = [goal for goal in goals if goal.address.version == version]
        if not some:
            continue
        try:
            opened = await asyncio.to_thread(_opened_echo, asker, version)
        except OSError as error:
            for goal in some:
                found[goal.pair].note(error)
            continue
        await _echo(asker, Echo(opened, version, rng.getrandbits(16)), some, found)
    await _ask_the_silent(asker, goals, found)
    return found


async def _ask_the_silent(asker: Asker, goals: Sequence[Goal], found: dict[int, Asked]) -> None:
    """Several at once: where nobody answers, one after the other would take longer than an answer may."""
    gate = asyncio.Semaphore(SILENT_AT_ONCE)

    async def one(goal: Goal) -> None:
        async with gate:
            with contextlib.suppress(OSError):
                found[goal.pair].neighbour = await _neighbour(asker, goal)

    async with asyncio.TaskGroup() as group:
        for goal in goals:
            if goal.on_link and not found[goal.pair].rtt_ms:
                group.create_task(one(goal))


async def _echo(asker: Asker, echo: Echo, goals: Sequence[Goal], found: dict[int, Asked]) -> None:
    sent: dict[int, tuple[Goal, Kind]] = {}
    with echo.listening():
        for turn in range(SMALL + FULL):
            kind = Kind.ECHO if turn < SMALL else Kind.ECHO_FULL
            for goal in goals:
                asked = found[goal.pair]
                if kind is Kind.ECHO_FULL and asked.error:
                    continue
                try:
                    sent[echo.send(goal.address, _payload(asker, goal, kind, turn))] = goal, kind
                    asked.sent += kind is Kind.ECHO
                    asked.full_sent += kind is Kind.ECHO_FULL
                except OSError as error:
                    asked.note(error)
                await asyncio.sleep(PACE_S / 8)
        await echo.until_answered(ECHO_WAIT_S)
        for sequence, rtt in echo.rtt_ms.items():
            goal, kind = sent[sequence]
            if kind is Kind.ECHO:
                found[goal.pair].rtt_ms.append(rtt)
            else:
                found[goal.pair].full_answered += 1


def _payload(asker: Asker, goal: Goal, kind: Kind, turn: int) -> bytes:
    mark = Mark(asker.session, kind, asker.number, goal.full, turn, goal.pair).packed()
    header = (IPV4_HEADER if goal.address.version == 4 else IPV6_HEADER) + frames.ICMP_HEADER
    return mark.ljust(goal.full - header if kind is Kind.ECHO_FULL else 56, b"\0")


async def _neighbour(asker: Asker, goal: Goal) -> bool:
    if isinstance(goal.address, IPv4Address):
        return await _answers_arp(asker, goal.mac, goal.address)
    return await _answers_solicitation(asker, goal.address)


async def _answers_arp(asker: Asker, mac: bytes, address: IPv4Address) -> bool:
    opened, own_mac = await asyncio.to_thread(_opened_packet, asker)
    try:
        opened.send(frames.arp_probe(own_mac, mac, address))
        return await _heard(opened, lambda packet: frames.is_arp_answer(packet[frames.ETHERNET_HEADER :], mac, address))
    finally:
        await asyncio.to_thread(opened.close)


async def _answers_solicitation(asker: Asker, address: IPv6Address) -> bool:
    opened = await asyncio.to_thread(_opened_neighbour, asker)
    with opened:
        opened.sendto(frames.neighbour_solicitation(address, address), (str(address), 0))
        return await _heard(opened, lambda packet: frames.is_neighbour_advertisement(packet, address))


async def _heard(opened: socket.socket, is_it: Callable[[bytes], bool]) -> bool:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NEIGHBOUR_WAIT_S):
            while True:
                if is_it(await loop.sock_recv(opened, LONGEST)):
                    return True
    return False


# what is done in the namespace, in a thread that comes back from there


def _opened_echo(asker: Asker, version: int) -> socket.socket:
    return _inside(asker, lambda: open_echo_socket(version))


def _opened_packet(asker: Asker) -> tuple[socket.socket, bytes]:
    def opened() -> tuple[socket.socket, bytes]:
        made = open_raw(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind((asker.interface, ARP))
        return made, made.getsockname()[4]

    return _inside(asker, opened)


def _opened_neighbour(asker: Asker) -> socket.socket:
    def opened() -> socket.socket:
        made = open_raw(socket.AF_INET6, socket.SOCK_RAW, frames.ICMPV6)
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS, 255)
        return made

    return _inside(asker, opened)


def _inside(asker: Asker, function: Callable[[], T]) -> T:
    descriptor = open_namespace(asker.netns)
    try:
        with entered(descriptor):
            return function()
    finally:
        os.close(descriptor)


def mtu_of(interface: str, netns: str = "") -> int:
    """Of a link in this namespace, or in the other one. Raises: OSError: there is none."""
    descriptor = open_namespace(netns) if netns else None
    try:
        with entered(descriptor), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            answer = fcntl.ioctl(asked, SIOCGIFMTU, IFREQ.pack(interface.encode(), b""))
            return int(struct.unpack_from("=i", answer, 16)[0])
    finally:
        if descriptor is not None:
            os.close(descriptor)
