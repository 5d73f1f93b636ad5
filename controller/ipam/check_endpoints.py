"""I2, I4 and the rest of I6: endpoints, their addresses and their places on hosts agree, and belong to a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from backends.store import Absent, Check, Delete, Put, Unchanged
from controller.ipam.dump import Dump
from controller.ipam.findings import Finding, Invariant, Repair
from controller.ipam.window import fixed_addresses
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.model import Address, Endpoint, Network, Versioned

# Upkeep removes tombstones within seconds of their end; one that is this much over has been forgotten.
STUCK_AFTER_S = 600.0


def shared_addresses(dump: Dump) -> Iterator[Finding]:
    owners: dict[keys.AddressKey, list[Endpoint]] = defaultdict(list)
    fixed = {n: _fixed(network.value) for n, network in dump.networks.items()}
    for place, endpoint in dump.endpoints.items():
        for address in endpoint.value.addresses:
            owners[keys.AddressKey(place.network, address)].append(endpoint.value)
            if reason := fixed.get(place.network, {}).get(address):
                yield Finding(
                    Invariant.ONE_OWNER_OF_AN_ADDRESS,
                    f"endpoint {endpoint.value.name} ({place.endpoint}) has {address}, which is {reason}",
                    (keys.endpoint(*place),),
                    "detach it and attach it again: it gets another address",
                )
    for owned, endpoints in owners.items():
        if len(endpoints) > 1:
            who = " and ".join(f"{e.name} ({e.id}) on {e.host}" for e in endpoints)
            yield Finding(
                Invariant.ONE_OWNER_OF_AN_ADDRESS,
                f"{owned.address} of network {owned.network} belongs to endpoints {who}",
                tuple(keys.endpoint(owned.network, e.id) for e in endpoints),
                "detach all but one of them and attach them again",
            )


def _fixed(network: Network) -> dict[Address, str]:
    """What no endpoint may have, and why."""
    return {
        subnet.cidr[value - int(subnet.cidr.network_address)]: reason.value
        for subnet in network.subnets
        for value, (reason, _) in fixed_addresses(subnet).items()
    }


def endpoints(dump: Dump) -> Iterator[Finding]:
    """Every endpoint has a network, its addresses, a place on its host, and that host exists."""
    for place, endpoint in dump.endpoints.items():
        key, one = keys.endpoint(*place), endpoint.value
        if (one.network, one.id) != place:
            yield Finding(
                Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
                f"{key} holds endpoint {one.id} of network {one.network}",
                (key,),
                "detach it and attach it again",
            )
            continue
        if not _has_network(dump, place.network):
            yield _orphan(key, endpoint.version, place.network, f"endpoint {one.name} on {one.host}")
            continue
        yield from _its_addresses(dump, place, endpoint)
        yield from _its_place(dump, place, endpoint)
        if one.host not in dump.hosts and keys.host(one.host) not in dump.unreadable:
            yield Finding(
                Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
                f"endpoint {one.name} ({one.id}) is on host {one.host}, which does not exist",
                (key,),
                f"start 'kvnet worker' on {one.host} again, or remove the endpoint with 'kvnet endpoint rm'",
            )


def _its_addresses(dump: Dump, place: keys.EndpointKey, endpoint: Versioned[Endpoint]) -> Iterator[Finding]:
    one, key = endpoint.value, keys.endpoint(*place)
    network = dump.networks.get(place.network)
    for address in one.addresses:
        claimed = keys.AddressKey(place.network, address)
        address_key = keys.address(*claimed)
        who = f"endpoint {one.name} ({one.id}) has {address}"
        if network is not None and network.value.subnet_of(address) is None:
            yield Finding(
                Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
                f"{who}, which is in no subnet of network {network.value.name}",
                (key,),
                "detach it and attach it again: it gets another address",
            )
        claim = dump.addresses.get(claimed)
        if address_key in dump.unreadable or (claim is not None and _is_holder(claim.value, one)):
            continue
        if claim is not None and claim.value.kind is not ClaimKind.TOMBSTONE:
            yield Finding(
                Invariant.ONE_OWNER_OF_AN_ADDRESS,
                f"{who}, which is claimed by {claim.value.kind.value} {claim.value.holder}",
                (address_key, key),
                "detach it and attach it again: it gets another address",
            )
            continue
        unclaimed: Check = Absent(address_key) if claim is None else Unchanged(address_key, claim.version)
        value = codec.encode(AddressClaim(ClaimKind.ENDPOINT, one.id, one.created_at, None, one.host))
        yield Finding(
            Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
            f"{who}, which is not claimed",
            (address_key, key),
            "claim it for the endpoint",
            Repair((unclaimed, Unchanged(key, endpoint.version)), (Put(address_key, value),)),
        )


def _its_place(dump: Dump, place: keys.EndpointKey, endpoint: Versioned[Endpoint]) -> Iterator[Finding]:
    one, key = endpoint.value, keys.endpoint(*place)
    local_key = keys.local(one.host, one.id)
    local = dump.local.get(keys.LocalKey(one.host, one.id))
    if local_key in dump.unreadable or (local is not None and local.value == place.network):
        return
    is_other = local is not None and keys.EndpointKey(local.value, one.id) in dump.endpoints
    unclaimed: Check = Absent(local_key) if local is None else Unchanged(local_key, local.version)
    yield Finding(
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        f"endpoint {one.name} ({one.id}) is on host {one.host}, but that host is not told so",
        (local_key, key),
        "two endpoints on one host share this id: detach one of them" if is_other else "tell the host",
        None
        if is_other
        else Repair((unclaimed, Unchanged(key, endpoint.version)), (Put(local_key, place.network.encode()),)),
    )


def claims(dump: Dump, now: float, cool_down_s: float) -> Iterator[Finding]:
    """Every claimed address has a network and what it is claimed for; no tombstone stays for ever."""
    for place, claim in dump.addresses.items():
        key = keys.address(*place)
        if not _has_network(dump, place.network):
            yield _orphan(key, claim.version, place.network, f"address {place.address}")
        elif claim.value.kind is ClaimKind.TOMBSTONE:
            yield from _stuck(key, claim, now, cool_down_s)
        elif claim.value.kind is ClaimKind.ENDPOINT:
            yield from _leaked(dump, place, claim, now, cool_down_s)


def _stuck(key: str, claim: Versioned[AddressClaim], now: float, cool_down_s: float) -> Iterator[Finding]:
    end = claim.value.since + cool_down_s if claim.value.until is None else claim.value.until
    if end + STUCK_AFTER_S < now:
        yield Finding(
            Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
            f"the cool-down of {key.rsplit('/', 1)[1]} ended {int(now - end)} s ago, and it is still there",
            (key,),
            "free the address",
            Repair((Unchanged(key, claim.version),), (Delete(key),)),
        )


def _leaked(
    dump: Dump, place: keys.AddressKey, claim: Versioned[AddressClaim], now: float, cool_down_s: float
) -> Iterator[Finding]:
    key, holder = keys.address(*place), claim.value.holder
    endpoint_key = keys.endpoint(place.network, holder)
    endpoint = dump.endpoints.get(keys.EndpointKey(place.network, holder))
    if endpoint_key in dump.unreadable or (endpoint is not None and place.address in endpoint.value.addresses):
        return
    tombstone = AddressClaim(ClaimKind.TOMBSTONE, holder, now, now + cool_down_s, claim.value.host)
    seen: Check = Absent(endpoint_key) if endpoint is None else Unchanged(endpoint_key, endpoint.version)
    why = "does not exist" if endpoint is None else "has another"
    yield Finding(
        Invariant.ENDPOINTS_AND_ADDRESSES_AGREE,
        f"{place.address} is claimed by endpoint {holder}, which {why}",
        (key, endpoint_key),
        "release it; it rests for the cool-down",
        Repair((Unchanged(key, claim.version), seen), (Put(key, codec.encode(tombstone)),)),
    )


def places(dump: Dump) -> Iterator[Finding]:
    """Every place on a host belongs to an endpoint that is there."""
    for place, network in dump.local.items():
        key, endpoint_key = keys.local(*place), keys.endpoint(network.value, place.endpoint)
        endpoint = dump.endpoints.get(keys.EndpointKey(network.value, place.endpoint))
        if endpoint_key in dump.unreadable or (endpoint is not None and endpoint.value.host == place.host):
            continue
        if endpoint is None and _is_on(dump, place):
            continue  # told above: the host is told another network than the endpoint's
        seen: Check = Absent(endpoint_key) if endpoint is None else Unchanged(endpoint_key, endpoint.version)
        why = "does not exist" if endpoint is None else f"is on {endpoint.value.host}"
        has_network = _has_network(dump, network.value)
        yield Finding(
            Invariant.ENDPOINTS_AND_ADDRESSES_AGREE if has_network else Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
            f"host {place.host} is told of endpoint {place.endpoint}, which {why}",
            (key, endpoint_key),
            "remove it from the host",
            Repair((Unchanged(key, network.version), seen), (Delete(key),)),
        )


def _is_on(dump: Dump, place: keys.LocalKey) -> bool:
    return any(
        where.endpoint == place.endpoint and endpoint.value.host == place.host
        for where, endpoint in dump.endpoints.items()
    )


def _has_network(dump: Dump, network_id: str) -> bool:
    return network_id in dump.networks or keys.network(network_id) in dump.unreadable


def _orphan(key: str, version: int, network_id: str, what: str) -> Finding:
    return Finding(
        Invariant.NOTHING_OUTLIVES_ITS_NETWORK,
        f"{what} belongs to network {network_id}, which does not exist",
        (key,),
        "remove it",
        Repair((Unchanged(key, version), Absent(keys.network(network_id))), (Delete(key),)),
    )


def _is_holder(claim: AddressClaim, endpoint: Endpoint) -> bool:
    return claim.kind is ClaimKind.ENDPOINT and claim.holder == endpoint.id
