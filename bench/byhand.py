"""The networks that an administrator would make by hand, beside kvnet's in the same hosts: what kvnet is compared with.

The same MTU, the same offloads, the same kind of cable; static entries, no rules. Made with pyroute2, so that nothing
of the product's own code is on this side.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

from lab import namespaces

T = TypeVar("T")

BRIDGE, TUNNEL, VNI, PORT = "byhand0", "byhandx0", 77777, 4789
OVERLAY = IPv4Network("172.31.0.0/16")
LOCAL = IPv4Network("172.30.0.0/16")
ROUTED = IPv4Network("172.29.0.0/16")


def in_namespace(netns: Path, action: Callable[[Any], T]) -> T:
    def run() -> T:
        with IPRoute() as ip:
            return action(ip)

    # A thread of its own: the library runs an event loop, and here is one already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(namespaces.call, netns, run).result()


def bridge(host: Path, name: str, mtu: int, address: IPv4Interface | None = None) -> None:
    def make(ip: Any) -> None:
        ip.link("add", ifname=name, kind="bridge", mtu=mtu)
        index = ip.link_lookup(ifname=name)[0]
        ip.link("set", index=index, state="up")
        if address is not None:
            ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)

    in_namespace(host, make)


def tunnel(host: Path, bridge_name: str, local: str, remote: str, mtu: int) -> None:
    """To one other host; everything unknown goes there."""

    def make(ip: Any) -> None:
        master = ip.link_lookup(ifname=bridge_name)[0]
        ip.link(
            "add",
            ifname=TUNNEL,
            kind="vxlan",
            vxlan_id=VNI,
            vxlan_local=local,
            vxlan_group=remote,
            vxlan_port=PORT,
            mtu=mtu,
        )
        ip.link("set", index=ip.link_lookup(ifname=TUNNEL)[0], master=master, state="up")

    in_namespace(host, make)


def plug(host: Path, bridge_name: str, workload: Path, number: int, address: IPv4Interface, mtu: int) -> None:
    """A cable from the bridge into a workload's namespace."""
    outer, inner = f"byhandv{number}", f"hand{number}"

    def make(ip: Any) -> None:
        ip.link("add", ifname=outer, kind="veth", peer={"ifname": inner}, mtu=mtu)
        index = ip.link_lookup(ifname=inner)[0]
        with workload.open() as there:
            ip.link("set", index=index, net_ns_fd=there.fileno())
        ip.link("set", index=ip.link_lookup(ifname=outer)[0], master=ip.link_lookup(ifname=bridge_name)[0], state="up")

    in_namespace(host, make)
    in_namespace(workload, partial(_configure, inner, address, mtu))


def _configure(interface: str, address: IPv4Interface, mtu: int, ip: Any) -> None:
    index = ip.link_lookup(ifname=interface)[0]
    ip.link("set", index=index, mtu=mtu, state="up")
    ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def route(netns: Path, destination: IPv4Network, gateway: str) -> None:
    in_namespace(netns, lambda ip: ip.route("add", dst=str(destination), gateway=gateway))
