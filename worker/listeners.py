"""Who on this host listens on a port: asked before a port is published, for the publication would take it over.

By trying to bind, which is the kernel's own answer; the name of the holder is found in /proc then. Sockets in other
network namespaces are in nobody's way. Never keeps a port, never sends anything.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from kvnet.errors import Invalid
from kvnet.model import Address, PublishedPort
from worker.ports import Listener

LISTENING = "0A"  # TCP_LISTEN, as /proc/net/tcp has it
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
EVERYWHERE: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}
PROC = Path("/proc")
BUSY = (errno.EADDRINUSE,)


class HostListeners:
    """The namespace of this process. `own`: where kvnet itself answers; no publication takes that over."""

    def __init__(self, own: Address | None = None) -> None:
        self._own = own

    async def first(self, ports: Sequence[PublishedPort], versions: Sequence[int]) -> Listener | None:
        """Of the first of the ports that is taken, in an address family that counts; None if all are free.

        Raises:
            Invalid: an address that is not this host's.
        """
        return await asyncio.to_thread(first, ports, versions, self._own)


def first(ports: Sequence[PublishedPort], versions: Sequence[int], own: Address | None = None) -> Listener | None:
    for port in ports:
        for address in _addresses(port, versions):
            if port.host_port is None or is_free(port.protocol, address, port.host_port):
                continue
            if not (address.is_unspecified and _is_only_at(own, port.protocol, port.host_port)):
                return _holder(port, address, port.host_port)
    return None


def _is_only_at(own: Address | None, protocol: str, port: int) -> bool:
    return own is not None and {where for _, where in _sockets(protocol, port)} == {own}


def is_free(protocol: str, address: Address, port: int) -> bool:
    """
    Raises:
        Invalid: the address is not this host's.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        probe = socket.socket(family, KINDS[protocol])
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:  # no IPv6 on this host, so nobody listens on it
            return True
        raise
    with probe:
        if protocol == "tcp":  # connections that wind up are in nobody's way; whoever listens still is
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise Invalid.field(
                    "/ports",
                    f"{address} is no address of this host, so nothing can be published there",
                    "publish on one of its addresses, or on all of them by leaving the address out",
                ) from error
            if error.errno in BUSY:
                return False
            raise Invalid.field("/ports", f"port {port}/{protocol} cannot be used: {error.strerror}") from error
    return True


def _addresses(port: PublishedPort, versions: Sequence[int]) -> Iterator[Address]:
    if port.host_address is not None:
        if port.host_address.version in versions:
            yield port.host_address
        return
    yield from (EVERYWHERE[version] for version in versions)


def _holder(port: PublishedPort, address: Address, number: int) -> Listener:
    for inode, where in _sockets(port.protocol, number):
        if address.is_unspecified or where.is_unspecified or where == address:
            pid = _process_of(inode)
            return Listener(port, where, pid, _name_of(pid) if pid else "", int(inode))
    return Listener(port, address, 0, "")


def _sockets(protocol: str, port: int) -> Iterator[tuple[str, Address]]:
    """(inode, local address) of every socket of the protocol that is bound to the port."""
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, _, number = fields[1].partition(":")
            if int(number, 16) == port and (protocol == "udp" or fields[3] == LISTENING):
                yield fields[9], _address(local)


def _address(text: str) -> Address:
    """As the kernel prints it: words of four bytes, each in the host's order."""
    raw = bytes.fromhex(text)
    packed = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    found = ip_address(packed)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _process_of(inode: str) -> int:
    """0 where no process is seen to have it: another user's, another container's."""
    wanted = f"socket:[{inode}]"
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            descriptors = os.listdir(folder / "fd")
        except OSError:
            continue  # it ended, or is not ours to look at
        for descriptor in descriptors:
            try:
                if os.readlink(folder / "fd" / descriptor) == wanted:
                    return int(folder.name)
            except OSError:
                continue
    return 0


def _name_of(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""
