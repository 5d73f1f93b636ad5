"""The simulated site: servers, controllers, hosts and workers, and who watches over them. Built from a shape.

Wiring only. What happens to it is in `harm`, what is asked of it in `work`, what must hold in `judge`, `ledger`,
`packets` and `rest`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backends.store import Entry, Revision, Store, Write
from controller.settings import Clock, Settings
from datapath.fake import FakeFabric
from kvnet import keys
from tests.simulation.broken import Planted
from tests.simulation.client import PROGRESS_S, SimulatedStore
from tests.simulation.front import SimulatedController
from tests.simulation.judge import Judge
from tests.simulation.ledger import Ledger
from tests.simulation.loop import SimulatedLoop
from tests.simulation.machine import Machine
from tests.simulation.network import Link, Weather
from tests.simulation.processes import Process
from tests.simulation.replica import Replica
from tests.simulation.shape import Shape
from tests.simulation.station import Station
from worker.ports import Controller, Time
from worker.settings import Timing

DEAD_HOST_AFTER_S = 240.0
LEAK_GRACE_S = 12.0
CHECK_S = 60.0
JOURNAL = 150  # so that it is trimmed, too


class Violation(Exception):
    """Something that must never be."""


@dataclass(eq=False)
class World:
    """`found`: what is wrong, in words; the first ends the run. `trace`: what was done, for people and for the hash."""

    shape: Shape
    rng: random.Random
    loop: SimulatedLoop
    planted: Planted
    found: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weather = Weather(
            self.shape.weather.lost, self.shape.weather.slow, self.shape.weather.late, self.shape.weather.lag
        )
        self.servers = Process("servers")
        self.operators = Process("operators")
        self.server = self.planted.server(self.loop.time, self.shape.ttl_s)
        self.judge = Judge(self.server.state.entries, self.shape.cool_down_s)
        self.ledger = Ledger(self.loop.time, DEAD_HOST_AFTER_S)
        self.server.listeners.append(self._hear)
        self.clients: list[SimulatedStore] = []
        self.store_links: dict[str, Link] = {}
        self.controller_links: dict[tuple[str, str], Link] = {}
        self.fabric = FakeFabric()
        self.replicas = [self._replica(f"c{i + 1}") for i in range(self.shape.controllers)]
        self.stations = [self._station(f"h{i + 1}", i + 1) for i in range(self.shape.hosts)]
        self.names = 0
        self.digest = hashlib.sha256()
        self._in_servers(self._tick)

    def fail(self, what: str) -> None:
        if what not in self.found:
            self.found.append(what)

    def note(self, text: str) -> None:
        line = f"{self.loop.time() - 1000.0:10.3f} {text}"
        self.trace.append(line)
        self.digest.update(line.encode())

    def fresh(self, kind: str) -> str:
        self.names += 1
        return f"{kind}{self.names}"

    def fresh_id(self, digits: int) -> str:
        """Never the same twice, whatever the steps' seeds are."""
        self.names += 1
        return (
            f"{self.names:0{digits // 2}x}{self.rng.getrandbits(4 * (digits - digits // 2)):0{digits - digits // 2}x}"
        )

    def station(self, host: str) -> Station:
        return next(station for station in self.stations if station.name == host)

    def operator_link(self, replica: Replica) -> Link:
        return self._controller_link("operators", self.operators, replica)

    # parts

    def _replica(self, name: str) -> Replica:
        def settings(replica: str, clock: Clock) -> Settings:
            made = Settings(
                replica=replica,
                store_kind="simulated",
                cool_down_s=self.shape.cool_down_s,
                dead_host_after_s=DEAD_HOST_AFTER_S,
                leak_grace_s=LEAK_GRACE_S,
                check_interval_s=CHECK_S,
                journal_entries=JOURNAL,
                clock=clock,
            )
            return self.planted.settings(made)

        return Replica(name, self.loop, self._store, settings, self.planted.cluster)

    def _station(self, name: str, number: int) -> Station:
        machine = Machine.make(name, number)
        self.fabric.join(machine.host)
        timing = Timing(ttl_s=self.shape.ttl_s)
        return Station(machine, self.loop, self._store, self._controller, timing, self.planted.worker)

    def _store(self, name: str, process: Process) -> Store:
        link = Link(self.loop, self.weather, process, self.servers)
        former = self.store_links.get(name)
        if former is not None:  # a cable stays pulled when a process is started anew
            link.is_cut, link.is_refused, link.is_slow = former.is_cut, former.is_refused, former.is_slow
        self.store_links[name] = link
        client = self.planted.client(self.server, link, process, self.shape.store == "follower")
        self.clients.append(client)
        return client

    def _controller(self, host: str, process: Process, time: Time) -> Controller:
        ways = [(replica, self._controller_link(host, process, replica)) for replica in self.replicas]
        start = time.rng.randrange(len(ways))
        return SimulatedController(ways[start:] + ways[:start], host, time)

    def _controller_link(self, name: str, near: Process, replica: Replica) -> Link:
        link = self.controller_links.get((name, replica.name))
        if link is None or link.near is not near:
            former = link
            link = Link(self.loop, self.weather, near, replica.process)
            if former is not None:
                link.is_cut, link.is_refused = former.is_cut, former.is_refused
            self.controller_links[name, replica.name] = link
        return link

    # what goes on by itself

    def _in_servers(self, callback: Callable[[], None]) -> None:
        self.loop.call_later(PROGRESS_S, callback, context=self.servers.context())

    def _tick(self) -> None:
        self.clients = [client for client in self.clients if client.is_alive]
        if self.server.is_up:
            self.server.expire(self.rng.random())
            for client in self.clients:
                client.progress()
        self._in_servers(self._tick)

    def _hear(self, revision: Revision, before: dict[str, Entry | None], writes: Sequence[Write]) -> None:
        for found in self.judge.hear(revision, before, writes) + self.ledger.hear(revision, before, writes):
            self.fail(found)
        told = ", ".join(sorted(f"{'+' if hasattr(w, 'value') else '-'}{w.key}" for w in writes if _is_told(w)))
        if told:
            self.note(f"r{revision} {told}")


def _is_told(write: Write) -> bool:
    return not write.key.startswith((keys.JOURNAL, keys.OBSERVED, keys.GUARDS))
