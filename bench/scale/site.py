"""The whole simulated site: a store, controllers, and herds of workers, as processes; seeded through the API.

Knows how to start, seed and ask; chooses no figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from backends.open import open_store
from backends.store import Put
from bench import servers
from bench.controllers import Running, controllers
from kvnet import codec, keys
from kvnet.client import Client
from kvnet.errors import KvnetError
from kvnet.model import Host

UNDERLAY = IPv4Address("198.18.0.1")
MTU = 1500
SEED_AT_ONCE = 40
LIST_SIZE = 100
LISTS_AT_ONCE = 8
START_S = 300.0
ANSWER_S = 120.0
LONGEST_LINE = 1 << 26


class Herd:
    """A process of workers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def ask(self, do: str, timeout_s: float = ANSWER_S, **more: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn, asyncio.timeout(timeout_s):
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of workers ended at {do!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Tap:
    """What is written into the store, by whomever: a client of its own that watches everything."""

    def __init__(self) -> None:
        self.bytes = 0
        self.entries = 0
        self._revisions: set[int] = set()

    @property
    def commits(self) -> int:
        """Deletions alone are not seen."""
        return len(self._revisions)

    async def run(self, url: str) -> None:
        async with await open_store(url) as store:
            after = (await store.list(keys.META)).revision
            async for batch in store.watch("", after):
                for change in batch.changes:
                    self.entries += 1
                    self.bytes += len(change.key) + (len(change.entry.value) if change.entry is not None else 0)
                    self._revisions.add(change.entry.version if change.entry is not None else batch.revision)


@dataclass(slots=True)
class Site:
    """`hosts` by name: where it is in the underlay. `networks` by name: its id."""

    running: Running
    client: Client
    folder: Path
    store_pids: tuple[int, ...]
    hosts: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    attached: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    herds: list[Herd] = field(default_factory=list)

    async def seed_hosts(self, count: int) -> None:
        """As their workers will have them."""
        first = len(self.hosts)
        for number in range(first, first + count):
            self.hosts[f"n{number}"] = str(UNDERLAY + number)
        names = list(self.hosts)[first:]
        async with await open_store(self.running.store_url) as store:
            for start in range(0, count, SEED_AT_ONCE):
                records = [self.record(name) for name in names[start : start + SEED_AT_ONCE]]
                await store.commit([], [Put(keys.host(host.name), codec.encode(host)) for host in records])

    def record(self, name: str) -> Host:
        from worker.registration import ABILITIES

        address = IPv4Address(self.hosts[name])
        return Host(name, address, MTU, ABILITIES, segment=_segment(address))

    async def create_network(self, name: str, cidr: str) -> str:
        made = await self.client.create_network({"name": name, "driver": "overlay", "subnets": [{"cidr": cidr}]})
        self.networks[name] = made["id"]
        return str(made["id"])

    async def seed_endpoints(
        self, network: str, hosts: Sequence[str], *, prefix: str = "s", are_attached: bool = True
    ) -> int:
        """One on each of `hosts`, as often as it is named; the last version."""
        slots = asyncio.Semaphore(LISTS_AT_ONCE)
        latest = 0

        async def make(start: int) -> None:
            nonlocal latest
            some = hosts[start : start + LIST_SIZE]
            bodies = [{"host": host, "name": f"{prefix}{start + number}"} for number, host in enumerate(some)]
            async with slots:
                answer = await self.client.create_endpoints(network, bodies)
            for endpoint in answer:
                if isinstance(endpoint, KvnetError):
                    raise endpoint
                latest = max(latest, endpoint["version"])
                if are_attached:
                    self.attached.setdefault(endpoint["host"], []).append({**endpoint})

        await asyncio.gather(*(make(start) for start in range(0, len(hosts), LIST_SIZE)))
        return latest

    async def start_workers(self, processes: int, *, ttl_s: float) -> list[dict[str, Any]]:
        """All hosts' workers, evenly in so many processes; what each process said."""
        names = list(self.hosts)
        shares = [names[number::processes] for number in range(processes)]
        self.herds = [await _spawn(self.folder) for _ in shares]
        urls = [f"http://127.0.0.1:{port}" for port in self.running.ports]
        starts = []
        for number, (herd, share) in enumerate(zip(self.herds, shares, strict=True)):
            told = [
                {"name": name, "underlay": self.hosts[name], "attached": self.attached.get(name, [])} for name in share
            ]
            url = ",".join(urls[number % len(urls) :] + urls[: number % len(urls)])
            starts.append(herd.ask("start", START_S + 10, hosts=told, controller=url, ttl_s=ttl_s, patience_s=START_S))
        return await asyncio.gather(*starts)

    async def ask_all(self, do: str, timeout_s: float = ANSWER_S, **more: Any) -> list[dict[str, Any]]:
        return await asyncio.gather(*(herd.ask(do, timeout_s, **more) for herd in self.herds))

    def controller_usage(self) -> dict[str, float]:
        pids = self.running.pids
        return {"cpu_s": sum(map(cpu_seconds, pids)), "rss_mb": max(map(rss_mb, pids))}

    def store_usage(self) -> dict[str, float]:
        pids = self.store_pids
        return {"cpu_s": sum(map(cpu_seconds, pids)), "rss_mb": sum(map(rss_mb, pids))}


@asynccontextmanager
async def open_site(kind: str, *, replicas: int = 1) -> AsyncIterator[Site]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a dozen connections of each worker end in a controller
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvnet-scale-", dir=_memory())))
        before = set(_children())
        url = await asyncio.to_thread(stack.enter_context, servers.store(kind))
        pids = tuple(pid for started in set(_children()) - before for pid in (started, *_children(started)))
        started = controllers(replicas, store_url=url, hosts=())
        running = await asyncio.to_thread(stack.enter_context, started)
        client = await stack.enter_async_context(Client(f"http://127.0.0.1:{running.ports[0]}"))
        site = Site(running, client, folder, pids)
        try:
            yield site
        finally:
            await asyncio.gather(*(herd.end() for herd in site.herds))


async def _spawn(folder: Path) -> Herd:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.scale.herd",
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    return Herd(process)


def _segment(address: IPv4Address) -> Any:
    from ipaddress import ip_interface

    from bench.scale.host import PREFIX

    return ip_interface((address, PREFIX)).network


def _memory() -> str | None:
    """State directories in memory: a thousand workers of one disk would measure that."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _children(pid: int | None = None) -> Iterator[int]:
    pid = os.getpid() if pid is None else pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
