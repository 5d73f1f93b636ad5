"""Real controller processes on one store, and the store read back afterwards to see what is true."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from backends.open import open_store
from backends.store import Absent, Entry, Put
from controller.ipam.check import check
from kvnet import codec, keys
from kvnet.model import Endpoint, Host, Network

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
HOSTS = ("h1", "h2", "h3")


@dataclass(frozen=True, slots=True)
class Running:
    """`ports`: one per controller. `pids` likewise."""

    store_url: str
    ports: tuple[int, ...]
    pids: tuple[int, ...]

    @property
    def cpu_seconds(self) -> float:
        """What all controllers have used so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(sum(map(int, _stat(pid)[11:13])) / ticks for pid in self.pids)


@dataclass(frozen=True, slots=True)
class Truth:
    """What the store says at the end."""

    networks: int
    endpoints: int
    duplicate_addresses: int
    findings: tuple[str, ...]


@contextlib.contextmanager
def controllers(
    count: int = 1,
    *,
    store_url: str = "",
    command: tuple[str, ...] = ("-m", "cli.main"),
    hosts: Sequence[str] = HOSTS,
) -> Iterator[Running]:
    """Start them on a store with these hosts in it, wait until they answer, and stop them at the end.

    Without `store_url` it is a fresh SQLite file.
    """
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-") as folder:
        url = store_url or f"sqlite://{folder}/kvnet.db"
        if hosts:
            asyncio.run(_seed(url, hosts))
        ports = tuple(_free_port() for _ in range(count))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.extend(_start(command, url, port, _log(folder, port)) for port in ports)
            for port, process in zip(ports, processes, strict=True):
                _wait_until_ready(port, process, _log(folder, port))
            yield Running(url, ports, tuple(process.pid for process in processes))
        finally:
            _stop(processes)


def _log(folder: str, port: int) -> Path:
    return Path(folder, f"controller-{port}.log")


def _start(command: tuple[str, ...], url: str, port: int, log: Path) -> subprocess.Popen[bytes]:
    arguments = [*command, "controller", "--store", url, "--listen", f"127.0.0.1:{port}"]
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT)


def truth(url: str) -> Truth:
    """Everything in the store, counted and checked."""
    return asyncio.run(_truth(url))


async def _seed(url: str, names: Sequence[str]) -> None:
    async with await open_store(url) as store:
        if await store.get(keys.host(names[0])) is not None:
            return
        hosts = [Host(name, ip_address(f"192.0.2.{i}"), 1500) for i, name in enumerate(names, 1)]
        await store.commit(
            [Absent(keys.host(h.name)) for h in hosts], [Put(keys.host(h.name), codec.encode(h)) for h in hosts]
        )


async def _truth(url: str) -> Truth:
    async with await open_store(url) as store:
        entries = (await store.list("")).entries
    by_prefix: Mapping[str, list[Entry]] = {
        prefix: [e for e in entries if e.key.startswith(prefix)] for prefix in (keys.NETWORKS, keys.ENDPOINTS)
    }
    endpoints = [codec.decode(Endpoint, e.value) for e in by_prefix[keys.ENDPOINTS]]
    networks = [codec.decode(Network, e.value) for e in by_prefix[keys.NETWORKS]]
    owners = Counter((e.network, address) for e in endpoints for address in e.addresses)
    findings = tuple(f"{f.invariant}: {f.detail}" for f in check(entries, time.time()))
    return Truth(len(networks), len(endpoints), sum(n - 1 for n in owners.values()), findings)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1),
        ):
            return
        time.sleep(0.02)
    raise RuntimeError(f"a controller did not come up: {log.read_text()[-2000:]}")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
