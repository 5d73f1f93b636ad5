"""Does a packet ever arrive at a workload that is not the one it is for? Asked of the fake kernels, pair by pair.

A host that says it has applied a network up to a version must behave so. An address that belongs to an endpoint by the
store must never lead, from such a host to such a host, to the workload of another. Loss is no error here; `rest` looks
after that when everything has come to rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datapath.fabric import Path
from kvnet.model import Endpoint
from tests.simulation.station import Station
from tests.simulation.world import World

PAIRS = 4


@dataclass(frozen=True, slots=True)
class Housed:
    """An endpoint's workload: where it is, as its worker's records say."""

    endpoint: str
    host: str
    netns: str
    network: str


def housed(station: Station) -> list[Housed]:
    worker = station.worker
    if worker is None:
        return []
    inside = station.machine.host.tables.namespaces
    records = [record for record in worker.attachments if record.network_id and record.netns in inside]
    return [Housed(r.endpoint, station.name, r.netns, r.network_id) for r in records if r.interface in inside[r.netns]]


def misled(world: World) -> Iterator[str]:
    """A few packets of this moment that went astray."""
    sources = [one for station in world.stations for one in housed(station)]
    targets = list(world.judge.endpoints.values())
    if not sources or not targets:
        return
    for _ in range(PAIRS):
        source, target = world.rng.choice(sources), world.rng.choice(targets)
        if source.network != target.network or source.endpoint == target.id:
            continue
        found = _astray(world, source, target)
        if found:
            yield found


def _astray(world: World, source: Housed, target: Endpoint) -> str:
    for address in target.addresses:
        outcome = world.fabric.reaches(source.host, source.netns, address.packed)
        if not isinstance(outcome, Path) or "/" not in outcome.at:
            continue
        host, netns = outcome.at.split("/", 1)
        worker = world.station(host).worker
        if worker is None or any((r.endpoint, r.netns) == (target.id, netns) for r in worker.attachments):
            continue  # there, or just being attached there
        receivers = [one for one in housed(world.station(host)) if one.netns == netns]
        if not receivers:
            continue
        if all(_has_applied(world, one, target) for one in {source.host, host, target.host}):
            where = f"{receivers[0].endpoint} in {netns} on {host}"
            return f"a packet of {source.endpoint} to {address} of {target.id} on {target.host} arrives at {where}"
    return ""


def _has_applied(world: World, host: str, target: Endpoint) -> bool:
    """By its own word, and with nothing else being wrong there."""
    station = world.station(host)
    if station.worker is None or station.process.is_stopped or station.machine.is_meddled:
        return False
    entry = world.server.state.entries.get(f"endpoints/{target.network}/{target.id}")
    seen = station.worker.reconciler.observed().get(target.network)
    return entry is not None and seen is not None and seen.version >= entry.version and not seen.conditions
