"""A network as it was asked for: parsed, judged, and still without what kvnet chooses (id, VNI, automatic subnets).

Pure. Also decides whether an existing network is the answer to a repeated request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_network
from typing import Any

from controller.docker_options import fields_of, option_of, option_pointer
from controller.fitting import require_fitting
from controller.ipam.grid import DEFAULT_LENGTH
from controller.parsing import MAX_SUBNETS, WITHOUT_GATEWAY, parse_address, parse_driver, parse_subnet
from controller.requests import Features, NetworkRequest
from kvnet.errors import Invalid
from kvnet.model import Cidr, CrossSegment, DockerFields, Driver, Network, NetworkState, Subnet, UplinkMode
from kvnet.rules import MAX_LABELS, NETWORK_ID, fitting_labels, require_name, shown

DEFAULT_POOLS = {4: "default", 6: "default6"}
ROUTED_PREFIX_LENGTH = 20  # of an automatic subnet that is cut into blocks: 64 of /26, for as many hosts
PLACEHOLDER = "docker-"  # and the id: the name of a network whose name is still to come
RESERVED_NAMES = frozenset({"prune"})  # what stands in a path where a network's name may
POOL_FIELDS = {4: "pool", 6: "pool6"}
_PLACEHOLDERS: Mapping[int, Cidr] = {4: ip_network("16.0.0.0/24"), 6: ip_network("fd00::/64")}


@dataclass(frozen=True, slots=True)
class Draft:
    """`pools`: the pool of every family (4, 6) that a subnet is to be chosen for. `holds`: whose subnets it gets."""

    name: str
    driver: Driver
    subnets: tuple[Subnet, ...]
    pools: Mapping[int, str]
    prefix_length: int | None
    internal: bool
    flood: bool
    options: Mapping[str, str]
    labels: Mapping[str, str]
    force: bool
    id: str | None
    features: Mapping[str, Any]
    holds: tuple[str, ...] = ()
    state: NetworkState = NetworkState.ACTIVE
    docker: DockerFields | None = None

    @property
    def has_vni(self) -> bool:
        is_tunnelled = self.features.get("cross_segment") is CrossSegment.TUNNEL
        return self.driver is Driver.OVERLAY or (self.driver is Driver.ROUTED and is_tunnelled)

    def network(self, network_id: str, subnets: tuple[Subnet, ...], vni: int | None, created_at: float) -> Network:
        made = Network(
            id=network_id,
            name=self.name,
            driver=self.driver,
            subnets=subnets,
            created_at=created_at,
            vni=vni,
            internal=self.internal,
            flood=self.flood,
            options=self.options,
            labels=self.labels,
            state=self.state,
            docker=self.docker,
            **self.features,
        )
        return _with_block_lengths(made) if self.driver is Driver.ROUTED else made

    def is_answered_by(self, network: Network) -> bool:
        """Whether the network is what this draft asks for: what was left open may be anything."""
        return (
            (network.driver, network.internal, network.flood) == (self.driver, self.internal, self.flood)
            and self._is_called(network)
            and all(getattr(network, name) == self.features.get(name, default) for name, default in _COMPARED.items())
            and all(getattr(network, name) == value for name, value in self.features.items())
            and dict(network.options) == dict(self.options)
            and set(map(_shape, self.subnets)) <= set(map(_shape, network.subnets))
            and len(network.subnets) == len(self.subnets) + len(self.pools)
        )

    def _is_called(self, network: Network) -> bool:
        """What being named changes may have changed since."""
        if self.state is NetworkState.NAMING and network.state is NetworkState.ACTIVE:
            return True
        asked = (self.name, self.state, dict(self.labels), self.docker)
        return asked == (network.name, network.state, dict(network.labels), network.docker)


def identified(request: NetworkRequest, fresh_id: str) -> NetworkRequest:
    """The request with its id: the client's, its first hold's or the fresh one; and with what stands for a name.

    Raises:
        Invalid
    """
    if len(request.holds) > MAX_SUBNETS or len(set(request.holds)) < len(request.holds):
        raise Invalid.field("/holds", "too many holds, or one twice", f"at most {MAX_SUBNETS}, each once")
    for i, hold in enumerate(request.holds):
        if not NETWORK_ID.match(hold):
            raise Invalid.field(f"/holds/{i}", f"{shown(hold)} is not the id of a hold", "as POST /v1/holds gave it")
    first = request.holds[0] if request.holds else None
    if first is not None and request.id not in (None, first):
        raise Invalid.field("/id", f"the network's id is that of its first hold, {first}", "leave it out")
    network_id = request.id or first or fresh_id
    if not request.naming:
        return replace(request, id=network_id)
    placeholder = PLACEHOLDER + network_id
    if request.name not in ("", placeholder):
        raise Invalid.field("/name", "the name of this network is still to come", "leave out the name, or 'naming'")
    return replace(request, id=network_id, name=placeholder)


def labels_beside(docker: DockerFields | None, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels, and those of Docker's that may be labels here; its own are kept word for word elsewhere."""
    others = {k: v for k, v in docker.labels.items() if k not in labels} if docker is not None else {}
    return {**fitting_labels(others, MAX_LABELS - len(labels)), **labels}


def require_network_name(name: str) -> None:
    """Raises: Invalid."""
    require_name(name, "/name")
    if NETWORK_ID.match(name):
        raise Invalid.field("/name", f"{name!r} could be mistaken for a network's id", "not 12 hexadecimal digits")
    if name in RESERVED_NAMES:
        raise Invalid.field("/name", f"{name!r} is a word of the API: /v1/networks/{name}", "any other name")


