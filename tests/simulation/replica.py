"""A controller: the real `Cluster` with its use cases and upkeep in a process of its own, restarted when it ends.

Everything in it is the product's; only the store, the clock and chance are given. HTTP is left out: see `front`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backends.store import Store
from controller.cluster import Cluster
from controller.outcomes import store_errors_told
from controller.settings import Clock, Settings
from kvnet.errors import KvnetError, StoreUnavailable
from tests.simulation.calls import Service
from tests.simulation.loop import SimulatedLoop
from tests.simulation.machine import EPOCH
from tests.simulation.network import Link
from tests.simulation.processes import Process

T = TypeVar("T")

RESTART_S = 2.0


class Replica:
    """`make_store`: a client for a process. `offset_s`: what this machine's wall clock is off."""

    def __init__(
        self,
        name: str,
        loop: SimulatedLoop,
        make_store: Callable[[str, Process], Store],
        settings: Callable[[str, Clock], Settings],
        opened: Callable[[Cluster], Cluster] = lambda cluster: cluster,
    ) -> None:
        self.name = name
        self.loop = loop
        self.offset_s = 0.0
        self.lives = 0
        self.process = Process(name)
        self.process.is_dead = True
        self.cluster: Cluster | None = None
        self.crashes: list[BaseException] = []
        self._make_store = make_store
        self._settings = settings
        self._opened = opened
        self.service = Service(self.process, lambda: False)

    @property
    def is_running(self) -> bool:
        return not self.process.is_dead

    def start(self) -> None:
        self.lives += 1
        self.cluster = None
        self.process = Process(self.name)
        self.service = Service(self.process, lambda: self.cluster is not None)
        rng = random.Random(f"{self.name} {self.lives} {self.loop.rng.getrandbits(32)}")
        store = self._make_store(self.name, self.process)
        self.process.context().run(self.loop.create_task, self._run(store, rng))

    def kill(self) -> None:
        self.process.kill()
        self.cluster = None

    async def _run(self, store: Store, rng: random.Random) -> None:
        """Until killed; a start that fails is tried again, as systemd does."""
        clock = Clock(self.now, asyncio.sleep, self.loop.time)
        while True:
            try:
                async with Cluster.open(store, self._settings(self.name, clock), rng) as cluster:
                    self.cluster = self._opened(cluster)
                    await asyncio.Event().wait()
            except StoreUnavailable:
                pass
            except BaseException as error:  # noqa: BLE001 - what would end the process
                self.crashes.append(error)
                return
            finally:
                self.cluster = None
            await asyncio.sleep(RESTART_S)

    def now(self) -> float:
        return EPOCH + self.loop.time() + self.offset_s

    async def ask(self, link: Link, timeout_s: float, work: Callable[[Cluster], Awaitable[T]]) -> T:
        """
        Raises:
            NotSent, Lost: no answer.
            KvnetError: what the use case refuses.
        """

        async def serve() -> T:
            if self.cluster is None:
                raise StoreUnavailable("the controller is starting", fix="repeat in a moment")
            try:
                with store_errors_told():
                    return await work(self.cluster)
            except KvnetError:
                raise
            except Exception as error:
                self.crashes.append(error)  # what HTTP would answer with 500
                raise

        return await self.service.ask(link, timeout_s, serve)
