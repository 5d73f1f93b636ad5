"""What a rehearsed change would do to the hosts, and what an operator should think of before it is done.

Pure but for reading the mirrored state: what would be written is laid over what is known, and `datapath.preview` says
what the workers would make of it. Never looks at a kernel, never at the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network

from controller.rehearsal import Written
from controller.state import State
from datapath.preview import HostPreview, Situation, preview
from kvnet import codec, keys
from kvnet.claims import SubnetClaim
from kvnet.model import Block, Cidr, Endpoint, Host, Network
from kvnet.moments import moment

MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class PlanWarning:
    """`code` is stable: overlap, endpoints-cut, host-down, and the codes of a network's conditions."""

    code: str
    detail: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """`hosts`: those for which something changes. `first`: a new network's on a host that gets its first endpoint."""

    hosts: tuple[HostPreview, ...]
    warnings: tuple[PlanWarning, ...]
    down: frozenset[str] = frozenset()
    first: HostPreview | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The cluster before and after it, taken out of the state: a thread may have it. `networks`: what it is about."""

    before: Situation
    after: Situation
    networks: frozenset[str]
    forced: tuple[str, ...]
    down: Mapping[str, str]


def change_of(state: State, written: Written) -> Change:
    before = Situation(
        hosts={name: host.value for name, host in state.hosts.items.items()},
        networks={id_: network.value for id_, network in state.networks.items.items()},
        endpoints={
            id_: {e: found.value for e, found in state.endpoints_of(id_).items()} for id_ in state.networks.items
        },
        blocks=_blocks(block.value for block in state.host_blocks.items.values()),
    )
    down = {
        name: "it was never seen" if (at := state.last_seen(name)) is None else _seen(at)
        for name in before.hosts
        if state.alive.get(name) is None
    }
    return Change(before, _after(before, written), frozenset(_networks(written)), tuple(_forced(written)), down)


def forecast(change: Change) -> Forecast:
    """Heavy for large clusters: run it in a thread."""
    hosts = tuple(preview(change.before, change.after, change.networks))
    touched = [one.host for one in hosts if one.host in change.down]
    warnings = [
        *(PlanWarning("overlap", reason) for reason in change.forced),
        *_cuts(change),
        *(PlanWarning(found.code, found.detail, one.host) for one in hosts for found in one.found),
        *(
            PlanWarning("host-down", f"{name} is not there ({change.down[name]}); it does this when it returns", name)
            for name in touched
        ),
    ]
    return Forecast(hosts, tuple(warnings), frozenset(touched), _first(change))


def _seen(at: float) -> str:
    return f"last seen {moment(at)}"


def _blocks(found: Iterator[Block] | tuple[Block, ...]) -> dict[str, tuple[Block, ...]]:
    blocks: dict[str, tuple[Block, ...]] = {}
    for block in found:
        blocks[block.network] = (*blocks.get(block.network, ()), block)
    return blocks


def _after(before: Situation, written: Written) -> Situation:
    networks = dict(before.networks)
    endpoints = dict(before.endpoints)
    blocks = {keys.block(b.network, b.cidr): b for found in before.blocks.values() for b in found}
    for key, data in written.items():
        if key.startswith(keys.NETWORKS):
            network_id = key.removeprefix(keys.NETWORKS)
            networks.pop(network_id, None)
            if data is not None:
                networks[network_id] = codec.decode(Network, data)
            else:
                endpoints.pop(network_id, None)
        elif key.startswith(keys.ENDPOINTS):
            place = keys.parse_endpoint(key)
            own = dict(endpoints.get(place.network, {}))
            own.pop(place.endpoint, None)
            if data is not None:
                own[place.endpoint] = codec.decode(Endpoint, data)
            endpoints[place.network] = own
        elif key.startswith(keys.BLOCKS):
            blocks.pop(key, None)
            if data is not None:
                blocks[key] = codec.decode(Block, data)
    for network_id in networks:
        endpoints.setdefault(network_id, {})
    return replace(before, networks=networks, endpoints=endpoints, blocks=_blocks(tuple(blocks.values())))


def _networks(written: Written) -> Iterator[str]:
    for key in written:
        if key.startswith(keys.NETWORKS):
            yield key.removeprefix(keys.NETWORKS)
        elif key.startswith(keys.ENDPOINTS):
            yield keys.parse_endpoint(key).network
        elif key.startswith(keys.BLOCKS):
            yield keys.parse_block(key).network


def _forced(written: Written) -> Iterator[str]:
    for key, data in written.items():
        if key.startswith(keys.SUBNETS) and data is not None:
            claim = codec.decode(SubnetClaim, data)
            if claim.forced:
                yield f"{keys.parse_subnet(key)} {claim.forced}"


def _cuts(change: Change) -> Iterator[PlanWarning]:
    """Endpoints that lose what they have: themselves, each other, their peers, their way out, their ports."""
    for network_id in sorted(change.networks):
        before, after = change.before.networks.get(network_id), change.after.networks.get(network_id)
        held = change.before.endpoints.get(network_id, {})
        left = change.after.endpoints.get(network_id, {})
        for endpoint in held.values():
            if endpoint.id not in left:
                yield PlanWarning(
                    "endpoints-cut", f"{endpoint.name} on {endpoint.host} loses its interface", endpoint.host
                )
            elif endpoint != left[endpoint.id]:
                yield from _less(endpoint, left[endpoint.id])
        if before is None or after is None or not held:
            continue
        for what in _lost(before, after):
            yield PlanWarning("endpoints-cut", f"{_named(held)} of {after.name} {what}")


def _less(before: Endpoint, after: Endpoint) -> Iterator[PlanWarning]:
    """What a change of an endpoint takes from it."""
    places = {(port.protocol, port.host_port, port.host_address): port.port for port in after.ports}
    for port in before.ports:
        if places.get((port.protocol, port.host_port, port.host_address)) != port.port:
            what = f"{before.name} on {before.host} is no longer reached over port {port.host_port}/{port.protocol}"
            yield PlanWarning("endpoints-cut", what, before.host)
    gone = [str(address) for address in before.addresses if address not in after.addresses]
    if gone:
        what = f"{before.name} on {before.host} has no longer {', '.join(gone)}; its interface keeps what it got"
        yield PlanWarning("endpoints-cut", what, before.host)


def _lost(before: Network, after: Network) -> Iterator[str]:
    if before.icc and not after.icc:
        yield "can no longer reach each other"
    if before.masquerade and not after.masquerade:
        yield "no longer leave with their host's address: outside, somebody else must know the way back"
    if set(before.peers) - set(after.peers):
        yield "can no longer reach the network that was a peer"
    if before.flood and not after.flood:
        yield "no longer get broadcasts and multicasts of other hosts"
    if after.mtu is not None and (before.mtu is None or after.mtu < before.mtu):
        yield f"get an MTU of {after.mtu}: connections that do not learn it may stall"


def _named(endpoints: Mapping[str, Endpoint]) -> str:
    names = sorted(endpoint.name for endpoint in endpoints.values())
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}"


def _first(change: Change) -> HostPreview | None:
    """What a new network would be on a host: nothing of it is anywhere until it has an endpoint."""
    new = [id_ for id_ in change.networks if id_ not in change.before.networks and id_ in change.after.networks]
    candidates = sorted(change.after.hosts.keys() - change.down.keys()) or sorted(change.after.hosts)
    if len(new) != 1 or not candidates or change.after.endpoints.get(new[0]):
        return None
    network, host = change.after.networks[new[0]], change.after.hosts[candidates[0]]
    endpoint, blocks = _imagined(network, host)
    held = {**change.after.endpoints, network.id: {endpoint.id: endpoint}}
    with_it = replace(change.after, endpoints=held, blocks={**change.after.blocks, network.id: blocks})
    return next((one for one in preview(change.after, with_it, [network.id]) if one.host == host.name), None)


def _imagined(network: Network, host: Host) -> tuple[Endpoint, tuple[Block, ...]]:
    """An endpoint that stands for the first one, with the first addresses that it could get."""
    lengths = {4: network.block_prefix_length, 6: network.block_prefix_length6}
    families = {subnet.cidr.version: subnet for subnet in network.subnets}
    blocks = [
        Block(network.id, _first_part(subnet.cidr, max(length, subnet.cidr.prefixlen)), host.name, 0.0)
        for version, subnet in families.items()
        if (length := lengths[version]) is not None
    ]
    addresses = tuple(subnet.cidr.network_address + 2 for subnet in families.values())
    return Endpoint("first", network.id, host.name, "first", addresses, "02:00:00:00:00:01", 0.0), tuple(blocks)


def _first_part(cidr: Cidr, length: int) -> Cidr:
    part: Cidr = ip_network(f"{cidr.network_address}/{length}")
    return part
