"""How Docker calls its containers, told to the cluster soon after their interfaces are there: names, aliases, labels.

Docker's drivers are told none of it, so it is learnt from events: a container when it is created, its endpoint when it
is connected. While a container starts, Docker answers no question about it, so nothing here waits for such an answer
without a bound. What cannot be told now is owed, and told later. Never called while a call of Docker's is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from kvnet.errors import KvnetError, NotFound
from worker.attachments import Phase, Record
from worker.log import Log
from worker.ports import Time
from worker.runtimes.docker.containers import Names, essence, names_of, places_of
from worker.runtimes.docker.ports import DRIVER, Engine, EngineEvent, Workloads

# A container that runs is told of in 3 ms; one that is being started only when it has (0.3 s and more).
GLANCE_S = 0.25
LEARN_S = 2.0
STARTING_S = 30.0
AT_ONCE = 8
# Docker moves and renames the interface right after it was handed over.
SETTLE_S = (0.1, 0.4, 2.0)
OWED_S = 5.0
MOST_KNOWN = 4096


class Namer:
    """Runs beside the follower; told of every event of containers, and of the networks' connections."""

    def __init__(self, engine: Engine, workloads: Workloads, *, time: Time, log: Log) -> None:
        self._engine = engine
        self._workloads = workloads
        self._time = time
        self._log = log
        self._group: asyncio.TaskGroup | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._known: dict[str, Mapping[str, Any]] = {}
        self._owed: set[str] = set()
        self._asking: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    await self._time.sleep(self._time.jittered(OWED_S))
                    for container in list(self._owed):
                        self._spawn(self._confirm(container, STARTING_S))
            finally:
                self._group = None

    def on_event(self, event: EngineEvent) -> None:
        if event.kind == "network" and event.action == "connect" and event.attributes.get("type") == DRIVER:
            self._spawn(self._connected(event.id, event.attributes.get("container", "")))
        elif event.kind != "container":
            return
        elif event.action == "create":
            self._spawn(self._created_one(event.id))
        elif event.action == "destroy":
            self._known.pop(event.id, None)
            self._owed.discard(event.id)
        elif event.action == "rename" or (event.action == "start" and self._may_be_ours(event.id)):
            self._spawn(self._confirm(event.id, STARTING_S))

    async def read_anew(self) -> None:
        """After the stream of events was opened again: whatever was missed.

        Raises:
            EngineAway, EngineRefused
        """
        ours = {record.external for record in self._records()}
        for container in await self._engine.containers():
            if any(endpoint in ours for _, endpoint in places_of(container)):
                self._spawn(self._confirm(str(container.get("Id", "")), LEARN_S))
        for record in self._records():
            if record.is_handed_over:
                self._spawn(self._settle(record.endpoint))

    # what an event leads to

    async def _created_one(self, id: str) -> None:
        found = await self._engine.container(id, LEARN_S)
        if found is not None:
            self._note(id, found)

    def _note(self, id: str, found: Mapping[str, Any]) -> None:
        self._known.pop(id, None)
        while len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[id] = essence(found)

    async def _connected(self, network_id: str, id: str) -> None:
        """The endpoint, then its names from what is known of the container; one that runs is asked for, for the
        aliases of this connection are nowhere else."""
        network = await self._engine.network(network_id)
        endpoint = next((e for e, c in network.endpoints.items() if c == id), "") if network is not None else ""
        record = self._of(endpoint)
        if network is None or record is None:
            return
        self._spawn(self._settle(record.endpoint))
        known = self._known.get(id)
        # On this network once more, under another endpoint, it may have other aliases there.
        if known is None or dict(places_of(known)).get(network.name) not in ("", endpoint):
            known = await self._glance(id)
        if known is not None:
            await self._tell(record, names_of(known, network.name), id)

    async def _glance(self, id: str) -> Mapping[str, Any] | None:
        """Of one that was not seen to be created so: while it is being started, only a list tells of it, without its
        aliases (but for those that it had before); the rest is owed until it has started."""
        listed = await self._engine.listed(id)
        if listed is None:
            return None
        if listed.get("State") == "running":
            with contextlib.suppress(KvnetError):
                return await self._engine.container(id, GLANCE_S)
        self._owed.add(id)
        if id in self._known:
            return self._known[id]
        names = listed.get("Names") or [""]
        return {"Id": id, "Name": names[0], "Config": {"Labels": listed.get("Labels")}}

    async def _confirm(self, id: str, timeout_s: float) -> None:
        """All of a container's endpoints, as Docker says now. One that it is asked about already is owed meanwhile: a
        Docker that hangs at a container would take all slots."""
        self._owed.add(id)
        if id in self._asking:
            return
        self._asking.add(id)
        try:
            async with self._slots:
                self._owed.discard(id)  # what happens from here on may be missing in the answer
                found = await self._engine.container(id, timeout_s)
        except KvnetError:
            self._owed.add(id)
            raise
        finally:
            self._asking.discard(id)
        if found is None:
            self._known.pop(id, None)
            return
        self._note(id, found)
        for network, endpoint in places_of(found):
            record = self._of(endpoint)
            if record is not None:
                await self._tell(record, names_of(found, network), id)

    async def _tell(self, record: Record, names: Names, id: str) -> None:
        if names.are_those_of(record.answer):
            return
        try:
            await self._workloads.change(record.endpoint, names.body())
        except NotFound:
            return
        except KvnetError:
            self._owed.add(id)
            raise
        self._log.info("docker-endpoint-named", endpoint=record.endpoint, name=names.name)

    async def _settle(self, endpoint: str) -> None:
        for pause_s in SETTLE_S:
            await self._time.sleep(pause_s)
            record = self._workloads.record(endpoint)
            if record is None or record.phase is not Phase.ATTACHED or not record.is_handed_over:
                return
            with contextlib.suppress(KvnetError):  # the sweep tries again
                await self._workloads.settle(endpoint)

    # helpers

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Nothing is lost without a group: everything is read anew when there is one."""
        if self._group is None:
            work.close()
            return
        self._group.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except KvnetError as error:
            self._log.info("docker-name-delayed", code=error.code, detail=error.detail)
        except Exception as error:  # noqa: BLE001 - a fault about one container must not end the others' names
            self._log.error("docker-name-failed", detail=f"{type(error).__name__}: {error}")
        finally:
            work.close()

    def _records(self) -> Sequence[Record]:
        return [r for r in self._workloads.records() if r.runtime == "docker" and r.external]

    def _of(self, external: str) -> Record | None:
        return next((r for r in self._records() if r.external == external), None) if external else None

    def _may_be_ours(self, id: str) -> bool:
        """Whether it is on a network that may be of our driver; one that was not seen to be created may be."""
        known = self._known.get(id)
        return known is None or any(name not in ("bridge", "host", "none") for name, _ in places_of(known))
