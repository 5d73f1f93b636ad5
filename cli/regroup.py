"""Which subnets a network is to have, from what is to change about those it has. Pure.

The API takes the whole list, so that two who change it at once see each other (by the version); people say what is to
be different. Whether the blocks are good ones is the controller's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from kvnet.addresses import lies_in
from kvnet.errors import Invalid
from kvnet.wire import Network, Subnet, SubnetPatchBody

Block = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Regrouping:
    """`grow`: the new, larger blocks. `ranges` and `reserve` go to the subnets that contain them."""

    add: Sequence[str] = ()
    add_from: Sequence[str] = ()
    grow: Sequence[str] = ()
    remove: Sequence[str] = ()
    ranges: Sequence[str] = ()
    reserve: Mapping[str, str] = field(default_factory=dict)
    unreserve: Sequence[str] = ()

    def __bool__(self) -> bool:
        parts = (self.add, self.add_from, self.grow, self.remove, self.ranges, self.reserve, self.unreserve)
        return any(parts)


def regrouped(network: Network, asked: Regrouping) -> list[SubnetPatchBody]:
    """All subnets that the network is to have; of one that stays the same only the cidr.

    Raises:
        Invalid: what is to change is not there.
    """
    name = network["name"]
    kept = list(network["subnets"])
    gone = [_taken(cidr, kept, name) for cidr in asked.remove]
    bodies: list[SubnetPatchBody] = [{"cidr": subnet["cidr"]} for subnet in kept]
    for cidr in asked.grow:
        _grow(bodies, cidr, name)
    bodies += [{"cidr": cidr} for cidr in asked.add if not any(_is_same(cidr, b["cidr"]) for b in bodies)]
    for part in asked.ranges:
        body = _body_of(part, bodies, name, "--ip-range")
        body["range"] = None if _is_same(part, body["cidr"]) else part
    _reserve(bodies, kept, gone, asked, name)
    return bodies + [{"pool": pool} for pool in asked.add_from]


def _grow(bodies: list[SubnetPatchBody], cidr: str, name: str) -> None:
    """The larger block takes the place of what it contains; of several the controller says that they cannot join."""
    wanted = _block(cidr)
    if wanted is None:
        raise Invalid(f"--grow-subnet {cidr} is no block of addresses", fix="like 10.1.0.0/23, without host bits")
    inside = [b for b in bodies if _contains(wanted, b["cidr"])]
    if not inside:
        have = ", ".join(b["cidr"] for b in bodies)
        fix = f"a block around one of them, like {_twice(bodies[0]['cidr'])}" if bodies else ""
        raise Invalid(f"--grow-subnet {cidr} contains no subnet of network {name} ({have})", fix=fix)
    place = bodies.index(inside[0])
    for body in inside:
        bodies.remove(body)
    bodies.insert(place, {"cidr": cidr})


def _reserve(
    bodies: Sequence[SubnetPatchBody], kept: Sequence[Subnet], gone: Sequence[Subnet], asked: Regrouping, name: str
) -> None:
    """A subnet that goes takes its reservations along, also those that are to be released."""
    had = {b["cidr"]: dict(_reserved_before(b, kept)) for b in bodies}
    now = {cidr: dict(reserved) for cidr, reserved in had.items()}
    for one in asked.unreserve:
        homes = [reserved for reserved in now.values() if one in reserved]
        if not homes and not any(one in subnet["reserved"] for subnet in gone):
            fix = f"'kvnet network inspect {name}' shows them; others are released with 'kvnet ipam release'"
            raise Invalid(f"--unreserve {one}: network {name} has no reserved address of that name", fix=fix)
        for reserved in homes:
            del reserved[one]
    for one, address in asked.reserve.items():
        now[_body_of(address, bodies, name, "--reserve")["cidr"]][one] = address
    for body in bodies:
        if now[body["cidr"]] != had[body["cidr"]]:
            body["reserved"] = now[body["cidr"]]


def _reserved_before(body: SubnetPatchBody, kept: Sequence[Subnet]) -> Mapping[str, str]:
    block = _block(body["cidr"])
    return next((s["reserved"] for s in kept if block is not None and _contains(block, s["cidr"])), {})


def _taken(cidr: str, subnets: list[Subnet], name: str) -> Subnet:
    """Out of `subnets`."""
    for i, subnet in enumerate(subnets):
        if _is_same(cidr, subnet["cidr"]):
            return subnets.pop(i)
    have = ", ".join(subnet["cidr"] for subnet in subnets)
    raise Invalid(f"--remove-subnet {cidr}: network {name} has no such subnet", fix=f"it has {have}" if have else "")


def _body_of(part: str, bodies: Sequence[SubnetPatchBody], name: str, option: str) -> SubnetPatchBody:
    """The subnet that an address or a range lies in."""
    for body in bodies:
        block = _block(body["cidr"])
        if block is not None and _contains(block, part):
            return body
    have = ", ".join(body["cidr"] for body in bodies)
    raise Invalid(f"{option} {part} lies in no subnet of network {name} ({have})", fix="give one that does")


def _contains(block: Block, text: str) -> bool:
    other = _block(text)
    return other is not None and lies_in(other, block)


def _is_same(one: str, other: str) -> bool:
    block = _block(one)
    return block is not None and block == _block(other)


def _twice(cidr: str) -> str:
    block = _block(cidr)
    return str(block.supernet()) if block is not None and block.prefixlen else cidr


def _block(text: str) -> Block | None:
    try:
        return ip_network(text)
    except ValueError:
        return None
