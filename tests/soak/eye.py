"""Who has which address, by an eye of its own: netlink dumps of every workload's namespace.

Subnets of different networks never overlap, so one address in two living namespaces has two owners, whatever the
store says. A look takes a moment, in which addresses come and go: what looks double is looked at again before it is
told.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import namespaces

EVERY_S = 1.0
AGAIN_S = 0.05
RTM_GETADDR, RTM_NEWADDR, NLMSG_ERROR, NLMSG_DONE = 22, 20, 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
IFA_ADDRESS = 1
RT_SCOPE_UNIVERSE = 0
NETLINK_ROUTE = 0
_HEADER = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")


def addresses_in(netns: Path) -> frozenset[str]:
    """Every global address there; nothing if the namespace is gone."""
    try:
        with namespaces.open_socket(netns, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as link:
            link.settimeout(2.0)
            request = _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            link.send(
                _HEADER.pack(_HEADER.size + len(request), RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + request
            )
            found: set[str] = set()
            while _read(link.recv(1 << 16), found):
                pass
            return frozenset(found)
    except (OSError, KeyError):
        return frozenset()


def _read(data: bytes, found: set[str]) -> bool:
    """Whether more is to come."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            return False
        if kind == RTM_NEWADDR:
            family, _, _, scope, _ = _IFADDR.unpack_from(data, _HEADER.size)
            if scope == RT_SCOPE_UNIVERSE:
                found.add(_address(family, data[_HEADER.size + _IFADDR.size : length]))
        data = data[(length + 3) & ~3 :]
    return True


def _address(family: int, attributes: bytes) -> str:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == IFA_ADDRESS:
            return socket.inet_ntop(family, attributes[_ATTRIBUTE.size : length])
        attributes = attributes[(length + 3) & ~3 :]
    raise KeyError("an address message without an address")


class Watch:
    """Looks at all workloads again and again. `doubles`: what was told of each; `looks`: how many there were."""

    def __init__(self, places: Callable[[], Mapping[str, Path]], tell: Callable[[str], None]) -> None:
        self._places = places
        self._tell = tell
        self.looks = 0
        self.doubles: set[str] = set()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        self.looks += 1
        for address, names in (await self._owners(self._places())).items():
            if len(names) < 2 or address in self.doubles:
                continue
            await asyncio.sleep(AGAIN_S)
            there = {name: netns for name, netns in self._places().items() if name in names}
            still = [name for name, netns in there.items() if address in addresses_in(netns)]
            if len(still) > 1:
                self.doubles.add(address)
                self._tell(f"{address} is in the kernel of {' and of '.join(sorted(still))}")

    async def _owners(self, places: Mapping[str, Path]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name, netns in places.items():
            for address in addresses_in(netns):
                found[address].append(name)
            await asyncio.sleep(0)
        return found
