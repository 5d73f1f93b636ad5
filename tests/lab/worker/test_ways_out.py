"""A workload on several networks: which of them is its way out, and what is when that one goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.worker.bench import attached, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


async def seen_on(lab: Lab, workload: str) -> str:
    """The name of the network whose interface a packet to the world leaves by."""
    command = ["nsenter", f"--net={lab.netns_of(workload)}", "ip", "-o", "route", "get", "203.0.113.10"]
    said = subprocess.run(command, check=True, capture_output=True, timeout=10, text=True).stdout  # noqa: ASYNC221
    source = said.split(" src ")[1].split()[0]
    endpoints = lab.workloads[workload].endpoints
    return next(name for name, endpoint in endpoints.items() if endpoint["address"] == source)


async def test_the_highest_priority_is_the_way_out_then_the_first_and_the_next_takes_over(tmp_path: Path) -> None:
    async with workers(tmp_path, hosts=1, outside=True) as lab:
        for name in ("first", "second", "third", "inner"):
            await lab.client.create_network({"name": name, "driver": "bridge", "internal": name == "inner"})
        for name, priority in (("inner", 9), ("first", 0), ("second", 0), ("third", 5)):
            await attached(lab, name, {"c1": "h1"}, gateway_priority=priority)
        for winner in ("third", "first", "second"):
            assert await seen_on(lab, "c1") == winner
            assert await lab.answers("c1", str(lab.around["outside"].address))
            await lab.detach(winner, "c1")
        assert not await lab.answers("c1", str(lab.around["outside"].address))
