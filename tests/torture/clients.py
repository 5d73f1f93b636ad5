"""What the clients of a torture run do: raw commits on few keys, and the product's own use cases on few addresses.

All of a client's choices come from its own seeded generator. Outcomes are counted, and who certainly owns what is
written into the history; nothing is judged here.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from backends.store import (
    Absent,
    Check,
    Conflict,
    Delete,
    Present,
    Put,
    Store,
    Unavailable,
    Unchanged,
    Unknown,
    Write,
)
from controller.cluster import Cluster
from controller.requests import Caller, EndpointRequest, NetworkRequest, SubnetRequest
from kvnet.errors import AddressesExhausted, KvnetError, NotFound, OutcomeUnknown
from kvnet.model import Endpoint, Network, Versioned
from tests.torture.history import Recorder

RAW = "raw/"
RAW_KEYS = tuple(f"{RAW}k{i}" for i in range(6))
ARENAS = tuple(f"arena-{i}" for i in range(3))
ARENA_BITS = 26  # 61 addresses for endpoints, for many clients
HOSTS = ("h1", "h2", "h3")
NAMES = tuple(f"contested-{i}" for i in range(5))
BLOCKS = ("10.77.0.0/24", "10.77.0.0/25", "10.77.0.128/25", "10.77.0.0/23", "10.77.1.0/24", "10.77.0.192/26")
MAX_BATCH = 8
PATIENCE_S = 0.02
FOREVER = 1 << 62

Sleep = Callable[[float], Awaitable[object]]


@dataclass(slots=True)
class Tally:
    """`released`: what was certainly released in this round, thing -> owner."""

    counts: Counter[str] = field(default_factory=Counter)
    released: dict[str, str] = field(default_factory=dict)


class RawClient:
    """Commits of every shape on a handful of keys, with what it remembers of them, which may be old."""

    def __init__(self, store: Store, name: str, rng: random.Random, tally: Tally, sleep: Sleep) -> None:
        self._store = store
        self._name = name
        self._rng = rng
        self._counts = tally.counts
        self._sleep = sleep
        self._known: dict[str, int] = {}  # 0: absent

    async def run(self, turns: int = FOREVER) -> None:
        for _ in range(turns):
            try:
                await self._turn()
                self._counts["raw ok"] += 1
            except Conflict as conflict:
                self._counts["raw conflict"] += 1
                for key in conflict.keys:
                    self._known.pop(key, None)
            except Unknown:
                self._counts["raw unknown"] += 1
                self._known.clear()
            except Unavailable:
                self._counts["raw unavailable"] += 1
                await self._sleep(PATIENCE_S)
            await self._sleep(self._rng.random() * PATIENCE_S)

    async def _turn(self) -> None:
        rng = self._rng
        if rng.random() < 0.05:
            for entry in (await self._store.list(RAW)).entries:
                self._known[entry.key] = entry.version
            return
        keys = rng.sample(RAW_KEYS, rng.choice((1, 1, 1, 2, 3)))
        checks = [await self._check(key) for key in keys if rng.random() < 0.85]
        writes: list[Write] = [self._write(key) for key in keys if rng.random() < 0.9]
        if rng.random() < 0.8:  # tells, if nobody saw anything else of it, that it was done
            writes.append(Put(f"{RAW}mark/{self._name}", b"done"))
        revision = await self._store.commit(checks, writes)
        for write in writes:
            self._known[write.key] = revision if isinstance(write, Put) else 0

    async def _check(self, key: str) -> Check:
        if key not in self._known:
            entry = await self._store.get(key)
            self._known[key] = 0 if entry is None else entry.version
        version = self._known[key]
        if not version:
            return Absent(key)
        return Present(key) if self._rng.random() < 0.1 else Unchanged(key, version)

    def _write(self, key: str) -> Write:
        return Delete(key) if self._rng.random() < 0.3 else Put(key, self._rng.randbytes(8))


class ProductClient:
    """Creates and releases endpoints in networks that are too small, and networks of contested names and subnets."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        rng: random.Random,
        tally: Tally,
        recorder: Recorder,
        sleep: Sleep,
        share: int,
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._rng = rng
        self._tally = tally
        self._recorder = recorder
        self._sleep = sleep
        self._share = share  # how many endpoints it keeps at most
        self._me = Caller(name, "", "torture")
        self._made = 0
        self._is_full = False  # the last try found no free address
        self._mine: dict[str, tuple[str, list[str]]] = {}  # endpoint -> arena, things
        self._doubtful: dict[str, str] = {}  # endpoint of which nobody knows -> arena

    async def run(self) -> None:
        while True:
            try:
                await self._turn()
            except KvnetError as error:
                self._count("endpoint", error)
                await self._sleep(self._rng.random() * PATIENCE_S)

    async def _turn(self) -> None:
        draw = self._rng.random()
        if draw < 0.03:
            await self._create_network()
        elif draw < 0.06:
            await self._delete_network()
        elif self._doubtful and draw < 0.3:
            await self._clear_up()
        elif not self._mine or (len(self._mine) < self._share and not self._is_full):
            await self._create()
        else:
            self._is_full = False
            await self._release()

    async def _create(self) -> None:
        arena = self._rng.choice(ARENAS)
        first = self._made
        self._made += self._rng.randint(1, MAX_BATCH)
        ids = [f"{self._name}-{number}" for number in range(first, self._made)]
        requests = [EndpointRequest(self._rng.choice(HOSTS), one, id=one) for one in ids]
        op = self._begin("acquire", arena)
        try:
            outcomes = await self._cluster.endpoints.create_many(arena, requests, self._me)
        except KvnetError as error:
            outcomes = [error] * len(ids)
        for one, outcome in zip(ids, outcomes, strict=True):
            if isinstance(outcome, Versioned):
                things = things_of_endpoint(outcome.value)
                self._mine[one] = arena, things
                self._recorder.write("ok", "acquire", op, self._name, owner=one, value=things)
                self._tally.counts["allocations"] += 1
                continue
            self._count("endpoint", outcome)
            if isinstance(outcome, AddressesExhausted):
                self._is_full = True
            else:
                self._doubtful[one] = arena
        if self._is_full:
            await self._sleep(self._rng.random() * PATIENCE_S)

    async def _release(self) -> None:
        """Several at once, so that they go together into one commit, or race for it."""
        chosen = self._rng.sample(list(self._mine), min(len(self._mine), self._rng.randint(1, MAX_BATCH)))
        await asyncio.gather(*(self._release_one(one) for one in chosen))

    async def _release_one(self, one: str) -> None:
        arena, things = self._mine.pop(one)
        self._doubtful[one] = arena
        op = self._begin("release", things, owner=one)
        try:
            await self._cluster.endpoints.delete(arena, one, self._me)
        except KvnetError as error:
            self._count("endpoint", error)
            return
        self._recorder.write("ok", "release", op, self._name, owner=one, value=things)
        self._tally.released.update(dict.fromkeys(things, one))
        self._tally.counts["releases"] += 1
        del self._doubtful[one]

    async def _clear_up(self) -> None:
        one, arena = next(iter(self._doubtful.items()))
        with suppress(NotFound):  # as good as released
            await self._cluster.endpoints.delete(arena, one, self._me)
        del self._doubtful[one]

    async def _create_network(self) -> None:
        rng = self._rng
        owner = f"{rng.getrandbits(48):012x}"
        subnets = tuple(SubnetRequest(cidr) for cidr in rng.sample(BLOCKS, 1)) if rng.random() < 0.6 else ()
        op = self._begin("acquire", "network")
        try:
            request = NetworkRequest(rng.choice(NAMES), subnets=subnets, id=owner)
            made = await self._cluster.networks.create(request, self._me)
        except KvnetError as error:
            self._count("network", error)
            return
        value = things_of_network(made.value)
        self._recorder.write("ok", "acquire", op, self._name, owner=owner, value=value)
        self._tally.counts["networks"] += 1

    async def _delete_network(self) -> None:
        """Of anybody."""
        there = [n.value for n in self._cluster.networks.list() if n.value.name in NAMES]
        if not there:
            return
        network = self._rng.choice(there)
        things = things_of_network(network)
        op = self._begin("release", things, owner=network.id)
        try:
            await self._cluster.networks.delete(network.id, self._me)
        except KvnetError as error:
            self._count("network", error)
            return
        self._recorder.write("ok", "release", op, self._name, owner=network.id, value=things)
        self._tally.released.update(dict.fromkeys(things, network.id))

    def _begin(self, f: str, value: object, **more: str) -> int:
        op = self._recorder.number()
        self._recorder.write("invoke", f, op, self._name, value=value, **more)
        return op

    def _count(self, what: str, error: KvnetError) -> None:
        outcome = "unknown" if isinstance(error, OutcomeUnknown) else error.code
        self._tally.counts[f"{what} {outcome}"] += 1


def things_of_endpoint(endpoint: Endpoint) -> list[str]:
    return [f"address {endpoint.network}/{address}" for address in endpoint.addresses]


def things_of_network(network: Network) -> list[str]:
    vnis = [] if network.vni is None else [f"vni {network.vni}"]
    return [f"name {network.name}", *vnis, *(f"subnet {subnet.cidr}" for subnet in network.subnets)]


async def prepare(cluster: Cluster) -> Sequence[Versioned[Network]]:
    """The small networks that everybody fights over."""
    me = Caller("torture", "", "torture")
    return [
        await cluster.networks.create(
            NetworkRequest(name, subnets=(SubnetRequest(f"10.66.{i}.0/{ARENA_BITS}"),), id=f"{i + 1:012x}"), me
        )
        for i, name in enumerate(ARENAS)
    ]
