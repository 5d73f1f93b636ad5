"""The `bridge` driver: the network's bridge on each host, without a tunnel between them.

Endpoints of one host reach each other and their gateway; those of other hosts are none of this host's business.
"""

from __future__ import annotations

from datapath.drivers.parts import local_parts
from datapath.objects import HostState
from datapath.view import NetworkView
from kvnet.rules import MTU_MIN_IPV6

ETHERNET_MTU = 1500


def bridge(view: NetworkView) -> HostState:
    return local_parts(view, view.network.mtu or _derived_mtu(view)).state()


def _derived_mtu(view: NetworkView) -> int:
    """As the way out's, but never so little that the kernel would switch IPv6 off on the device."""
    fitting = min(ETHERNET_MTU, view.host.mtu)
    return max(fitting, MTU_MIN_IPV6) if view.network.has_ipv6 else fitting
