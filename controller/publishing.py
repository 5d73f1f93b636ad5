"""What an endpoint asks to publish, from text to single wishes: ranges laid out, every refusal with its reason.

Pure. Knows the network it is for and nothing of what is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from controller.ipam.ports import Wish
from controller.parsing import parse_address, under
from controller.requests import PortRequest
from kvnet.errors import FieldError, Invalid, NotSupported
from kvnet.model import Address, Driver, Network
from kvnet.rules import MAX_PORTS


def wishes_of(requests: Sequence[PortRequest]) -> tuple[Wish, ...]:
    """
    Raises:
        Invalid: points at the port that is wrong.
    """
    wishes: list[Wish] = []
    for i, request in enumerate(requests):
        with under(f"/ports/{i}"):
            wishes.extend(_laid_out(request))
        if len(wishes) > MAX_PORTS:
            raise Invalid.field("/ports", f"more than {MAX_PORTS} ports are published", f"at most {MAX_PORTS} each")
    _require_distinct(wishes)
    return tuple(wishes)


def _laid_out(request: PortRequest) -> Iterator[Wish]:
    if request.protocol not in ("tcp", "udp"):
        raise Invalid.field("/protocol", f"{request.protocol!r} is not a protocol", "tcp or udp")
    first, last = _span(request.port, request.port_end, "port")
    address = None if request.host_address is None else _host_address(request.host_address)
    if request.host_port is None:
        if request.host_port_end is not None:
            raise Invalid.field("/host_port_end", "there is no host_port that it could end", "give both, or none")
        yield from (Wish(port, request.protocol, address=address) for port in _bounded(first, last))
        return
    low, high = _span(request.host_port, request.host_port_end, "host_port")
    if request.port_end is None:
        yield Wish(first, request.protocol, low, high, address)
        return
    if request.host_port_end is not None and high - low != last - first:
        raise Invalid.field(
            "/host_port_end",
            f"{last - first + 1} ports cannot be published on {high - low + 1} host ports one to one",
            f"{low + last - first}",
        )
    if low + last - first > 65535:
        raise Invalid.field("/host_port", f"from {low} on there are not {last - first + 1} ports", "a lower one")
    yield from (Wish(p, request.protocol, low + p - first, low + p - first, address) for p in _bounded(first, last))


def _bounded(first: int, last: int) -> range:
    return range(first, min(last, first + MAX_PORTS) + 1)


def _span(first: int, last: int | None, field: str) -> tuple[int, int]:
    end = first if last is None else last
    if not 1 <= first <= 65535:
        raise Invalid.field(f"/{field}", f"{first} is not a port", "1 to 65535")
    if not first <= end <= 65535:
        raise Invalid.field(f"/{field}_end", f"{end} does not end a range that begins at {first}", f"{first} to 65535")
    return first, end


def _host_address(text: str) -> Address:
    address = parse_address(text, "/host_address")
    if address.is_multicast or (address.is_link_local and address.version == 6):
        raise Invalid.field("/host_address", f"no port can be published on {address}", "an address of the host")
    if address.version == 6 and address.is_loopback:
        detail = f"the kernel leads nothing from {address} to a workload, so no port can be published there"
        raise Invalid.field("/host_address", detail, "127.0.0.1, or another address of the host")
    return address


def _require_distinct(wishes: Sequence[Wish]) -> None:
    seen: set[Wish] = set()
    for wish in wishes:
        if wish.is_fixed and wish in seen:
            raise Invalid.field("/ports", f"{wish.port}/{wish.protocol} on host port {wish.low} is there twice")
        seen.add(wish)


def bound(wishes: tuple[Wish, ...], network: Network, families: Collection[int]) -> tuple[Wish, ...]:
    """The wishes as this network has them: what says nothing of an address is where the network binds its ports.

    Raises:
        Invalid, NotSupported: this network publishes nothing, or not there.
    """
    _require_publishing(network)
    default = network.host_binding
    given = tuple(
        Wish(w.port, w.protocol, w.low, w.high, default) if w.address is None and default is not None else w
        for w in wishes
    )
    for i, (wish, asked) in enumerate(zip(given, wishes, strict=True)):
        address = wish.address
        if address is not None and address.version not in families:
            whose = f"host_binding {address} of the network" if asked.address is None else f"{address}"
            raise Invalid.field(
                f"/ports/{i}/host_address" if asked.address is not None else "/ports",
                f"{whose} is IPv{address.version}, and endpoints of network {network.name} have no such address",
                f"an IPv{10 - address.version} address of the host, or none for all of them",
            )
    return given


def _require_publishing(network: Network) -> None:
    if network.internal:
        raise Invalid(
            f"network {network.name} is internal: nothing outside of it reaches its endpoints, so no port is published",
            fix="leave the ports out, or attach the workload to a second network that is not internal",
            errors=[FieldError("/ports", "the network is internal")],
        )
    if network.driver is Driver.TRANSPARENT:
        raise NotSupported(
            f"network {network.name} is transparent: its endpoints have addresses of the physical network, "
            "so every port of theirs is reached there and the host has no part in it",
            fix="leave the ports out, and use the endpoint's own address",
            errors=[FieldError("/ports", "the network is transparent")],
        )
