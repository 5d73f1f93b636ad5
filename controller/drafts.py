"""A network as it was asked for: parsed, judged, and still without what kvnet chooses (id, VNI, automatic subnets).

Pure. Also decides whether an existing network is the answer to a repeated request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from controller.parsing import MAX_SUBNETS, parse_driver, parse_subnet, shown
from controller.requests import NetworkRequest
from kvnet.errors import FieldError, Invalid, NotSupported
from kvnet.model import NETWORK_ID, Cidr, Driver, Network, Subnet, require_name

DEFAULT_POOLS = {4: "default", 6: "default6"}
DOCKER_OPTIONS = "com.docker.network."
POOL_FIELDS = {4: "pool", 6: "pool6"}
_PLACEHOLDERS: Mapping[int, Cidr] = {4: ip_network("10.0.0.0/24"), 6: ip_network("fd00::/64")}


@dataclass(frozen=True, slots=True)
class Draft:
    """`pools`: the pool of every family (4, 6) that a subnet is to be chosen for."""

    name: str
    driver: Driver
    subnets: tuple[Subnet, ...]
    pools: Mapping[int, str]
    prefix_length: int | None
    internal: bool
    mtu: int | None
    flood: bool
    options: Mapping[str, str]
    labels: Mapping[str, str]
    force: bool
    id: str | None

    def network(self, network_id: str, subnets: tuple[Subnet, ...], vni: int | None, created_at: float) -> Network:
        return Network(
            id=network_id,
            name=self.name,
            driver=self.driver,
            subnets=subnets,
            created_at=created_at,
            vni=vni,
            mtu=self.mtu,
            internal=self.internal,
            flood=self.flood,
            options=self.options,
            labels=self.labels,
        )

    def is_answered_by(self, network: Network) -> bool:
        """Whether the network is what this draft asks for: what was left open may be anything."""
        return (
            (network.name, network.driver, network.internal, network.mtu, network.flood)
            == (self.name, self.driver, self.internal, self.mtu, self.flood)
            and dict(network.options) == dict(self.options)
            and dict(network.labels) == dict(self.labels)
            and set(map(_shape, self.subnets)) <= set(map(_shape, network.subnets))
            and len(network.subnets) == len(self.subnets) + len(self.pools)
        )


def draft_of(request: NetworkRequest) -> Draft:
    """
    Raises:
        Invalid, NotSupported: at the first thing that is wrong with the request itself.
    """
    require_name(request.name, "/name")
    if NETWORK_ID.match(request.name):
        raise Invalid.field(
            "/name",
            f"{request.name!r} could be mistaken for a network's id",
            "not 12 hexadecimal digits",
        )
    if request.id is not None and not NETWORK_ID.match(request.id):
        raise Invalid.field("/id", "it is not a network id", "12 lower-case hexadecimal digits, or leave it out")
    if len(request.subnets) > MAX_SUBNETS:
        raise Invalid.field("/subnets", f"{len(request.subnets)} subnets; at most {MAX_SUBNETS}")
    driver = parse_driver(request.driver)
    _refuse_unknown_features(request)
    subnets = tuple(parse_subnet(s, f"/subnets/{i}") for i, s in enumerate(request.subnets))
    draft = Draft(
        name=request.name,
        driver=driver,
        subnets=subnets,
        pools=_pools(request, subnets),
        prefix_length=request.prefix_length,
        internal=request.internal,
        mtu=request.mtu,
        flood=request.flood,
        options=dict(request.options),
        labels=dict(request.labels),
        force=request.force,
        id=request.id,
    )
    draft.network("0" * 12, _with_placeholders(draft), None, 0.0)  # the model judges the rest
    return draft


def _refuse_unknown_features(request: NetworkRequest) -> None:
    """An option that changes what Docker's networks do must not be kept and ignored."""
    unknown = sorted(key for key in request.options if key.startswith(DOCKER_OPTIONS))
    if unknown:
        raise NotSupported(
            f"the option {shown(unknown[0])} is not built yet",
            fix="leave it out; labels keep what you want to note",
            errors=[FieldError("/options", f"{shown(key)} is not built yet") for key in unknown[:MAX_SUBNETS]],
        )


def _pools(request: NetworkRequest, subnets: tuple[Subnet, ...]) -> dict[int, str]:
    given = {s.cidr.version for s in subnets}
    if request.ipv6 is False and 6 in given:
        raise Invalid.field("/ipv6", "false, but an IPv6 subnet is given", "leave one of them out")
    wanted = {4, 6} if not given and request.ipv6 is not False else given or {4}
    if request.ipv6 is True:
        wanted = wanted | {6}
    named = {4: request.pool, 6: request.pool6}
    for family, name in named.items():
        if name is not None and (family in given or family not in wanted):
            why = "a subnet of that family is given" if family in given else "no subnet of that family is wanted"
            raise Invalid.field(f"/{POOL_FIELDS[family]}", f"there is nothing to choose from a pool: {why}")
    chosen = wanted - given
    if request.prefix_length is not None and 4 not in chosen:
        raise Invalid.field("/prefix_length", "no IPv4 subnet is to be chosen", "it is part of the CIDR you gave")
    return {family: named[family] or DEFAULT_POOLS[family] for family in sorted(chosen)}


def _with_placeholders(draft: Draft) -> tuple[Subnet, ...]:
    """The given subnets, or stand-ins of the wanted families: a chosen subnet cannot make a request invalid."""
    stand_ins = tuple(Subnet(_PLACEHOLDERS[family]) for family in draft.pools)
    if not draft.subnets:
        return stand_ins
    other = tuple(s for s in stand_ins if not any(s.cidr.overlaps(g.cidr) for g in draft.subnets))
    return (*draft.subnets, *other)


def _shape(subnet: Subnet) -> tuple[Cidr, object, object, frozenset[tuple[str, object]]]:
    return subnet.cidr, subnet.gateway, subnet.range, frozenset(subnet.reserved.items())
