"""What a living network becomes by a patch: the pure part, which `kvnet plan` asks too.

A patch is a JSON merge patch (RFC 7396): what is not named stays, null is the default again. Changes only what hosts
can take over without touching running endpoints; all else is refused, every field with its reason. A Docker option and
the field that it stands for change together. Knows nothing of who has which address: that is for `updates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_network
from typing import Any

from controller.docker_options import fields_of, known_options, option_of, option_pointer, option_text
from controller.fitting import require_fitting
from controller.parsing import (
    MAX_SUBNETS,
    WITHOUT_GATEWAY,
    parse_address,
    parse_cidr,
    parse_reserved,
    parse_subnet,
    under,
)
from controller.requests import SubnetRequest
from kvnet import codec
from kvnet.addresses import lies_in
from kvnet.errors import FieldError, Immutable, Invalid
from kvnet.model import Cidr, Driver, Network, Subnet
from kvnet.rules import pointer_part

CHANGEABLE = ("mtu", "flood", "icc", "masquerade", "interface_prefix", "host_binding")
IMMUTABLE: Mapping[str, str] = {
    "id": "it is what everything of the network is stored under",
    "name": "workloads and scripts find the network by it",
    "driver": "the endpoints that run would have to be built anew",
    "internal": "endpoints that run would get or lose their way out",
    "vni": "hosts would not understand each other until the last one has it",
    "bridge_name": "the bridge carries endpoints on every host",
    "uplink": "the endpoints' interfaces are on it",
    "uplink_mode": "the endpoints' interfaces would have to be built anew",
    "shim": "the endpoints have routes that depend on it",
    "block_prefix_length": "hosts have blocks of this size already",
    "block_prefix_length6": "hosts have blocks of this size already",
    "cross_segment": "hosts take part by this rule already",
    "docker": "it is what Docker made the network with",
    "peers": "POST and DELETE /v1/networks/{network}/peers/{peer} change it",
}
_DEFAULTS = {f.name: f.default for f in fields(Network)}


@dataclass(frozen=True, slots=True)
class SubnetPatch:
    """A subnet as it is to be. `given`: what was said of gateway, range and reserved; the rest stays as it is.

    `cidr` None: a new one, cut from `pool` (before `changed` is asked).
    """

    cidr: str | None
    given: Mapping[str, Any] = field(default_factory=dict)
    pool: str | None = None
    prefix_length: int | None = None


@dataclass(frozen=True, slots=True)
class NetworkPatch:
    """`given`: the members of the patch, as plain JSON. `subnets`: all that the network is to have; None = as it is."""

    given: Mapping[str, Any] = field(default_factory=dict)
    subnets: tuple[SubnetPatch, ...] | None = None
    force: bool = False


def changed(network: Network, patch: NetworkPatch) -> Network:
    """The network as the patch makes it; the very same one if it has nothing new.

    Raises:
        Immutable: names every field that cannot change, and why.
        Invalid, NotSupported: what it would become is no network.
    """
    refused = list(_immutable(network, patch.given))
    wanted = {name: _parsed(name, patch.given[name]) for name in CHANGEABLE if name in patch.given}
    options = _merged(network.options, patch.given.get("options", {}))
    by_option = fields_of(options, network.driver)
    touched = dict(_told_by_options(network, patch.given.get("options") or {}, options, by_option))
    for name, value in touched.items():
        _require_agreement(name, value, wanted, network, options)
        if name not in CHANGEABLE and getattr(network, name) != value:
            refused.append(_refusal(_pointer_of(name, network), name))
    fresh = {**{n: v for n, v in touched.items() if n in CHANGEABLE}, **wanted}
    subnets, of_subnets = _subnets(network, patch.subnets)
    refused += of_subnets
    if refused:
        raise _immutable_error(refused)
    after = replace(
        network,
        options=_in_step(options, fresh, network.driver),
        labels=_merged(network.labels, patch.given.get("labels", {})),
        subnets=subnets,
        **fresh,
    )
    require_fitting(after)
    return network if after == network else after


def _immutable(network: Network, given: Mapping[str, Any]) -> Iterator[FieldError]:
    for name in given:
        if name in IMMUTABLE and not _stays(network, name, given[name]):
            yield _refusal(f"/{name}", name)


def _stays(network: Network, name: str, wanted: Any) -> bool:
    """Whether that is what the network has; null is the default."""
    return wanted == _as_shown(network, name) or (wanted is None and getattr(network, name) == _DEFAULTS[name])


def _as_shown(network: Network, name: str) -> Any:
    if name == "peers":
        return list(network.peers)
    if name == "docker":
        return None if network.docker is None else codec.to_json(network.docker)
    value = getattr(network, name)
    return None if value == "" else value


def _refusal(pointer: str, name: str) -> FieldError:
    return FieldError(pointer, f"{name} cannot change while the network lives: {IMMUTABLE[name]}")


def _immutable_error(refused: Sequence[FieldError]) -> Immutable:
    return Immutable(
        "; ".join(error.detail for error in refused),
        fix="leave these out; for another of them create a new network and move the endpoints",
        errors=refused,
    )


def _parsed(name: str, value: Any) -> Any:
    if value is None:
        return _DEFAULTS[name]
    return parse_address(value, f"/{name}") if name == "host_binding" else value


def _merged(before: Mapping[str, str], patch: Mapping[str, str | None] | None) -> dict[str, str]:
    """A merge patch of plain text; null for the whole takes everything away."""
    if patch is None:
        return {}
    merged = {**before, **patch}
    return {key: value for key, value in merged.items() if value is not None}


def _told_by_options(
    network: Network, said: Mapping[str, str | None], options: Mapping[str, str], by_option: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Fields of the options that the patch sets or takes away."""
    for key, (name, _) in known_options(network.driver).items():
        if key in options and key in said:
            yield name, by_option[name]
        elif key in network.options and key not in options:
            yield name, _DEFAULTS[name]


