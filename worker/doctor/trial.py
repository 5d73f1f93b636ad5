"""Tries what kvnet needs of the kernel, in a network namespace that ends with this process: nothing is left.

A process of its own, started by `gather_kernel`: so nothing that is tried here can meet the host's own network, and as
an ordinary user a user namespace comes first, where the kernel allows one. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import sys
from pathlib import Path

from datapath.objects import (
    NO_FIREWALL,
    Bridge,
    ContainerSide,
    CreateLink,
    Operation,
    SetFirewall,
    Shim,
    Veth,
    Vxlan,
)
from kvnet.errors import KvnetError
from worker.kernel.conntrack import dump_flows
from worker.kernel.linux import LinuxKernel
from worker.kernel.namespaces import CLONE_NEWNET
from worker.kernel.netlink import NETLINK_NETFILTER, Netlink

CLONE_NEWUSER = 0x10000000
MAC = bytes.fromhex("026b00000001")
BRIDGE = Bridge("kvbtrial", MAC, 1450, True)
Found = dict[str, tuple[bool | None, str]]

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> str:
    """Into a new network namespace. Returns why not; "" = in it."""
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWNET) == 0:
        return ""
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return os.strerror(ctypes.get_errno())
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return ""


async def tried(found: Found) -> None:
    """As a worker does it: with the same operations on the same kernel code."""
    try:
        kernel = await LinuxKernel.open()
    except KvnetError as error:
        found["nf_tables"] = (None, error.detail)
        return
    side = ContainerSide("/proc/self/ns/net", "trial0", bytes.fromhex("026b00000002"), 1450, (), ())
    operations: dict[str, Operation] = {
        "bridge": CreateLink(BRIDGE),
        "vxlan": CreateLink(Vxlan("kvxtrial", 7, bytes([192, 0, 2, 1]), 1450, BRIDGE.name)),
        "veth": CreateLink(Veth("kvetrial", 1450, BRIDGE.name), side),
        "macvlan": CreateLink(Shim("kvstrial", "trial0", bytes.fromhex("026b00000003"), 1450)),
        "nf_tables": SetFirewall(NO_FIREWALL),
    }
    async with kernel:
        for name, operation in operations.items():
            failures = await kernel.apply([operation])
            found[name] = (not failures, failures[0].reason if failures else "")
    if not found["bridge"][0]:
        for name in ("vxlan", "veth", "macvlan"):
            found[name] = (None, "there is no bridge to try it with")
    elif not found["veth"][0]:
        found["macvlan"] = (None, "there is no veth to try it with")
    # The tunnel's port is set so in the same operation; the bridge's table comes with the other one.
    found["neigh_suppress"] = found["vxlan"]
    found["nf_tables_bridge"] = found["nf_tables"]


def conntrack() -> tuple[bool | None, str]:
    """Asking for all flows is what cutting some of them begins with."""
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        list(netlink.dump(dump_flows(socket.AF_INET)))
    except OSError as error:
        return False, f"its table cannot be asked for: {error.strerror or error}"
    finally:
        netlink.close()
    return True, ""


def main() -> None:
    found: Found = {}
    refusal = enter()
    found["netns"] = (False, f"a network namespace cannot be made: {refusal}") if refusal else (True, "")
    if not refusal:
        asyncio.run(tried(found))
        found["conntrack"] = conntrack()
    elif os.geteuid():
        found = {"netns": (None, f"as this user no namespace can be made: {refusal}")}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
