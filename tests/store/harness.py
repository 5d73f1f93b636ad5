"""What the conformance suite needs to know of a store: how to reach it, restart it, compact it, let its time pass.

A new adapter adds one class here and its name to HARNESSES; the tests stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.followed import FollowedStore
from backends.gateway import GatewayStore
from backends.memory import MemoryState, MemoryStore
from backends.sqlite import SqliteStore
from backends.store import MIN_TTL_S, Store
from backends.stored_sessions import StoredSessions
from controller.api.store import router
from tests.store.clock import VirtualClock
from tests.store.fake_medium import FakeMedium, FakeServer
from tests.store.proxy import Proxy
from tests.store.watching import until

TTL_S = MIN_TTL_S  # of the sessions in the tests


class Harness(Protocol):
    """`can_...`: what the store allows; a test that needs more is not asked of it (`@pytest.mark.needs`)."""

    can_restart: bool
    can_compact: bool
    can_lose_answers: bool
    surely_expired_s: float  # a session whose holder was silent for so long is gone

    async def start(self) -> None: ...

    async def open(self) -> Store:
        """Another client, as another process would be one; closed by the harness at the latest."""
        ...

    async def restart(self) -> None:
        """The server goes away and comes back with what it had acknowledged."""
        ...

    async def compact(self) -> None:
        """Forget the history of deletions up to now."""
        ...

    async def lose_next_answer(self) -> None:
        """The next commit that puts `real.LOST` is done, but its answer never arrives."""
        ...

    async def let_time_pass(self, seconds: float) -> None: ...

    async def stop(self) -> None: ...


class Clients:
    """The clients a harness has opened."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._open: list[Store] = []

    def keep(self, store: Store) -> Store:
        self._open.append(store)
        return store

    async def close(self) -> None:
        for store in self._open:
            await store.close()


class MemoryHarness:
    can_restart = False
    can_compact = True
    can_lose_answers = False
    surely_expired_s = TTL_S + 3

    def __init__(self, folder: Path) -> None:
        self._clients = Clients()
        self._state = MemoryState()
        self._bystander: Store | None = None

    async def start(self) -> None:
        self._bystander = await self.open()

    async def open(self) -> Store:
        clock = self._clients.clock
        return self._clients.keep(MemoryStore(self._state, clock=clock, sleep=clock.sleep))

    async def restart(self) -> None:
        raise NotImplementedError

    async def compact(self) -> None:
        self._state.compact()

    async def lose_next_answer(self) -> None:
        raise NotImplementedError

    async def let_time_pass(self, seconds: float) -> None:
        assert self._bystander is not None
        await self._bystander.get("x")  # somebody is there who sees to the sessions of the dead
        await self._clients.clock.advance(seconds)

    async def stop(self) -> None:
        await self._clients.close()


class SqliteHarness:
    """Every client has its own threads, connections and doorbell, as in a process of its own."""

    can_restart = False
    can_compact = True
    can_lose_answers = False
    surely_expired_s = TTL_S + 3

    def __init__(self, folder: Path) -> None:
        self._clients = Clients()
        self._path = folder / "store.db"
        self._bystander: SqliteStore | None = None

    async def start(self) -> None:
        self._bystander = await self._open()

    async def open(self) -> Store:
        return await self._open()

    async def _open(self) -> SqliteStore:
        clock = self._clients.clock
        store = await SqliteStore.open(self._path, clock=clock, sleep=clock.sleep)
        self._clients.keep(store)
        return store

    async def restart(self) -> None:
        raise NotImplementedError

    async def compact(self) -> None:
        assert self._bystander is not None
        await self._bystander.compact()

    async def lose_next_answer(self) -> None:
        raise NotImplementedError

    async def let_time_pass(self, seconds: float) -> None:
        await self._clients.clock.advance(seconds)

    async def stop(self) -> None:
        await self._clients.close()


