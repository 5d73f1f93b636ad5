"""Kernel settings that our devices and forwarding need: which, and why.

The drivers put them into desired states; the kernel reads exactly these paths for the devices it finds. What concerns
the whole host is never set back: another program may have come to rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from datapath.objects import Bridge, Link, Macvlan, Shim, Vxlan
from kvnet.rules import MTU_MIN_IPV6

FORWARD_IPV4 = "net/ipv4/ip_forward"
FORWARD_IPV6 = "net/ipv6/conf/all/forwarding"
HOST_SYSCTLS = (FORWARD_IPV4, FORWARD_IPV6)

_IPV4_PREFIX = "net/ipv4/conf/"
_IPV6_PREFIX = "net/ipv6/conf/"


def device_sysctls(link: Link, *, speaks_ipv6: bool = False, is_publishing: bool = False) -> Mapping[str, str]:
    """What one device of ours needs.

    Ports never speak IPv6 themselves. A bridge does where its network has IPv6 (without it the kernel refuses the
    neighbours with EINVAL), but never believes a router advertisement: those come from workloads, or, on a shim, from
    the physical network, whose router is the host's uplink's business.

    speaks_ipv6: of a shim, or a tunnel without a bridge: whether IPv6 goes through it.
    is_publishing: of a bridge: 127.0.0.1 may be led to a workload behind it (the firewall keeps the way back shut).
    """
    if isinstance(link, Macvlan):  # wholly in the workload's namespace
        return {}
    settings: dict[str, str] = {}
    if isinstance(link, Bridge):
        settings[f"{_IPV4_PREFIX}{link.name}/route_localnet"] = "1" if is_publishing else "0"
    if isinstance(link, Shim):
        # It hears the physical network's questions for the host's address; only workloads' are its to answer.
        settings[f"{_IPV4_PREFIX}{link.name}/arp_filter"] = "1"
    if link.mtu < MTU_MIN_IPV6:  # the kernel takes IPv6 off such a device, and the files of its settings with it
        return settings
    base = f"{_IPV6_PREFIX}{link.name}/"
    if link.ipv6 if isinstance(link, Bridge) else speaks_ipv6:
        return {**settings, base + "disable_ipv6": "0", base + "accept_ra": "0", base + "autoconf": "0"}
    return {**settings, base + "disable_ipv6": "1"}


def sysctls_of(link: Link) -> frozenset[str]:
    """Every setting of the device that some desired state may name: what has to be read of it."""
    if isinstance(link, Bridge):
        other = Bridge(link.name, link.mac, link.mtu, ipv6=not link.ipv6)
        return frozenset({*device_sysctls(link), *device_sysctls(other)})
    if isinstance(link, Shim) or (isinstance(link, Vxlan) and not link.bridge):
        return frozenset(device_sysctls(link, speaks_ipv6=True))
    return frozenset(device_sysctls(link))


def device_of_sysctl(path: str) -> str | None:
    """The device a path belongs to; None for a host-wide one."""
    if path in HOST_SYSCTLS:
        return None
    for prefix in (_IPV4_PREFIX, _IPV6_PREFIX):
        if path.startswith(prefix):
            return path[len(prefix) :].split("/", 1)[0]
    return None
