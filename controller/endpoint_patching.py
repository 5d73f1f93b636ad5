"""What a living endpoint becomes by a patch: the pure part.

A patch is a JSON merge patch (RFC 7396): what is not named stays, null is the default again. What cannot change is
refused, every field with its reason; said again as it is, it is no change. Names, labels and the priority are decided
here; which addresses and host ports it gets is for `endpoint_changes`, which knows who has what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from controller.claims import require_distinct, wanted_addresses
from controller.ipam.ports import Wish
from controller.publishing import wishes_of
from controller.requests import EndpointRequest, PortRequest
from kvnet.errors import FieldError, Immutable, Invalid
from kvnet.model import Address, Endpoint

IMMUTABLE: Mapping[str, str] = {
    "id": "it is what everything of the endpoint is stored under",
    "network": "its addresses are of that network",
    "host": "its workload's interface is there",
    "mac": "its workload's interface and the tables of every host have it",
    "created_at": "it tells when that was",
}
SHOWN_TO_S = 0.001  # times are shown to the millisecond


@dataclass(frozen=True, slots=True)
class EndpointPatch:
    """`given`: the members of the patch but for the ports, as plain JSON. `ports`: all that it is to publish; None = as
    they are. `reuse`: an address that is asked for is taken even while it cools down."""

    given: Mapping[str, Any] = field(default_factory=dict)
    ports: tuple[PortRequest, ...] | None = None
    reuse: bool = False


def changed(endpoint: Endpoint, patch: EndpointPatch) -> Endpoint:
    """With its addresses and ports as they are.

    Raises:
        Immutable: names every field that cannot change, and why.
        Invalid: what it would become is no endpoint.
    """
    given = patch.given
    refused = list(_immutable(endpoint, given))
    if refused:
        raise Immutable(
            "; ".join(error.detail for error in refused),
            fix="leave these out; for another of them create a new endpoint",
            errors=refused,
        )
    if "name" in given and given["name"] is None:
        raise Invalid.field("/name", "an endpoint has a name", "give another one, or leave it out")
    if not given.keys() & {"name", "hostname", "aliases", "labels", "gateway_priority"}:
        return endpoint
    aliases = tuple(given.get("aliases", endpoint.aliases) or ())
    require_distinct(aliases)
    return replace(
        endpoint,
        name=given.get("name", endpoint.name),
        hostname=given.get("hostname", endpoint.hostname) or "",
        aliases=aliases,
        labels=_merged(endpoint.labels, given.get("labels", {})),
        gateway_priority=given.get("gateway_priority", endpoint.gateway_priority) or 0,
    )


def other_addresses(endpoint: Endpoint, patch: EndpointPatch) -> dict[int, Address]:
    """Those that it is to have instead, by family.

    Raises:
        Invalid
    """
    for name, has_one in (("address", endpoint.address), ("address6", endpoint.address6)):
        if name in patch.given and patch.given[name] is None and has_one is not None:
            raise Invalid.field(f"/{name}", f"it has {has_one} and needs one", "give another one, or leave it out")
    address, address6 = patch.given.get("address"), patch.given.get("address6")
    if address is None and address6 is None:
        return {}
    wanted = wanted_addresses(EndpointRequest(endpoint.host, endpoint.name, address=address, address6=address6))
    return {family: address for family, address in wanted.items() if address not in endpoint.addresses}


def wanted_ports(patch: EndpointPatch) -> tuple[Wish, ...] | None:
    """None: as they are.

    Raises:
        Invalid
    """
    return None if patch.ports is None else wishes_of(patch.ports)


def with_addresses(endpoint: Endpoint, fresh: Mapping[int, Address]) -> Endpoint:
    """Each in the place of the one of its family; one of a family that it had none of comes last."""
    stay = [fresh.get(address.version, address) for address in endpoint.addresses]
    return replace(endpoint, addresses=(*stay, *(a for a in fresh.values() if a not in stay)))


def _immutable(endpoint: Endpoint, given: Mapping[str, Any]) -> Iterator[FieldError]:
    for name, reason in IMMUTABLE.items():
        if name in given and not _stays(endpoint, name, given[name]):
            yield FieldError(f"/{name}", f"{name} cannot change while the endpoint lives: {reason}")


def _stays(endpoint: Endpoint, name: str, wanted: Any) -> bool:
    if not isinstance(wanted, str):
        return False
    if name == "created_at":
        try:
            return abs(datetime.fromisoformat(wanted).timestamp() - endpoint.created_at) <= SHOWN_TO_S
        except (ValueError, OverflowError):
            return False
    return bool((wanted.lower() if name == "mac" else wanted) == getattr(endpoint, name))


def _merged(before: Mapping[str, str], patch: Mapping[str, str | None] | None) -> dict[str, str]:
    if patch is None:
        return {}
    return {key: value for key, value in {**before, **patch}.items() if value is not None}
