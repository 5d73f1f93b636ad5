"""Looks now and then at what the kernel tells no event of: settings of the host and of our devices, and the gates of
iptables-legacy. Whatever is otherwise than at the last look is a hint.

Often enough that a change is repaired within a second: that costs half a per cent of a processor, on a host with many
hundred interfaces up to one; beyond that the looks become rarer. Decides nothing: what a setting should be is for the
plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from datapath.objects import VETH_PREFIX, VXLAN_PREFIX, Hint
from worker.kernel import messages as m
from worker.kernel.dump import CONF_VALUES
from worker.kernel.legacy import has_legacy_filter, is_open_in_legacy
from worker.kernel.netlink import ATTRIBUTE, Message, Netlink, attributes
from worker.kernel.rules import MARK, TABLE
from worker.kernel.sysctls import host_settings, read_sysctl

PERIOD_S, LONGER_PERIOD_S = 0.6, 0.7
SHARE, LARGEST_SHARE = 1 / 200, 1 / 100  # of a processor; the larger one only to be in time
INET6_CONF = 2  # IFLA_INET6_CONF, in IFLA_PROTINFO
INTEGER_BYTES = 4
PICKED = tuple((place * INTEGER_BYTES, (place + 1) * INTEGER_BYTES) for place in sorted(CONF_VALUES.values()))
OF_DEVICES = ("route_localnet", "arp_filter")  # below net/ipv4/conf/; only bridges and shims have them set


def period_for(cost_s: float) -> float:
    """The pause after a look that took so much of a processor."""
    return max(PERIOD_S, min(cost_s / SHARE, LONGER_PERIOD_S), cost_s / LARGEST_SHARE)


class Vigil:
    """Belongs to the kernel thread. `devices`: ours by index, kept by whoever follows the events."""

    def __init__(
        self, rtnetlink: Netlink, devices: Mapping[int, str], clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._rtnetlink = rtnetlink
        self._devices = devices
        self._clock = clock
        self._host: object = None
        self._gates: object = None
        self._settings: dict[str, object] = {}
        self.period_s = PERIOD_S

    def look(self) -> Hint | None:
        """What changed since the last look; None = nothing, or this is the first one."""
        start = self._clock()
        devices = dict(self._devices)
        host, gates, settings = host_settings(), _legacy_gates(), self._of_devices(devices)
        changed = frozenset(name for name, values in settings.items() if self._settings.get(name, values) != values)
        is_first = self._host is None
        has_host, has_gates = host != self._host, gates != self._gates
        self._host, self._gates, self._settings = host, gates, settings
        self.period_s = period_for(self._clock() - start)
        if is_first or not (changed or has_host or has_gates):
            return None
        return Hint(devices=changed, firewall=has_gates, host=has_host)

    def _of_devices(self, devices: Mapping[int, str]) -> dict[str, object]:
        """IPv6's from one dump of all links, IPv4's from the few files that matter."""
        found: dict[str, object] = {}
        request = Message(m.RTM_GETLINK, 0, m.LINK.pack(m.AF_INET6, 0, 0, 0, 0))
        bodies = self._rtnetlink.dump(request)
        head = _head_of_settings(bodies[0]) if bodies else b""
        for body in bodies:
            name = devices.get(m.LINK.unpack_from(body)[2])
            if name is not None:
                found[name] = _picked(body, head)
        for name in _with_ipv4_settings(devices.values()):
            values = tuple(read_sysctl(f"net/ipv4/conf/{name}/{setting}") for setting in OF_DEVICES)
            found[name] = (found.get(name), values)
        return found


def _with_ipv4_settings(names: Iterable[str]) -> Iterable[str]:
    """All but ports: a bridge may have any name."""
    return (name for name in names if not name.startswith((VETH_PREFIX, VXLAN_PREFIX)))


def _head_of_settings(body: bytes) -> bytes:
    """How the settings begin in every such message. How many there are is the kernel's own affair."""
    protocol = attributes(attributes(body, m.LINK.size).get(m.IFLA_PROTINFO, b""), 0)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(protocol.get(INET6_CONF, b"")), INET6_CONF)


def _picked(body: bytes, head: bytes) -> bytes:
    """The settings of IPv6 that the datapath may ask for. Cut out, for there may be many ports."""
    place = body.find(head, m.LINK.size)
    if place < 0:
        return b""
    place += ATTRIBUTE.size
    return b"".join([body[place + first : place + last] for first, last in PICKED])


def _legacy_gates() -> dict[int, bool]:
    return {family: is_open_in_legacy(family, TABLE, MARK) for family in (4, 6) if has_legacy_filter(family)}
