"""How fast names are answered, and how soon they are right on another host.

Real workers, real sockets, asked from a workload's namespace over its network's bridge, as a container would.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import inside
from bench.figures import Figure, percentile
from bench.questions import ADDRESS, RCODE, question
from lab import namespaces
from lab.lab import Lab, open_lab

ENDPOINTS = 200  # of the network, on both hosts
SECONDS = 4.0
WINDOW = 32
RATE = 5_000
ROUNDS = 40
PATIENCE_S = 3.0
ASKER = Path(__file__).with_name("questions.py")
NETWORK = "bench"
NOTE = f"asked from a namespace over a bridge; {ENDPOINTS} endpoints"


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.dns")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_lab(Path(folder), hosts=2) as lab:
            await _bring_up(lab)
            known = [f"x{number}" for number in range(ENDPOINTS)]
            many = [f"{name}.{NETWORK}{end}" for name in known for end in ("", ".kvnet")]
            await _asked(lab, ["web"], rate=0, seconds=1.0)
            kept = await _asked(lab, ["web", *known[:20]], rate=0)
            paced = await _asked(lab, ["web", *known[:20]], rate=RATE)
            spread = await _asked(lab, many, rate=RATE)
            absent = await _asked(lab, ["nosuch", f"nosuch.{NETWORK}.kvnet"], rate=1_000)
            right, gone = await _told_elsewhere(lab)
    yield Figure("dns_answers_per_second", kept["per_second"], "1/s", at_least=RATE, note=NOTE, details=_details(kept))
    note = f"at {RATE} questions a second"
    yield Figure("dns_p99", paced["p99"], "ms", at_most=2, note=note, details=_details(paced))
    yield Figure("dns_many_names_p99", spread["p99"], "ms", note=f"{len(many)} names, {note}", details=_details(spread))
    yield Figure("dns_unknown_p99", absent["p99"], "ms", at_most=5, note="unknown names", details=_details(absent))
    yield Figure(
        "dns_right_elsewhere_p50", percentile(right, 0.5), "ms", note="after attach on the other host returned"
    )
    yield Figure("dns_right_elsewhere_max", max(right), "ms", at_most=1000)
    yield Figure("dns_gone_elsewhere_max", max(gone), "ms", at_most=1000, note="after detach returned")


def _details(told: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in told.items()}


async def _bring_up(lab: Lab) -> None:
    await lab.start_controller()
    for name in lab.hosts:
        await lab.start_worker(name)
    for name in lab.hosts:
        await lab.until_ready(name)
    await lab.client.create_network({"name": NETWORK, "subnets": [{"cidr": "10.64.0.0/16"}]})
    await lab.add_workload("web", "h1")
    await lab.attach(NETWORK, "web")
    for number in range(ENDPOINTS):
        body: Any = {"host": f"h{number % 2 + 1}", "name": f"x{number}"}
        await lab.client.create_endpoint(NETWORK, body)
    while await asyncio.to_thread(_rcode, lab, f"x{ENDPOINTS - 1}"):  # noqa: ASYNC110 - it is a poll
        await asyncio.sleep(0.05)


async def _asked(lab: Lab, names: Sequence[str], *, rate: float, seconds: float = SECONDS) -> dict[str, Any]:
    words = [json.dumps(list(names)), str(seconds), str(WINDOW), str(rate)]
    command = [sys.executable, "-I", "-S", str(ASKER), *words]
    netns = lab.netns_of("web")
    asking = namespaces.call(netns, lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said, _ = await asyncio.to_thread(asking.communicate, timeout=seconds + 30)
    told: dict[str, Any] = json.loads(said)
    return told


async def _told_elsewhere(lab: Lab) -> tuple[list[float], list[float]]:
    right, gone = [], []
    for number in range(ROUNDS):
        name = f"new{number}"
        await lab.add_workload(name, "h2")
        await lab.attach(NETWORK, name)
        right.append(await asyncio.to_thread(_until, lab, name, 0))
        await lab.detach(NETWORK, name)
        gone.append(await asyncio.to_thread(_until, lab, name, 3))
    return right, gone


def _until(lab: Lab, name: str, rcode: int) -> float:
    """After how many milliseconds the answer is that."""
    began = time.perf_counter()
    while _rcode(lab, name) != rcode:
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"{name} is not told on the other host")
    return (time.perf_counter() - began) * 1000


def _rcode(lab: Lab, name: str) -> int:
    with namespaces.open_socket(lab.netns_of("web"), socket.AF_INET, socket.SOCK_DGRAM, 0) as ours:
        ours.settimeout(1.0)
        ours.connect(ADDRESS)
        ours.send(b"\0\0" + question(name))
        return ours.recv(4096)[3] & RCODE


if __name__ == "__main__":
    inside.main(measured)
