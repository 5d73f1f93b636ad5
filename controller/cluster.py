"""The cluster as its use cases see it: opened on a store, kept in step, asked and told through its parts.

One instance per controller process; any number of them on one store. Holds nothing that the store does not have: what
is in memory here can be read again from there at any time. Wiring only; every decision lives in a part.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import TypeVar

from backends.levelled import LevelledStore
from backends.store import Store
from controller.acceptance import Acceptance
from controller.audit.reading import look
from controller.audit.seal import Seal
from controller.audit.sealing import Sealing
from controller.audit.verify import Verdict
from controller.audit.vigil import Vigil
from controller.bootstrap import found_cluster
from controller.cases import Cases, cases
from controller.connectivity.run import Connectivity
from controller.consistency import Consistency
from controller.convergence import Convergences
from controller.events import EventLog
from controller.fanout import Fanout
from controller.forecast import Forecast, change_of, forecast
from controller.leader import Leadership
from controller.lookup import Ipam
from controller.outcomes import store_errors_told
from controller.pausing import Pausing
from controller.questions import Questions
from controller.rehearsal import rehearse
from controller.security.authentication import Credentials
from controller.security.host_store import Gate
from controller.security.joining import Joining
from controller.security.logins import Logins
from controller.security.participation import takes_part
from controller.security.principal import Principal
from controller.security.sight import Networks, Sight
from controller.security.tokens import Tokens
from controller.seen import Reader, SeenState
from controller.settings import Settings
from controller.standing import Standing
from controller.state import State
from controller.status import Statuses
from controller.status_events import StatusEvents
from controller.tracing import Tracing
from controller.upgrade import Upgrade
from controller.upkeep import Upkeep
from controller.views import ClusterStatus, Event
from controller.writer import Writer
from kvnet import sentinel
from kvnet.errors import OutcomeUnknown, StoreUnavailable
from kvnet.marks import Cluster as Identity
from kvnet.security import Role

T = TypeVar("T")


class Cluster:
    """
    Attributes:
        networks, endpoints, hosts, pools, reservations: the use cases.
        holds, naming: networks that are made before their name is known, and the subnets kept for them.
        updates, peering: what a living network becomes, and whom it may talk to.
        convergence, statuses: which host has applied what, and how everything is.
        ipam: questions about addresses and blocks, and the check of the invariants.
        events: what changed, as a stream.
        standing: whether the store may be believed; while it is not, nothing is written.
        acceptance: an operator's word that it may.
        questions: what is asked of hosts and answered by their workers; changes nothing.
        connectivity: a test of who reaches whom, through the workers.
        pausing: an operator's pause of a host's repairs.
        tracing: the way of a packet between two endpoints, hop by hop.
        logins: of browsers, by cookies.
        tokens, credentials: who may come in: to change it, and as this replica knows it.
        joining: how hosts come by theirs.
        upgrade: who speaks which schema, and the step from one to the next.
        upkeep, sealing: what the elected replica does; runs by itself.
        vigil: whether the journal still fits its seals, as it was looked at last; runs by itself.
    """

    def __init__(self, store: Store, settings: Settings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._identity: Identity | None = None
        self._looking = asyncio.Lock()
        store = LevelledStore(store, lambda: sentinel.level_of(state.meta.mirror.entries))
        self._state = self._whole = state = State(store, settings, rng)
        self.standing = standing = Standing(state)
        self._writer = writer = Writer(store, settings, rng, standing)
        patience_s = settings.read_your_writes_s
        changes = cases(state, writer, settings, rng)
        consistency = Consistency(writer, settings.cool_down_s)
        self._take(changes)
        self.convergence = Convergences(state, settings.clock)
        self.statuses = Statuses(state, standing)
        self._status_events = StatusEvents(state, self.statuses, self.networks, self.hosts, settings.clock)
        self.questions = Questions(state, writer, settings, rng)
        self.connectivity = Connectivity(state, self.questions, rng)
        self.pausing = Pausing(state, writer, self.questions)
        self.tracing = Tracing(state, self.questions)
        self.gate = Gate(state, store, secrets.token_bytes, settings.clock.monotonic)
        self.ipam = Ipam(state, self.networks, self.pools, consistency)
        self.acceptance = Acceptance(state, writer, standing, rng, patience_s)
        self.events: EventLog = state.events
        self.tokens = Tokens(store, writer, settings.clock.now)
        self.credentials = known = Credentials(state.tokens, state.meta)
        self.logins = Logins(state.secrets, writer, known, secrets.token_bytes, patience_s)
        self.joining = Joining(store, writer, settings.clock.now, known.may_join)
        self.sealing = sealing = Sealing(state, writer, settings, standing, rng)
        self.upkeep = Upkeep(state, writer, changes.removal, self.hosts, consistency, settings, rng, standing, sealing)
        self.upgrade = Upgrade(state, writer, store, settings, rng)
        self._leadership = leadership = Leadership(store, state, settings, rng, standing)
        self.vigil = Vigil(state, store, settings, standing, rng, lambda: leadership.is_ours)

    def _take(self, changes: Cases) -> None:
        self.networks = changes.networks
        self.holds, self.naming = changes.holds, changes.naming
        self.endpoints = changes.endpoints
        self.updates, self.peering = changes.updates, changes.peering
        self.hosts, self.pools, self.reservations = changes.hosts, changes.pools, changes.reservations

    @classmethod
    @asynccontextmanager
    async def open(cls, store: Store, settings: Settings, rng: random.Random | None = None) -> AsyncIterator[Cluster]:
        """A cluster that is in step with the store, founded if the store is new; upkeep runs inside when elected.

        Raises:
            StoreUnavailable: it did not answer for as long as a start may take.
            StoreBroken, StoreForeign, StoreTooNew, AnotherCluster: it is not to be used; nothing was written.
        """
        cluster = cls(store, settings, rng or random.Random())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(cluster._state.run()), group.create_task(cluster._writer.run())]
                try:
                    await cluster._start()
                    tasks.append(group.create_task(cluster._status_events.run()))
                    tasks.append(group.create_task(cluster.upgrade.run()))
                    if settings.upkeep:
                        tasks.append(group.create_task(cluster._leadership.run(cluster._lead)))
                        tasks.append(group.create_task(cluster.vigil.run()))
                    yield cluster
                finally:
                    cluster.events.close()
                    for task in tasks:
                        task.cancel()
        except BaseExceptionGroup as failed:
            if len(failed.exceptions) == 1:
                raise failed.exceptions[0] from None
            raise

    async def _start(self) -> None:
        """A store that does not answer yet gets its time: controllers and stores start together after a power cut."""
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                self._identity = await self._founded()
            await self._state.until_in_step(self._settings.start_timeout_s)
            await self.standing.begin(self._identity, self._settings.start_timeout_s)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the store did not answer within {self._settings.start_timeout_s:g} s",
                fix="look at the store and at --store; then start again",
            ) from error

    async def _founded(self) -> Identity:
        while True:
            try:
                with store_errors_told():
                    settings = self._settings
                    return await found_cluster(self._writer, settings.replica, self._rng, settings.cluster_id)
            except (StoreUnavailable, OutcomeUnknown):  # the next look tells what became of it
                await self._settings.clock.sleep(self._rng.uniform(0.2, 1.0))

    async def _lead(self) -> None:
        """What the elected replica does, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.upkeep.run())
            tasks.create_task(self.sealing.run())

    async def audit(self, head: str = "") -> Verdict:
        """Whether the journal in the store fits its seals, and these what this replica saw of them.

        Raises:
            StoreUnavailable, StoreBroken
        """
        # One at a time: each reads the whole journal, and many could ask.
        async with self._looking:
            with store_errors_told():
                return await look(self._writer.store, self._state.chain.seen, head)

    def seals(self) -> Sequence[Seal]:
        """Those that are kept, by number."""
        return self._state.chain.kept

    def fanout(self, encode: Callable[[Event], bytes]) -> Fanout:
        """What happens, for many who listen; `encode` makes the bytes that they get."""
        return Fanout(self.events, encode, self._settings.event_queue)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Keys of the store whose values somebody has damaged, and what is wrong with them."""
        return self._state.unreadable

    @property
    def bookmark_interval_s(self) -> float:
        """How often those who listen are told that nothing happened."""
        return self._settings.bookmark_interval_s

    async def rehearse(self, action: Callable[[Cases], Awaitable[T]]) -> tuple[T, Forecast]:
        """What a change would return and do to the hosts; nothing is written.

        Raises:
            KvnetError: what the change itself would raise.
        """
        with store_errors_told():
            result, written = await rehearse(
                action, self._writer.store, self._whole, self._settings, self.standing, self._rng
            )
        told = {key: value for key, value in written.items() if self._state.tells(key)}
        return result, await asyncio.to_thread(forecast, change_of(self._state, told))

    def sight(self, who: Principal) -> Sight:
        """What somebody sees who does not see everything."""
        whole = self._whole
        known = Networks(
            get=lambda id_: None if (found := whole.networks.get(id_)) is None else found.value,
            named=whole.id_named,
            gone=whole.labels_of_gone,
            carried=whole.networks_on,
        )
        is_host = who.role is Role.HOST
        return Sight(who, known, (lambda id_: takes_part(whole, who.host, id_)) if is_host else None)

    def seen(self, sight: Sight) -> Cluster:
        """For reading: the same memory without what is out of sight. Whatever writes is refused by it."""
        other = copy(self)
        other._state = state = SeenState(self._state, sight)
        other._writer = writer = Reader(self._writer)
        other._take(cases(state, writer, self._settings, self._rng))
        other.convergence = Convergences(state, self._settings.clock)
        other.statuses = Statuses(state, self.standing)
        other.connectivity = Connectivity(state, self.questions, self._rng)
        other.tracing = Tracing(state, self.questions)
        other.ipam = Ipam(state, other.networks, other.pools, Consistency(writer, self._settings.cool_down_s))
        return other

    async def credentials_reached(self, revision: int) -> None:
        """Wait, for a bounded time, until this replica admits by what that commit made of the tokens."""
        await self._state.reached(revision, self._state.tokens, self._state.meta)

    @property
    def revision(self) -> int:
        """The store revision that every answer from memory is at least as new as."""
        return self._state.revision

    @property
    def commits(self) -> Mapping[str, int]:
        """How this replica's commits fared, as `Writer.counts`."""
        return self._writer.counts

    def status(self) -> ClusterStatus:
        state = self._state
        return ClusterStatus(
            cluster=self._identity.id if self._identity else "",
            store=self._settings.store_kind,
            revision=state.revision,
            leader=self._leadership.leader,
            is_leader=self._leadership.is_ours,
            replica=self._settings.replica,
            stale_since=state.stale_since,
            trouble=self.standing.trouble,
            networks=len(state.networks.items),
            endpoints=len(state.endpoints.items),
            hosts=len(state.hosts.items),
            hosts_alive=len(state.alive.items),
            pools=len(state.pools.items),
        )
