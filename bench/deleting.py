"""How long a host needs to be rid of 500 endpoints: deleted through the API, until no interface of theirs is left."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from bench import inside
from bench.figures import Figure
from datapath.names import veth_name
from lab import namespaces
from lab.crowd import open_crowd
from lab.lab import open_lab, until
from worker.kernel.linux import LinuxKernel

ENDPOINTS = 500
AT_ONCE = 32
NETWORK = "deleting"
SUBNET = "10.78.0.0/16"
WITHIN_S = 5.0
PATIENCE_S = 60.0
T = TypeVar("T")
Ask = Callable[..., Awaitable[dict[str, Any]]]


def figures() -> Iterator[Figure]:
    yield from inside.run_inside("bench.deleting")


async def measured() -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        async with open_lab(Path(folder), hosts=1) as lab:
            await lab.start_controller()
            async with open_crowd(lab) as crowd:
                member = crowd["h1"]
                await lab.client.create_network({"name": NETWORK, "driver": "overlay", "subnets": [{"cidr": SUBNET}]})
                await _each(range(ENDPOINTS), lambda n: _attach(member.ask, n))
                ids = [e["id"] async for e in lab.client.endpoints(network=NETWORK)]
                veths = {veth_name(id_) for id_ in ids}
                async with await LinuxKernel.open(netns=str(lab.hosts["h1"].netns)) as eye:

                    async def are_gone() -> bool:
                        return not veths & (await eye.read(firewall=False)).links.keys()

                    assert len(veths & (await eye.read(firewall=False)).links.keys()) == ENDPOINTS
                    began = time.perf_counter()
                    await _each(ids, lambda id_: lab.client.delete_endpoint(NETWORK, id_))
                    deleted = time.perf_counter() - began
                    await until(are_gone, "no interface is left", seconds=PATIENCE_S)
                took = time.perf_counter() - began
    details = {"answered_after_s": round(deleted, 2), "kernel": dict(member.kernel.counted.operations)}
    yield Figure("delete_500_endpoints_of_a_host", took, "s", at_most=WITHIN_S, details=details)


async def _attach(ask: Ask, number: int) -> None:
    namespaces.create(f"w{number}")
    await ask("attach", network=NETWORK, netns=str(namespaces.FOLDER / f"w{number}"), name=f"w{number}")


async def _each(items: Iterable[T], act: Callable[[T], Awaitable[object]]) -> None:
    """With a bound on how many at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with slots:
            await act(item)

    await asyncio.gather(*(one(item) for item in items))


if __name__ == "__main__":
    inside.main(measured)
