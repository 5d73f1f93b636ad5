"""Whether this process may change the network at all; asked once, before anything is tried."""

from __future__ import annotations

import errno
import os

from kvnet.errors import MissingCapability
from worker.kernel import messages as m
from worker.kernel.namespaces import OWN, enter_for_good
from worker.kernel.netlink import Netlink

NO_SUCH_INDEX = 0x7FFFFFFF


def require_network_admin(rtnetlink: Netlink) -> None:
    """Raises: MissingCapability where the kernel would refuse every change.

    Asked of the kernel, not of our capability set: in a user namespace that set is full and still may not count here.
    """
    refusal = rtnetlink.one(m.delete_link(NO_SUCH_INDEX))
    if refusal is not None and refusal.errno == errno.EPERM:
        raise MissingCapability(
            f"this process (user {os.geteuid()}) may not change the network: CAP_NET_ADMIN is missing",
            fix="run it as root, or as a service with CAP_NET_ADMIN and CAP_SYS_ADMIN; to try kvnet out: kvnet demo",
        )


def require_namespace_admin() -> None:
    """Raises: MissingCapability where the kernel would let us into no network namespace.

    Entering the one that we are in changes nothing and needs the same permission.
    """
    own = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_for_good(own)
    finally:
        os.close(own)
