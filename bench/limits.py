"""What the machine gives without kvnet: the store's commits, netlink; and how much of netlink kvnet reaches.

The store through its adapter alone, with transactions of the shape that a creation of endpoints has; netlink with
messages packed beforehand. What remains between these and kvnet's own rates is what there is left to gain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from backends.open import open_store
from backends.store import Absent, Check, Put, Store, Write
from bench import inside, servers
from bench.figures import Figure
from bench.sizes import pick

ALONE_IN_FLIGHT, PACKED_IN_FLIGHT = 64, 8
VALUE = b"x" * 220
# As many endpoints as fit into the sixty operations that every store takes.
ENDPOINTS_A_TRANSACTION = 9

Made = tuple[Sequence[Check], Sequence[Write]]


def figures(*, quick: bool = False) -> Iterator[Figure]:
    for kind in ("sqlite", "etcd3.5"):
        yield from store_limits(kind, seconds=pick(quick, 0.3, 4.0))
    yield from inside.run_inside("bench.netlink")
    yield from inside.run_inside("bench.throughput")


def store_limits(kind: str, *, seconds: float) -> Iterator[Figure]:
    with servers.store(kind) as url:
        alone, packed = asyncio.run(_rates(url, seconds))
    name = kind.partition("3")[0]
    note = f"a check and a put each, {ALONE_IN_FLIGHT} in flight"
    yield Figure(f"{name}_commits_alone", alone, "1/s", note=note)
    note = f"{ENDPOINTS_A_TRANSACTION} endpoints each: 18 checks, 28 puts; {PACKED_IN_FLIGHT} in flight"
    yield Figure(f"{name}_commits_packed", packed, "1/s", note=note)
    yield Figure(f"{name}_endpoints_at_most", packed * ENDPOINTS_A_TRANSACTION, "1/s")


async def _rates(url: str, seconds: float) -> tuple[float, float]:
    async with await open_store(url) as store:
        alone = await _rate(store, _alone, ALONE_IN_FLIGHT, seconds)
        return alone, await _rate(store, _packed, PACKED_IN_FLIGHT, seconds)


def _alone(lane: int, count: int) -> Made:
    key = f"alone/{lane}/{count}"
    return [Absent(key)], [Put(key, VALUE)]


def _packed(lane: int, count: int) -> Made:
    names = [f"{lane}-{count}-{number}" for number in range(ENDPOINTS_A_TRANSACTION)]
    claimed = [f"{kind}/n/{name}" for name in names for kind in ("endpoints", "addresses")]
    local = [f"local/h/{name}" for name in names]
    return [Absent(key) for key in claimed], [Put(key, VALUE) for key in (*claimed, *local, f"journal/{names[0]}")]


async def _rate(store: Store, made: Callable[[int, int], Made], in_flight: int, seconds: float) -> float:
    done = 0
    ends = time.perf_counter() + seconds

    async def lane(number: int) -> None:
        nonlocal done
        count = 0
        while time.perf_counter() < ends:
            await store.commit(*made(number, count))
            count += 1
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(lane(number) for number in range(in_flight)))
    return done / (time.perf_counter() - began)
