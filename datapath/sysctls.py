"""Kernel settings that our devices and forwarding need: which, and why.

The drivers put them into desired states; the kernel reads exactly these paths for the devices it finds. Nothing here
is ever set back: another program may have come to rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from datapath.objects import Bridge, Link

FORWARD_IPV4 = "net/ipv4/ip_forward"
FORWARD_IPV6 = "net/ipv6/conf/all/forwarding"
HOST_SYSCTLS = (FORWARD_IPV4, FORWARD_IPV6)

_DEVICE_PREFIX = "net/ipv6/conf/"


def device_sysctls(link: Link) -> Mapping[str, str]:
    """What one device of ours needs.

    Ports never speak IPv6 themselves. A bridge does where its network has IPv6 (without it the kernel refuses the
    neighbours with EINVAL), but never believes a router advertisement: those come from workloads.
    """
    base = f"{_DEVICE_PREFIX}{link.name}/"
    if isinstance(link, Bridge) and link.ipv6:
        return {base + "disable_ipv6": "0", base + "accept_ra": "0", base + "autoconf": "0"}
    return {base + "disable_ipv6": "1"}


def device_of_sysctl(path: str) -> str | None:
    """The device a path belongs to; None for a host-wide one."""
    if path in HOST_SYSCTLS or not path.startswith(_DEVICE_PREFIX):
        return None
    return path[len(_DEVICE_PREFIX) :].split("/", 1)[0]
