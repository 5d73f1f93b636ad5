"""A torture run: clients race, faults strike, every round is judged. `python -m tests.torture`, `make torture`.

The seed decides the faults with their times and the choices of every client; what the machine makes of it in real time
differs from run to run. Exits with 1 if anything was violated, and names the file with the history.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from multiprocessing import get_context
from pathlib import Path

from backends.mirror import Mirror
from backends.store import Put, Store
from controller.cluster import Cluster
from controller.settings import Settings
from kvnet import codec, keys
from kvnet.model import Host
from tests.torture.arena import Arena
from tests.torture.clients import HOSTS, RAW, ProductClient, RawClient, Tally, prepare
from tests.torture.faults import Clients, FlakyStore, inflict, plan
from tests.torture.findings import Findings
from tests.torture.history import Recorder
from tests.torture.recording import Gate, RecordingStore
from tests.torture.rounds import Closing, Judgement, Say, check_rounds

CONTROLLERS = 3
RAW_CLIENTS = 4
ROUND_S = 15.0
ARENA_ADDRESSES = 183
LOSS, DELAY_S = 0.01, 0.001
COOL_DOWN_S = 0.02


@dataclass(frozen=True, slots=True)
class Options:
    seconds: float
    seed: int
    clients: int = 48
    round_s: float = ROUND_S
    quiet_s: float = 60.0  # how long everything may take to be in step again
    allocations: int = 0  # go on until there are so many, however long it takes (0: only by time)


@dataclass(slots=True)
class Report:
    options: Options
    history: Path
    tally: Tally = field(default_factory=Tally)
    findings: Findings = field(default_factory=Findings)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not self.findings.rules


class Run:
    def __init__(self, here: Arena, options: Options, history: Path, say: Say) -> None:
        self._here = here
        self._options = options
        self._say = say
        self._gate = Gate()
        self._report = Report(options, history)
        self._flaky: list[FlakyStore] = []
        self._mirrors: dict[str, Mirror] = {}

    async def run(self) -> Report:
        began = time.monotonic()
        path = self._report.history
        with path.open("w", encoding="utf-8") as file:
            recorder = Recorder(file, time.monotonic_ns)
            async with AsyncExitStack() as stack:
                pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
                judge = RecordingStore(await self._here.open(), recorder, "judge", Gate())
                await _add_hosts(judge)
                clusters = [await self._controller(stack, recorder, i) for i in range(CONTROLLERS)]
                await prepare(clusters[0])
                for i, cluster in enumerate(clusters):
                    mirrors = cluster._state.mirrors
                    self._mirrors.update({f"controller {i} {mirror.prefix}": mirror for mirror in mirrors})
                async with asyncio.TaskGroup() as tasks:
                    working = await self._clients(tasks, clusters, recorder)
                    closing = Closing(judge, self._mirrors, clusters, self._gate, self._options.quiet_s)
                    await self._rounds(closing, recorder, pool, began)
                    for task in working:
                        task.cancel()
                self._gate.open()
        self._report.seconds = time.monotonic() - began
        return self._report

    async def _client(self, recorder: Recorder, name: str) -> RecordingStore:
        rng = random.Random(f"{self._options.seed} {name}")
        flaky = FlakyStore(
            self._here.wrap(await self._here.open()), rng, delay_s=0.0 if self._here.servers else DELAY_S
        )
        self._flaky.append(flaky)
        return RecordingStore(flaky, recorder, name, self._gate)

    async def _controller(self, stack: AsyncExitStack, recorder: Recorder, number: int) -> Cluster:
        name = f"controller{number}"
        settings = Settings(
            replica=name,
            cool_down_s=COOL_DOWN_S,
            upkeep_interval_s=1.0,
            leak_grace_s=10.0,
            check_interval_s=20.0,
            journal_entries=3_000,
            start_timeout_s=60.0,
        )
        rng = random.Random(f"{self._options.seed} {name}")
        store = await self._client(recorder, name)
        return await stack.enter_async_context(Cluster.open(store, settings, rng))

    async def _clients(
        self, tasks: asyncio.TaskGroup, clusters: Sequence[Cluster], recorder: Recorder
    ) -> list[asyncio.Task[None]]:
        seed, tally, count = self._options.seed, self._report.tally, self._options.clients
        working = []
        for i in range(RAW_CLIENTS):
            store = await self._client(recorder, f"raw{i}")
            raw = RawClient(store, f"raw{i}", random.Random(f"{seed} raw{i}"), tally, asyncio.sleep)
            working.append(tasks.create_task(raw.run()))
        for i, prefix in enumerate(("", RAW)):
            mirror = Mirror(await self._client(recorder, f"watcher{i}"), prefix)
            self._mirrors[f"watcher {i} {prefix!r}"] = mirror
            working.append(tasks.create_task(mirror.run()))
        share = max(2, 6 * ARENA_ADDRESSES // (5 * count))  # a little more than there is, in total
        for i in range(count):
            rng = random.Random(f"{seed} client{i}")
            product = ProductClient(clusters[i % CONTROLLERS], f"c{i}", rng, tally, recorder, asyncio.sleep, share)
            working.append(tasks.create_task(product.run()))
        for flaky in self._flaky:
            flaky.loss = LOSS
        return working

    async def _rounds(self, closing: Closing, recorder: Recorder, pool: ProcessPoolExecutor, began: float) -> None:
        loop = asyncio.get_running_loop()
        judgement, start, report = Judgement(), 0, self._report
        checking: asyncio.Future[tuple[Findings, Judgement]] | None = None
        number, is_last = 0, False
        while not is_last:
            left = self._options.seconds - (time.monotonic() - began)
            await self._suffer(number, min(self._options.round_s, max(left, 2.0)))
            is_last = time.monotonic() - began >= self._options.seconds - 1
            is_last &= report.tally.counts["allocations"] >= self._options.allocations
            if self._here.until_healthy is not None:
                await self._here.until_healthy()
            await closing.close(recorder, report.tally, report.findings)
            end = recorder.flush()
            if checking is not None:
                found, judgement = await checking
                report.findings.add(found)
            checking = loop.run_in_executor(pool, check_rounds, report.history, start, end, judgement)
            start, number = end, number + 1
            if is_last:
                report.findings.add((await checking)[0])
            if report.findings.rules:
                return
            self._gate.open()

    async def _suffer(self, number: int, seconds: float) -> None:
        """One round of faults, the same for the same seed."""
        clock, seed = time.monotonic, self._options.seed
        ends = clock() + seconds
        calm = seconds * 0.9
        clients = Clients(self._flaky)
        async with asyncio.TaskGroup() as tasks:
            rng = random.Random(f"{seed} clients {number}")
            faults = plan(rng, calm, clients.kinds, pause=(0.3, 1.5))
            tasks.create_task(inflict(faults, clients, asyncio.sleep, clock, self._note))
            if self._here.servers is not None:
                faults = plan(
                    random.Random(f"{seed} servers {number}"), calm, self._here.servers.kinds, pause=(1.0, 4.0)
                )
                tasks.create_task(inflict(faults, self._here.servers, asyncio.sleep, clock, self._note))
            await self._tell(ends)

    async def _tell(self, ends: float) -> None:
        """One line a second."""
        counts = self._report.tally.counts
        before = counts.copy()
        while (left := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(1.0, left))
            new = counts - before
            before = counts.copy()
            raw = f"raw {new['raw ok']} ok {new['raw conflict']} conflict {new['raw unknown']} unknown"
            self._say(
                f"{new['allocations']} allocated, {new['releases']} released, {new['networks']} networks; {raw}; "
                f"{counts['allocations']} allocations so far"
            )

    def _note(self, fault: str) -> None:
        self._report.faults.append(fault)
        self._say(f"  fault: {fault}")


async def _add_hosts(store: Store) -> None:
    hosts = [Host(name, ip_address(f"192.0.2.{i}"), 1500) for i, name in enumerate(HOSTS, 1)]
    await store.commit([], [Put(keys.host(host.name), codec.encode(host)) for host in hosts])
