"""A lab with two or three hosts and a network, and what its connectivity test says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lab import namespaces
from lab.lab import Lab
from tests.lab.worker.bench import attached, workers
from worker.kernel.firewall import find_nft

PLACES = {"c1": "h1", "c2": "h2"}


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    hosts: int = 2,
    places: Mapping[str, str] = PLACES,
    network: Mapping[str, Any] | None = None,
    **o: Any,
) -> AsyncIterator[Lab]:
    """Every worker ready, and one endpoint of `n1` in each of the places."""
    async with workers(directory, hosts=hosts, **o) as lab:
        body: dict[str, Any] = {
            "name": "n1",
            "driver": "overlay",
            "subnets": [{"cidr": "10.77.0.0/24"}],
            **(network or {}),
        }
        await lab.client.create_network(body)  # type: ignore[arg-type]
        await attached(lab, "n1", places)
        yield lab


async def ask(lab: Lab, **wish: Any) -> dict[str, Any]:
    return await lab.client.test_connectivity(wish)


def link(answer: Mapping[str, Any], source: str, target: str) -> dict[str, Any]:
    return next(one for one in answer["links"] if (one["from"], one["to"]) == (source, target))


def pair(answer: Mapping[str, Any], source: str, target: str, family: int = 4) -> dict[str, Any]:
    return next(
        one
        for one in answer["endpoints"]
        if (one["from"]["name"], one["to"]["name"], one["family"]) == (source, target, family)
    )


def run(where: Path, command: str) -> str:
    """As an administrator would, in that namespace."""
    path = {**os.environ, "PATH": f"{os.environ['PATH']}:{Path(find_nft()).parent}:/usr/sbin:/sbin"}
    done = namespaces.call(
        where,
        lambda: subprocess.run(
            ["/bin/sh", "-e", "-c", command], capture_output=True, text=True, timeout=10, check=False, env=path
        ),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
