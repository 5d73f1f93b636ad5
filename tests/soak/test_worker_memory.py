"""A worker that loses its controllers again and again is as large afterwards as before: seen from outside, over TLS."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.lab import until
from tests.soak.settings import Options
from tests.soak.site import PORT, Soaked, open_soaked

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

NETWORKS, CUTS = 4, 40
GROWN_MB = 5.0  # each cut took 0.3 MB for each connection when what broke was kept
RECONNECTED_S = 20.0


@pytest.fixture
async def soaked(tmp_path: Path) -> AsyncIterator[Soaked]:
    async with open_soaked(Options("sqlite", 1.0, 1, hosts=1, controllers=2), tmp_path) as site:
        yield site


async def test_connections_that_break_again_and_again_leave_nothing_behind(soaked: Soaked) -> None:
    lab = soaked.lab
    host = lab.hosts["h1"]
    assert host.worker is not None
    for number in range(NETWORKS):
        name = f"n{number}"
        await lab.client.create_network({"name": name, "driver": "overlay"})
        await lab.add_workload(f"w{number}", "h1")
        await lab.attach(name, f"w{number}")

    async def is_back() -> bool:
        return bool(sockets(host.netns))

    async def cut() -> None:
        broken = sockets(host.netns, "--kill")
        assert broken, "'ss --kill' closes nothing: has the kernel CONFIG_INET_DIAG_DESTROY?"
        await until(is_back, "the worker watches again", seconds=RECONNECTED_S, watched=host.worker)

    await until(is_back, "the worker watches its networks", seconds=RECONNECTED_S, watched=host.worker)
    await cut()
    before = rss_mb(host.worker.pid)
    for _ in range(CUTS):
        await cut()

    assert rss_mb(host.worker.pid) - before < GROWN_MB


def sockets(netns: Path, *options: str) -> list[str]:
    """Those to controllers, a line each."""
    command = ["nsenter", f"--net={netns}", "ss", "-Htn", *options, "state", "established", "dport", "=", f":{PORT}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
