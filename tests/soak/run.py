"""One soak from its beginning to its report: a site, bystanders, users, faults; then quiet, and the verdict.

Nothing that goes wrong with the product ends it early: it is noted and the soak goes on. What goes wrong with the
soak itself (a program that is missing, a namespace that cannot be made) is raised.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.chaos.facts import opened_eyes
from tests.soak import bystanders, recovery
from tests.soak.bystanders import Bystanders, Pair
from tests.soak.churn import User
from tests.soak.eye import Watch
from tests.soak.faults import Faults, Inflicted
from tests.soak.ledger import Ledger
from tests.soak.plan import NETWORK, PROCESSES, Fault, plan
from tests.soak.report import Report
from tests.soak.settings import Options
from tests.soak.site import Soaked, open_soaked
from tests.soak.verdict import KERNEL_KINDS, Verdict
from tests.soak.violations import Violations
from tests.soak.vitals import Vitals
from tests.torture.findings import Findings
from tests.torture.intervals import Ownership

USERS_END_S = 90.0
Say = Callable[[str], None]


@dataclass(slots=True)
class Soak:
    """All that runs at the same time on one site."""

    site: Soaked
    ledger: Ledger
    violations: Violations
    faults: Faults
    vitals: Vitals
    watch: Watch
    prober: User
    say: Say

    async def run(self, planned: Sequence[Fault], rng: random.Random) -> None:
        """Until the time is up and every fault is over; users and whoever resolves what is doubtful end with it."""
        options = self.site.options
        users = [User(n, self.site, self.ledger, random.Random(rng.random())) for n in range(1, options.users + 1)]
        ends = time.monotonic() + options.seconds

        def is_over() -> bool:
            return time.monotonic() >= ends

        followers: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(user.run(is_over))
            group.create_task(users[0].resolve(is_over))
            lanes = [
                group.create_task(self._lane([f for f in planned if f.lane == lane], followers))
                for lane in (PROCESSES, NETWORK)
            ]
            await asyncio.gather(*lanes)
        await asyncio.gather(*followers)

    async def _lane(self, faults: Sequence[Fault], followers: set[asyncio.Task[None]]) -> None:
        began = time.monotonic()
        for fault in faults:
            await asyncio.sleep(max(0.0, fault.at - (time.monotonic() - began)))
            inflicted = await self.faults.inflict(fault)
            self._tell(inflicted)
            task = asyncio.create_task(recovery.follow(self.site, self.prober, inflicted, self.violations))
            followers.add(task)

    def _tell(self, inflicted: Inflicted) -> None:
        fault = inflicted.fault
        more = " ".join(f"{name} {value:g}" for name, value in fault.more.items())
        victims = inflicted.trouble or " ".join(inflicted.victims)
        self.say(f"{fault.kind} of {victims} for {fault.seconds:.1f} s {more}".rstrip())


async def soak(options: Options, directory: Path, say: Say) -> Report:
    """
    Raises:
        Unfit, ServerFailed, NotInstalled: the soak itself cannot be done here.
    """
    violations = Violations(say)
    with (directory / "history.jsonl").open("w") as file:
        ledger = Ledger(file, time.monotonic_ns)
        async with open_soaked(options, directory) as site:
            return await _soaked(options, directory, site, ledger, violations, say)


async def _soaked(
    options: Options, directory: Path, site: Soaked, ledger: Ledger, violations: Violations, say: Say
) -> Report:
    rng = random.Random(options.seed)
    planned = plan(options.seed, options.seconds, _abilities(site), pause=options.pause, kinds=options.kinds)
    with opened_eyes(site.hosts) as eyes:
        for name, eye in eyes.items():
            await eye.open(site.lab.hosts[name].netns)
        careful = User(0, site, ledger, random.Random(rng.random()))
        verdict = Verdict(site, ledger, violations, eyes, careful)
        virgin, virgin_keys = await verdict.facts(), await verdict.owned_keys()
        pairs = await bystanders.set_up(site, ledger)
        await verdict.until_settled()
        before, keys_before = await verdict.facts(), await verdict.owned_keys()
        one = Soak(
            site,
            ledger,
            violations,
            Faults(site),
            Vitals(site),
            Watch(lambda: {w.name: w.netns for w in site.lab.workloads.values()}, _doubles(violations)),
            User(options.users + 1, site, ledger, random.Random(rng.random())),
            say,
        )
        pings = Bystanders(site, pairs)
        await pings.start()
        began = time.monotonic()
        say(f"the site stands; {len(planned)} faults in {options.seconds:.0f} s")
        async with _beside(one.watch.run(), one.vitals.run(), recovery.watch_deaths(site, violations)):
            await one.run(planned, rng)
            await one.faults.end_all()
            say("the faults are over; settling")
            await verdict.until_settled()
            await verdict.require_what_was_acknowledged()
            say("removing what users made")
            await verdict.remove_what_users_made()
            await verdict.require_as_before("after the users", before, keys_before)
            await one.watch.look()
        await pings.stop()
        judged = pings.judged(one.faults.windows())
        say("removing the stage")
        await verdict.remove_stage()
        await verdict.require_as_before("after all", virgin, virgin_keys, KERNEL_KINDS)
        return _report(options, site, one, judged, pairs, began)


def _report(options: Options, site: Soaked, one: Soak, judged: Any, pairs: Sequence[Pair], began: float) -> Report:
    violations, ledger = one.violations, one.ledger
    findings = Findings()
    Ownership().follow(ledger.lines, findings)
    for violation in findings.violations:
        violations.blame(violation.rule, violation.detail)
    for name, pings in judged.items():
        if pings.unexplained:
            when = ", ".join(f"{at - began:.2f} s ({why})" for at, why in pings.unexplained[:5])
            violations.blame("packets-lost", f"{name}: {len(pings.unexplained)} of {pings.sent}: at {when}")
        if not pings.answered:
            violations.blame("packets-lost", f"{name}: nothing was ever answered")
    for life in one.vitals.lives.values():
        for complaint in life.complaints():
            violations.blame("grows", complaint)
    doubles = findings.rules["double-owner"] + len(one.watch.doubles)
    figures = {"looks": one.watch.looks, "acquired": findings.judged["acquired"], "double_owners": doubles}
    return Report(
        options,
        commit(),
        began,
        time.monotonic() - began,
        ledger,
        one.faults.log,
        judged,
        list(one.vitals.lives.values()),
        one.vitals.conditions,
        violations,
        figures,
        tracebacks(site.lab.directory),
    )


def _abilities(site: Soaked) -> list[str]:
    return ["servers"] if site.store is not None else ["disk"]


def _doubles(violations: Violations) -> Say:
    return lambda detail: violations.blame("double-owner-in-kernels", detail)


@asynccontextmanager
async def _beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """They run as long as the block does. What one of them fails with is raised at the end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [r for r in results if isinstance(r, Exception)]
    if failures:
        raise ExceptionGroup("beside the soak", failures)


def tracebacks(logs: Path) -> dict[str, int]:
    """In how many places of which log the product said that it did not expect something."""
    counts = {log.stem: log.read_text(errors="replace").count("Traceback (most recent") for log in logs.glob("*.log")}
    return {name: count for name, count in counts.items() if count}


def commit() -> str:
    """Of the product that is soaked; "unknown" outside a checkout. A copy of one is told it by KVNET_COMMIT."""
    if told := os.environ.get("KVNET_COMMIT"):
        return told
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"
