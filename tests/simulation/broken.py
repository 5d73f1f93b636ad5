"""Bugs planted on purpose, to show that the simulation finds what it is there to find. `Planted()` has none.

Each puts one wrong part in the place of a right one: in the store, in a controller or in a worker. They are bugs that
such systems have had, and none of them is found by a test that does one thing at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from backends.store import Absent, Check, Delete, Put, Revision, Unchanged, Unknown, Write
from controller.cluster import Cluster
from controller.settings import Settings
from datapath.objects import Failure, Operation, RemoveNeighbour, RemoveVtep
from kvnet import keys
from tests.simulation.client import SimulatedStore
from tests.simulation.network import Link
from tests.simulation.processes import Process
from tests.simulation.server import Server, Watch
from worker.agent import Worker
from worker.ports import HostKernel


@dataclass(frozen=True, slots=True)
class Planted:
    """The product, and a store that keeps its contract."""

    def server(self, clock: Callable[[], float], slack_s: float) -> Server:
        return Server(clock, slack_s)

    def client(self, server: Server, link: Link, process: Process, is_follower: bool) -> SimulatedStore:
        return SimulatedStore(server, link, process, is_follower=is_follower)

    def settings(self, settings: Settings) -> Settings:
        return settings

    def cluster(self, cluster: Cluster) -> Cluster:
        return cluster

    @property
    def worker(self) -> type[Worker]:
        return Worker


class _StoreOf(Planted):
    kind: type[SimulatedStore] = SimulatedStore

    def client(self, server: Server, link: Link, process: Process, is_follower: bool) -> SimulatedStore:
        return self.kind(server, link, process, is_follower=is_follower)


# a store that breaks its word


class _LosesWrites(SimulatedStore):
    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        if self._loop.rng.random() < 0.01:
            await self.get(writes[0].key)
            return self._server.state.revision
        return await super().commit(checks, writes)


class LosesWrites(_StoreOf):
    """One write of a hundred is acknowledged and never happens."""

    kind = _LosesWrites


class _MissesEvents(SimulatedStore):
    def _call(self, watch: Watch) -> None:
        if self._loop.rng.random() < 0.02:
            watch.take()
        super()._call(watch)


class MissesEvents(_StoreOf):
    """One of fifty batches of a watch is lost, and the watch goes on."""

    kind = _MissesEvents


class _SaysUnavailable(SimulatedStore):
    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        try:
            return await super().commit(checks, writes)
        except Unknown:
            return self._server.state.revision


class TakesUnknownForDone(_StoreOf):
    """An answer that is lost counts as a good one."""

    kind = _SaysUnavailable


# controllers that trust what they remember


class _WithoutChecks(SimulatedStore):
    skipped: tuple[str, ...] = ()

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        kept = [c for c in checks if not (c.key.startswith(self.skipped) and isinstance(c, Absent | Unchanged))]
        return await super().commit(kept, writes)


class _ForgetsAddresses(_WithoutChecks):
    skipped = (keys.ADDRESSES,)


class ForgetsClaimsInFlight(_StoreOf):
    """An address that was free a moment ago is taken without looking whether it still is."""

    kind = _ForgetsAddresses


class _ForgetsTheGuard(_WithoutChecks):
    skipped = (keys.GUARDS, keys.SUBNETS)


class ForgetsTheGuard(_StoreOf):
    """Two networks may be made at once, each beside what was there before."""

    kind = _ForgetsTheGuard


class _ForgetsPlaces(SimulatedStore):
    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        goes = any(isinstance(w, Delete) and w.key.startswith(keys.ENDPOINTS) for w in writes)
        kept = [w for w in writes if not (goes and w.key.startswith(keys.ADDRESSES) and self._loop.rng.random() < 0.1)]
        return await super().commit(checks, kept)


class ForgetsToRelease(_StoreOf):
    """Of ten endpoints that go, one keeps its address."""

    kind = _ForgetsPlaces


class ReclaimsEarly(Planted):
    """A host that was not heard of for a minute counts as dead."""

    def settings(self, settings: Settings) -> Settings:
        return replace(settings, dead_host_after_s=60.0, leak_grace_s=5.0)


class _Overwrites(SimulatedStore):
    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        changed = {w.key for w in writes if isinstance(w, Put) and w.key.startswith((keys.ENDPOINTS, keys.NETWORKS))}
        kept = [c for c in checks if not (c.key in changed and isinstance(c, Unchanged))]
        return await super().commit(kept, writes)


class Overwrites(_StoreOf):
    """Who changes something writes what it knows, whatever has become of it meanwhile."""

    kind = _Overwrites


# workers


class _UnfencedWorker(Worker):
    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.lifeline.require_open = lambda: None  # type: ignore[method-assign]
        self.trust.confirm = _believes  # type: ignore[method-assign, assignment]
        self.releaser._order_late = lambda: None  # type: ignore[method-assign]


async def _believes(_: object) -> None:
    return None


class NoFence(Planted):
    """A worker that claims whatever its session is like, believes every store, and forgets what it gave up."""

    @property
    def worker(self) -> type[Worker]:
        return _UnfencedWorker


class _LazyKernel:
    """Passes everything on, but removals of entries that lead to others."""

    def __init__(self, inner: HostKernel) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def apply(self, operations: Sequence[Operation]) -> list[Failure]:
        return await self._inner.apply([o for o in operations if not isinstance(o, RemoveNeighbour | RemoveVtep)])


class _LazyWorker(Worker):
    def __init__(self, *args: object, **more: object) -> None:
        settings, store, controller, kernel, *rest = args
        lazy = _LazyKernel(kernel)  # type: ignore[arg-type]
        super().__init__(settings, store, controller, lazy, *rest, **more)  # type: ignore[arg-type]


class LeavesEntries(Planted):
    """A worker that adds what leads to others, and never takes it away."""

    @property
    def worker(self) -> type[Worker]:
        return _LazyWorker


PLANTED: Mapping[str, Planted] = {
    "": Planted(),
    "loses-writes": LosesWrites(),
    "misses-events": MissesEvents(),
    "takes-unknown-for-done": TakesUnknownForDone(),
    "forgets-claims-in-flight": ForgetsClaimsInFlight(),
    "forgets-the-guard": ForgetsTheGuard(),
    "forgets-to-release": ForgetsToRelease(),
    "reclaims-early": ReclaimsEarly(),
    "overwrites": Overwrites(),
    "no-fence": NoFence(),
    "leaves-entries": LeavesEntries(),
}
