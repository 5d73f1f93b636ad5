"""Docker's flat list of --subnet, --gateway, --ip-range and --aux-address as subnets with parts. Pure.

A part belongs to the subnet that contains it. Whether the addresses are good ones is the controller's to judge; only
what fits no subnet is refused here, since it could not be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from kvnet.errors import Invalid
from kvnet.wire import SubnetBody


@dataclass(frozen=True, slots=True)
class SubnetOptions:
    subnets: Sequence[str]
    gateways: Sequence[str]
    ranges: Sequence[str]
    reserved: Mapping[str, str]


def arranged(asked: SubnetOptions) -> list[SubnetBody]:
    """
    Raises:
        Invalid: a part lies in no subnet, or a subnet has two gateways or ranges.
    """
    bodies: list[SubnetBody] = [{"cidr": cidr} for cidr in asked.subnets]
    for gateway in asked.gateways:
        body = _home(gateway, bodies, "--gateway")
        _once(body.get("gateway"), gateway, body, "--gateway")
        body["gateway"] = gateway
    for part in asked.ranges:
        body = _home(part, bodies, "--ip-range")
        _once(body.get("range"), part, body, "--ip-range")
        body["range"] = part
    for name, address in asked.reserved.items():
        body = _home(address, bodies, "--aux-address")
        body["reserved"] = {**body.get("reserved", {}), name: address}
    return bodies


def _home(part: str, bodies: Sequence[SubnetBody], option: str) -> SubnetBody:
    """The subnet a part belongs to: the one that contains it, or else the only one there is."""
    if len(bodies) == 1:
        return bodies[0]
    wanted = _block(part)
    for body in bodies:
        block = _block(body["cidr"])
        if wanted and block and wanted.version == block.version and wanted.network_address in block:
            return body
    given = ", ".join(body["cidr"] for body in bodies) or "none was given"
    raise Invalid(f"{option} {part} lies in no --subnet ({given})", fix=f"give the --subnet that {part} belongs to")


def _block(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _once(before: str | None, now: str, body: SubnetBody, option: str) -> None:
    if before is not None and before != now:
        raise Invalid(f"{option} {now}: {body['cidr']} has {before} already", fix=f"give {option} once per subnet")
