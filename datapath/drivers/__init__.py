"""What each kind of network means on a host: one pure function per driver, from the network's view to objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from datapath.drivers.bridge import bridge
from datapath.drivers.overlay import overlay
from datapath.drivers.routed import routed
from datapath.drivers.transparent import transparent
from datapath.objects import HostState
from datapath.view import NetworkView
from kvnet.model import Driver

NetworkDriver = Callable[[NetworkView], HostState]

DRIVERS: Mapping[Driver, NetworkDriver] = {
    Driver.BRIDGE: bridge,
    Driver.OVERLAY: overlay,
    Driver.ROUTED: routed,
    Driver.TRANSPARENT: transparent,
}

__all__ = ["DRIVERS", "NetworkDriver"]
