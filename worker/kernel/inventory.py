"""What this host uses already, and what it is: for the controller, which must not give those ranges out again.

Reads only. Leaves out what is kvnet's own, default routes, link-local, loopback and multicast: those are in nobody's
way.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from datapath.objects import PROTOCOL
from kvnet.errors import NotFound
from kvnet.model import Address, Cidr, UsedRange
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.netlink import Netlink, attributes
from worker.kernel.pressure import refused_neighbours

RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
LONGEST_RESOLVER_FILE = 64 << 10
IFA_F_TEMPORARY = 0x01  # of IPv6: a privacy address, which passes (of IPv4 the same bit means "secondary")


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of the host's own, on a device that is not ours. `mtu`: what fits through that device."""

    address: Address
    prefix_length: int
    device: str
    mtu: int
    is_temporary: bool = False

    @property
    def segment(self) -> Cidr:
        return ip_interface((self.address, self.prefix_length)).network


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`mtus` by address: what fits through the device that has it. `addresses`: the same ones, and where they are.

    `refused_neighbours`: by family, how often the kernel's neighbour table was full; see `worker.kernel.pressure`.
    """

    used: tuple[UsedRange, ...]
    mtus: dict[Address, int]
    kernel: str
    boot_id: str
    addresses: tuple[HostAddress, ...] = ()
    refused_neighbours: Mapping[str, int] = field(default_factory=dict)

    def mtu_of(self, underlay: Address) -> int:
        """Raises: NotFound where no device of this host has that address."""
        if underlay in self.mtus:
            return self.mtus[underlay]
        there = ", ".join(str(address) for address in self.mtus if not address.is_link_local) or "none"
        raise NotFound(
            f"no device of this host has the underlay address {underlay}",
            fix=f"give one of this host's addresses with --underlay (there are: {there})",
        )


def look_around(rtnetlink: Netlink, resolver_files: Iterable[Path] = RESOLVER_FILES) -> Surroundings:
    devices = [dump.device(body) for body in rtnetlink.dump(m.dump_links())]
    names = {device.index: device.name for device in devices}
    ours = {device.index for device in devices if device.is_ours}
    mtu = {device.index: m.U32.unpack_from(device.fields[m.IFLA_MTU])[0] for device in devices}
    used: dict[Cidr, str] = {}
    mtus: dict[Address, int] = {}
    addresses: list[HostAddress] = []
    for body in rtnetlink.dump(m.dump_addresses()):
        _, length, flags, _, index = m.ADDRESS.unpack_from(body)
        fields = attributes(body, m.ADDRESS.size)
        address = ip_address(fields.get(m.IFA_LOCAL) or fields[m.IFA_ADDRESS])
        if index not in ours and not address.is_loopback:
            name = names.get(index, str(index))
            mtus[address] = mtu.get(index, 0)
            is_temporary = address.version == 6 and bool(flags & IFA_F_TEMPORARY)
            addresses.append(HostAddress(address, length, name, mtus[address], is_temporary))
            used.setdefault(ip_interface((address, length)).network, f"address dev {name}")
            used[ip_network(address)] = f"address dev {name}"
    for cidr, index in _routes(rtnetlink.dump(m.dump_routes()), ours):
        used.setdefault(cidr, f"route dev {names.get(index, 'none')}")
    for resolver in _resolvers(resolver_files):
        used.setdefault(ip_network(resolver), "resolver")
    return Surroundings(
        used=tuple(UsedRange(cidr, source) for cidr, source in used.items() if _is_of_interest(cidr)),
        mtus=mtus,
        refused_neighbours=refused_neighbours(),
        kernel=os.uname().release,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        addresses=tuple(addresses),
    )


def _routes(bodies: Iterable[bytes], ours: Container[int]) -> Iterator[tuple[Cidr, int]]:
    for body in bodies:
        _, length, _, _, _, protocol, _, _, _ = m.ROUTE.unpack_from(body)
        fields = attributes(body, m.ROUTE.size)
        index = m.U32.unpack_from(fields[m.RTA_OIF])[0] if m.RTA_OIF in fields else 0
        if length and protocol != PROTOCOL and index not in ours and m.RTA_DST in fields:
            yield ip_network((fields[m.RTA_DST], length)), index


def _resolvers(files: Iterable[Path]) -> Iterator[Address]:
    for path in files:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                lines = file.read(LONGEST_RESOLVER_FILE).splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                try:
                    yield ip_address(words[1].split("%")[0])
                except ValueError:
                    continue


def _is_of_interest(cidr: Cidr) -> bool:
    return bool(cidr.prefixlen) and not (cidr.is_link_local or cidr.is_loopback or cidr.is_multicast)
