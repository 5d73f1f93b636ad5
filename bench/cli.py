"""How long a person waits for `kvnet`: each verb as a process of its own, against a controller on the same machine.

What the clock says is also what else the machine does, so the processor's time of the command is told beside it. Files
and byte code are warm: the first run of each verb is not counted.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from bench.controllers import controllers
from bench.figures import Figure, percentile
from kvnet.client import Client

RUNS = 15
MANY = 1_000
AT_ONCE = 20
TIMEOUT_S = 60.0
VERB_MS = 250
MANY_MS = 500
KVNET = (sys.executable, "-m", "cli.main")

VERBS: tuple[tuple[str, ...], ...] = (
    ("network", "ls"),
    ("network", "inspect", "net"),
    ("network", "describe", "net"),
    ("network", "convergence", "net"),
    ("network", "create", "--dry-run", "other"),
    ("network", "update", "net", "--label", "a=b"),
    ("endpoint", "ls"),
    ("endpoint", "describe", "net/c1"),
    ("host", "ls"),
    ("host", "describe", "h1"),
    ("pool", "ls"),
    ("ipam", "show"),
    ("ipam", "show", "10.77.0.2"),
    ("ipam", "reserve", "net", "printer"),
    ("status",),
    ("check",),
    ("events",),
    ("wait", "pool/default"),
    ("version",),
)


def figures() -> Iterator[Figure]:
    with controllers() as running:
        url = f"http://127.0.0.1:{running.ports[0]}"
        asyncio.run(_few(url))
        for verb in VERBS:
            yield from _measured(" ".join(verb[:2]) if verb[1:] else verb[0], (*KVNET, "--controller", url, *verb))
        asyncio.run(_many(url))
        for form in ("table", "wide", "json", "csv"):
            command = (*KVNET, "--controller", url, "network", "ls", "-o", form)
            yield from _measured(f"network ls -o {form} of {MANY}", command, at_most_ms=MANY_MS)


async def _few(url: str) -> None:
    async with Client(url) as client:
        await client.create_network({"name": "net", "subnets": [{"cidr": "10.77.0.0/24"}]})
        await client.create_endpoint("net", {"host": "h1", "name": "c1"})


async def _many(url: str) -> None:
    async with Client(url) as client:
        for first in range(0, MANY, AT_ONCE):
            names = (f"bench-{number:04}" for number in range(first, first + AT_ONCE))
            await asyncio.gather(*(client.create_network({"name": name, "labels": {"of": "bench"}}) for name in names))


def _measured(name: str, command: Sequence[str], *, at_most_ms: float = VERB_MS) -> Iterator[Figure]:
    _run(command)
    walls, processors = zip(*(_run(command) for _ in range(RUNS)), strict=True)
    details = {
        "p95": round(percentile(walls, 0.95), 1),
        "fastest": round(min(walls), 1),
        "cpu_p50": round(percentile(processors, 0.5), 1),
    }
    key = name.replace(" ", "_").replace("-o_", "")
    yield Figure(f"cli_{key}_p50", percentile(walls, 0.5), "ms", at_most=at_most_ms, details=details)


def _run(command: Sequence[str]) -> tuple[float, float]:
    """(by the clock, of the processor), in milliseconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return took * 1000, (usage.ru_utime + usage.ru_stime) * 1000
