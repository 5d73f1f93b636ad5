"""The event stream at scale: 200 readers of one controller, and a change every 10 ms.

A delivery is measured from the moment a change was acknowledged to whoever made it, until a reader had it; one that was
there before that took no time. Some more readers never read. At the end the controller is told to stop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.controllers import HOSTS, Running, controllers
from bench.figures import Figure, percentile
from bench.requests import post

READERS, STUCK = 200, 10
CHANGES = 1500
EVERY_S = 0.01
WARM_UP = 100
TAIL_S = 6.0
STOP_TIMEOUT_S = 15.0
CONNECTIONS = 16


def figures() -> Iterator[Figure]:
    with controllers() as running:
        seconds = (CHANGES + WARM_UP) * EVERY_S + TAIL_S
        arguments = [str(running.ports[0]), str(READERS), str(STUCK), str(seconds)]
        with subprocess.Popen(
            [sys.executable, "-m", "bench.listening", *arguments], stdout=subprocess.PIPE, text=True
        ) as listening:
            assert listening.stdout is not None
            if listening.stdout.readline() != "ready\n":
                raise RuntimeError("the readers did not come into step")
            yield from _measured(running, listening)


def _measured(running: Running, listening: subprocess.Popen[str]) -> Iterator[Figure]:
    subnets = [{"cidr": "10.1.0.0/16"}]
    network = post(running.ports[0], "/v1/networks", {"name": "changing", "subnets": subnets})["id"]
    _change(running.ports[0], network, WARM_UP)
    before_mb, cpu = _memory_mb(running.pids[0]), running.cpu_seconds
    began = time.monotonic()
    acknowledged = _change(running.ports[0], network, CHANGES)
    took_s, cpu = time.monotonic() - began, running.cpu_seconds - cpu
    grown_mb = _memory_mb(running.pids[0]) - before_mb
    time.sleep(1.0)
    stopped_s = _stopped(running.pids[0])
    told = json.loads(listening.communicate()[0])
    late = [(at - acknowledged[r]) / 1e6 for seen in told["seen"] for r, at in seen if r in acknowledged]
    late = [max(0.0, one) for one in late]
    rate = READERS * CHANGES / took_s
    details = {"changes_per_s": round(CHANGES / took_s, 1), "controller_cores": round(cpu / took_s, 2)}
    yield Figure("events_delivered_per_s", rate, "1/s", details=details, note=f"{READERS} readers, {STUCK} stuck")
    for share, label, target in ((0.5, "p50", None), (0.99, "p99", 200.0), (1.0, "max", None)):
        yield Figure(f"events_delivery_{label}", percentile(late, share), "ms", at_most=target)
    amiss = _amiss(told["seen"], set(acknowledged)) + sum(abs(n - CHANGES - WARM_UP) for n in told["changes"])
    yield Figure("events_lost_or_doubled", amiss, "deliveries", at_most=0)
    yield Figure("events_memory_grown", grown_mb, "MB", at_most=64.0)
    yield Figure("events_stop", stopped_s, "s", at_most=2.0, note=f"SIGTERM with {READERS + STUCK} open streams")


def _change(port: int, network: str, count: int) -> dict[int, int]:
    """New endpoints, one each `EVERY_S`; when each revision was acknowledged."""
    return asyncio.run(_create(port, f"/v1/networks/{network}/endpoints", count))


async def _create(port: int, path: str, count: int) -> dict[int, int]:
    acknowledged: dict[int, int] = {}
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def one(body: bytes) -> None:
        reader, writer = await free.get()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
        made = json.loads(await reader.readexactly(length))
        acknowledged[int(made["version"])] = time.monotonic_ns()
        free.put_nowait((reader, writer))

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for i in range(count):
            await asyncio.sleep(max(0.0, began + i * EVERY_S - time.monotonic()))
            body = {"host": HOSTS[i % len(HOSTS)], "name": f"e{time.monotonic_ns()}"}
            tasks.create_task(one(json.dumps(body).encode()))
    while not free.empty():
        free.get_nowait()[1].close()
    return acknowledged


def _amiss(seen: list[list[tuple[int, int]]], made: set[int]) -> int:
    """What a reader missed, had twice, or had out of order."""
    amiss = 0
    for one in seen:
        revisions = [revision for revision, _ in one if revision in made]
        amiss += len(made - set(revisions)) + len(revisions) - len(set(revisions))
        amiss += sum(a > b for a, b in itertools.pairwise(revisions))
    return amiss


def _stopped(pid: int) -> float:
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() - began < STOP_TIMEOUT_S:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    return time.monotonic() - began


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
