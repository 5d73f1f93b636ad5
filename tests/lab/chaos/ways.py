"""Which way packets take: marked datagrams all the time, and an ear in every place where one might turn up.

A datagram says where it is from and where it is to go. Heard by a workload that is not meant, or in the open where it
belongs into a tunnel, it took a wrong way. Lost ones are not counted here: what is broken may lose them.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab import namespaces
from lab.fabric import UPLINK

PORT = 7007
EVERY_S = 0.05
ETH_P_ALL = 3
PACKET_OTHERHOST, PACKET_OUTGOING = 3, 4
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
SNAPSHOT = 2048
RECEIVE_BYTES = 1 << 20
VXLAN_PORT = 4789
MARKED = re.compile(rb"<kvnet ([a-z0-9]+)>([a-z0-9]+) over ([46])>")


@dataclass(frozen=True, slots=True)
class Flow:
    """`vni`: of the tunnel that it may take; 0: none. `may_arrive`: nowhere else than where it is to go anyway.

    `is_bare`: between hosts it goes as it is, from its own address.
    """

    source: str
    target: str
    address: str
    vni: int = 0
    may_arrive: bool = True
    is_bare: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        return self.source, self.target, 6 if ":" in self.address else 4


@dataclass(slots=True)
class Heard:
    """`arrived`: how many of a flow came to where they were to go. `wrong`: when, and what happened."""

    arrived: dict[tuple[str, str, int], int] = field(default_factory=dict)
    wrong: list[tuple[float, str]] = field(default_factory=list)


class Ears:
    """Sends the flows and listens everywhere. `places`: workloads and what else receives. `hosts`: their underlay.

    `homes`: which network a workload is on. A bridge that has lost its MAC floods what was for it among its own ports;
    that stays at home, and nobody there takes it.
    """

    def __init__(
        self, flows: Sequence[Flow], places: Mapping[str, Path], hosts: Mapping[str, Path], homes: Mapping[str, str]
    ) -> None:
        self.heard = Heard()
        self._flows = {flow.key: flow for flow in flows}
        self._places = places
        self._hosts = hosts
        self._homes = homes

    @contextmanager
    def listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            for is_open, places in ((False, self._places), (True, self._hosts)):
                for name, netns in places.items():
                    ear = stack.enter_context(
                        namespaces.open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
                    )
                    ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
                    ear.setblocking(False)
                    loop.add_reader(ear.fileno(), self._drain, ear, name, is_open)
                    stack.callback(loop.remove_reader, ear.fileno())
            yield

    async def send(self) -> None:
        """Until cancelled: one datagram of each flow, again and again."""
        with ExitStack() as stack:
            mouths: dict[tuple[str, int], socket.socket] = {}
            while True:
                for flow in self._flows.values():
                    family = socket.AF_INET6 if ":" in flow.address else socket.AF_INET
                    mouth = mouths.get((flow.source, family))
                    if mouth is None:
                        mouth = stack.enter_context(
                            namespaces.open_socket(self._places[flow.source], family, socket.SOCK_DGRAM, 0)
                        )
                        mouth.setblocking(False)
                        mouths[flow.source, family] = mouth
                    try:
                        mouth.sendto(
                            f"<kvnet {flow.source}>{flow.target} over {flow.key[2]}>".encode(), (flow.address, PORT)
                        )
                    except OSError:
                        continue  # no route while something is broken: nothing left
                await asyncio.sleep(EVERY_S)

    def _drain(self, ear: socket.socket, place: str, is_open: bool) -> None:
        while True:
            try:
                frame, where = ear.recvfrom(SNAPSHOT)
            except BlockingIOError:
                return
            found = MARKED.search(frame)
            if found is None or where[0] == "lo" or where[2] == PACKET_OUTGOING or (is_open and where[0] != UPLINK):
                continue
            flow = self._flows.get((found[1].decode(), found[2].decode(), int(found[3])))
            if flow is None or (where[2] == PACKET_OTHERHOST and self._homes.get(place) == self._homes[flow.source]):
                continue
            self._judge(flow, frame, place, is_open)

    def _judge(self, flow: Flow, frame: bytes, place: str, is_open: bool) -> None:
        if is_open:
            vni = vni_of(frame)
            if flow.vni:
                is_right = vni == flow.vni
            else:
                is_right = vni is None and flow.may_arrive and (flow.is_bare or not _bears_inner_source(frame))
        else:
            is_right = place == flow.target and flow.may_arrive
        if is_right:
            self.heard.arrived[flow.key] = self.heard.arrived.get(flow.key, 0) + (not is_open)
        elif place != flow.source:
            carried = f" in a tunnel {vni_of(frame)}" if is_open else ""
            self.heard.wrong.append(
                (time.monotonic(), f"{flow.source} -> {flow.address} was heard at {place}{carried}")
            )


def vni_of(frame: bytes) -> int | None:
    """The tunnel's number, of an IPv4 or IPv6 frame that is VXLAN."""
    kind, offset = struct.unpack_from(">H", frame, 12)[0], 14
    if kind == 0x0800 and frame[offset + 9] == socket.IPPROTO_UDP:
        offset += (frame[offset] & 15) * 4
    elif kind == 0x86DD and frame[offset + 6] == socket.IPPROTO_UDP:
        offset += 40
    else:
        return None
    if struct.unpack_from(">H", frame, offset + 2)[0] != VXLAN_PORT:
        return None
    return int.from_bytes(frame[offset + 12 : offset + 15], "big")


def _bears_inner_source(frame: bytes) -> bool:
    """It left with a workload's own address: the lab's own are 198.18.0.0/15 and 203.0.113.0/24, fd00::/16."""
    if struct.unpack_from(">H", frame, 12)[0] == 0x0800:
        return frame[26] == 10
    return frame[22:24] != b"\xfd\x00"
