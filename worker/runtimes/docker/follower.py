"""Does what `everywhere` decides: one thing at a time for each network, several networks at once, again until it holds.

Looks after every event, every change of the catalogue, and every step of its own; what fails is tried again with
growing pauses and shown in the status meanwhile. Calls Docker by its ids only. Before anything is removed because the
cluster has it no more, the store itself is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from kvnet.errors import Invalid, KvnetError, NameTaken, NotFound
from kvnet.model import Condition, Network, NetworkState
from kvnet.rules import MAX_LABEL_VALUE, MAX_LABELS
from kvnet.wire import NameBody
from worker.attachments import Phase
from worker.log import Log
from worker.ports import Backoff, Controller, Time
from worker.runtimes.docker.everywhere import (
    Action,
    Adopt,
    Copy,
    Lost,
    Name,
    Remove,
    Replace,
    Sight,
    copy_of,
    decide,
    subnets_of,
)
from worker.runtimes.docker.ledger import Binding, Ledger, OwnCalls
from worker.runtimes.docker.ports import (
    DRIVER,
    Catalogue,
    Engine,
    EngineEvent,
    EngineNetwork,
    EngineRefused,
    Plugin,
    Workloads,
)
from worker.settings import Settings

FIRST_PAUSE_S = 0.05
# Where nobody answers. What Docker refuses, like a name that another driver's network has, it mostly goes on refusing.
LONGEST_PAUSE_S = 3.0
LONGEST_REFUSAL_S = 30.0
AT_ONCE = 4
# From then on a condition says what is wrong: what heals by itself does so in fewer attempts.
TOLD_AFTER = 4
# Daemons from here on have no two networks of one name, and networks without IPv4.
NO_DUPLICATES = (1, 44)
IPV6_ONLY = (1, 47)


class NotNow(Exception):
    """What was to be done has to wait for somebody else."""


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
    """`is_gone` asks the store itself about a network; `is_believed`: the catalogue may be acted upon."""

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        ledger: Ledger,
        own: OwnCalls,
        controller: Controller,
        plugin: Plugin,
        workloads: Workloads,
        settings: Settings,
        *,
        is_gone: Callable[[str], Awaitable[bool]],
        is_believed: Callable[[], bool],
        time: Time,
        log: Log,
    ) -> None:
        self.version: tuple[int, int] = (0, 0)
        self.docker: dict[str, EngineNetwork] = {}
        self.is_synchronous = False
        self._engine = engine
        self._catalogue = catalogue
        self._ledger = ledger
        self._own = own
        self._controller = controller
        self._plugin = plugin
        self._workloads = workloads
        self._settings = settings
        self._is_gone = is_gone
        self._is_believed = is_believed
        self._time = time
        self._log = log
        self._kicked = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._busy: set[str] = set()
        self._troubles: dict[str, Trouble] = {}
        self._strays: dict[str, float] = {}
        self._seen: frozenset[str] = frozenset()
        self._named: set[str] = set()
        self._unfit: dict[str, Condition] = {}

    # what is told

    async def read_anew(self, version: tuple[int, int]) -> None:
        """The stream of events is open, so nothing is missed after this.

        Raises:
            EngineAway, EngineRefused
        """
        self.version = version
        self.docker = {network.id: network for network in await self._engine.networks()}
        self.is_synchronous = True
        self._hurry()
        self.kick()

    def lose_sight(self) -> None:
        self.is_synchronous = False

    def on_event(self, event: EngineEvent) -> None:
        """Of a network. Whether one of another driver has a name is for Docker to say."""
        if event.action == "destroy":
            self.docker.pop(event.id, None)
            self._hurry()
        elif event.action == "create" and event.attributes.get("type") == DRIVER and event.id not in self.docker:
            binding = self._ledger.binding(event.id)
            subnets = binding.subnets if binding is not None else ()
            self.docker[event.id] = EngineNetwork(event.id, event.attributes.get("name", ""), subnets)
        self.kick()

    def _hurry(self) -> None:
        for trouble in self._troubles.values():
            trouble.due = 0.0

    def kick(self) -> None:
        self._kicked.set()

    def conditions(self) -> list[Condition]:
        found = [
            Condition(trouble.code, trouble.detail, trouble.since)
            for trouble in self._troubles.values()
            if trouble.backoff.failures >= TOLD_AFTER and trouble.detail
        ]
        return [*found, *self._unfit.values()]

    # the loop

    async def run(self) -> None:
        """Until cancelled."""
        self._busy.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_catalogue())
            while True:
                self._kicked.clear()
                again_s = self._look(group) if self.is_synchronous and self._catalogue.is_in_step else None
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
            if action.key in self._busy or (isinstance(action, Name) and action.docker in self._named):
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
        self._named &= self.docker.keys()
        return Sight(
            host=self._settings.host,
            now=now,
            networks={id_: known.value for id_, known in self._catalogue.networks.items()},
            docker=self.docker,
            bindings=bindings,
            following=self._settings.docker.networks,
            seen=self._seen,
            used=frozenset(
                record.network_id
                for record in self._workloads.records()
                if record.runtime == "docker" and record.phase is not Phase.DETACHING
            ),
            strays=self._strays,
            is_believed=self._is_believed(),
            needs_ipv4=self.version < IPV6_ONLY,
        )

    async def _do(self, action: Action) -> None:
        trouble = self._troubles.setdefault(action.key, Trouble(since=self._time.now()))
        try:
            async with self._slots:
                await self._step(action)
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

    # the steps

    async def _step(self, action: Action) -> None:
        match action:
            case Name():
                await self._name(action)
            case Copy():
                await self._copy(self._network(action))
            case Replace():
                await self._replace(action)
            case Adopt():
                await self._adopt(action)
            case Lost():
                await self._plugin.network_gone(action.docker)
                self._log.info("docker-network-lost", network=action.network, docker=action.docker[:12])
            case Remove():
                await self._remove_if_so(action)

    async def _name(self, action: Name) -> None:
        known = await self._engine.network(action.docker)
        if known is None:
            self.docker.pop(action.docker, None)
            return
        try:
            await self._controller.name_network(action.network, name_body(known, self._settings.host))
        except (NameTaken, Invalid) as error:
            await self._give_up(action, known, error)
            return
        except KvnetError as error:
            if error.code != "network-named":
                raise
            await self._remove(action.docker)
            return
        self._named.add(action.docker)
        self._log.info("docker-network-named", network=action.network, name=known.name)

    async def _give_up(self, action: Name, known: EngineNetwork, error: KvnetError) -> None:
        """Another host was first: that one's network comes instead."""
        self._log.warning("docker-network-given-up", network=action.network, name=known.name, detail=error.detail)
        await self._remove(action.docker)
        with contextlib.suppress(NotFound):
            await self._controller.delete_network(action.network)

    async def _copy(self, network: Network, *, may_be_second: bool = False) -> None:
        began = self._time.monotonic()
        body = copy_of(network, may_be_second=may_be_second)
        with self._own.posting(sorted(subnets_of(network))):
            docker = await self._engine.create_network(body)
        self.docker.setdefault(docker, EngineNetwork(docker, network.name, tuple(subnets_of(network))))
        took_ms = round((self._time.monotonic() - began) * 1000, 1)
        self._log.info("docker-network-made", network=network.id, name=network.name, took_ms=took_ms)

    async def _replace(self, action: Replace) -> None:
        """The shorter time in which its name means none or two comes from making the copy first, where that goes."""
        network = self._network(action)
        if await self._engine.containers_of(action.docker):
            raise NotNow
        if self.version >= NO_DUPLICATES:
            await self._remove(action.docker)
            await self._copy(network)
        else:
            await self._copy(network, may_be_second=True)
            await self._remove(action.docker)

    async def _adopt(self, action: Adopt) -> None:
        network, known = self._network(action), await self._engine.network(action.docker)
        if known is None:
            self.docker.pop(action.docker, None)
            return
        self.docker[known.id] = known
        await self._ledger.bind(adopted(network, known, self._time.now()))
        self._log.warning("docker-network-adopted", network=network.id, name=known.name)

    async def _remove_if_so(self, action: Remove) -> None:
        if action.why == "unknown":
            known = await self._engine.network(action.docker)
            if known is not None and known != replace(self.docker.get(action.docker, known), endpoints=known.endpoints):
                self.docker[known.id] = known  # an event had told its name only
                return
        if action.why == "gone" and not await self._is_gone(action.network):
            raise NotNow
        if action.docker not in self.docker:
            return  # Docker was at it already
        await self._remove(action.docker)
        self._log.info("docker-network-removed", network=action.network, docker=action.docker[:12], why=action.why)

    async def _remove(self, docker: str) -> None:
        with self._own.removing(docker):
            await self._engine.remove_network(docker)
        self.docker.pop(docker, None)
        await self._ledger.unbind(docker)  # Docker has told the plugin, or did not know it any more

    def _network(self, action: Action) -> Network:
        known = self._catalogue.networks.get(action.network)
        if known is None or known.value.state is NetworkState.DELETING:
            raise NotNow
        return known.value


def name_body(known: EngineNetwork, host: str) -> NameBody:
    """All that Docker tells only now; labels serve as the network's own where they may."""
    labels = {k: v for k, v in known.labels.items() if k and len(v) <= MAX_LABEL_VALUE and v.isprintable()}
    return {
        "name": known.name,
        "labels": dict(sorted(labels.items())[:MAX_LABELS]),
        "docker": {
            "options": known.options,
            "ipam_options": known.ipam_options,
            "labels": known.labels,
            "attachable": known.attachable,
            "ipv6": known.ipv6,
            "host": host,
        },
    }


def adopted(network: Network, known: EngineNetwork, now: float) -> Binding:
    """What the plugin would have noted when Docker made it."""
    return Binding(
        docker=known.id,
        network=network.id,
        subnets=tuple(known.subnets),
        gateways={str(s.cidr): str(s.gateway) for s in network.subnets if s.gateway is not None},
        egress=known.options.get("egress", "gateway"),
        internal=known.internal,
        since=now,
    )
