"""What Docker has forgotten and we have not, and the other way round: while one of the two was away, the other went on.

Docker forgets an endpoint even if nobody hears of it, and never tells again; so whatever of it is left here for longer
than a start takes, in two looks, is released. What Docker has and we do not know is only told: that workload has no
record, and needs a look by a person. Pure but for the loop; nothing is swept while Docker cannot be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvnet.errors import KvnetError, NotFound
from kvnet.model import Condition
from worker.attachments import Phase, Record
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.containers import places_of
from worker.runtimes.docker.follower import Follower
from worker.runtimes.docker.ledger import Ledger, Want
from worker.runtimes.docker.ports import Engine, Workloads

# Docker does not list what it is still making; a start on a busy host takes seconds.
GRACE_S = 30.0
AGAIN_S = 5.0
EVERY_S = 60.0
# A hold runs out after 60 s by itself; a create that takes longer has failed.
WANT_S = 120.0


@dataclass(frozen=True, slots=True)
class Look:
    """`known`: Docker's ids of the endpoints that it has on networks of ours, with their containers' ids.

    `suspects`: what was found missing before (of Docker's endpoints: unknown), and when first.
    """

    now: float
    records: Sequence[Record]
    known: Mapping[str, str]
    wants: Sequence[Want] = ()
    suspects: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """`release`: our ids of endpoints. `strangers`: Docker's ids of endpoints that have no record here.

    `suspects`: for the next look, which is worth having soon if there are any that are new.
    """

    release: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    drop: tuple[Want, ...] = ()
    strangers: tuple[str, ...] = ()
    suspects: Mapping[str, float] = field(default_factory=dict)


def judge(look: Look) -> Findings:
    ours = [record for record in look.records if record.runtime == "docker"]
    missing = [
        record.endpoint
        for record in ours
        if record.phase in (Phase.CLAIMED, Phase.ATTACHED)
        and record.external not in look.known
        and look.now - record.since >= GRACE_S
    ]
    externals = {record.external for record in ours}
    unknown = [endpoint for endpoint in look.known if endpoint not in externals]
    suspects = {id_: look.suspects.get(id_, look.now) for id_ in (*missing, *unknown)}

    def is_certain(id_: str) -> bool:
        return look.now - suspects[id_] >= AGAIN_S

    return Findings(
        release=tuple(filter(is_certain, missing)),
        settle=tuple(r.endpoint for r in ours if r.phase is Phase.ATTACHED and r.is_handed_over),
        drop=tuple(want for want in look.wants if look.now - want.since >= WANT_S),
        strangers=tuple(filter(is_certain, unknown)),
        suspects=suspects,
    )


class Sweeper:
    def __init__(
        self,
        engine: Engine,
        follower: Follower,
        workloads: Workloads,
        ledger: Ledger,
        controller: Controller,
        *,
        time: Time,
        log: Log,
    ) -> None:
        self._engine = engine
        self._follower = follower
        self._workloads = workloads
        self._ledger = ledger
        self._controller = controller
        self._time = time
        self._log = log
        self._kicked = asyncio.Event()
        self._suspects: Mapping[str, float] = {}
        self._strangers: dict[str, Condition] = {}
        self._network_of: dict[str, str] = {}

    def kick(self) -> None:
        self._kicked.set()

    def conditions(self) -> Sequence[tuple[str, Condition]]:
        """With our ids of the networks."""
        return [(self._network_of.get(endpoint, ""), told) for endpoint, told in self._strangers.items()]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._kicked.wait()
            self._kicked.clear()
            if self._follower.is_synchronous:
                with contextlib.suppress(KvnetError):  # said by who follows the events
                    await self.sweep()

    async def sweep(self) -> Findings:
        """
        Raises:
            EngineAway, EngineRefused: nothing was swept.
        """
        records = [record for record in self._workloads.records() if record.runtime == "docker"]
        look = Look(
            self._time.now(), records, await self._known(records), list(self._ledger.wants()), dict(self._suspects)
        )
        found = judge(look)
        self._suspects = found.suspects
        self._note(found, look.known)
        for endpoint in found.release:
            await self._release(endpoint)
        for endpoint in found.settle:
            with contextlib.suppress(KvnetError):
                await self._workloads.settle(endpoint)
        for want in found.drop:
            await self._drop(want)
        return found

    async def _known(self, records: Sequence[Record]) -> dict[str, str]:
        """One list has those of all containers that run; where one of ours is not among them, its network tells."""
        known: dict[str, str] = {}
        networks = {network.name: id_ for id_, network in self._follower.docker.items()}
        for container in await self._engine.containers():
            for network, endpoint in places_of(container):
                if endpoint and network in networks:
                    known[endpoint] = str(container.get("Id", ""))
                    binding = self._ledger.binding(networks[network])
                    self._network_of[endpoint] = binding.network if binding is not None else ""
        self._network_of = {endpoint: network for endpoint, network in self._network_of.items() if endpoint in known}
        unclear = {record.network_id for record in records if record.external not in known}
        for id_ in {b.docker for b in self._ledger.bindings() if b.network in unclear} & self._follower.docker.keys():
            network_there = await self._engine.network(id_)
            known.update(network_there.endpoints if network_there is not None else {})
        return known

    async def _release(self, endpoint: str) -> None:
        record = self._workloads.record(endpoint)
        if record is None or record.phase not in (Phase.CLAIMED, Phase.ATTACHED):
            return
        self._log.warning("docker-endpoint-forgotten", endpoint=endpoint, network=record.network_id, name=record.name)
        with contextlib.suppress(KvnetError):
            await self._workloads.release(endpoint)

    async def _drop(self, want: Want) -> None:
        try:
            if want.hold:
                await self._controller.release_hold(want.hold)
        except NotFound:
            pass
        except KvnetError:
            return  # it runs out by itself, and is dropped at a later look
        await self._ledger.drop(want.cidr)

    def _note(self, found: Findings, known: Mapping[str, str]) -> None:
        fresh: dict[str, Condition] = {}
        for endpoint in found.strangers:
            container = known[endpoint][:12]
            detail = (
                f"container {container} has an interface on a network of kvnet's that this worker has no record of: "
                f"restart it ('docker restart {container}'), then it has one"
            )
            if endpoint not in self._strangers:
                self._log.warning("docker-endpoint-unknown", container=container, endpoint=endpoint[:12])
            fresh[endpoint] = self._strangers.get(endpoint) or Condition(
                "docker-endpoint-unknown", detail, self._time.now()
            )
        self._strangers = fresh

    def _pause_s(self) -> float:
        now = self._time.now()
        is_soon = any(now - since < AGAIN_S for since in self._suspects.values())
        return AGAIN_S + 0.1 if is_soon else self._time.jittered(EVERY_S)
