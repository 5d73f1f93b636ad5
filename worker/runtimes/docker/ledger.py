"""What Docker was told: which of its networks is which of ours, and which subnets it asked for and has not used yet.

On disk, because Docker never tells again (it replays nothing after a restart), and every line is written before Docker
is answered. Both halves of the runtime read it; it decides nothing, and knows nothing of endpoints: those are the
worker's attachments.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kvnet import codec
from kvnet.errors import StateUnusable, StoreBroken
from worker.disk import StateDir
from worker.log import Log

BINDINGS = "docker-networks"
WANTS = "docker-pools"
ROOM = 1024  # bytes of a line; few have more
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Binding:
    """A network of this host's Docker.

    Attributes:
        docker: Docker's id of it; another one on every host.
        network: our id.
        subnets: the pools that Docker has of it, as CIDRs.
        gateways: by pool, as addresses.
        egress: "gateway": workloads leave through us. "gwbridge": through Docker's own bridge, which publishes too.
        internal: no way out.
        is_automatic: Docker was given no subnet, so it refuses fixed addresses on it.
        since: when it was made (Unix seconds).
    """

    docker: str
    network: str
    subnets: tuple[str, ...]
    gateways: Mapping[str, str] = field(default_factory=dict)
    egress: str = "gateway"
    internal: bool = False
    is_automatic: bool = False
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Want:
    """A pool that Docker asked for and that no network of it has yet. `hold`: "" where a network has the subnet.

    `gateway` and `reserved` are what Docker asked for in it, `range` its part for automatic choice. `is_used`: Docker
    has asked for something in it.
    """

    cidr: str
    hold: str
    since: float
    range: str = ""
    gateway: str = ""
    reserved: tuple[str, ...] = ()
    is_automatic: bool = False
    is_used: bool = False


class Ledger:
    """Bindings by Docker's id, wants by CIDR."""

    def __init__(self, state: StateDir, log: Log) -> None:
        self._state = state
        self._log = log
        self._bindings: dict[str, Binding] = {}
        self._wants: dict[str, Want] = {}
        self._syncing: set[asyncio.Task[None]] = set()

    def load(self) -> None:
        """
        Raises:
            StateUnusable: the directory cannot be read. A damaged line is logged and left out.
        """
        self._bindings = {found.docker: found for found in self._read(Binding, BINDINGS)}
        self._wants = {found.cidr: found for found in self._read(Want, WANTS)}

    def bindings(self) -> Iterator[Binding]:
        return iter(list(self._bindings.values()))

    def binding(self, docker: str) -> Binding | None:
        return self._bindings.get(docker)

    def bindings_of(self, network: str) -> list[Binding]:
        """More than one only while one of them is replaced by another."""
        return [binding for binding in self._bindings.values() if binding.network == network]

    def bound_to(self, cidr: str) -> Binding | None:
        """The youngest that has this pool."""
        found = [binding for binding in self._bindings.values() if cidr in binding.subnets]
        return max(found, key=lambda binding: binding.since, default=None)

    async def bind(self, binding: Binding) -> None:
        """Safe from a crash of ours when it returns, and from a power failure soon after: of what that takes, Docker
        still has the network, which is then adopted by its subnets.

        Raises:
            StateUnusable: not written; nothing has changed.
        """
        name = _file(BINDINGS, binding.docker)
        self._state.write(name, codec.encode(binding), durable=False, room=ROOM)
        self._bindings[binding.docker] = binding
        task = asyncio.ensure_future(self._sync(name))
        self._syncing.add(task)
        task.add_done_callback(self._syncing.discard)

    async def _sync(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._state.sync, name)
        except StateUnusable as error:
            self._log.warning("state-unusable", file=name, detail=error.detail)

    async def unbind(self, docker: str) -> None:
        if self._bindings.pop(docker, None) is not None:
            self._state.remove(_file(BINDINGS, docker))

    def want(self, cidr: str) -> Want | None:
        return self._wants.get(cidr)

    def wants(self) -> Iterator[Want]:
        return iter(list(self._wants.values()))

    async def keep(self, want: Want) -> None:
        """Replaces the one of the same CIDR. Safe from a crash of ours; a power failure ends Docker's command too.

        Raises:
            StateUnusable: not written; nothing has changed.
        """
        self._state.write(_file(WANTS, want.cidr), codec.encode(want), durable=False, room=ROOM)
        self._wants[want.cidr] = want

    async def drop(self, cidr: str) -> None:
        if self._wants.pop(cidr, None) is not None:
            self._state.remove(_file(WANTS, cidr))

    def _read(self, kind: type[T], folder: str) -> Iterator[T]:
        for name in self._state.names(folder):
            try:
                yield codec.decode(kind, self._state.read(f"{folder}/{name}") or b"")
            except (StoreBroken, TypeError, ValueError) as error:
                self._log.warning("ledger-unreadable", file=f"{folder}/{name}", detail=str(error))


class OwnCalls:
    """Which of Docker's calls the follower is the cause of: it fills this, the plugin looks. Of this process only."""

    def __init__(self) -> None:
        self._posting: Counter[str] = Counter()
        self._removing: Counter[str] = Counter()

    @contextlib.contextmanager
    def posting(self, subnets: Sequence[str]) -> Iterator[None]:
        """While a network with these subnets is being made in Docker."""
        with _counted(self._posting, subnets):
            yield

    @contextlib.contextmanager
    def removing(self, docker: str) -> Iterator[None]:
        """While Docker's network of this id is being removed, which is not the user's wish."""
        with _counted(self._removing, [docker]):
            yield

    def is_posting(self, subnet: str) -> bool:
        return self._posting[subnet] > 0

    def is_removing(self, docker: str) -> bool:
        return self._removing[docker] > 0


@contextlib.contextmanager
def _counted(counts: Counter[str], keys: Sequence[str]) -> Iterator[None]:
    counts.update(keys)
    try:
        yield
    finally:
        counts.subtract(keys)
        for key in keys:
            if counts[key] <= 0:
                del counts[key]


def _file(folder: str, key: str) -> str:
    return f"{folder}/{key.replace('/', '_')}"
