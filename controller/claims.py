"""One endpoint on its way into the store: what was asked for, what was chosen, and the commit that claims it.

Pure but for the random bytes that come in as an argument. Written for thousands a second: the stored bytes are put
together once and serve the key, the journal and the mirror.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import count

from backends.committer import Transaction
from backends.store import Absent, Check, Put, Unchanged
from controller import journal
from controller.ipam.addresses import Candidate
from controller.ipam.macs import RANDOM_BYTES, mac_from
from controller.ipam.ports import Wish
from controller.ipam.routed import BlockUse
from controller.journal import Changed
from controller.parsing import parse_address
from controller.ports import NOTHING, Swap
from controller.publishing import wishes_of
from controller.requests import Caller, EndpointRequest
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.errors import Invalid
from kvnet.model import Address, Endpoint, Host, Network, PublishedPort, Versioned
from kvnet.rules import require_name

ID_SPACE = 1 << 64


@dataclass(slots=True)
class Claim:
    """`wanted`: addresses asked for, by family. `chosen` and what follows: what the latest attempt claims.

    `written`: the endpoint, its place on the host, and its addresses, in this order. `uses`: the blocks of the
    addresses, in a routed network. `swap`: what becomes of the host's ports. `turns`: keys that are kept busy for it.
    """

    request: EndpointRequest
    wanted: dict[int, Address]
    id: str
    mac: str
    chosen: list[Candidate] = field(default_factory=list)
    endpoint: Endpoint | None = None
    written: tuple[Put, ...] = ()
    address_claim: AddressClaim | None = None
    lost_answers: int = 0
    wishes: tuple[Wish, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    swap: Swap = NOTHING
    uses: list[BlockUse] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)

    @property
    def is_repeatable(self) -> bool:
        return self.request.id is not None


def fresh_ids(rng: random.Random) -> Iterator[str]:
    """For the endpoints of one request: consecutive from a random number on, which nobody can foresee.

    What is written together lies together: for the embedded store a list of 100 costs half of what random ids do.
    """
    first = rng.getrandbits(64)
    return (f"{number % ID_SPACE:016x}" for number in count(first))


def claim_of(request: EndpointRequest, ids: Iterator[str], rng: random.Random) -> Claim:
    """Takes its id from `ids` if the request has none.

    Raises:
        Invalid: what the model cannot see: addresses, ports, duplicate aliases.
    """
    require_distinct(request.aliases)
    require_name(request.host, "/host")
    return Claim(
        request=request,
        wanted={} if request.address is None and request.address6 is None else wanted_addresses(request),
        id=next(ids) if request.id is None else request.id,
        mac=mac_from(rng.randbytes(RANDOM_BYTES)) if request.mac is None else request.mac.lower(),
        wishes=wishes_of(request.ports) if request.ports else (),
    )


def require_distinct(aliases: Sequence[str]) -> None:
    """
    Raises:
        Invalid
    """
    if aliases and len(set(aliases)) != len(aliases):
        twice = next(a for i, a in enumerate(aliases) if a in aliases[:i])
        raise Invalid.field("/aliases", f"{twice[:64]!r} is there twice")


def wanted_addresses(request: EndpointRequest) -> dict[int, Address]:
    """By family.

    Raises:
        Invalid: text that is no address, or one of the other family.
    """
    wanted: dict[int, Address] = {}
    for pointer, text, kind in (
        ("/address", request.address, IPv4Address),
        ("/address6", request.address6, IPv6Address),
    ):
        if text is None:
            continue
        address = parse_address(text, pointer)
        if not isinstance(address, kind):
            other = "/address6" if kind is IPv4Address else "/address"
            raise Invalid.field(pointer, f"{address} is of the other family", f"it belongs into {other[1:]}")
        wanted[address.version] = address
    return wanted


def endpoint_of(claim: Claim, network_id: str, now: float, owner: str = "") -> Endpoint:
    """Raises: Invalid: names, MAC, labels."""
    request = claim.request
    return Endpoint(
        id=claim.id,
        network=network_id,
        host=request.host,
        name=request.name,
        addresses=tuple(candidate.address for candidate in claim.chosen),
        mac=claim.mac,
        created_at=now,
        hostname=request.hostname,
        aliases=tuple(request.aliases),
        ports=claim.ports,
        labels=dict(request.labels),
        gateway_priority=request.gateway_priority,
        owner=owner,
    )


def is_answered_by(claim: Claim, network: Network, endpoint: Endpoint) -> bool:
    """Whether an endpoint that is there is what this claim asks for: what was left open may be anything."""
    request = claim.request
    return (
        (endpoint.network, endpoint.host, endpoint.name, endpoint.hostname)
        == (network.id, request.host, request.name, request.hostname)
        and endpoint.aliases == tuple(request.aliases)
        and dict(endpoint.labels) == dict(request.labels)
        and set(claim.wanted.values()) <= set(endpoint.addresses)
        and (request.mac is None or endpoint.mac == claim.mac)
        and request.gateway_priority == endpoint.gateway_priority
        and len(claim.wishes) == len(endpoint.ports)
        and all(
            wish.is_answered_by(port, network.host_binding)
            for wish, port in zip(claim.wishes, endpoint.ports, strict=True)
        )
    )


def checks_of(network: Versioned[Network], host: Versioned[Host]) -> tuple[Check, ...]:
    """What every endpoint of this network on this host takes for granted."""
    return (
        Unchanged(keys.network(network.value.id), network.version),
        Unchanged(keys.host(host.value.name), host.version),
    )


def transaction_of(claim: Claim, endpoint: Endpoint, fixed: tuple[Check, ...], caller: Caller) -> Transaction:
    """Everything an endpoint needs, or nothing: its addresses, itself, and its place on the host."""
    key = keys.endpoint(endpoint.network, endpoint.id)
    local = keys.local(endpoint.host, endpoint.id)
    data = codec.encode(endpoint)
    address_claim = AddressClaim(ClaimKind.ENDPOINT, endpoint.id, endpoint.created_at, None, endpoint.host)
    address_data = codec.encode(address_claim)
    checks: list[Check] = [*fixed, Absent(key)]
    if claim.is_repeatable:  # nobody foresees an id of ours; a caller's may be in use on this host in another network
        checks.append(Absent(local))
    stored = codec.stamped(data, caller.request_id, caller.trace)
    writes = [Put(key, stored), Put(local, endpoint.network.encode())]
    for address, version in claim.chosen:
        address_key = keys.address(endpoint.network, address)
        checks.append(Absent(address_key) if version is None else Unchanged(address_key, version))
        writes.append(Put(address_key, address_data))
    note = journal.note(endpoint.created_at, caller, Changed("endpoint.created", key, None, data))
    claim.endpoint, claim.address_claim, claim.written = endpoint, address_claim, tuple(writes)
    if not claim.uses and claim.swap is NOTHING:
        return Transaction(tuple(checks), claim.written, note)
    blocks = of_blocks(claim.uses)
    return Transaction(
        (*checks, *blocks.checks, *claim.swap.checks), (*claim.written, *blocks.writes, *claim.swap.writes), note
    )


def of_blocks(uses: Iterable[BlockUse]) -> Swap:
    """A block that the host has must be as it was seen; another is claimed or taken back in this very commit."""
    checks: list[Check] = []
    writes: list[Put] = []
    for use in uses:
        checks.append(Absent(use.key) if use.version is None else Unchanged(use.key, use.version))
        if use.is_written:
            writes.append(Put(use.key, codec.encode(use.block)))
    return Swap(tuple(checks), tuple(writes), {})