def _require_agreement(
    name: str, value: Any, wanted: Mapping[str, Any], network: Network, options: Mapping[str, str]
) -> None:
    if name in wanted and wanted[name] != value and option_of(name, options, network.driver):
        raise Invalid.field(
            _pointer_of(name, network), f"it says {value}, and {name} says {wanted[name]}", "leave one of them out"
        )


def _pointer_of(name: str, network: Network) -> str:
    found = (key for key, (known, _) in known_options(network.driver).items() if known == name)
    return option_pointer(next(found))


def _in_step(options: Mapping[str, str], fresh: Mapping[str, Any], driver: Driver) -> dict[str, str]:
    """Options that stand for a field which changed say what it is now; of one without a value nothing is said."""
    kept = dict(options)
    by_option = fields_of(options, driver)
    for name, value in fresh.items():
        key = option_of(name, options, driver)
        if key is not None and by_option[name] != value:
            text = option_text(value)
            if text is None:
                del kept[key]
            else:
                kept[key] = text
    return kept


def _subnets(network: Network, wanted: Sequence[SubnetPatch] | None) -> tuple[tuple[Subnet, ...], list[FieldError]]:
    """What the network has afterwards, in the order it had; and what cannot be."""
    if wanted is None:
        return network.subnets, []
    if len(wanted) > MAX_SUBNETS:
        raise Invalid.field("/subnets", f"{len(wanted)} subnets; at most {MAX_SUBNETS}")
    asked = [_cidr(one, i) for i, one in enumerate(wanted)]
    kept: dict[Cidr, Subnet] = {}
    new: list[Subnet] = []
    refused: list[FieldError] = []
    for i, (one, cidr) in enumerate(zip(wanted, asked, strict=True)):
        _require_apart(cidr, asked[:i], i)
        old = _predecessor(network, cidr, asked, i)
        if old is None:
            shrunk = _shrunk(network, cidr, asked)
            if shrunk is not None:
                detail = f"{shrunk} cannot shrink to {cidr}: addresses outside of it may be in use"
                refused.append(FieldError(f"/subnets/{i}/cidr", detail))
                continue
            new.append(_new_subnet(network, one, i))
        else:
            refused += _gateway_refusal(network, old, one, i)
            kept[old.cidr] = _altered(old, cidr, one, i)
    after = [kept[s.cidr] for s in network.subnets if s.cidr in kept] + new
    return tuple(sorted(after, key=lambda s: s.cidr.version)) or (network.subnets if refused else ()), refused


def _cidr(one: SubnetPatch, i: int) -> Cidr:
    if one.cidr is None:
        raise Invalid.field(f"/subnets/{i}", "it has neither a cidr nor a pool that one is to be cut from")
    return parse_cidr(one.cidr, f"/subnets/{i}/cidr")


