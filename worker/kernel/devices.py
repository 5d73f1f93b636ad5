"""What the devices that one batch of operations names are, as the kernel says right now.

Asked at most once a batch, by name, so that an index is never stale: interface indexes do not survive a device.
Everything that changes something goes through `ours`, so nothing foreign is ever touched.
"""

from __future__ import annotations

import errno

from worker.kernel import messages as m
from worker.kernel.dump import PREFIXES, Device, device
from worker.kernel.failures import UPLINK_MISSING, Told
from worker.kernel.netlink import Netlink


class Unusable(Told):
    """A device that an operation needs is not there, or is not ours."""


class Devices:
    """A cache for the length of one batch; `forget` what was changed."""

    def __init__(self, rtnetlink: Netlink) -> None:
        self._rtnetlink = rtnetlink
        self._known: dict[str, Device | None] = {}

    def get(self, name: str) -> Device | None:
        if name not in self._known:
            body = self._rtnetlink.get(m.get_link(name))
            self._known[name] = None if body is None else device(body)
        return self._known[name]

    def forget(self, *names: str) -> None:
        for name in names:
            self._known.pop(name, None)

    def ours(self, name: str) -> Device:
        """The device, sure to be ours.

        Raises:
            Unusable: ENODEV, it is not there; EEXIST, the name is somebody else's.
        """
        found = self.get(name)
        if found is None:
            raise Unusable(errno.ENODEV, f"there is no device {name}")
        if not found.is_ours:
            raise Unusable(errno.EEXIST, describe_foreign(found))
        return found

    def any(self, name: str) -> Device:
        """The device, whoever's it is: for routes over the underlay."""
        found = self.get(name)
        if found is None:
            raise Unusable(errno.ENODEV, f"there is no device {name}")
        return found

    def uplink(self, name: str) -> Device:
        """A link of the host's own.

        Raises:
            Unusable: ENODEV, it is not there; EINVAL, it is one of ours.
        """
        found = self.get(name)
        if found is None:
            raise Unusable(errno.ENODEV, f"this host has no interface {name}, the network's uplink", UPLINK_MISSING)
        if found.is_ours:
            raise Unusable(errno.EINVAL, f"{name} is kvnet's own, and cannot be an uplink")
        return found

    def bridge(self, name: str) -> Device:
        """A bridge for ports of ours: our own, or an operator's under a name that is none of ours."""
        found = self.get(name)
        if found is not None and not found.is_ours and found.kind == "bridge" and not name.startswith(PREFIXES):
            return found
        return self.ours(name)


def describe_foreign(found: Device) -> str:
    return f"{found.name} is a {found.kind or 'plain'} device that is not kvnet's (group {found.group}); left alone"
