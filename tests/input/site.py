"""A real controller, real workers on kernels in memory, and a client of the store for somebody who is not kvnet."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from backends.open import open_store
from backends.store import Put, Store
from datapath.fake import FakeFabric
from kvnet import keys
from kvnet.model import Address
from tests.api.under_test import Api, register, running
from tests.unit.worker.kit import FakeHost, FakeNamespaces, MortalKernel
from tests.unit.worker.life import Life
from worker.agent import Worker
from worker.controller import HttpController
from worker.disk import StateDir
from worker.log import Log
from worker.ports import Time
from worker.requests import AttachRequest
from worker.settings import Settings, Timing
from worker.underlay import Underlay

DEADLINE_S = 60.0
POLL_S = 0.005


@dataclass(slots=True)
class Member:
    """One host: its worker, its kernel."""

    host: FakeHost
    worker: Worker
    task: asyncio.Task[None]
    log: io.StringIO

    def require_alive(self) -> None:
        if self.task.done():
            self.task.result()
            raise AssertionError(f"the worker of {self.host.name} has ended")

    async def status(self) -> dict[str, Any]:
        self.require_alive()
        return await self.worker.operations()["status"]({})

    async def attach(self, network: str, name: str) -> dict[str, Any]:
        self.host.add_namespace(f"/run/netns/{name}")
        asked = AttachRequest(network=network, netns=f"/run/netns/{name}", name=name)
        return await self.worker.attacher.attach(asked)

    def conditions(self, network: str) -> dict[str, str]:
        seen = self.worker.reconciler.observed().get(network)
        return {condition.code: condition.detail for condition in seen.conditions} if seen is not None else {}


@dataclass(slots=True)
class Site:
    api: Api
    store: Store
    fabric: FakeFabric = field(default_factory=FakeFabric)
    members: dict[str, Member] = field(default_factory=dict)

    async def write(self, key: str, value: bytes) -> int:
        """As somebody who has the store, and is not kvnet."""
        return await self.store.commit([], [Put(key, value)])

    async def read(self, key: str) -> bytes | None:
        entry = await self.store.get(key)
        return entry.value if entry is not None else None

    async def values(self) -> dict[str, bytes]:
        return {entry.key: entry.value for entry in (await self.store.list("")).entries}


async def until(holds: Callable[[], Awaitable[bool] | bool], *, seconds: float = DEADLINE_S, what: str = "") -> None:
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = holds()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what or holds}") from None


@asynccontextmanager
async def a_worker(site: Site, name: str, directory: Path, **more: Any) -> AsyncIterator[Member]:
    """Joined to the fabric under its name; the second life of a host finds its kernel as it was."""
    hosts = {host.name: host for host in site.fabric.hosts.values() if isinstance(host, FakeHost)}
    host = hosts.get(name) or _new_host(site, name)
    log, life = io.StringIO(), Life()
    clock = Time(time.time, time.monotonic, asyncio.sleep, random.Random(name))
    timing = Timing(report_s=0.05, inventory_s=5.0, retry_s=0.05, retry_max_s=0.5, full_pass_s=5.0)
    settings = Settings(site.api.url, name, Underlay(host.address), directory / name, timing=timing, **more)
    state = StateDir.open(directory / name)
    async with await open_store(settings.store_url) as store:
        controller = HttpController(site.api.url, time=clock)
        kernel = MortalKernel(host, life)
        namespaces = FakeNamespaces(host, life)
        log_ = Log(log, now=time.time)
        worker = Worker(settings, store, controller, kernel, namespaces, host.listeners, state, time=clock, log=log_)
        await worker.start()
        member = Member(host, worker, asyncio.create_task(worker.run()), log)
        site.members[name] = member
        try:
            await until(lambda: _is_ready(member), what=f"the worker of {name} is ready")
            yield member
        finally:
            del site.members[name]
            member.task.cancel()
            await asyncio.gather(member.task, return_exceptions=True)
            await controller.close()
            state.close()


def _new_host(site: Site, name: str) -> FakeHost:
    underlay: Address = Underlay_of(len(site.fabric.hosts) + 51)
    host = FakeHost(name, underlay)
    site.fabric.join(host)
    return host


def Underlay_of(number: int) -> Address:
    from ipaddress import IPv4Address

    return IPv4Address(f"192.0.2.{number}")


async def _is_ready(member: Member) -> bool:
    return bool((await member.status())["ready"])


async def _same(store: Store, _url: str) -> Store:
    return store


@asynccontextmanager
async def a_site(url: str, directory: Path, *hosts: str, **settings: Any) -> AsyncIterator[Site]:
    """A controller on the store, and a worker through its gateway on each of the hosts."""
    async with AsyncExitStack() as held:
        # What is written into the store comes past the controller; a store in memory is opened once, for both.
        shared = await open_store(url) if url == "memory://" and "opener" not in settings else None
        if shared is not None:
            settings["opener"] = partial(_same, shared)
        api = await held.enter_async_context(running(url, **settings))
        given = shared or await open_store(api.url if url == "memory://" else url)
        store = await held.enter_async_context(given)
        site = Site(api, store)
        for host in hosts:
            await held.enter_async_context(a_worker(site, host, directory))
        yield site


__all__ = ["Member", "Site", "a_site", "a_worker", "keys", "register", "until"]
