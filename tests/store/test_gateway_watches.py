"""Many watches of one client on one connection: each hears what it would hear alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from backends.gateway import GatewayStore
from backends.gateway_watches import UNREAD, Watches
from backends.gateway_wire import SIGN_OF_LIFE, Watched
from backends.mirror import Mirror
from backends.store import Compacted, Delete, Put, Unavailable, Write
from tests.store.clock import VirtualClock
from tests.store.harness import Controller
from tests.store.watching import until, watching

pytestmark = pytest.mark.anyio


class OfBefore:
    """A controller of before there were connections for many watches: a new one, whose refusal alone is made here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bodies: list[bytes] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.bodies.append(body)
        if b'"watches"' in body:
            writer.write(b"HTTP/1.1 422 No\r\ncontent-length: 18\r\n\r\n" + b'{"code":"invalid"}')
            return
        behind, forward = await asyncio.open_unix_connection(str(self._folder / "server"))
        forward.write(head + body)
        try:
            while piece := await behind.read(65536):
                writer.write(piece)
        finally:
            forward.close()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    controller = Controller(tmp_path / "store.db", tmp_path / "server", VirtualClock())
    await controller.start()
    yield controller
    await controller.stop()


@pytest.fixture
async def store(controller: Controller, tmp_path: Path) -> AsyncIterator[GatewayStore]:
    async with GatewayStore(f"unix://{tmp_path / 'server'}", silence_s=2, calm_s=0.1) as store:
        yield store


async def test_a_dozen_watches_end_up_on_one_connection_and_hear_everything(
    controller: Controller, store: GatewayStore
) -> None:
    async with AsyncExitStack() as stack:
        watchers = []
        for number in range(12):
            await store.commit([], [Put(f"p{number}/before", b"")])
            watchers.append(await stack.enter_async_context(watching(store, f"p{number}/", 0)))
        await until(lambda: controller.watching == 1)
        for number in range(12):
            await store.commit([], [Put(f"p{number}/after", b"")])
        for number, watcher in enumerate(watchers):
            await watcher.until(lambda number=number, watcher=watcher: f"p{number}/after" in watcher.entries)

            assert watcher.error is None
            assert [key for key, _ in watcher.changes] == [f"p{number}/before", f"p{number}/after"]
        assert controller.watching == 1
    await until(lambda: controller.watching == 0)


async def test_nothing_is_lost_or_told_twice_while_watches_come_and_go(
    controller: Controller, store: GatewayStore
) -> None:
    """While it writes, mirrors of other prefixes begin and end, so that connections are exchanged all the time."""
    rng = random.Random(7)
    written: dict[str, list[bytes]] = {f"p{number}/k": [] for number in range(6)}
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(store, f"p{number}/", 0)) for number in range(6)]

        async def come_and_go() -> None:
            while True:
                async with watching(store, f"p{rng.randrange(6)}/", 0):
                    await asyncio.sleep(rng.uniform(0, 0.15))

        others = [asyncio.create_task(come_and_go()) for _ in range(3)]
        for step in range(400):
            key = rng.choice(list(written))
            written[key].append(b"%d" % step)
            assert controller.store is not None
            await controller.store.commit([], [Put(key, b"%d" % step)])
            await asyncio.sleep(rng.uniform(0, 0.004))
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for number, watcher in enumerate(watchers):
            values = written[f"p{number}/k"]
            await watcher.until(lambda values=values, watcher=watcher: _last(watcher.changes) == values[-1])
            told = [value for _, value in watcher.changes]

            assert watcher.error is None
            # A feed may skip what was overwritten meanwhile; what it tells is in order, and never twice.
            assert told == [value for value in values if value in set(told)]
            assert len(told) == len(set(told))


async def test_a_watch_that_fails_fails_alone(controller: Controller, store: GatewayStore) -> None:
    async with watching(store, "a/", 0) as sound, watching(store, "b/", 1_000_000) as ahead:
        await ahead.until(lambda: ahead.error is not None)
        assert isinstance(ahead.error, Compacted)

        await store.commit([], [Put("a/x", b"")])
        await sound.until(lambda: "a/x" in sound.entries)
        assert sound.error is None


