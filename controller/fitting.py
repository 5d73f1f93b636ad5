"""Which features fit which driver, and each other: the rules of a network that no single field can know.

Pure; asked of a network that is about to be created or changed. What it lets pass can be built on a host.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.ipam.grid import DEFAULT_LENGTH
from kvnet.errors import FieldError, Invalid
from kvnet.model import Cidr, CrossSegment, Driver, Network, UplinkMode

# A block needs its first address, its gateway, an endpoint and, in IPv4, its last: /30 holds one endpoint.
LONGEST_BLOCK = {4: 30, 6: 126}
# A host's routes are counted by these; more than this many blocks would drown them.
MOST_BLOCK_BITS = 16
UPLINK = "/uplink"
ONLY_FOR: dict[str, tuple[Driver, ...]] = {
    "bridge_name": (Driver.BRIDGE, Driver.OVERLAY, Driver.ROUTED),
    "flood": (Driver.OVERLAY,),
    "uplink": (Driver.TRANSPARENT,),
    "shim": (Driver.TRANSPARENT,),
    "block_prefix_length": (Driver.ROUTED,),
    "block_prefix_length6": (Driver.ROUTED,),
}


def require_fitting(network: Network) -> None:
    """Raises: Invalid: every field that does not fit, with the reason."""
    errors = [FieldError(pointer, detail) for pointer, detail in _misfits(network)]
    if errors:
        is_missing = errors[0].pointer == UPLINK and not network.uplink
        fix = "name it as the uplink" if is_missing else "leave it out, or choose another driver"
        raise Invalid(errors[0].detail, fix=fix, errors=errors)


def _misfits(network: Network) -> Iterator[tuple[str, str]]:
    driver = network.driver
    for name, drivers in ONLY_FOR.items():
        if getattr(network, name) and driver not in drivers:
            fitting = " and ".join(d.value for d in drivers)
            yield f"/{name}", f"{name} is for {fitting} networks, not for {driver.value}"
    if network.uplink_mode is not UplinkMode.MACVLAN and driver is not Driver.TRANSPARENT:
        yield "/uplink_mode", f"uplink_mode is for transparent networks, not for {driver.value}"
    if network.cross_segment is not CrossSegment.REFUSE and driver is not Driver.ROUTED:
        yield "/cross_segment", f"cross_segment is for routed networks, not for {driver.value}"
    if network.host_binding is not None and (network.internal or driver is Driver.TRANSPARENT):
        yield "/host_binding", "no ports are published here: " + _why_no_ports(network)
    if driver is Driver.TRANSPARENT:
        yield from _transparent(network)
    elif driver is Driver.ROUTED:
        yield from _routed(network)


def _why_no_ports(network: Network) -> str:
    if network.internal:
        return "nothing of an internal network can be reached from outside"
    return "the endpoints of a transparent network have addresses of the physical one"


def _transparent(network: Network) -> Iterator[tuple[str, str]]:
    if not network.uplink:
        yield UPLINK, "a transparent network needs the host's link that it is on, like eth0"
    if network.internal:
        yield "/internal", "a transparent network is the physical one: kvnet cannot close its way out"
    if not network.masquerade:
        yield "/masquerade", "a transparent network never masquerades: its endpoints are on the physical network"
    if network.uplink_mode is UplinkMode.MACVLAN and not network.icc:
        yield "/icc", "the kernel cannot keep macvlans of one uplink apart; uplink_mode 'bridge' can"
    if network.uplink_mode is UplinkMode.BRIDGE and network.shim:
        yield "/shim", "a bridged uplink reaches the host as it is; the shim is for macvlan"


def _routed(network: Network) -> Iterator[tuple[str, str]]:
    for i, subnet in enumerate(network.subnets):
        if subnet.gateway is not None:
            yield f"/subnets/{i}/gateway", "every block of a routed network has its own gateway: its second address"
    for name, version in (("block_prefix_length", 4), ("block_prefix_length6", 6)):
        length = getattr(network, name)
        blocks = [subnet.cidr for subnet in network.subnets if subnet.cidr.version == version]
        if length is not None and length != DEFAULT_LENGTH[version]:  # by default a small subnet is one block
            yield from ((f"/{name}", reason) for reason in _unfit_length(length, version, blocks))


def _unfit_length(length: int, version: int, subnets: list[Cidr]) -> Iterator[str]:
    if not 1 <= length <= LONGEST_BLOCK[version]:
        yield f"a block of /{length} has no room for a gateway and an endpoint; at most /{LONGEST_BLOCK[version]}"
        return
    for cidr in subnets:
        if length < cidr.prefixlen:
            yield f"a block of /{length} does not fit into {cidr}"
        elif version == 4 and length - cidr.prefixlen > MOST_BLOCK_BITS:
            number = f"2^{length - cidr.prefixlen}"
            yield f"{cidr} would be cut into {number} blocks of /{length}; at most 2^{MOST_BLOCK_BITS}"
