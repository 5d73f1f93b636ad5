"""Bugs planted on purpose, to show that the simulation finds what it is there to find. `Planted()` has none.

Each replaces one part of the product, or of the store, by one that is wrong in a way that has been seen in the world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backends.store import Check, Revision, Write
from controller.cluster import Cluster
from tests.simulation.client import SimulatedStore
from tests.simulation.network import Link
from tests.simulation.processes import Process
from tests.simulation.server import Server
from worker.agent import Worker


@dataclass(frozen=True, slots=True)
class Planted:
    """`name`: "" for the product as it is."""

    name: str = ""

    def server(self, clock: Callable[[], float], slack_s: float) -> Server:
        return Server(clock, slack_s)

    def client(self, server: Server, link: Link, process: Process, is_follower: bool) -> SimulatedStore:
        return SimulatedStore(server, link, process, is_follower=is_follower)

    def cluster(self, cluster: Cluster) -> Cluster:
        return cluster

    @property
    def worker(self) -> type[Worker]:
        return Worker


PLANTED = {"": Planted()}