async def test_what_breaks_the_connection_is_an_error_of_each_watch(
    controller: Controller, store: GatewayStore
) -> None:
    async with watching(store, "a/", 0) as one, watching(store, "b/", 0) as other:
        await controller.stop()
        await one.until(lambda: one.error is not None)
        await other.until(lambda: other.error is not None)

        assert isinstance(one.error, Unavailable)
        assert isinstance(other.error, Unavailable)
        assert one.error is not other.error
        await controller.start()


async def test_a_client_that_is_closed_ends_its_watches(controller: Controller, tmp_path: Path) -> None:
    async with GatewayStore(f"unix://{tmp_path / 'server'}") as store, watching(store, "a/", 0) as watcher:
        await store.close()
        await watcher.until(lambda: watcher.error is not None)
        assert isinstance(watcher.error, Unavailable)


async def test_a_controller_of_before_has_a_connection_for_each(controller: Controller, tmp_path: Path) -> None:
    front = OfBefore(tmp_path)
    server = await asyncio.start_unix_server(front.serve, str(tmp_path / "old"))
    async with server, GatewayStore(f"unix://{tmp_path / 'old'}", calm_s=0.05) as store:
        assert controller.store is not None
        async with watching(store, "a/", 0) as one, watching(store, "b/", 0) as other:
            await controller.store.commit([], [Put("a/x", b""), Put("b/x", b"")])
            await one.until(lambda: "a/x" in one.entries)
            await other.until(lambda: "b/x" in other.entries)

            assert (one.error, other.error) == (None, None)
            assert sum(b'"prefix":"b/"' in body and b'"watches"' not in body for body in front.bodies) == 1
        await front.stop()


async def test_mirrors_on_one_connection_survive_a_restart(controller: Controller, store: GatewayStore) -> None:
    mirrors = [Mirror(store, f"p{number}/") for number in range(5)]
    tasks = [asyncio.create_task(mirror.run()) for mirror in mirrors]
    await until(lambda: all(mirror.in_step for mirror in mirrors) and controller.watching == 1)
    await controller.stop()
    await until(lambda: all(mirror.stale_since is not None for mirror in mirrors))
    await controller.start()
    assert controller.store is not None
    writes: list[Write] = [Put(f"p{number}/x", b"") for number in range(5)]
    await controller.store.commit([], writes)
    await until(lambda: all(mirror.entries for mirror in mirrors))
    await controller.store.commit([], [Delete(write.key) for write in writes])
    await until(lambda: not any(mirror.entries for mirror in mirrors))
    await until(lambda: controller.watching == 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_watch_that_nobody_reads_holds_nobody_up() -> None:
    told = asyncio.Event()

    async def busy(asked: list[Watched]) -> AsyncIterator[object]:
        for revision in range(2 * UNREAD):
            yield {"watch": asked[0].id, "revision": revision, "changes": []}
        yield {"watch": asked[1].id, "revision": 7, "changes": []}
        yield SIGN_OF_LIFE
        told.set()
        await asyncio.Event().wait()

    watches = Watches(busy)  # type: ignore[arg-type]
    slow, quick = watches.watch("a/", 0), watches.watch("b/", 0)
    reading_slow, reading_quick = asyncio.ensure_future(anext(slow)), asyncio.ensure_future(anext(quick))
    assert (await reading_quick).revision == 7
    await reading_slow
    await told.wait()

    async def read_all() -> None:
        async for _ in slow:
            pass

    with pytest.raises(Unavailable, match="unread"):
        await read_all()
    assert (await anext(quick)).revision == 7
    await watches.close()
    await slow.aclose()
    await quick.aclose()


def _last(changes: list[tuple[str, bytes | None]]) -> bytes | None:
    return changes[-1][1] if changes else None
