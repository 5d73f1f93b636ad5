"""Does what `everywhere` decides: one thing at a time for each network, several networks at once, again until it holds.

Looks after every event, every change of the catalogue, and every step of its own; what fails is tried again with
growing pauses and shown in the status meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kvnet.errors import KvnetError
from kvnet.model import Condition
from worker.attachments import Phase
from worker.log import Log
from worker.ports import Backoff, Time
from worker.runtimes.docker.everywhere import DOUBT_S, Action, Name, Sight, decide
from worker.runtimes.docker.ledger import Ledger
from worker.runtimes.docker.ports import (
    DRIVER,
    Catalogue,
    Engine,
    EngineEvent,
    EngineNetwork,
    EngineRefused,
    Workloads,
)
from worker.runtimes.docker.steps import NO_DUPLICATES, NotNow, Steps
from worker.settings import Settings

FIRST_PAUSE_S = 0.05
# Where nobody answers. What Docker refuses, like a name that another driver's network has, it mostly goes on refusing.
LONGEST_PAUSE_S = 3.0
LONGEST_REFUSAL_S = 30.0
AT_ONCE = 4
# From then on a condition says what is wrong: what heals by itself does so in fewer attempts.
TOLD_AFTER = 4
# Daemons from here on have networks without IPv4.
IPV6_ONLY = (1, 48)


@dataclass(slots=True)
class Trouble:
    """Why it is tried again, and when."""

    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S))
    due: float = 0.0
    code: str = ""
    detail: str = ""
    since: float = 0.0

    def wait(self, time: Time, longest_s: float) -> None:
        self.backoff.longest_s = longest_s
        self.due = time.monotonic() + self.backoff.next(time)


class Follower:
    """`is_believed`: the catalogue may be acted upon."""

    def __init__(
        self,
        engine: Engine,
        steps: Steps,
        catalogue: Catalogue,
        ledger: Ledger,
        workloads: Workloads,
        settings: Settings,
        *,
        is_believed: Callable[[], bool],
        time: Time,
        log: Log,
    ) -> None:
        self.is_synchronous = False
        self._engine = engine
        self._steps = steps
        self._catalogue = catalogue
        self._ledger = ledger
        self._workloads = workloads
        self._settings = settings
        self._is_believed = is_believed
        self._time = time
        self._log = log
        self._kicked = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._busy: set[str] = set()
        self._troubles: dict[str, Trouble] = {}
        self._strays: dict[str, float] = {}
        self._seen: frozenset[str] = frozenset()
        self._used: frozenset[str] = frozenset()
        self._used_at: dict[str, float] = {}
        self._shown: frozenset[str] = frozenset()
        self._unfit: dict[str, Condition] = {}

    @property
    def docker(self) -> Mapping[str, EngineNetwork]:
        """What Docker has of our driver, by its id."""
        return self._steps.docker

    # what is told

    async def read_anew(self, version: tuple[int, int]) -> None:
        """The stream of events is open, so nothing is missed after this.

        Raises:
            EngineAway, EngineRefused
        """
        self._steps.version = version
        self._steps.docker = {network.id: network for network in await self._engine.networks()}
        self.is_synchronous = True
        self._hurry()
        self.kick()

    def lose_sight(self) -> None:
        self.is_synchronous = False

    def on_event(self, event: EngineEvent) -> None:
        """Of a network. Whether one of another driver has a name is for Docker to say."""
        if event.action == "destroy":
            self._steps.docker.pop(event.id, None)
            self._hurry()
        elif event.action == "create" and event.attributes.get("type") == DRIVER and event.id not in self.docker:
            binding = self._ledger.binding(event.id)
            subnets = binding.subnets if binding is not None else ()
            self._steps.docker[event.id] = EngineNetwork(event.id, event.attributes.get("name", ""), subnets)
        self.kick()

    def _hurry(self) -> None:
        for trouble in self._troubles.values():
            trouble.due = 0.0

    def kick(self) -> None:
        self._kicked.set()

    def conditions(self) -> Mapping[str, Condition]:
        """By our id of the network (Docker's, where there is none)."""
        found = {
            key: Condition(trouble.code, trouble.detail, trouble.since)
            for key, trouble in self._troubles.items()
            if trouble.backoff.failures >= TOLD_AFTER and trouble.detail
        }
        return {**self._unfit, **found}

    # the loop

    async def run(self) -> None:
        """Until cancelled."""
        self._busy.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_catalogue())
            while True:
                self._kicked.clear()
                # A catalogue that is in step again, with nothing changed meanwhile, tells nobody.
                is_in_step = self.is_synchronous and self._catalogue.is_in_step
                again_s = self._look(group) if is_in_step else DOUBT_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again_s):
                        await self._kicked.wait()

    async def _watch_catalogue(self) -> None:
        number = 0
        while True:
            number = await self._catalogue.changed(number)
            self._seen |= self._catalogue.networks.keys()
            self.kick()

    def _look(self, group: asyncio.TaskGroup) -> float | None:
        """Begin what has to be done; how long until it is worth another look."""
        sight = self.sight()
        decision = decide(sight)
        self._unfit = {
            id_: self._unfit.get(id_) or Condition("docker-unfit", detail, sight.now)
            for id_, detail in decision.unfit.items()
        }
        wanted = {action.key for action in decision.actions}
        self._troubles = {key: trouble for key, trouble in self._troubles.items() if key in wanted or key in self._busy}
        now = self._time.monotonic()
        waits = [] if decision.again_at is None else [max(0.001, decision.again_at - sight.now)]
        for action in decision.actions:
            trouble = self._troubles.get(action.key)
            if action.key in self._busy or (isinstance(action, Name) and action.docker in self._steps.named):
                continue
            if trouble is not None and trouble.due > now:
                waits.append(trouble.due - now)
                continue
            self._busy.add(action.key)
            group.create_task(self._do(action))
        return min(waits, default=None)

    def sight(self) -> Sight:
        bindings = {binding.docker: binding for binding in self._ledger.bindings()}
        now = self._time.now()
        self._strays = {id_: self._strays.get(id_, now) for id_ in self.docker if id_ not in bindings}
        self._steps.named &= self.docker.keys()
        self._shown = (self._shown | self.docker.keys()) & bindings.keys()
        bound = {binding.network for binding in bindings.values()}
        self._seen = (self._seen & bound) | self._catalogue.networks.keys()
        used = frozenset(
            record.network_id
            for record in self._workloads.records()
            if record.runtime == "docker" and record.phase is not Phase.DETACHING
        )
        self._used_at = {id_: at for id_, at in self._used_at.items() if id_ in self._catalogue.networks}
        self._used_at |= dict.fromkeys(used | self._used, now)  # also of those that have just been left
        self._used = used
        return Sight(
            host=self._settings.host,
            now=now,
            networks={id_: known.value for id_, known in self._catalogue.networks.items()},
            docker=self.docker,
            bindings=bindings,
            following=self._settings.docker.networks,
            seen=self._seen,
            shown=self._shown,
            used=used,
            used_at=self._used_at,
            strays=self._strays,
            is_believed=self._is_believed(),
            needs_ipv4=self._steps.version < IPV6_ONLY,
            keeps_ids=self._settings.docker.keeps_ids,
            has_namesakes=self._steps.version < NO_DUPLICATES,
        )

    async def _do(self, action: Action) -> None:
        trouble = self._troubles.setdefault(action.key, Trouble(since=self._time.now()))
        try:
            async with self._slots:
                await self._steps.do(action)
            self._troubles.pop(action.key, None)
        except NotNow:
            trouble.wait(self._time, LONGEST_REFUSAL_S)
        except KvnetError as error:
            trouble.wait(self._time, LONGEST_REFUSAL_S if isinstance(error, EngineRefused) else LONGEST_PAUSE_S)
            trouble.code, trouble.detail = error.code, self._words(action, error)
            if trouble.backoff.failures == TOLD_AFTER:
                self._log.warning("docker-network-delayed", network=action.network, detail=trouble.detail)
        finally:
            self._busy.discard(action.key)
            self.kick()

    def _words(self, action: Action, error: KvnetError) -> str:
        known = self._catalogue.networks.get(action.network)
        name = known.value.name if known is not None else action.docker[:12]
        what = type(action).__name__.lower()
        return f"{what} of {name} in this host's Docker: {error.detail}"
