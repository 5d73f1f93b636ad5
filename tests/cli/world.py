"""A real controller in a process of its own, hosts registered as workers would, and the command line run against it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from click.testing import CliRunner

from backends.open import open_store
from backends.store import Delete, Put, Write
from cli.main import cli
from kvnet import codec, keys
from kvnet.client import Client
from kvnet.model import Alive, Host, Inventory
from kvnet.wire import Endpoint

T = TypeVar("T")
KVNET = (sys.executable, "-m", "cli.main")
DEADLINE_S = 20.0
READY = re.compile(r"ready: (http://\S+?),? ")


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        return json.loads(self.err)


@dataclass
class World:
    """A running controller. `fresh` names nothing that another test uses."""

    url: str
    process: subprocess.Popen[str]
    names: int = 0

    def run(self, *arguments: str, input: str | None = None) -> Outcome:
        """The command with these arguments, in this process, against this controller."""
        return self.bare("--controller", self.url, *arguments, input=input)

    def bare(self, *arguments: str, input: str | None = None) -> Outcome:
        """The command with these arguments and nothing else."""
        done = CliRunner().invoke(cli, list(arguments), input=input, prog_name="kvnet")
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    def ok(self, *arguments: str) -> Outcome:
        outcome = self.run(*arguments)
        assert outcome.code == 0, outcome
        return outcome

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """The command in a process of its own."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*KVNET, "--controller", self.url, *arguments], text=True, **pipes)

    def fresh(self, prefix: str = "n") -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def network(self, *options: str) -> str:
        name = self.fresh()
        self.ok("network", "create", name, *options)
        return name

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with Client(self.url) as client:
                return await question(client)

        return asyncio.run(asked())

    def endpoint(self, network: str, name: str, host: str = "h1", **more: Any) -> Endpoint:
        return self.ask(lambda client: client.create_endpoint(network, {"host": host, "name": name, **more}))  # type: ignore[typeddict-item]

    def plant(self, key: str, value: bytes) -> None:
        """Put something into the store behind the controller's back."""
        asyncio.run(self._commit([Put(key, value)]))

    def streams(self) -> int:
        """How many event streams the controller has open."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=DEADLINE_S) as answer:
            found = re.search(r"^kvnet_\w*streams\w* (\d+)", answer.read().decode(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def unplant(self, key: str) -> None:
        """Take something out of the store behind the controller's back."""
        asyncio.run(self._commit([Delete(key)]))

    def register(self, host: str, underlay: str, *, is_alive: bool = True) -> None:
        """As the host's worker would, through the store gateway; alive for ever, since no session is bound to it."""
        asyncio.run(self._register(Host(host, ip_address(underlay), 1500), is_alive=is_alive))

    async def _register(self, host: Host, *, is_alive: bool) -> None:
        inventory = Inventory(host.name, kernel="6.1.0", version="0.1.0")
        writes = [
            Put(keys.host(host.name), codec.encode(host)),
            Put(keys.inventory(host.name), codec.encode(inventory)),
        ]
        if is_alive:
            writes.append(Put(keys.alive(host.name), codec.encode(Alive(host.name, "test", 0.0))))
        await self._commit(writes)

    async def _commit(self, writes: Sequence[Write]) -> None:
        async with await open_store(self.url) as store:
            await store.commit([], writes)


@contextmanager
def running(store: str, *options: str) -> Iterator[World]:
    """A controller for as long as the context lasts."""
    command = [*KVNET, "controller", "--store", store, "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(DEADLINE_S, process.kill)
        guard.start()
        try:
            url = _url_of(process)
            guard.cancel()
            yield World(url, process)
        finally:
            guard.cancel()
            process.terminate()
            try:
                process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()


def _url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        found = READY.search(line)
        if found:
            return found[1]
    raise AssertionError(f"the controller ended: {''.join(said)}")


@contextmanager
def fake_worker(path: Path, *answers: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """A unix socket that gives one answer per request, as a worker's; yields what it was asked."""
    asked: list[dict[str, Any]] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as both:
                asked.append(json.loads(both.readline()))
                both.write(json.dumps(answer).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE_S)
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(DEADLINE_S)
