"""What the worker needs from outside, as small contracts: the controller, the host it runs on, and time.

The real ones are `worker.controller`, `worker.kernel.linux`, `worker.runtimes.netns` and the clock; tests bring their
own. Nothing here acts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from datapath.objects import Ip, Kernel, Mac
from kvnet.model import Address, PublishedPort
from kvnet.wire import (
    Endpoint,
    EndpointBody,
    EndpointPatchBody,
    Hold,
    HoldBody,
    NameBody,
    Network,
    NetworkBody,
)
from worker.kernel.inventory import Surroundings


class Controller(Protocol):
    """Raises the `KvnetError` of the problem; `ControllerUnreachable`, `OutcomeUnknown` where there was no answer."""

    async def create_endpoint(self, network: str, body: EndpointBody, *, wait_s: float = 0.0) -> Endpoint: ...

    async def update_endpoint(self, network: str, endpoint: str, body: EndpointPatchBody) -> Endpoint: ...

    async def delete_endpoint(self, network: str, endpoint: str, *, version: int | None = None) -> None: ...

    async def hold_subnet(self, body: HoldBody) -> Hold: ...

    async def release_hold(self, hold: str) -> None: ...

    async def create_network(self, body: NetworkBody) -> Network:
        """`body` names its holds or its id, so that it may be repeated."""
        ...

    async def name_network(self, network: str, body: NameBody) -> Network: ...

    async def delete_network(self, network: str) -> None: ...

    async def removed_by(self, network: str, names: Sequence[str]) -> Sequence[str]:
        """For each name the request that removed this endpoint of the network, or the network itself by its id; "" if
        nobody knows. One question, however many there are. Not for decisions."""
        ...

    async def answers(self) -> bool:
        """Whether it is there and can serve, within a moment."""
        ...


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace as it was found: `identity` tells it from another one under the same path."""

    path: str
    identity: str
    interfaces: frozenset[str] = frozenset()


class Namespaces(Protocol):
    """Where workloads live."""

    async def look(self, namespace: str) -> Namespace:
        """The namespace by path or `ip netns` name, with the names of its interfaces.

        Raises:
            NamespaceNotFound: there is none.
        """
        ...

    async def identity(self, path: str) -> str:
        """Cheap: "" when there is no namespace there."""
        ...


@dataclass(frozen=True, slots=True)
class Listener:
    """A program that has the port, at `address`. `pid` 0: which one it is cannot be seen. `socket`: its number."""

    port: PublishedPort
    address: Address
    pid: int
    program: str
    socket: int = 0

    def __str__(self) -> str:
        who = f"{self.program} (pid {self.pid})" if self.pid else "a program"
        return f"{who} on this host has {self.port.host_port}/{self.port.protocol} at {self.address}"


class Listeners(Protocol):
    """Who on this host listens."""

    async def first(self, ports: Sequence[PublishedPort], versions: Sequence[int]) -> Listener | None:
        """Of the first of the ports that is taken; None if all are free.

        Raises:
            Invalid: an address that is not this host's.
        """
        ...


class HostKernel(Kernel, Protocol):
    """The kernel of this host: what kvnet has there, and what else there is."""

    async def surroundings(self) -> Surroundings: ...

    async def name_inside(self, device: str, netns: str, mac: Mac) -> str:
        """What the other half of `device` (or a macvlan that a state calls so) is called in a namespace.

        "" where it is not there.

        Raises:
            KernelRefused: the namespace is gone, or cannot be looked into.
        """
        ...

    async def remove_macvlan(self, netns: str, mac: Mac) -> bool:
        """One of ours, in a namespace ("" for none) or on the host, whatever it is called. False: it is in neither, or
        just moves from one to the other.

        Raises:
            KernelRefused: it is there and cannot be removed.
        """
        ...

    async def lead_inside(self, netns: str, interface: str, destination: Ip, prefix_length: int) -> None:
        """A route on the link, in a workload's namespace; one that is there already is no error.

        Raises:
            KernelRefused: the interface is gone, or the kernel does not take it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Time:
    """`now` is for records, `monotonic` for durations. `jittered` spreads what many workers do at the same moment."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)

    def jittered(self, seconds: float) -> float:
        return seconds * self.rng.uniform(0.75, 1.0)


@dataclass(slots=True)
class Backoff:
    """Doubling pauses with jitter and a limit."""

    first_s: float
    longest_s: float
    failures: int = 0

    def next(self, time: Time) -> float:
        pause = min(self.longest_s, self.first_s * float(2 ** min(self.failures, 16)))
        self.failures += 1
        return time.jittered(pause)

    def reset(self) -> None:
        self.failures = 0
