"""What goes wrong: processes die, stop and come back, links are cut, the store forgets, clocks jump, kernels misbehave.

Each action picks its victim when its turn comes. Nothing here lasts beyond `heal_everything` but what clocks are off.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulation.network import Link
from tests.simulation.processes import Process
from tests.simulation.replica import Replica
from tests.simulation.station import Station
from tests.simulation.work import Work
from tests.simulation.world import World
from tests.unit.datapath import damage

JUMPS_S = (-7200.0, -90.0, -20.0, -3.0, 3.0, 20.0, 90.0, 7200.0)


class Harm:
    def __init__(self, world: World, work: Work) -> None:
        self.world = world
        self.work = work

    def do(self, action: str) -> None:
        getattr(self, f"_{action}")()

    # processes

    def _kill_controller(self) -> None:
        replica = self._pick([one for one in self.world.replicas if one.is_running])
        if isinstance(replica, Replica):
            self.world.note(f"kill {replica.name}")
            replica.kill()

    def _kill_worker(self) -> None:
        station = self._pick([one for one in self.world.stations if one.is_running])
        if isinstance(station, Station):
            self.world.note(f"kill worker {station.name}")
            station.kill()

    def _power_cut(self) -> None:
        station = self._pick(self.world.stations)
        if isinstance(station, Station):
            self.world.note(f"power cut at {station.name}")
            station.kill()
            for path in station.machine.namespaces:
                self.work.end_workload(station, path)
            station.machine.host.reboot()
            station.machine.disk.lose_power(self.world.rng)

    def _start_dead(self) -> None:
        dead = [
            *(r for r in self.world.replicas if not r.is_running),
            *(s for s in self.world.stations if not s.is_running),
        ]
        one = self._pick(dead)
        if isinstance(one, Replica | Station):
            self.world.note(f"start {one.name}")
            one.start()

    def _stop_process(self) -> None:
        one = self._pick([p for p in self._processes() if not p.is_stopped])
        if isinstance(one, Process):
            self.world.note(f"stop {one}")
            one.is_stopped = True

    def _continue_process(self) -> None:
        one = self._pick([p for p in self._processes() if p.is_stopped])
        if isinstance(one, Process):
            self.world.note(f"continue {one}")
            one.is_stopped = False

    # links

    def _cut_store(self) -> None:
        self._hurt(self._store_links(), "cut")

    def _refuse_store(self) -> None:
        self._hurt(self._store_links(), "refuse")

    def _slow_store(self) -> None:
        name = self._pick(sorted(self.world.store_links))
        if isinstance(name, str):
            self.world.note(f"slow store of {name}")
            self.world.store_links[name].is_slow = True

    def _cut_controller(self) -> None:
        self._hurt({" ".join(pair): link for pair, link in self.world.controller_links.items()}, "cut")

    def _heal(self) -> None:
        """One thing that is broken is mended."""
        world = self.world
        links = {**self._store_links(), **{" ".join(pair): link for pair, link in world.controller_links.items()}}
        bad = sorted(name for name, link in links.items() if link.is_cut or link.is_slow)
        bad += ["servers"] if not world.server.is_up else []
        bad += [f"machine {s.name}" for s in world.stations if s.machine.failing or s.machine.disk.is_full]
        name = self._pick(bad)
        if name == "servers":
            self._store_back()
        elif isinstance(name, str) and name.startswith("machine "):
            station = world.station(name.split()[1])
            station.machine.failing, station.machine.disk.is_full = 0.0, False
        elif isinstance(name, str):
            links[name].heal()
        if name is not None:
            world.note(f"heal {name}")

    def _store_away(self) -> None:
        if self.world.server.is_up:
            self.world.note("the store is away")
            self.world.server.is_up = False
            for link in self.world.store_links.values():
                link.refuse()

    def _store_back(self) -> None:
        self.world.server.is_up = True
        self.world.server.extend()
        for link in self.world.store_links.values():
            link.heal()

    # the store

    def _compact(self) -> None:
        self.world.note("compact")
        self.world.server.state.compact()
        if self.world.rng.random() < 0.5:  # and whoever watches has to come again
            for client in self.world.clients:
                client.drop()

    def _end_session(self) -> None:
        session = self._pick(self.world.server.held)
        if isinstance(session, str):
            self.world.note(f"end {session}")
            self.world.servers.context().run(self.world.server.end, session)

    def _extend_sessions(self) -> None:
        self.world.note("sessions begin anew")
        self.world.server.extend()

    # machines

    def _set_clock(self) -> None:
        one = self._pick([*self.world.replicas, *(station.machine for station in self.world.stations)])
        jump = self.world.rng.choice(JUMPS_S)
        if one is not None:
            self.world.note(f"clock of {one.name} {jump:+g} s")  # type: ignore[attr-defined]
            one.offset_s += jump  # type: ignore[attr-defined]

    def _kernel_fails(self) -> None:
        station = self._pick(self.world.stations)
        if isinstance(station, Station):
            self.world.note(f"kernel of {station.name} fails")
            station.machine.failing = self.world.rng.choice((0.05, 0.3))
            station.machine.is_meddled = True

    def _meddle(self) -> None:
        """Somebody changes the kernel by hand, where that harms our networks and nobody's workload for good."""
        station = self._pick(self.world.stations)
        if isinstance(station, Station):
            one, choice = self.world.rng.choice(HARMLESS), self.world.rng.randrange(10_000)
            host = station.machine.host
            station.machine.is_meddled = True
            host.meddle(*one(host, choice))
            self.world.note(f"meddle {one.__name__} {choice} at {station.name}")

    def _lose_events(self) -> None:
        station = self._pick(self.world.stations)
        if isinstance(station, Station):
            station.machine.host.lose_events()
            self.world.note(f"events of {station.name} are lost")

    def _fill_disk(self) -> None:
        station = self._pick(self.world.stations)
        if isinstance(station, Station):
            station.machine.disk.is_full = True
            self.world.note(f"disk of {station.name} is full")

    # the end

    def heal_everything(self) -> None:
        world = self.world
        world.note("everything is mended")
        world.weather.lost = world.weather.slow = world.weather.late = world.weather.lag = 0.0
        self._store_back()
        for link in world.controller_links.values():
            link.heal()
        for station in world.stations:
            station.machine.failing, station.machine.disk.is_full = 0.0, False
            station.process.is_stopped = False
            if not station.is_running:
                station.start()
        for replica in world.replicas:
            replica.process.is_stopped = False
            if not replica.is_running:
                replica.start()

    # helpers

    def _pick(self, things: Sequence[object]) -> object | None:
        return self.world.rng.choice(things) if things else None

    def _processes(self) -> list[Process]:
        found = [*(r.process for r in self.world.replicas), *(s.process for s in self.world.stations)]
        return [process for process in found if not process.is_dead]

    def _store_links(self) -> dict[str, Link]:
        return {f"{name} store": link for name, link in self.world.store_links.items()}

    def _hurt(self, links: dict[str, Link], how: str) -> None:
        name = self._pick(sorted(links))
        if isinstance(name, str):
            self.world.note(f"{how} {name}")
            getattr(links[name], how)()


# A gate that is turned off for good, and a stale network that holds a VNI, are a kernel that somebody has to mend.
HARMLESS = [
    damage.delete_a_link,
    damage.alter_a_link,
    damage.flap_a_bridge,
    damage.lose_an_entry,
    damage.falsify_an_entry,
    damage.add_an_entry,
    damage.change_a_setting,
    damage.damage_the_firewall,
    damage.move_a_port,
    damage.rebuild_a_tunnel_wrongly,
    damage.put_an_address_before_ours,
    damage.leave_a_stale_network,
]
