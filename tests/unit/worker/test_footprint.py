"""What a worker loads: a host pays for it all the time, so nothing that only a few ever need, or only when they ask."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUNNING = ("cli.main", "cli.worker", "worker.running", "worker.kernel.linux", "worker.listeners", "worker.dns.service")
MOST_MODULES = 430


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    code = f"import sys; import {', '.join(RUNNING)}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return frozenset(told.stdout.split())


@pytest.mark.parametrize(
    "large",
    [
        "importlib.metadata",
        "email.message",
        "zipfile",
        "idna",
        "http.client",
        "cryptography",
        "httpx2",
        "fastapi",
        "kazoo",
        "grpc",
        "sqlite3",
        "rich",
        "datapath.trace.seen",
        "worker.doctor.gather",
        "worker.probing.prober",
        "worker.runtimes.docker.runtime",
    ],
)
def test_a_worker_does_without(large: str, loaded: frozenset[str]) -> None:
    assert large not in loaded


def test_a_worker_loads_no_more_than_it_used_to(loaded: frozenset[str]) -> None:
    assert "dns.message" in loaded
    assert len(loaded) <= MOST_MODULES
