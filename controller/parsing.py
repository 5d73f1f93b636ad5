"""From the text of a request to the model, with every refusal pointing at the field and saying what would be right.

Pure. Knows the shape of one request and nothing of what else exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address, ip_interface

from controller.requests import SubnetRequest
from kvnet.errors import FieldError, Invalid
from kvnet.model import Address, Cidr, Driver, Subnet
from kvnet.rules import pointer_part, shown

MAX_TEXT = 64
MAX_SUBNETS = 8
MAX_RESERVED = 256
# Only a number: what reads as a netmask to one is a wildcard mask to another.
_PREFIX_LENGTH = re.compile(r"/(?:0|[1-9][0-9]{0,2})\Z")
# Of these kvnet has no gateway of its own: every block has one, or the physical network has.
WITHOUT_GATEWAY = (Driver.ROUTED, Driver.TRANSPARENT)


@contextmanager
def under(pointer: str) -> Iterator[None]:
    """Errors raised inside point below `pointer`."""
    try:
        yield
    except Invalid as error:
        moved = [FieldError(pointer + e.pointer, e.detail) for e in error.errors]
        raise Invalid(error.detail, fix=error.fix, errors=moved, context=error.context) from error


def parse_address(text: str, pointer: str) -> Address:
    try:
        if len(text) <= MAX_TEXT and "%" not in text:
            return ip_address(text)
    except ValueError:
        pass
    raise Invalid.field(pointer, f"{shown(text)} is not an IP address", "like 10.1.0.7 or fd00::7")


def parse_cidr(text: str, pointer: str) -> Cidr:
    """A network address with its prefix length; one with host bits is refused with the network it lies in."""
    try:
        if len(text) > MAX_TEXT or "%" in text or not _PREFIX_LENGTH.search(text):
            raise ValueError
        interface = ip_interface(text)
    except ValueError:
        raise Invalid.field(pointer, f"{shown(text)} is not a subnet", "like 10.1.0.0/24 or fd00:1::/64") from None
    network: Cidr = interface.network
    if interface.ip != network.network_address:
        raise Invalid.field(pointer, f"{text} has host bits set", f"the subnet it lies in is {network}")
    return network


def parse_driver(text: str) -> Driver:
    try:
        return Driver(text)
    except ValueError:
        known = ", ".join(driver.value for driver in Driver)
        raise Invalid.field("/driver", f"{shown(text)} is not a driver", f"one of {known}") from None


def parse_subnet(request: SubnetRequest, pointer: str, *, needs_gateway: bool = True) -> Subnet:
    """The subnet with a gateway: the wanted one, or, if it needs one, the first usable that no reservation has."""
    with under(pointer):
        cidr = parse_cidr(request.cidr, "/cidr")
        gateway = None if request.gateway is None else parse_address(request.gateway, "/gateway")
        reserved = parse_reserved(request.reserved, gateway)
        span = None if request.range is None else parse_cidr(request.range, "/range")
        subnet = Subnet(cidr, gateway, span, reserved)
        if gateway is None and needs_gateway:
            return replace(subnet, gateway=first_usable(cidr, reserved))
        return subnet


def parse_reserved(texts: Mapping[str, str], gateway: Address | None) -> dict[str, Address]:
    """Every address once, and none of them the gateway's."""
    if len(texts) > MAX_RESERVED:
        raise Invalid.field("/reserved", f"{len(texts)} reservations; at most {MAX_RESERVED} here")
    reserved = {name: _reserved(name, text) for name, text in texts.items()}
    _require_distinct(gateway, reserved)
    return reserved


def _reserved(name: str, text: str) -> Address:
    pointer = f"/reserved/{pointer_part(name)}"
    require_no_address(name, pointer)
    return parse_address(text, pointer)


def require_no_address(name: str, pointer: str) -> None:
    """Reservations are found by name or address; one must not be mistaken for another's."""
    with suppress(ValueError):
        ip_address(name)
        raise Invalid.field(pointer, f"{name!r} is an address, not a name", "a name with a letter in it")


def _require_distinct(gateway: Address | None, reserved: Mapping[str, Address]) -> None:
    seen: dict[Address, str] = {} if gateway is None else {gateway: "the gateway"}
    for name, address in reserved.items():
        if address in seen:
            raise Invalid.field(f"/reserved/{name}", f"{address} is {seen[address]} already")
        seen[address] = f"reserved for {name!r}"


def first_usable(cidr: Cidr, reserved: Mapping[str, Address]) -> Address:
    taken = set(reserved.values())
    last = cidr.num_addresses - (2 if cidr.version == 4 else 1)
    for offset in range(1, min(last, MAX_RESERVED + 1) + 1):
        if cidr[offset] not in taken:
            return cidr[offset]
    raise Invalid.field("/reserved", f"no address of {cidr} is left for the gateway", "choose a larger subnet")