def draft_of(request: NetworkRequest) -> Draft:
    """
    Raises:
        Invalid, NotSupported: at the first thing that is wrong with the request itself.
    """
    require_network_name(request.name)
    if request.id is not None and not NETWORK_ID.match(request.id):
        raise Invalid.field("/id", "it is not a network id", "12 lower-case hexadecimal digits, or leave it out")
    if len(request.subnets) > MAX_SUBNETS:
        raise Invalid.field("/subnets", f"{len(request.subnets)} subnets; at most {MAX_SUBNETS}")
    driver = parse_driver(request.driver)
    needs_gateway = driver not in WITHOUT_GATEWAY
    subnets = tuple(
        parse_subnet(s, f"/subnets/{i}", needs_gateway=needs_gateway) for i, s in enumerate(request.subnets)
    )
    if driver is Driver.TRANSPARENT and not subnets:
        raise Invalid.field(
            "/subnets", "a transparent network has the subnets of the physical one", "give them, with 'range'"
        )
    draft = Draft(
        name=request.name,
        driver=driver,
        subnets=subnets,
        pools=_pools(request, subnets),
        prefix_length=request.prefix_length,
        internal=request.internal,
        flood=request.flood,
        options=dict(request.options),
        labels=labels_beside(request.docker, request.labels),
        force=request.force,
        id=request.id,
        features=features_of(request, driver),
        holds=request.holds,
        state=NetworkState.NAMING if request.naming else NetworkState.ACTIVE,
        docker=request.docker,
    )
    require_fitting(draft.network("0" * 12, _with_placeholders(draft), None, 0.0))  # the model judges the rest
    return draft


def features_of(request: NetworkRequest, driver: Driver) -> dict[str, Any]:
    """What was said, as fields of the model: by the fields themselves, or by Docker's options.

    Raises:
        Invalid, NotSupported: it cannot be read, or the two contradict each other.
    """
    said = parsed_features(request.features)
    if request.mtu is not None:
        said["mtu"] = request.mtu
    by_option = fields_of(request.options, driver)
    for name in sorted(said.keys() & by_option.keys()):
        if said[name] != by_option[name]:
            option = option_of(name, request.options, driver) or name
            detail = f"it says {by_option[name]}, and {name} says {said[name]}"
            raise Invalid.field(option_pointer(option), detail, "leave one of them out")
    return {**by_option, **said}


def parsed_features(asked: Features) -> dict[str, Any]:
    """Raises: Invalid."""
    said = {f.name: value for f in fields(asked) if (value := getattr(asked, f.name)) is not None}
    if "host_binding" in said:
        said["host_binding"] = parse_address(said["host_binding"], "/host_binding")
    for name, kind in (("uplink_mode", UplinkMode), ("cross_segment", CrossSegment)):
        if name in said:
            known = [member.value for member in kind]
            if said[name] not in known:
                raise Invalid.field(f"/{name}", f"{shown(said[name])} is not known", f"one of {', '.join(known)}")
            said[name] = kind(said[name])
    return said


# What a network has if nothing was said; of the others a routed network's block sizes may be anything.
_COMPARED = {
    f.name: f.default
    for f in fields(Network)
    if f.name in {"mtu", *(x.name for x in fields(Features))} and not f.name.startswith("block_")
}


def _with_block_lengths(network: Network) -> Network:
    """The sizes of its blocks never change, so they are written down, whatever the default will be."""
    families = {subnet.cidr.version for subnet in network.subnets}
    return replace(
        network,
        block_prefix_length=network.block_prefix_length or (DEFAULT_LENGTH[4] if 4 in families else None),
        block_prefix_length6=network.block_prefix_length6 or (DEFAULT_LENGTH[6] if 6 in families else None),
    )


def _pools(request: NetworkRequest, subnets: tuple[Subnet, ...]) -> dict[int, str]:
    given = {s.cidr.version for s in subnets}
    if request.ipv6 is False and 6 in given:
        raise Invalid.field("/ipv6", "false, but an IPv6 subnet is given", "leave one of them out")
    # Plain routes over an IPv4 underlay carry no IPv6: whoever wants that in a routed network asks for it.
    is_dual = not given and request.ipv6 is not False and request.driver != Driver.ROUTED
    wanted = {4, 6} if is_dual else given or {4}
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
    stand_ins = tuple(Subnet(_placeholder(draft, family)) for family in draft.pools)
    if not draft.subnets:
        return stand_ins
    other = tuple(s for s in stand_ins if not any(s.cidr.overlaps(g.cidr) for g in draft.subnets))
    return (*draft.subnets, *other)


def _placeholder(draft: Draft, family: int) -> Cidr:
    """As long as the one that will be chosen, as far as that is known: blocks have to fit into it."""
    length = draft.prefix_length or (ROUTED_PREFIX_LENGTH if draft.driver is Driver.ROUTED else None)
    cidr = _PLACEHOLDERS[family]
    return ip_network(f"{cidr.network_address}/{length}") if family == 4 and length and 8 <= length <= 30 else cidr


def _shape(subnet: Subnet) -> tuple[Cidr, object, object, frozenset[tuple[str, object]]]:
    return subnet.cidr, subnet.gateway, subnet.range, frozenset(subnet.reserved.items())