def _require_apart(cidr: Cidr, others: Sequence[Cidr], i: int) -> None:
    """Two that one subnet could grow into would otherwise pass as one of them."""
    other = next((o for o in others if o.version == cidr.version and o.overlaps(cidr)), None)
    if other is not None:
        detail = f"{cidr} is there twice" if other == cidr else f"{cidr} overlaps {other} of the same patch"
        raise Invalid.field(f"/subnets/{i}/cidr", detail)


def _predecessor(network: Network, cidr: Cidr, asked: Sequence[Cidr], i: int) -> Subnet | None:
    """The subnet that this one is, or was before it grew."""
    inside = [s for s in network.subnets if lies_in(s.cidr, cidr)]
    same = next((s for s in inside if s.cidr == cidr), None)
    grown = [s for s in inside if s.cidr not in asked]
    if same is None and len(grown) > 1:
        names = " and ".join(str(s.cidr) for s in grown)
        raise Invalid.field(f"/subnets/{i}/cidr", f"{cidr} would join {names}", "only one subnet can grow into it")
    return same or (grown[0] if grown else None)


def _shrunk(network: Network, cidr: Cidr, asked: Sequence[Cidr]) -> Cidr | None:
    around = (s.cidr for s in network.subnets if s.cidr.overlaps(cidr) and s.cidr not in asked)
    return next(around, None)


def _new_subnet(network: Network, one: SubnetPatch, i: int) -> Subnet:
    asked = SubnetRequest(
        one.cidr or "", one.given.get("gateway"), one.given.get("range"), one.given.get("reserved") or {}
    )
    return parse_subnet(asked, f"/subnets/{i}", needs_gateway=network.driver not in WITHOUT_GATEWAY)


def _gateway_refusal(network: Network, old: Subnet, one: SubnetPatch, i: int) -> Iterator[FieldError]:
    """null is the default: the same patch twice, of which the first made the subnet or let it grow, is no change."""
    if "gateway" in one.given:
        text = one.given["gateway"]
        if text is None:
            is_same = _has_default_gateway(network, old, i)
        else:
            is_same = parse_address(text, f"/subnets/{i}/gateway") == old.gateway
        if not is_same:
            detail = f"the gateway of {old.cidr} cannot change while the network lives: its endpoints route over it"
            yield FieldError(f"/subnets/{i}/gateway", detail)


def _has_default_gateway(network: Network, subnet: Subnet, i: int) -> bool:
    """Of the subnet as it is, or of a smaller one that it has grown from: then it kept that one's."""
    around = [subnet.cidr]
    if subnet.gateway is not None:
        longest = subnet.gateway.max_prefixlen - 1
        sizes = range(subnet.cidr.prefixlen, longest)
        around = [ip_network((subnet.gateway, size), strict=False) for size in sizes] or around
    return any(_new_subnet(network, SubnetPatch(str(cidr)), i).gateway == subnet.gateway for cidr in around)


def _altered(old: Subnet, cidr: Cidr, one: SubnetPatch, i: int) -> Subnet:
    """Growing keeps the gateway and every reservation: they lie inside, and are not the new outermost addresses."""
    with under(f"/subnets/{i}"):
        span = old.range
        if "range" in one.given:
            span = None if one.given["range"] is None else parse_cidr(one.given["range"], "/range")
        reserved = dict(old.reserved)
        if "reserved" in one.given:
            reserved = parse_reserved(one.given["reserved"] or {}, old.gateway)
        return Subnet(cidr, old.gateway, span, reserved)


def grown_subnets(before: Network, after: Network) -> dict[Cidr, Cidr]:
    """New block: the one it was."""
    had = {s.cidr for s in before.subnets}
    return {s.cidr: old for s in after.subnets if s.cidr not in had for old in had if lies_in(old, s.cidr)}


def added_subnets(before: Network, after: Network) -> list[Cidr]:
    known = {s.cidr for s in before.subnets} | grown_subnets(before, after).keys()
    return [s.cidr for s in after.subnets if s.cidr not in known]


def removed_subnets(before: Network, after: Network) -> list[Cidr]:
    kept = {s.cidr for s in after.subnets} | set(grown_subnets(before, after).values())
    return [s.cidr for s in before.subnets if s.cidr not in kept]


def new_reservations(before: Network, after: Network) -> dict[str, tuple[str, Any]]:
    """Pointer into the patch: name and address that nobody must have."""
    had = {address for s in before.subnets for address in s.reserved.values()}
    return {
        f"/subnets/{i}/reserved/{pointer_part(name)}": (name, address)
        for i, s in enumerate(after.subnets)
        for name, address in s.reserved.items()
        if address not in had
    }