class Controller:
    """A real HTTP server over a SQLite store, on a unix socket. `watching`: connections that carry watches now."""

    def __init__(self, store_path: Path, socket: Path, clock: VirtualClock) -> None:
        self._store_path = store_path
        self._socket = socket
        self._clock = clock
        self.watching = 0
        self.store: SqliteStore | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.store = await SqliteStore.open(self._store_path, clock=self._clock, sleep=self._clock.sleep)
        app = FastAPI()
        app.include_router(router(self.store, stopping=asyncio.Event(), bookmark_every_s=0.2))
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._counting(app),
                uds=str(self._socket),
                log_level="critical",
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        self._serving = asyncio.create_task(self._server.serve())
        server = self._server
        await until(lambda: server.started)

    def _counting(self, app: FastAPI) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            is_watch = scope["type"] == "http" and scope["path"].endswith("/watch")
            self.watching += is_watch
            try:
                await app(scope, receive, send)
            finally:
                self.watching -= is_watch

        return counted

    async def stop(self) -> None:
        assert self.store is not None
        assert self._server is not None
        assert self._serving is not None
        await self.store.close()  # ends the watches, so that the server need not wait for them
        self._server.should_exit = True
        await self._serving


class GatewayHarness:
    can_restart = True
    can_compact = True
    can_lose_answers = True
    surely_expired_s = TTL_S + 3

    def __init__(self, folder: Path) -> None:
        self._clients = Clients()
        self._controller = Controller(folder / "store.db", folder / "server", self._clients.clock)
        self._proxy = Proxy(folder / "s", folder / "server")
        self._url = f"unix://{folder / 's'}"

    async def start(self) -> None:
        await self._controller.start()
        await self._proxy.start()

    async def open(self) -> Store:
        clock = self._clients.clock
        return self._clients.keep(GatewayStore(self._url, clock=clock, sleep=clock.sleep, silence_s=2))

    async def restart(self) -> None:
        await self._controller.stop()
        await self._controller.start()

    async def compact(self) -> None:
        assert self._controller.store is not None
        await self._controller.store.compact()

    async def lose_next_answer(self) -> None:
        self._proxy.loses += 1

    async def let_time_pass(self, seconds: float) -> None:
        await self._clients.clock.advance(seconds)

    async def stop(self) -> None:
        await self._clients.close()
        await self._proxy.stop()
        await self._controller.stop()


class FollowedHarness:
    """The shared core of the real servers' adapters, on a fake server."""

    can_restart = True
    can_compact = True
    can_lose_answers = True
    surely_expired_s = TTL_S + 3

    def __init__(self, folder: Path) -> None:
        self._clients = Clients()
        self._server = FakeServer()
        self._followed: list[FollowedStore] = []

    async def start(self) -> None:
        await self.open()  # somebody is there who sees to the sessions of the dead

    async def open(self) -> Store:
        clock = self._clients.clock
        medium = FakeMedium(self._server)
        sessions = StoredSessions(medium, clock=clock, sleep=clock.sleep)
        store = await FollowedStore.open(medium, sessions, clock=clock, sleep=clock.sleep)
        self._followed.append(store)
        self._clients.keep(store)
        return store

    async def restart(self) -> None:
        self._server.go_away()
        await self._clients.clock.advance(2)
        self._server.come_back()
        await self._clients.clock.advance(3)

    async def compact(self) -> None:
        self._server.state.compact()
        for store in self._followed:
            await store.forget_history()

    async def lose_next_answer(self) -> None:
        self._server.loses_answers += 1

    async def let_time_pass(self, seconds: float) -> None:
        await self._clients.clock.advance(seconds)

    async def stop(self) -> None:
        await self._clients.close()


HARNESSES: dict[str, Callable[[Path], Harness]] = {
    "memory": MemoryHarness,
    "sqlite": SqliteHarness,
    "gateway": GatewayHarness,
    "followed": FollowedHarness,
}
