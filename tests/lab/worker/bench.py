"""A lab with workers for the tests of this folder: hosts up, networks made, workloads attached and waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lab.lab import Lab, open_lab, until

QUICK_S = 3.0


@asynccontextmanager
async def workers(directory: Path, *, hosts: int = 2, **options: Any) -> AsyncIterator[Lab]:
    """Every worker ready; options as of `open_lab`."""
    async with open_lab(directory, hosts=hosts, **options) as lab:
        await lab.start_controller()
        for name in lab.hosts:
            await lab.start_worker(name)
        for name in lab.hosts:
            await lab.until_ready(name)
        yield lab


async def attached(lab: Lab, network: str, places: Mapping[str, str], **options: Any) -> None:
    """Workloads that answer, on these hosts: name -> host; a workload that is there already gets one more network."""
    for workload, host in places.items():
        if workload not in lab.workloads:
            await lab.add_workload(workload, host, serve=True)
        await lab.attach(network, workload, **options)


async def until_answers(lab: Lab, where: str, address: str, port: int = 8080, **options: Any) -> None:
    async def does() -> bool:
        return await lab.answers(where, address, port, **options)

    await until(does, f"{where} gets an answer from {address} port {port}", seconds=QUICK_S)


async def until_silent(lab: Lab, where: str, address: str, port: int = 8080, **options: Any) -> None:
    async def is_silent() -> bool:
        return not await lab.answers(where, address, port, **options)

    await until(is_silent, f"{where} gets no answer from {address} port {port}", seconds=QUICK_S)


async def until_condition(lab: Lab, host: str, code: str, *, is_there: bool = True, seconds: float = QUICK_S) -> str:
    """Of any network on the host, as its worker tells it. Returns the detail."""
    details: list[str] = []

    async def is_told() -> bool:
        status = await lab.hosts[host].local.status()
        found = [c for network in status["networks"] for c in network["conditions"] if c["code"] == code]
        details[:] = [c["detail"] for c in found]
        return bool(found) is is_there

    await until(is_told, f"{host} tells {code}" if is_there else f"{host} tells {code} no more", seconds=seconds)
    return "; ".join(details)
