"""Each thing that `everywhere` orders, done: in Docker, at the controller, in the ledger.

Every step may be repeated, and says by an error that it has to be. Calls Docker by its ids only, and lets the plugin
know meanwhile whose call it answers. Before anything is removed because the cluster has it no more, the store itself
is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

from kvnet.errors import Invalid, KvnetError, NameTaken, NotFound
from kvnet.model import Network, NetworkState
from kvnet.rules import MAX_LABEL_VALUE, MAX_LABELS
from kvnet.wire import NameBody
from worker.log import Log
from worker.ports import Controller, Time
from worker.runtimes.docker.everywhere import (
    Action,
    Adopt,
    Copy,
    Lost,
    Name,
    Remove,
    Replace,
    copy_of,
    subnets_of,
)
from worker.runtimes.docker.ledger import Binding, Ledger, OwnCalls
from worker.runtimes.docker.ports import Catalogue, Engine, EngineNetwork, EngineRefused, Plugin

# Daemons from here on never have two networks of one name.
NO_DUPLICATES = (1, 44)
GLANCE_S = 0.001


class NotNow(Exception):
    """What was to be done has to wait for somebody else."""


class Steps:
    """`docker`: what Docker has of our driver, as far as it is known; kept by whoever hears its events, and by what is
    done here. `named`: Docker's ids of those whose names the cluster knows. `is_gone` asks the store itself.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        ledger: Ledger,
        own: OwnCalls,
        controller: Controller,
        plugin: Plugin,
        host: str,
        *,
        is_gone: Callable[[str], Awaitable[bool]],
        time: Time,
        log: Log,
    ) -> None:
        self.version: tuple[int, int] = (0, 0)
        self.docker: dict[str, EngineNetwork] = {}
        self.named: set[str] = set()
        self._engine = engine
        self._catalogue = catalogue
        self._ledger = ledger
        self._own = own
        self._controller = controller
        self._plugin = plugin
        self._host = host
        self._is_gone = is_gone
        self._time = time
        self._log = log

    async def do(self, action: Action) -> None:
        """
        Raises:
            NotNow: somebody else has to do something first.
            KvnetError: it did not go; it may be tried again.
        """
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
            await self._controller.name_network(action.network, name_body(known, self._host))
        except (NameTaken, Invalid) as error:
            await self._give_up(action, known, error)
            return
        except KvnetError as error:
            if error.code != "network-named":
                raise
            await self._remove(action.docker)
            return
        self.named.add(action.docker)
        self._log.info("docker-network-named", network=action.network, name=known.name)

    async def _give_up(self, action: Name, known: EngineNetwork, error: KvnetError) -> None:
        """Another host was first: that one's network comes instead."""
        self._log.warning(
            "docker-network-given-up", network=action.network, name=known.name, code=error.code, detail=error.detail
        )
        await self._remove(action.docker)
        with contextlib.suppress(NotFound):
            await self._controller.delete_network(action.network)

    async def _copy(self, network: Network, *, may_be_second: bool = False) -> str:
        """Docker's id of it."""
        began = self._time.monotonic()
        body = copy_of(network, may_be_second=may_be_second)
        with self._own.posting(sorted(subnets_of(network))):
            docker = await self._engine.create_network(body)
        self.docker.setdefault(docker, EngineNetwork(docker, network.name, tuple(subnets_of(network))))
        took_ms = round((self._time.monotonic() - began) * 1000, 1)
        self._log.info("docker-network-made", network=network.id, name=network.name, took_ms=took_ms)
        return docker

    async def _replace(self, action: Replace) -> None:
        """The name should mean none or two for as short as possible: so the old one goes while the new one comes.

        Docker shows a network a few milliseconds after the plugin has answered for it, and hides one as soon as its
        removal begins.
        """
        network = self._network(action)
        if await self._engine.containers_of(action.docker, network.name):
            raise NotNow
        if self.version >= NO_DUPLICATES:
            await self._remove(action.docker)
            await self._copy(network)
            return
        making = asyncio.create_task(self._copy(network, may_be_second=True))
        try:
            while not making.done() and len(self._ledger.bindings_of(network.id)) < 2:
                await asyncio.wait((making,), timeout=GLANCE_S)
            if making.done():
                making.result()
            await self._remove(action.docker)
        except EngineRefused as error:  # somebody has begun to use it: there must not be two for longer
            await self._remove(await making)
            if known := await self._engine.network(action.docker):
                self.docker[known.id] = known
            raise NotNow from error
        except asyncio.CancelledError:
            making.cancel()  # Docker may take a minute for it
            raise
        finally:
            await making

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
