"""Puts an uplink into a bridge of ours and takes it out again; nothing else of it is touched.

Its size, flags, MAC and addresses stay an operator's. An uplink that is in another bridge stays there. Runs in the
kernel thread only.
"""

from __future__ import annotations

import errno

from datapath.objects import Enslave, Enslavement
from worker.kernel import messages as m
from worker.kernel.devices import Devices, Unusable
from worker.kernel.failures import told
from worker.kernel.netlink import Netlink


def enslave(rtnetlink: Netlink, devices: Devices, operation: Enslave, entry: Enslavement) -> None:
    """Raises: OSError: says why not."""
    bridge, uplink = devices.ours(entry.bridge), devices.uplink(entry.uplink)
    if uplink.master == bridge.index:
        return
    if uplink.master:
        raise Unusable(errno.EBUSY, f"{entry.uplink} is in another bridge or bond already; left alone")
    refusal = rtnetlink.one(m.set_link(uplink.index, master=bridge.index))
    devices.forget(entry.uplink, entry.bridge)
    if refusal is not None:
        raise told(operation, refusal.errno, refusal.text)


def release(rtnetlink: Netlink, devices: Devices, entry: Enslavement) -> None:
    """What is not in that bridge is no failure. Raises: OSError."""
    bridge, uplink = devices.get(entry.bridge), devices.get(entry.uplink)
    if bridge is None or uplink is None or uplink.master != bridge.index:
        return
    devices.ours(entry.bridge)
    refusal = rtnetlink.one(m.set_link(uplink.index, master=0))
    devices.forget(entry.uplink, entry.bridge)
    if refusal is not None and refusal.errno != errno.ENODEV:
        raise Unusable(refusal.errno, refusal.text or f"{entry.uplink} cannot leave {entry.bridge}")
