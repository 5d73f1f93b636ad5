"""Device names: what an object of ours is called, whose a device is, and what MAC a host has in a network.

A name is a pure function of an id, so that any worker finds its devices again after a restart without a record of
them. Never longer than the kernel's 15 characters.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from datapath.objects import (
    BRIDGE_MAC_PREFIX,
    BRIDGE_PREFIX,
    HANDED_PREFIX,
    MACVLAN_PREFIX,
    SHIM_PREFIX,
    VETH_PREFIX,
    VXLAN_PREFIX,
    Mac,
)
from kvnet.model import Network

DNS_BRIDGE = "kvdns"  # port-less: it only bears the address at which names are answered
DNS_MAC: Mac = BRIDGE_MAC_PREFIX + b"\x00\x00\x00\x35"
# The bridges that Docker makes by itself, and what it calls those of its users.
_OF_DOCKER = re.compile(r"(docker0|docker_gwbridge|br-[0-9a-f]{12})\Z")
_ID_LENGTH = 12
_CACHED_NAMES = 4096  # one per endpoint that a host carries; a bridge has at most 1,023 ports


def bridge_name(network_id: str) -> str:
    return BRIDGE_PREFIX + network_id


def bridge_of(network: Network) -> str:
    """The network's bridge, under the name that it asks for or its own."""
    return network.bridge_name or bridge_name(network.id)


def is_of_docker(device: str) -> bool:
    """Whether a bridge of this name is one of Docker's own, as far as names tell it."""
    return _OF_DOCKER.match(device) is not None


def shim_name(network_id: str) -> str:
    return SHIM_PREFIX + network_id


def vxlan_name(network_id: str) -> str:
    return VXLAN_PREFIX + network_id


@lru_cache(maxsize=_CACHED_NAMES)
def veth_name(endpoint_id: str) -> str:
    """The host's half. Endpoint ids are chosen by clients, so the name is a hash: 48 bits, plenty for one host."""
    digest = hashlib.sha256(b"kvnet-endpoint:" + endpoint_id.encode()).hexdigest()
    return VETH_PREFIX + digest[:_ID_LENGTH]


@lru_cache(maxsize=_CACHED_NAMES)
def macvlan_name(endpoint_id: str) -> str:
    """What an endpoint's macvlan is called in a state; as `veth_name`."""
    return MACVLAN_PREFIX + veth_name(endpoint_id)[len(VETH_PREFIX) :]


@lru_cache(maxsize=_CACHED_NAMES)
def handed_name(endpoint_id: str) -> str:
    """What an endpoint's interface is called on the host, before its runtime moves it into the workload and after."""
    return HANDED_PREFIX + veth_name(endpoint_id)[len(VETH_PREFIX) :]


@lru_cache(maxsize=_CACHED_NAMES)
def host_mac(network_id: str, host: str) -> Mac:
    """The host's own MAC in a network, where hosts must differ: on a routed tunnel, a shim, a bridge with an uplink.

    Every other host can say it too, so that no record of it is needed.
    """
    return BRIDGE_MAC_PREFIX + hashlib.sha256(f"kvnet-host:{network_id}:{host}".encode()).digest()[:4]


def network_of_device(name: str) -> str | None:
    """The network of a bridge, tunnel or shim by its name alone; None for others, and for bridges that got a name."""
    if name.startswith((BRIDGE_PREFIX, VXLAN_PREFIX, SHIM_PREFIX)) and len(name) == len(BRIDGE_PREFIX) + _ID_LENGTH:
        return name[len(BRIDGE_PREFIX) :]
    return None
