"""What the embedded store gives by itself, without HTTP and use cases above it."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from backends.committer import Committer, Transaction
from backends.sqlite import SqliteStore
from backends.store import Absent, Entry, Put, Store, Unchanged, Write
from bench.figures import Figure, percentile

IN_FLIGHT = 64
CAS_EACH = 100
BULK = 100
ENDPOINTS = 8_000
RINGS = 200
RING_EVERY_S = 0.005
# As in the controller: each statement of the writer waits at most so long for a busy loop.
SWITCH_INTERVAL_S = 0.0005
BUSY_SLICE_S = 0.002

WRITER = f"""
import asyncio, sys, time
from backends.sqlite import SqliteStore
from backends.store import Put
async def main():
    async with await SqliteStore.open(sys.argv[1]) as store:
        for _ in range({RINGS}):
            await asyncio.sleep({RING_EVERY_S})
            await store.commit([], [Put("ring", b"%d" % time.monotonic_ns())])
asyncio.run(main())
"""


def figures() -> Iterator[Figure]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield from asyncio.run(_measure())
    finally:
        sys.setswitchinterval(before)


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        async with await SqliteStore.open(path) as store:
            latencies = await _one_after_the_other(store)
            rings = await _rings(store, path)
            return [
                Figure("store_cas_64_in_flight", await _compare_and_set(store), "1/s"),
                Figure("store_cas_alone_p50", percentile(latencies, 0.5) * 1e3, "ms"),
                Figure("store_cas_alone_p99", percentile(latencies, 0.99) * 1e3, "ms"),
                Figure("store_endpoints_in_bulk", await _bulk(store, "idle"), "1/s", at_least=8_000),
                Figure("store_endpoints_in_bulk_beside_a_busy_loop", await _bulk_busy(store), "1/s"),
                Figure("store_put_to_watch_other_process_p50", percentile(rings, 0.5) * 1e3, "ms"),
                Figure("store_put_to_watch_other_process_p99", percentile(rings, 0.99) * 1e3, "ms"),
                Figure("store_list_8000", await _list(store), "ms"),
            ]


async def _compare_and_set(store: Store) -> float:
    async def lane(number: int) -> None:
        key, version = f"cas/{number}", 0
        for _ in range(CAS_EACH):
            check = Unchanged(key, version) if version else Absent(key)
            version = await store.commit([check], [Put(key, b"x" * 200)])

    started = time.perf_counter()
    await asyncio.gather(*(lane(number) for number in range(IN_FLIGHT)))
    return IN_FLIGHT * CAS_EACH / (time.perf_counter() - started)


async def _one_after_the_other(store: Store) -> list[float]:
    version = await store.commit([], [Put("alone", b"")])
    took = []
    for _ in range(RINGS):
        started = time.perf_counter()
        version = await store.commit([Unchanged("alone", version)], [Put("alone", b"x" * 200)])
        took.append(time.perf_counter() - started)
    return took


@asynccontextmanager
async def _committer(store: Store) -> AsyncIterator[Committer]:
    unique = random.Random()

    def seal(notes: list[bytes]) -> list[Write]:
        return [Put(f"journal/{unique.randbytes(8).hex()}", b"[" + b",".join(notes) + b"]")]

    committer = Committer(store, seal=lambda notes: seal(list(notes)))
    task = asyncio.create_task(committer.run())
    yield committer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _bulk(store: Store, name: str) -> float:
    """Lists of 100 endpoints, four under way: three checks, three puts and a note each."""
    network = await store.commit([], [Put(f"networks/{name}", b"")])
    lists = iter([[_endpoint(name, network, n) for n in range(s, s + BULK)] for s in range(0, ENDPOINTS, BULK)])
    async with _committer(store) as committer:

        async def lane() -> None:
            for transactions in lists:
                for outcome in await committer.submit_many(transactions):
                    assert isinstance(outcome, int), outcome

        started = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(4)))
        return ENDPOINTS / (time.perf_counter() - started)


async def _bulk_busy(store: Store) -> float:
    """The same while the loop's thread has something else to do all the time."""

    async def busy() -> None:
        while True:
            until = time.perf_counter() + BUSY_SLICE_S
            while time.perf_counter() < until:
                sum(range(100))
            await asyncio.sleep(0)

    other = asyncio.create_task(busy())
    rate = await _bulk(store, "busy")
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    return rate


def _endpoint(name: str, network: int, number: int) -> Transaction:
    endpoint, address = f"endpoints/{name}/{number}", f"addresses/{name}/{number}"
    return Transaction(
        (Unchanged(f"networks/{name}", network), Absent(endpoint), Absent(address)),
        (Put(endpoint, b"x" * 400), Put(address, b"x" * 80), Put(f"local/{name}/{number}", b"x" * 30)),
        note=b"x" * 400,
    )


async def _rings(store: Store, path: Path) -> list[float]:
    """From the call of commit in one process to the watch of another."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(path))
    took: list[float] = []
    last: Entry | None = None
    async with asyncio.timeout(30):
        async for batch in store.watch("ring", 0):
            for change in batch.changes:
                if change.entry is not None and change.entry != last:
                    last = change.entry
                    took.append((time.monotonic_ns() - int(change.entry.value)) / 1e9)
            if len(took) >= RINGS - 5:
                break
    await process.wait()
    return took


async def _list(store: Store) -> float:
    started = time.perf_counter()
    assert len((await store.list("endpoints/idle/")).entries) == ENDPOINTS
    return (time.perf_counter() - started) * 1e3
