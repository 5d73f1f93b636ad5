"""What the kernel refused, in words that say what to do about it where that is known.

The words become a condition that an operator reads, so each known cause has a stable code and names the limit, the
module or the thing that is missing. Everything else is told as the kernel says it. Pure.
"""

from __future__ import annotations

import errno
import os

from datapath.objects import (
    Bridge,
    CreateLink,
    Enslave,
    Failure,
    Link,
    Macvlan,
    Operation,
    ReplaceNeighbour,
    Shim,
    UpdateLink,
    Veth,
    Vxlan,
)
from worker.kernel.netlink import ANSWER_LOST

REFUSED = "kernel-refused"
BRIDGE_FULL, NEIGHBOURS_FULL, KERNEL_LACKS = "bridge-full", "neighbours-full", "kernel-lacks"
UPLINK_MISSING, NAMESPACE_GONE = "uplink-missing", "namespace-gone"
BRIDGE_PORTS = 1023  # BR_MAX_PORTS - 1
UNKNOWN_KIND = ("", "Unknown device type")  # what rtnetlink says with EOPNOTSUPP; nothing before Linux 5.3
MODULES: dict[type[Link], str] = {Bridge: "bridge", Vxlan: "vxlan", Veth: "veth", Macvlan: "macvlan", Shim: "macvlan"}


class Told(OSError):
    """A refusal with its words; `code` as in `Failure`."""

    def __init__(self, number: int, words: str, code: str = REFUSED) -> None:
        super().__init__(number, words)
        self.code = code


def told(operation: Operation, number: int, text: str, otherwise: str = "") -> Told:
    """The kernel's no, explained where it is known; else `otherwise`, else what the kernel said."""
    link = operation.link if isinstance(operation, (CreateLink, UpdateLink)) else None
    if number == errno.EXFULL and (link is not None or isinstance(operation, Enslave)):
        bridge = operation.entry.bridge if isinstance(operation, Enslave) else getattr(link, "bridge", "")
        return Told(
            number,
            f"the bridge {bridge} has {BRIDGE_PORTS:,} ports, the kernel's limit; put endpoints on other hosts or use "
            "several networks",
            BRIDGE_FULL,
        )
    if isinstance(operation, ReplaceNeighbour) and number in (errno.ENOBUFS, errno.E2BIG) and text != ANSWER_LOST:
        family = "ipv4" if len(operation.neighbour.address) == 4 else "ipv6"
        return Told(number, neighbours_full(family), NEIGHBOURS_FULL)
    if isinstance(operation, CreateLink) and number == errno.EOPNOTSUPP and text in UNKNOWN_KIND:
        module = MODULES[type(operation.link)]
        words = f"this kernel cannot make {operation.link.name}: it lacks the module {module}; modprobe {module}"
        return Told(number, words + ", and have it loaded at boot (/etc/modules-load.d)", KERNEL_LACKS)
    return Told(number, otherwise or text or os.strerror(number))


def neighbours_full(family: str) -> str:
    """In words; `family` as in the names of settings."""
    limit = f"net.{family}.neigh.default.gc_thresh3"
    return (
        f"the kernel's neighbour table is full: {limit} is one limit for the whole machine, all its namespaces "
        f"together; raise it (and gc_thresh1 and gc_thresh2 below it): sysctl -w {limit}=65536"
    )


def failure(operation: Operation, error: OSError, *, is_foreign: bool = False) -> Failure:
    code = error.code if isinstance(error, Told) else REFUSED
    reason = error.strerror or str(error)
    return Failure(operation, error.errno or errno.EIO, reason, is_foreign, code)
