"""Sends the probes between hosts: tunnel packets to the other's VXLAN port, and echo requests to its address.

Only to the addresses it is given, a bounded number of packets to each, and slowly. What arrives is counted there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kvnet.model import Address
from worker.kernel.rawsockets import open_raw
from worker.probing.echo import IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PROBE, Echo, open_echo_socket
from worker.probing.frames import NO_VNI, Kind, Mark, tunnel_packet
from worker.probing.next_hop import silent_next_hops

PACE_PACKETS, PACE_S = 8, 0.008  # at most a thousand packets a second
ECHO_WAIT_S = 1.0
SEND_ATTEMPTS = 50
PORTS = range(49152, 65536)
PAYLOAD = bytes(56)


@dataclass(frozen=True, slots=True)
class Target:
    """A host to try. `vni`: of a segment that it has, None for none. `sizes`: of outer packets, each `repeat` times."""

    number: int
    address: Address
    vni: int | None = None
    small: int = 0
    sizes: tuple[int, ...] = ()
    repeat: int = 0
    echoes: int = 0


@dataclass(slots=True)
class Fired:
    """What became of a target's packets here.

    `errors`: why some could not be sent, by errno's name. `silent_hop`: the next machine on the way, if that one does
    not answer for its address.
    """

    small: int = 0
    sized: dict[int, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    echoes: int = 0
    rtt_ms: list[float] = field(default_factory=list)
    silent_hop: str = ""

    def as_json(self, number: int) -> dict[str, Any]:
        return {
            "to": number,
            "small": self.small,
            "sized": [{"size": size, "sent": sent} for size, sent in self.sized.items()],
            "errors": [{"code": code, "detail": detail} for code, detail in sorted(self.errors.items())],
            "echoes": self.echoes,
            "rtt_ms": self.rtt_ms,
            "silent_hop": self.silent_hop,
        }

    def note(self, error: OSError) -> None:
        code = errno.errorcode.get(error.errno or 0, "UNKNOWN")
        self.errors[code] = error.strerror or os.strerror(error.errno or 0)


async def fire(
    own: Address, number: int, session: bytes, targets: Sequence[Target], rng: random.Random
) -> dict[int, Fired]:
    """By target's number. All targets are of the family of `own`. Raises: OSError: no raw sockets here."""
    fired = {target.number: Fired() for target in targets}
    with await asyncio.to_thread(_raw, own.version) as raw:
        echo = Echo(await asyncio.to_thread(open_echo_socket, own.version), own.version, rng.getrandbits(16))
        gun = _Gun(raw, own, number, session, rng.choice(PORTS))
        with echo.listening():
            asked: dict[int, int] = {}
            for turn in range(max((max(t.small, t.repeat, t.echoes) for t in targets), default=0)):
                for target in targets:
                    await gun.turn(target, turn, fired[target.number])
                    if turn < target.echoes:
                        _echo(echo, target, fired[target.number], asked)
            await echo.until_answered(ECHO_WAIT_S)
            for sequence, rtt in echo.rtt_ms.items():
                fired[asked[sequence]].rtt_ms.append(rtt)
    await _note_silent_hops(targets, fired)
    return fired


async def _note_silent_hops(targets: Sequence[Target], fired: dict[int, Fired]) -> None:
    unanswered = {t.address: t.number for t in targets if t.echoes and not fired[t.number].rtt_ms}
    if unanswered:
        for address, hop in (await asyncio.to_thread(silent_next_hops, list(unanswered))).items():
            fired[unanswered[address]].silent_hop = str(hop)


def _echo(echo: Echo, target: Target, fired: Fired, asked: dict[int, int]) -> None:
    try:
        asked[echo.send(target.address, PAYLOAD)] = target.number
        fired.echoes += 1
    except OSError as error:
        fired.note(error)


class _Gun:
    def __init__(self, raw: socket.socket, own: Address, number: int, session: bytes, port: int) -> None:
        self._raw = raw
        self._own = own
        self._number = number
        self._session = session
        self._port = port
        self._sent = 0

    async def turn(self, target: Target, turn: int, fired: Fired) -> None:
        if turn < target.small and await self._send(target, Kind.TUNNEL, turn, 0, fired):
            fired.small += 1
        if turn < target.repeat:
            for size in target.sizes:
                is_sent = await self._send(target, Kind.SIZED, turn, size, fired)
                fired.sized[size] = fired.sized.get(size, 0) + is_sent

    async def _send(self, target: Target, kind: Kind, sequence: int, size: int, fired: Fired) -> bool:
        vni = target.vni if kind is Kind.TUNNEL and target.vni is not None else NO_VNI
        mark = Mark(self._session, kind, self._number, size, sequence, target.number)
        packet = tunnel_packet(self._own, target.address, self._port, vni, mark, size)
        for _ in range(SEND_ATTEMPTS):
            self._sent += 1
            if not self._sent % PACE_PACKETS:
                await asyncio.sleep(PACE_S)
            try:
                self._raw.sendto(packet, (str(target.address), 0))
                return True
            except BlockingIOError:
                await asyncio.sleep(PACE_S)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    fired.note(error)
                    return False
                await asyncio.sleep(PACE_S)
        return False


def _raw(version: int) -> socket.socket:
    """Takes whole IP packets, and lets them be as large as the link: what routers said before does not matter."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    made = open_raw(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    if version == 4:
        made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PROBE)
    return made
