"""What must hold when everything was mended and time has passed: desired is actual, and nothing is left over.

Desired is worked out anew, from the raw store and what runs on each host, not asked of any worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from controller.ipam.check import check
from datapath.conditions import findings
from datapath.desired import HostView, desired
from datapath.fabric import Drop, Path
from datapath.plan import plan
from datapath.words import describe
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind, SubnetClaim
from kvnet.model import Block, Driver, Endpoint, Host, Network, NetworkState
from tests.simulation.machine import EPOCH
from tests.simulation.packets import Housed, housed
from tests.simulation.station import Station
from tests.simulation.work import Work
from tests.simulation.world import World
from worker.attachments import Phase

CROSSING = (Driver.OVERLAY, Driver.ROUTED)
SHOWN = 6


def unrest(world: World, work: Work) -> list[str]:
    """What is not as it should be; empty when all is well."""
    return [*_store(world, work), *(found for station in world.stations for found in _host(world, work, station))]


def _store(world: World, work: Work) -> Iterator[str]:
    entries = world.server.state.entries
    if work.open:
        yield f"operations never end: {', '.join(sorted(work.open))}"
    for finding in check(entries.values(), EPOCH + world.loop.time() - 86_400.0, cool_down_s=world.shape.cool_down_s):
        yield f"check: {finding.invariant.value} {finding.detail}"
    for key, entry in entries.items():
        if key.startswith(keys.ADDRESSES):
            claim = codec.decode(AddressClaim, entry.value)
            if claim.kind is ClaimKind.TOMBSTONE:
                yield f"leak: {key} cools down still (of {claim.holder}, until {claim.until})"
        elif key.startswith((keys.RECLAIMS, keys.QUESTIONS, keys.ANSWERS)):
            yield f"leak: {key}"
        elif key.startswith(keys.SUBNETS) and codec.decode(SubnetClaim, entry.value).hold is not None:
            yield f"leak: {key} is held still"
        elif key.startswith(keys.NETWORKS) and codec.decode(Network, entry.value).state is not NetworkState.ACTIVE:
            yield f"{key} is {codec.decode(Network, entry.value).state}"
    for replica in world.replicas:
        if replica.cluster is None:
            yield f"controller {replica.name} does not serve"
    yield from world.ledger.missing(entries)


def _host(world: World, work: Work, station: Station) -> Iterator[str]:
    worker, name, entries = station.worker, station.name, world.server.state.entries
    if worker is None or keys.alive(name) not in entries:
        yield f"worker {name} is not alive"
        return
    attachments = worker.attachments
    own = {
        key.split("/")[2]: entry.value.decode() for key, entry in entries.items() if key.startswith(keys.local_of(name))
    }
    for record in attachments:
        if record.phase is not Phase.ATTACHED or record.endpoint not in own:
            there = own.get(record.endpoint)
            yield f"{name} has a record of {record.endpoint} ({record.phase}), whose endpoint is {there}"
    records = {record.endpoint for record in attachments}
    for endpoint in sorted(own.keys() - records - work.by_hand):
        yield f"leak: endpoint {endpoint} on {name} has no workload, and nobody to remove it"
    for endpoint, (host, _) in work.attached.items():
        if host == name and endpoint in own and endpoint not in records and endpoint not in work.detaching:
            yield f"{endpoint} was attached on {name}, and is there no more"
    yield from _kernel(world, station)
    yield from _reports(world, station, own)


def _kernel(world: World, station: Station) -> Iterator[str]:
    assert station.worker is not None
    host = station.machine.host
    view = view_of(world, station)
    if station.name not in view.hosts:
        yield f"{station.name} has no record"
        return
    actual = host.state()
    uplinked = replace(view, uplinks=actual.uplinks, dockers=actual.dockers)
    wanted = desired(uplinked)
    todo = plan(wanted, actual)
    if todo.operations or todo.conflicts:
        words = [describe(operation) for operation in todo.operations[:SHOWN]]
        yield f"desired is not actual on {station.name}: {len(todo.operations)} to do: {words} {todo.conflicts}"


def _reports(world: World, station: Station, own: dict[str, str]) -> Iterator[str]:
    assert station.worker is not None
    for network, seen in sorted(station.worker.reconciler.observed().items()):
        newest = world.judge.newest.get(network, 0)
        if network in own.values() and seen.version < newest:
            yield f"{station.name} has applied {network} up to {seen.version} of {newest}"
        if seen.conditions:
            yield f"{station.name} says of {network}: {[(c.code, c.detail[:80]) for c in seen.conditions]}"


def view_of(world: World, station: Station) -> HostView:
    """What this host is to know, from the raw store."""
    assert station.worker is not None
    entries, name = world.server.state.entries, station.name
    hosts, networks, endpoints, blocks = {}, {}, {}, {}
    for key, entry in entries.items():
        if key.startswith(keys.HOSTS):
            hosts[key.removeprefix(keys.HOSTS)] = codec.decode(Host, entry.value)
        elif key.startswith(keys.NETWORKS):
            networks[key.removeprefix(keys.NETWORKS)] = codec.decode(Network, entry.value)
        elif key.startswith(keys.ENDPOINTS):
            _, network, one = key.split("/")
            endpoints.setdefault(network, {})[one] = codec.decode(Endpoint, entry.value)
        elif key.startswith(keys.BLOCKS):
            blocks.setdefault(key.split("/")[1], []).append(codec.decode(Block, entry.value))
    carried = {n for n, found in endpoints.items() if any(one.host == name for one in found.values())}
    near = carried | {peer for n in carried for peer in networks[n].peers}
    return HostView(
        host=name,
        hosts=hosts,
        networks={n: network for n, network in networks.items() if n in near},
        endpoints={n: endpoints.get(n, {}) for n in near},
        attachments=station.worker.attachments.interfaces(),
        blocks={n: found for n, found in blocks.items() if n in near},
        carried=frozenset(carried),
    )


def unreached(world: World) -> Iterator[str]:
    """Every pair of workloads whose networks promise it reaches each other, and no other does."""
    networks, endpoints = world.judge.networks, {one.id: one for one in world.judge.endpoints.values()}
    there = [one for station in world.stations for one in housed(station) if one.endpoint in endpoints]
    for station in world.stations:
        station.machine.host.age_caches()
    for source in there:
        for target in there:
            one, other = networks[source.network], networks[target.network]
            promised = _may_reach(one, other, source.host == target.host)
            if source.netns == target.netns or promised is None or _shares(there, source.netns, target.netns):
                continue
            families = {address.version for address in endpoints[source.endpoint].addresses}
            for address in endpoints[target.endpoint].addresses:
                if address.version in families:
                    outcome = world.fabric.reaches(source.host, source.netns, address.packed)
                    if not _is_inside(world, target, address.packed):
                        continue  # it was changed, and its interface gets it when it is attached again (docs/api.md)
                    arrives = isinstance(outcome, Path) and outcome.at == f"{target.host}/{target.netns}"
                    if arrives != promised:
                        why = outcome.reason if isinstance(outcome, Drop) else outcome.at
                        yield f"{source.endpoint} to {address} of {target.endpoint}: {why}, promised {promised}"


def _is_inside(world: World, target: Housed, address: bytes) -> bool:
    inside = world.station(target.host).machine.host.tables.namespaces[target.netns]
    return any(address == found[0] for interface in inside.values() for found in interface.side.addresses)


def _may_reach(one: Network, other: Network, same_host: bool) -> bool | None:
    if one.id == other.id:
        return same_host if one.driver is Driver.BRIDGE and one.icc else one.icc
    if other.id not in one.peers:
        return False
    return True if same_host or (one.driver in CROSSING and other.driver in CROSSING) else None


def _shares(there: list[Housed], *paths: str) -> bool:
    """A workload of several networks has ways of its own."""
    return any(sum(one.netns == path for one in there) > 1 for path in paths)


__all__ = ["findings", "unreached", "unrest", "view_of"]
