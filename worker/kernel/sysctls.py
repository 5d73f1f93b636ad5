"""Reads and writes settings below /proc/sys, as the calling thread's namespace has them."""

from __future__ import annotations

import os

from datapath.objects import Link
from datapath.sysctls import HOST_SYSCTLS, sysctls_of
from worker.kernel import messages as m
from worker.kernel.dump import CONF_VALUES, Device, setting
from worker.kernel.netlink import attributes

ROOT = "/proc/sys/"
LONGEST_VALUE = 4096
IPV6 = "net/ipv6/"
AF_INET_CONF = 1  # IFLA_INET_CONF
IPV4_VALUES = {"arp_filter": 12, "route_localnet": 25}  # IPV4_DEVCONF_* of linux/ip.h, which count from 1


def write_sysctl(path: str, value: str) -> None:
    """Raises: OSError; ENOENT where the device is gone."""
    descriptor = os.open(ROOT + path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def read_sysctl(path: str) -> str | None:
    """None where there is no such setting."""
    try:
        descriptor = os.open(ROOT + path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, LONGEST_VALUE).decode().strip()
    finally:
        os.close(descriptor)


def host_settings() -> dict[str, str]:
    """The host-wide settings that the datapath may ask for."""
    values = {path: read_sysctl(path) for path in HOST_SYSCTLS}
    return {path: value for path, value in values.items() if value is not None}


def device_settings(found: Device, link: Link) -> dict[str, str]:
    """A device's settings that the datapath may ask for; the link message has them, so no file is opened for those."""
    values: dict[str, str] = {}
    for path in sysctls_of(link):
        name = path.rsplit("/", 1)[1]
        if path.startswith(IPV6):
            value = setting(found, name) if name in CONF_VALUES else None
        else:
            value = _ipv4_setting(found, name)
        text = read_sysctl(path) if value is None else str(value)
        if text is not None:
            values[path] = text
    return values


def _ipv4_setting(found: Device, name: str) -> int | None:
    """A value of net/ipv4/conf/<device>/, as the link message carries it. None where it does not."""
    families = attributes(found.fields.get(m.IFLA_AF_SPEC, b""), 0)
    values = attributes(families.get(m.AF_INET, b""), 0).get(AF_INET_CONF, b"")
    place = IPV4_VALUES[name] * m.U32.size if name in IPV4_VALUES else len(values)
    return int(m.U32.unpack_from(values, place)[0]) if len(values) >= place + m.U32.size else None
