"""Reads and writes settings below /proc/sys, as the calling thread's namespace has them."""

from __future__ import annotations

import os

from datapath.objects import Bridge, Link
from datapath.sysctls import HOST_SYSCTLS, device_sysctls
from worker.kernel.dump import CONF_VALUES, Device, setting

ROOT = "/proc/sys/"
LONGEST_VALUE = 4096


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
    wanted = set(device_sysctls(link))
    if isinstance(link, Bridge):
        other = Bridge(link.name, link.mac, link.mtu, ipv6=not link.ipv6)
        wanted |= set(device_sysctls(other))
    values: dict[str, str] = {}
    for path in wanted:
        name = path.rsplit("/", 1)[1]
        value = setting(found, name) if name in CONF_VALUES else read_sysctl(path)
        if value is not None:
            values[path] = str(value)
    return values
