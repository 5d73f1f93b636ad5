"""The `bridge` driver: the network's bridge on each host, without a tunnel between them.

Endpoints of one host reach each other and their gateway; those of other hosts are none of this host's business.
"""

from __future__ import annotations

from datapath.drivers.parts import local_parts
from datapath.objects import HostState
from datapath.view import NetworkView

ETHERNET_MTU = 1500


def bridge(view: NetworkView) -> HostState:
    return local_parts(view, view.network.mtu or min(ETHERNET_MTU, view.host.mtu)).state()
