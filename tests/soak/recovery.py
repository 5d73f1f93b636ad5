"""How long it takes until whoever a fault touched works again, and who ended without being told to.

A victim has recovered when, after the fault is over, it says that it is ready, and proves it: a host attaches a
workload, a controller carries out a change. Victims that another fault has taken meanwhile are waited for.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from statistics import quantiles

from tests.soak.churn import User
from tests.soak.faults import Inflicted
from tests.soak.settings import MEMBERS
from tests.soak.site import Soaked
from tests.soak.violations import Violations

POLL_S = 0.2
WITHIN_S = 150.0
LOOK_EVERY_S = 0.5
# A controller that is started while its clock is an hour or a year off says so, and ends: its unit starts it again.
REFUSES_ITS_CLOCK = re.compile(r"^Error: the certificate in \S+ (is not valid before|expired at) ", re.MULTILINE)


async def follow(site: Soaked, prober: User, inflicted: Inflicted, violations: Violations) -> None:
    """Until all victims of an ended fault have recovered; notes how long that took."""
    assert inflicted.ended is not None
    waiting = set(inflicted.victims)
    try:
        async with asyncio.timeout(WITHIN_S):
            while waiting:
                asked = sorted(waiting - site.away)
                answers = await asyncio.gather(*(_works(site, prober, name) for name in asked))
                waiting -= {name for name, is_ready in zip(asked, answers, strict=True) if is_ready}
                if waiting:
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        who = ", ".join(sorted(waiting))
        violations.blame("not-recovered", f"{who}: not ready {WITHIN_S:.0f} s after {inflicted.fault.kind} was over")
        return
    inflicted.recovered_s = time.monotonic() - inflicted.ended


async def _works(site: Soaked, prober: User, name: str) -> bool:
    return await site.is_ready(name) and await prober.is_served_by(name)


async def watch_deaths(site: Soaked, violations: Violations) -> None:
    """Of ours: a violation, but for who refuses to start on a wrong clock; and a new start.

    A server that somebody else ended on a shared machine is a fault more.
    """
    while True:
        for name in [*site.hosts, *(controller.name for controller in site.controllers)]:
            process = site.process_of(name)
            if process is not None and not process.is_running and name not in site.away:
                status, words = process.child.returncode, process.last_words()
                if not (site.clocks[name].was_set and REFUSES_ITS_CLOCK.search(words)):
                    violations.blame("died", f"{name} ended by itself with status {status}: {words[-600:]}")
                await site.start(name)
        if site.store is not None:
            for index, member in enumerate(site.store.members):
                if not member.is_running and MEMBERS[index] not in site.away:
                    await member.start()
        await asyncio.sleep(LOOK_EVERY_S)


def percentiles(values: Sequence[float]) -> dict[str, float | int]:
    """p50, p99 and the largest."""
    if not values:
        return {"count": 0}
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    found = {"p50": cuts[49], "p99": cuts[98], "max": max(values)}
    return {"count": len(values), **{name: round(value, 2) for name, value in found.items()}}
