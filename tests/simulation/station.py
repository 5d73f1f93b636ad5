"""A worker: the real `Worker` in a process of its own on a `Machine`, restarted when it ends.

Everything in it is the product's; the store, the controllers, the kernel, the disk, the clock and chance are given.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from backends.store import Store
from kvnet.errors import KvnetError
from tests.simulation.calls import Service
from tests.simulation.disk import SimulatedDir
from tests.simulation.kernel import SimulatedKernel, SimulatedNamespaces
from tests.simulation.loop import SimulatedLoop
from tests.simulation.machine import Machine
from tests.simulation.network import Link, Weather
from tests.simulation.processes import Process
from worker.agent import Worker
from worker.log import Log
from worker.ports import Controller, Time
from worker.settings import Settings, Timing
from worker.underlay import Underlay

T = TypeVar("T")

RESTART_S = 2.0


class Station:
    """`make_store`, `make_controller`: what a process of this host reaches them with. `build`: the worker's class."""

    def __init__(
        self,
        machine: Machine,
        loop: SimulatedLoop,
        make_store: Callable[[str, Process], Store],
        make_controller: Callable[[str, Process, Time], Controller],
        timing: Timing,
        build: Callable[..., Worker] = Worker,
    ) -> None:
        self.machine = machine
        self.loop = loop
        self.lives = 0
        self.worker: Worker | None = None
        self.log = io.StringIO()
        self.crashes: list[BaseException] = []
        self.process = Process(machine.name)
        self.process.is_dead = True
        self.service = Service(self.process, lambda: False)
        self._build = build
        self._make_store = make_store
        self._make_controller = make_controller
        self._timing = timing

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def is_running(self) -> bool:
        return not self.process.is_dead

    def start(self) -> None:
        self.lives += 1
        self.worker = None
        self.process = Process(self.name)
        self.service = Service(self.process, lambda: self.worker is not None)
        self._way = Link(self.loop, Weather(), self.loop.world, self.process)
        rng = random.Random(f"{self.name} {self.lives} {self.loop.rng.getrandbits(32)}")
        self.process.context().run(self.loop.create_task, self._run(rng))

    def kill(self) -> None:
        self.process.kill()
        self.worker = None

    async def _run(self, rng: random.Random) -> None:
        process = self.process
        time = Time(self.machine.now, self.loop.time, asyncio.sleep, rng)
        store = self._make_store(self.name, process)
        controller = self._make_controller(self.name, process, time)
        while True:
            try:
                worker = self._made(store, controller, time)
                await worker.start()
                self.worker = worker
                await worker.run()
            except KvnetError as error:
                self.log.write(f"worker ends: {error}\n")
            except BaseException as error:  # noqa: BLE001 - what would end the process
                self.crashes.append(error)
                return
            finally:
                self.worker = None
            await asyncio.sleep(RESTART_S)

    def _made(self, store: Store, controller: Controller, time: Time) -> Worker:
        machine = self.machine
        address = machine.host.address
        settings = Settings("http://c", machine.name, Underlay(address), Path("/simulated"), timing=self._timing)
        return self._build(
            settings,
            store,
            controller,
            SimulatedKernel(machine, self.loop),
            SimulatedNamespaces(machine),
            machine.host.listeners,
            SimulatedDir(machine.disk),
            time=time,
            log=Log(self.log, now=time.now),
            new_id=lambda length: f"{time.rng.getrandbits(8 * length):0{2 * length}x}",
        )

    async def ask(self, timeout_s: float, work: Callable[[Worker], Awaitable[T]]) -> T:
        """As over the worker's socket.

        Raises:
            NotSent, Lost: no answer.
            KvnetError: what the worker refuses.
        """

        async def serve() -> T:
            assert self.worker is not None
            try:
                return await work(self.worker)
            except KvnetError:
                raise
            except Exception as error:
                self.crashes.append(error)
                raise

        return await self.service.ask(self._way, timeout_s, serve)

    def tail(self, lines: int = 40) -> list[Any]:
        return self.log.getvalue().splitlines()[-lines:]
