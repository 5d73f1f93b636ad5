"""Containers that Docker was to keep running, and whose start failed on us: started again, once we can answer.

Docker starts a container with a restart policy once at its own boot. If controller or store is away at that moment our
plugin refuses, and the container would stay down for good. What a user has stopped has no failure noted, and one that
has never run is its creator's to start again. Nothing is started while Docker, store or controller is away, nor without
end. Decides by `failure_of` alone, and is never called while a call of Docker's is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvnet.errors import KvnetError
from kvnet.model import Condition
from worker.log import Log
from worker.ports import Backoff, Controller, Time
from worker.runtimes.docker.follower import Follower
from worker.runtimes.docker.ports import Catalogue, Engine, EngineAway, EngineNetwork

KEPT_RUNNING = frozenset({"always", "unless-stopped"})
NEVER = "0001-01-01T"
# What Docker says of a driver outside of it: its own words, one that broke off or hung, and one that was not there.
ON_A_DRIVER = re.compile(r"\bremote: |\bkvnet\.sock\b|\b(NetworkDriver|IpamDriver)\.\w|\bplugin\b.*\bnot found\b")
# Docker notes why a start failed after it was told, and a user who typed it may type it again.
AFTERWARDS_S = 1.0
DOUBT_S = 2.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
MOST_TRIES = 10
MOST_SAID = 200
GIVEN_UP = "docker-container-given-up"
AT_ONCE = 4
# One that is being started is not told of until it has.
LEARN_S = 2.0
UNCLEAR_S = 5.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Of a start, in Docker's words."""

    name: str
    why: str


def failure_of(container: Mapping[str, Any], networks: Collection[EngineNetwork]) -> Failure | None:
    """Why it is down, if that is ours to make good. `container`: as inspected; `networks`: those of our driver."""
    state = container.get("State") or {}
    policy = ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name")
    if policy not in KEPT_RUNNING or state.get("Status") != "exited":
        return None
    has_run = not str(state.get("StartedAt") or NEVER).startswith(NEVER)
    why = str(state.get("Error") or "")
    if not has_run or not ON_A_DRIVER.search(why) or not is_on(container, networks):
        return None
    return Failure(str(container.get("Name", "")).lstrip("/"), why)


def is_on(container: Mapping[str, Any], networks: Collection[EngineNetwork]) -> bool:
    """As listed or as inspected; newer Dockers have no id there while it has no endpoint."""
    places = (container.get("NetworkSettings") or {}).get("Networks") or {}
    ids, names = {known.id for known in networks}, {known.name for known in networks}
    there = [(str(name), str((place or {}).get("NetworkID") or "")) for name, place in places.items()]
    return any(id_ in ids or (not id_ and name in names) for name, id_ in there)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Told until the container runs, is gone, or Docker starts anew. `networks`: Docker's ids of those it is on."""

    networks: tuple[str, ...]
    condition: Condition


@dataclass(slots=True)
class Tries:
    """Of one container. `due`: when the next one may be, by the monotonic clock; None: there is none."""

    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S))
    due: float | None = 0.0
    given_up: GivenUp | None = None

    def count(self, time: Time) -> None:
        pause_s = self.backoff.next(time)
        self.due = None if self.backoff.failures >= MOST_TRIES else time.monotonic() + pause_s


class Reviver:
    """Looks after `kick`, and then for as long as there is something to start."""

    def __init__(
        self,
        engine: Engine,
        follower: Follower,
        catalogue: Catalogue,
        controller: Controller,
        *,
        time: Time,
        log: Log,
    ) -> None:
        self._engine = engine
        self._follower = follower
        self._catalogue = catalogue
        self._controller = controller
        self._time = time
        self._log = log
        self._kicked = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tries: dict[str, Tries] = {}
        self._is_unclear = False

    def kick(self) -> None:
        """A start may just have failed on us."""
        self._kicked.set()

    def begin_anew(self) -> None:
        """Docker may have tried at its own boot: what was given up is tried again."""
        self._tries.clear()
        self.kick()

    def conditions(self) -> Iterator[tuple[str, Condition]]:
        """Of containers that stay down, with Docker's ids of their networks."""
        for tries in self._tries.values():
            if tries.given_up is not None:
                yield from ((network, tries.given_up.condition) for network in tries.given_up.networks)

    async def run(self) -> None:
        """Until cancelled."""
        pause_s: float | None = None
        self.kick()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._kicked.wait()
            if self._kicked.is_set():
                await self._time.sleep(self._time.jittered(AFTERWARDS_S))
            self._kicked.clear()
            pause_s = await self.look()

    async def look(self) -> float | None:
        """Start what is due; how long until it is worth another look."""
        if not self._follower.is_synchronous:
            return None  # kicked when it is
        if not self._catalogue.is_in_step or not await self._controller.answers():
            return self._time.jittered(DOUBT_S)
        networks = self._follower.docker.values()
        try:
            listed = await self._engine.exited()
        except KvnetError:  # said by who follows the events
            return self._time.jittered(DOUBT_S)
        down = [str(container.get("Id", "")) for container in listed if is_on(container, networks)]
        self._tries = {id_: tries for id_, tries in self._tries.items() if id_ in down}
        self._is_unclear = False
        async with asyncio.TaskGroup() as group:
            for id_ in down:
                group.create_task(self._attend(id_))
        now = self._time.monotonic()
        waits = [max(FIRST_PAUSE_S, tries.due - now) for tries in self._tries.values() if tries.due is not None]
        return min([*waits, *([self._time.jittered(UNCLEAR_S)] if self._is_unclear else [])], default=None)

    async def _attend(self, id: str) -> None:
        async with self._slots:
            try:
                found = await self._engine.container(id, LEARN_S)
            except KvnetError:
                self._is_unclear = True
                return
            failure = failure_of(found, self._follower.docker.values()) if found is not None else None
            if failure is None:
                self._tries.pop(id, None)
                return
            tries = self._tries.setdefault(id, Tries())
            if tries.due is not None and tries.due <= self._time.monotonic() and self._follower.is_synchronous:
                await self._start(id, found or {}, failure, tries)

    def _given_up(self, container: Mapping[str, Any], failure: Failure) -> GivenUp:
        known = self._follower.docker.values()
        detail = (
            f"container {failure.name} stays down: it could not be started {MOST_TRIES} times, and is not tried again;"
            f" 'docker start {failure.name}' tries it once more (Docker said: {failure.why[:MOST_SAID]})"
        )
        networks = tuple(one.id for one in known if is_on(container, [one]))
        return GivenUp(networks, Condition(GIVEN_UP, detail, self._time.now()))

    async def _start(self, id: str, container: Mapping[str, Any], failure: Failure, tries: Tries) -> None:
        tries.count(self._time)
        try:
            await self._engine.start_container(id)
        except KvnetError as error:
            self._is_unclear |= isinstance(error, EngineAway)
            if tries.due is None:
                tries.given_up = self._given_up(container, failure)
            self._log.warning(
                "docker-container-not-revived",
                container=id[:12],
                name=failure.name,
                number=tries.backoff.failures,
                given_up=tries.due is None,
                detail=error.detail,
            )
            return
        self._tries.pop(id, None)
        self._log.info("docker-container-revived", container=id[:12], name=failure.name, after=failure.why)
