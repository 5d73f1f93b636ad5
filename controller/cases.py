"""The use cases that change a cluster, put together over a state and a writer.

Twice: once for what is to be done, and once for what is only rehearsed (`controller.rehearsal`), so that a dry run can
never judge differently. Wiring only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from controller.busy import Busy
from controller.endpoints import Endpoints
from controller.guards import Guard
from controller.holds import Holds
from controller.hosts import Hosts
from controller.naming import Naming
from controller.network_creation import NetworkCreation
from controller.networks import Networks
from controller.peering import Peering
from controller.pools import Pools
from controller.ports import PortBook
from controller.release import Release
from controller.removal import Removal
from controller.reservations import Reservations
from controller.settings import Settings
from controller.state import State
from controller.subnet_claims import SubnetClaims
from controller.updates import Updates
from controller.writer import Writer
from kvnet import keys


@dataclass(frozen=True, slots=True)
class Cases:
    networks: Networks
    holds: Holds
    naming: Naming
    endpoints: Endpoints
    updates: Updates
    peering: Peering
    hosts: Hosts
    pools: Pools
    reservations: Reservations
    removal: Removal


def cases(state: State, writer: Writer, settings: Settings, rng: random.Random) -> Cases:
    patience_s = settings.read_your_writes_s
    guard = Guard(writer.store, keys.SUBNET_GUARD, (state.subnets, state.pools), patience_s)
    reservation_guard = Guard(writer.store, keys.RESERVATION_GUARD, (state.addresses,), patience_s)
    ports = PortBook(state.ports, Busy())
    release = Release(state, writer, ports, settings.cool_down_s)
    removal = Removal(state, writer)
    claims = SubnetClaims(state, writer, guard)
    holds = Holds(state, writer, guard, claims, rng)
    networks = Networks(state, writer, NetworkCreation(state, writer, guard, claims, holds, rng), removal)
    return Cases(
        networks=networks,
        holds=holds,
        naming=Naming(state, writer, networks),
        endpoints=Endpoints(state, writer, ports, networks, release, rng),
        updates=Updates(state, writer, networks, guard, claims),
        peering=Peering(state, writer, networks),
        hosts=Hosts(state, writer, release),
        pools=Pools(state, writer, guard),
        reservations=Reservations(state, writer, networks, reservation_guard),
        removal=removal,
    )
