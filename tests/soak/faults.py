"""Does what was planned to the site: kills, freezes, cuts, fills disks, sets clocks; and puts it right again.

`begin` and `end` of one fault are a pair, whatever came between; `end` never fails because the victim is in another
state than it was left in. Whom a fault touches is told to the `Log`, with times: what a lost packet or a dead
process may be excused by. Hurts nothing but processes that the soak started, and namespaces that it made.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kvnet.errors import KvnetError
from tests.servers import partition
from tests.servers.cluster import Cluster
from tests.servers.family import ServerFailed
from tests.servers.places import Place
from tests.soak.bystanders import Window
from tests.soak.plan import Fault
from tests.soak.settings import MEMBERS
from tests.soak.site import Soaked
from tests.soak.wire import BadWire

LEADER_SECONDS = 8.0
IN_STEP_SECONDS, SYNCED_S = 30.0, 2.0
TOUCHES_MEMBERS = re.compile("leader|member")
CHUNK = b"x" * 65536
Undo = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Inflicted:
    """A fault as it was done. `victims`: processes whose recovery is looked at. `ended`: None while it lasts."""

    fault: Fault
    began: float
    victims: list[str] = field(default_factory=list)
    ended: float | None = None
    recovered_s: float | None = None
    bad_wire_of: str | None = None
    trouble: str = ""

    def told(self, since: float) -> dict[str, Any]:
        return {
            **self.fault.told(),
            "victims": self.victims,
            "began_s": round(self.began - since, 2),
            "ended_s": None if self.ended is None else round(self.ended - since, 2),
            "recovered_s": None if self.recovered_s is None else round(self.recovered_s, 2),
            **({"trouble": self.trouble} if self.trouble else {}),
        }


class Faults:
    """One site's. `log`: all that was inflicted so far, in order."""

    def __init__(self, site: Soaked, clock: Callable[[], float] = time.monotonic) -> None:
        self._site = site
        self._clock = clock
        self._members_turn = asyncio.Lock()
        self.log: list[Inflicted] = []

    def windows(self) -> list[Window]:
        now = self._clock()
        return [Window(i.bad_wire_of, i.began, i.ended or now) for i in self.log if i.bad_wire_of is not None]

    def under_way(self) -> bool:
        return any(inflicted.ended is None for inflicted in self.log)

    async def inflict(self, fault: Fault) -> Inflicted:
        """Begin it, let it last, end it; however this is left, it is ended.

        ZooKeeper's servers are hurt one after the other, each time from a whole cluster: hurt while they still bring
        each other into step they lose what they acknowledged (3.8.0 and 3.9.3 did), and then nothing of kvnet is left
        to judge but that it says so.
        """
        if self._site.options.store != "zookeeper" or not TOUCHES_MEMBERS.search(fault.kind):
            return await self._inflict(fault)
        async with self._members_turn:
            await self._until_in_step()
            return await self._inflict(fault)

    async def _until_in_step(self) -> None:
        with suppress(ServerFailed):
            await self._store.until_healthy(IN_STEP_SECONDS)
        await asyncio.sleep(SYNCED_S)

    async def _inflict(self, fault: Fault) -> Inflicted:
        inflicted = Inflicted(fault, self._clock())
        self.log.append(inflicted)
        undo: list[Undo] = []
        try:
            await self._begin(fault, inflicted, undo)
            await asyncio.sleep(fault.seconds)
        except (ServerFailed, KvnetError, OSError) as error:
            inflicted.trouble = f"{type(error).__name__}: {error}"[:300]
        finally:
            await asyncio.shield(self._undo(undo, inflicted))
            inflicted.ended = self._clock()
        return inflicted

    async def _undo(self, undo: list[Undo], inflicted: Inflicted) -> None:
        for step in reversed(undo):
            try:
                await step()
            except (ServerFailed, KvnetError, OSError) as error:
                inflicted.trouble += f" undoing: {type(error).__name__}: {error}"[:300]

    async def _begin(self, fault: Fault, inflicted: Inflicted, undo: list[Undo]) -> None:
        verb, _, rest = fault.kind.partition("-")
        what = rest.rpartition("-")[2]
        match verb:
            case "kill" | "freeze" if what in ("worker", "controller"):
                await self._process(verb, self._pick(what, fault), inflicted, undo)
            case "kill" | "freeze":
                await self._members(verb, await self._chosen_members(what, fault), inflicted, undo)
            case "clock":
                self._set_clock(self._pick(what, fault), fault.more["jump_s"], inflicted, undo)
            case "full":
                await self._fill(fault, inflicted, undo)
            case "bad":
                await self._bad_wire(self._pick(what, fault), fault, inflicted, undo)
            case "cut":
                await self._cut(fault, inflicted, undo)

    def _pick(self, what: str, fault: Fault) -> str:
        names = {
            "worker": self._site.hosts,
            "host": self._site.hosts,
            "controller": [controller.name for controller in self._site.controllers],
            "member": list(MEMBERS),
        }[what]
        return names[fault.target % len(names)]

    async def _process(self, verb: str, name: str, inflicted: Inflicted, undo: list[Undo]) -> None:
        process = self._site.process_of(name)
        assert process is not None
        inflicted.victims.append(name)
        self._site.away.add(name)
        if verb == "kill":
            undo.append(partial(self._start, name))
            await process.kill()
        else:
            undo.append(partial(self._thaw, name))
            process.signal(signal.SIGSTOP)

    async def _start(self, name: str) -> None:
        await self._site.start(name)
        self._site.away.discard(name)

    async def _thaw(self, name: str) -> None:
        process = self._site.process_of(name)
        if process is not None:
            process.signal(signal.SIGCONT)
        self._site.away.discard(name)

    @property
    def _store(self) -> Cluster:
        assert self._site.store is not None
        return self._site.store

    async def _chosen_members(self, what: str, fault: Fault) -> list[int]:
        if what == "members":
            return list(range(len(self._store.members)))
        if what == "leader":
            return [await self._leader(fault)]
        return [fault.target % len(self._store.members)]

    async def _leader(self, fault: Fault) -> int:
        """Or anybody, while an election is under way."""
        try:
            return await self._store.leader(LEADER_SECONDS)
        except ServerFailed:
            return fault.target % len(self._store.members)

    async def _members(self, verb: str, indexes: list[int], inflicted: Inflicted, undo: list[Undo]) -> None:
        inflicted.victims += [*self._site.hosts, *(controller.name for controller in self._site.controllers)]
        for index in indexes:
            member = self._store.members[index]
            inflicted.trouble = f"{inflicted.trouble} {MEMBERS[index]}".strip()
            self._site.away.add(MEMBERS[index])
            undo.append(partial(self._revive, index))
            if verb == "kill":
                await member.kill()
            elif member.is_running:
                await member.freeze()

    async def _revive(self, index: int) -> None:
        member = self._store.members[index]
        if member.is_frozen and member.is_running:
            await member.thaw()
        elif not member.is_running:
            await member.start()
        self._site.away.discard(MEMBERS[index])

    def _set_clock(self, name: str, jump_s: float, inflicted: Inflicted, undo: list[Undo]) -> None:
        inflicted.victims.append(name)
        clock = self._site.clocks[name]
        undo.append(partial(self._right_clock, name))
        clock.set(jump_s)

    async def _right_clock(self, name: str) -> None:
        self._site.clocks[name].set(0.0)

    async def _fill(self, fault: Fault, inflicted: Inflicted, undo: list[Undo]) -> None:
        if fault.kind == "full-store-disk":
            assert self._site.store_disk is not None
            filler = self._site.store_disk / "filler"
            inflicted.victims += [controller.name for controller in self._site.controllers]
        else:
            host = self._pick("host", fault)
            filler = self._site.lab.hosts[host].state_dir / "filler"
            inflicted.victims.append(host)
        undo.append(partial(self._empty, filler))
        await asyncio.to_thread(fill, filler)

    async def _empty(self, filler: Path) -> None:
        await asyncio.to_thread(filler.unlink, missing_ok=True)

    async def _bad_wire(self, name: str, fault: Fault, inflicted: Inflicted, undo: list[Undo]) -> None:
        """Of a host: also what explains its packets. Members and controllers carry nobody's packets."""
        if name in self._site.lab.hosts:
            inflicted.bad_wire_of = name
        inflicted.victims += [*self._site.hosts, *(controller.name for controller in self._site.controllers)]
        inflicted.trouble = name
        wire = BadWire(self._site.port_of(name), self._site.lab.directory)
        undo.append(wire.stop)
        await wire.start(fault.more["loss"], fault.more["delay_s"], fault.number)

    async def _cut(self, fault: Fault, inflicted: Inflicted, undo: list[Undo]) -> None:
        """A place is cut off from others, both ways. What hosts carry for their workloads passes."""
        site, (_, who, from_whom) = self._site, fault.kind.split("-")
        controllers = [controller.name for controller in site.controllers]
        name = MEMBERS[await self._leader(fault)] if who == "leader" else self._pick(who, fault)
        others = {
            "controllers": controllers,
            "controller": [controllers[fault.target // 7 % len(controllers)]],
            "store": list(MEMBERS),
            "members": [member for member in MEMBERS if member != name],
            "clients": [*controllers, *site.hosts],
        }[from_whom]
        inflicted.trouble = f"{name} from {' '.join(others)}"
        inflicted.victims += [name] if who in ("host", "controller") else [*site.hosts, *controllers]
        place = Place(site.underlay(name), site.port_of(name).netns)
        undo.append(partial(partition.heal, place))
        await partition.cut(place, [site.underlay(other) for other in others])

    async def end_all(self) -> None:
        """Whatever was interrupted: everything runs, nothing is cut off, all clocks are right."""
        site = self._site
        for name in [*site.hosts, *(controller.name for controller in site.controllers)]:
            site.clocks[name].set(0.0)
            process = site.process_of(name)
            if process is not None and process.is_running:
                process.signal(signal.SIGCONT)
            elif name in site.away:
                await site.start(name)
            site.away.discard(name)
        if site.store is not None:
            for index in range(len(site.store.members)):
                with suppress(ServerFailed):
                    await self._revive(index)


def fill(path: Path) -> None:
    """Until there is no room for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (len(CHUNK), 4096, 1):
            with suppress(OSError):
                while file.write(CHUNK[:size]) == size:
                    pass
