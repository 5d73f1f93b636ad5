"""A storm: allocations by the million under faults, `make torture ARGS="--storm --allocations 1000000"`.

Rounds as in a torture run: claimants race while faults strike, then everything is healed, and what the store has is
compared with what it acknowledged. Each round is judged from memory and forgotten; of a round with a violation every
claim and release is written down. The digest over all lines names the history that was judged.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.committer import Committer
from backends.store import Entry, Put, Store, StoreError
from kvnet import keys
from tests.servers.family import ServerFailed
from tests.torture.arena import Arena
from tests.torture.board import NETWORK, Board, held_of
from tests.torture.faults import Clients, Fault, FlakyStore, Victim, inflict, plan
from tests.torture.findings import Findings
from tests.torture.ledger import Standing, judge, lines
from tests.torture.rounds import POLL_S, Say
from tests.torture.storm import Claimant

SITES = 3
ADDRESSES_PER_CLAIMANT = 32
LOSS, DELAY_S = 0.01, 0.001
MARK = "storm/mark"
TELL_S = 5.0


@dataclass(frozen=True, slots=True)
class StormOptions:
    """`allocations`: how many; `at_most_s`: the end, however many there are then."""

    seed: int
    allocations: int
    at_most_s: float = 3600.0
    claimants: int = 96
    round_s: float = 60.0
    quiet_s: float = 60.0
    pause_of_servers: tuple[float, float] = (8.0, 20.0)
    pause_of_clients: tuple[float, float] = (3.0, 9.0)


@dataclass(slots=True)
class StormReport:
    options: StormOptions
    history: Path
    counts: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    seconds: float = 0.0
    digest: str = ""

    @property
    def is_clean(self) -> bool:
        return not self.findings.rules


class Storm:
    def __init__(self, here: Arena, options: StormOptions, history: Path, say: Say) -> None:
        self._here = here
        self._options = options
        self._say = say
        self._board = Board(ADDRESSES_PER_CLAIMANT * options.claimants, time.monotonic_ns)
        self._report = StormReport(options, history, self._board.counts, self._board.findings)
        self._stores: list[Store] = []  # sound, and past all faults of clients
        self._flaky: list[FlakyStore] = []
        self._claimants: list[Claimant] = []
        self._digest = hashlib.sha256()
        self._standing = Standing()
        self._is_over = False

    async def run(self) -> StormReport:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            committing = [await self._site(tasks, number) for number in range(SITES)]
            for flaky in self._flaky:
                flaky.loss = LOSS
            while self.report_is_open(began):
                await self._round(began)
            for task in committing:
                task.cancel()
        self._report.seconds = time.monotonic() - began
        self._report.digest = self._digest.hexdigest()
        return self._report

    def report_is_open(self, began: float) -> bool:
        return self._report.is_clean and not self._is_enough(began)

    def _is_enough(self, began: float) -> bool:
        options = self._options
        is_made = self._board.counts["allocations"] >= options.allocations
        return is_made or time.monotonic() - began >= options.at_most_s

    async def _site(self, tasks: asyncio.TaskGroup, number: int) -> asyncio.Task[None]:
        seed, count = self._options.seed, self._options.claimants
        rng = random.Random(f"{seed} site {number}")
        store = await self._here.open()
        flaky = FlakyStore(self._here.wrap(store), rng, delay_s=0.0 if self._here.servers else DELAY_S)
        committer = Committer(flaky)
        self._stores.append(store)
        self._flaky.append(flaky)
        for i in range(number, count, SITES):
            own = random.Random(f"{seed} claimant {i}")
            self._claimants.append(Claimant(f"c{i}", number, flaky, committer, self._board, own, asyncio.sleep))
        return tasks.create_task(committer.run())

    async def _round(self, began: float) -> None:
        self._is_over = False
        number, self._report.rounds = self._report.rounds, self._report.rounds + 1
        async with asyncio.TaskGroup() as tasks:
            racing = [tasks.create_task(one.run(lambda: self._is_over)) for one in self._claimants]
            await self._suffer(number, began)
            if self._here.until_healthy is not None:
                await self._here.until_healthy()
            self._is_over = True
            _, late = await asyncio.wait(racing, timeout=self._options.quiet_s)
            if late:
                self._report.findings.blame("never-quiet", f"{len(late)} claimants had no answer in time")
            for task in late:
                task.cancel()
        await self._judge()

    async def _suffer(self, number: int, began: float) -> None:
        """One round of faults, the same for the same seed; cut short when there are enough allocations."""
        options, seed = self._options, self._options.seed
        calm = options.round_s * 0.95
        clients = Clients(self._flaky)
        victims: list[tuple[Victim, str, tuple[float, float]]] = [(clients, "clients", options.pause_of_clients)]
        if self._here.servers is not None:
            victims.append((self._here.servers, "servers", options.pause_of_servers))
        async with asyncio.TaskGroup() as tasks:
            hurting = [
                tasks.create_task(
                    self._inflict(plan(random.Random(f"{seed} {who} {number}"), calm, v.kinds, pause=p), v)
                )
                for v, who, p in victims
            ]
            await self._tell(time.monotonic() + options.round_s, began)
            for task in hurting:
                task.cancel()
        if self._here.servers is not None:
            await self._here.servers.recover()

    async def _inflict(self, faults: Sequence[Fault], victim: Victim) -> None:
        """The pause before each counts from when the servers are well again, which may take longer than planned."""
        ended = 0.0
        for fault in faults:
            due = replace(fault, at=fault.at - ended)
            ended = fault.at + fault.seconds
            await inflict([due], victim, asyncio.sleep, time.monotonic, self._note)
            if victim is self._here.servers and self._here.until_healthy is not None:
                with suppress(ServerFailed):  # at the end of the round that is an error
                    await self._here.until_healthy()

    async def _tell(self, ends: float, began: float) -> None:
        counts, before, said = self._board.counts, self._board.counts.copy(), time.monotonic()
        while (now := time.monotonic()) < ends and not self._is_enough(began):
            await asyncio.sleep(min(0.5, ends - now))
            if time.monotonic() - said >= TELL_S:
                new, before, said = counts - before, counts.copy(), time.monotonic()
                self._say(
                    f"{new['allocations'] / TELL_S:.0f} allocated/s, {new['claim conflict']} conflicts, "
                    f"{new['claim unknown'] + new['release unknown']} unknown; {counts['allocations']} so far"
                )

    def _note(self, fault: str) -> None:
        self._report.faults[fault.split()[0]] += 1
        self._say(f"  fault: {fault}")

    async def _judge(self) -> None:
        """Nothing is under way: the list has what was acknowledged, and what became of the unknown claims."""
        board, report = self._board, self._report
        for flaky in self._flaky:
            await flaky.until_arrived()
        now = board.clock()
        entries = await self._until_listed()
        for place, key in enumerate(board.keys):
            board.learn(place, entries.get(key))
        done, board.done = board.done, []
        final = {key: held_of(entry) for key, entry in entries.items()}
        for line in lines(done):
            self._digest.update(line.encode())
        found, self._standing = judge(self._standing, done, final, now)
        report.findings.add(found)
        if not report.is_clean:
            with report.history.open("w", encoding="utf-8") as file:
                file.writelines(lines(done))
                file.writelines(f"final {key} {held}\n" for key, held in final.items())

    async def _until_listed(self) -> dict[str, Entry]:
        """As new as a commit that is made now: a list may be old.

        Raises:
            TimeoutError: the store has healed and does not answer.
        """
        store, mark = self._stores[0], None
        async with asyncio.timeout(self._options.quiet_s):
            while True:
                try:
                    mark = mark or await store.commit([], [Put(MARK, str(self._report.rounds).encode())])
                    snapshot = await store.list(keys.addresses(NETWORK))
                    if snapshot.revision >= mark:
                        return {entry.key: entry for entry in snapshot.entries}
                except StoreError:
                    pass  # an election is under way
                await asyncio.sleep(POLL_S)


def summary(store: str, report: StormReport, say: Callable[[str], None]) -> None:
    counts, seconds, made = report.counts, report.seconds, report.counts["allocations"]
    claims = made + sum(n for what, n in counts.items() if what.startswith("claim "))
    unknown = counts["claim unknown"] + counts["release unknown"]
    say(f"\n{store}, seed {report.options.seed}, {seconds:.0f} s, {report.rounds} rounds")
    say(f"{report.faults.total()} faults: " + ", ".join(f"{kind} {n}" for kind, n in sorted(report.faults.items())))
    say(f"{made} allocations ({made / seconds:.0f}/s), {counts['contended']} contended, {counts['releases']} releases")
    say(f"{claims} claims, {counts['claim conflict']} conflicts, {unknown} unknown")
    say("outcomes: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    for violation in report.findings.violations:
        say(f"VIOLATION {violation}")
    say(f"double owners: {report.findings.rules['double-owner']}")
    say(f"violations: {sum(report.findings.rules.values())}")
    say(f"digest of the history: {report.digest}")
    if not report.is_clean:
        say(f"the round that failed: {report.history}")
