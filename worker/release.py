"""Takes attachments away: the interface first, then the endpoint, then the record; in this order at any interruption.

What cannot be finished, because the controller is away, stays on disk and is tried again with growing pauses. An
attachment whose fate at the controller is unknown is judged by the store alone: only there it can be seen whether the
endpoint was made, and that it is ours. Where a runtime knows its workloads better than their namespaces tell, nothing
goes without its word.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from backends.store import Store
from kvnet.errors import KernelRefused, KvnetError, NotFound, StateUnusable
from kvnet.request import asked_by
from worker.attachments import ASKED_FIRST, CONTAINER, Attachments, Phase, Record
from worker.ended import Ended
from worker.givenup import GivenUp
from worker.log import Log
from worker.ports import Backoff, Controller, HostKernel, Namespaces, Time
from worker.removal import Remover
from worker.settings import Timing
from worker.source import Mode, Source
from worker.together import all_of
from worker.trust import Trust
from worker.view import View

LOOK_AGAIN_S = 1.0
BUSY_S = 300.0  # an attempt sets its own next time when it ends
DELETIONS_AT_ONCE = 16  # asked of the controller
NEVER = float("inf")


class Releaser:
    """`touch` asks for a look at a network after its interface went."""

    def __init__(
        self,
        store: Store,
        controller: Controller,
        kernel: HostKernel,
        namespaces: Namespaces,
        attachments: Attachments,
        given_up: GivenUp,
        ended: Ended,
        view: View,
        source: Source,
        trust: Trust,
        *,
        touch: Callable[[list[str]], None],
        time: Time,
        timing: Timing,
        log: Log,
    ) -> None:
        self._store = store
        self._controller = controller
        self._kernel = kernel
        self._remover = Remover(kernel, namespaces, time)
        self._slots = asyncio.Semaphore(DELETIONS_AT_ONCE)
        self._namespaces = namespaces
        self._attachments = attachments
        self._view = view
        self._source = source
        self._trust = trust
        self._touch = touch
        self._time = time
        self._timing = timing
        self._log = log
        self._wake = asyncio.Event()
        self._due: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._missing: dict[str, float] = {}
        self._doubted: dict[str, float] = {}  # since when, by the clock that nobody sets
        self._given_up = given_up
        self._ended = ended
        self._look_at = NEVER
        self._busy: set[str] = set()
        self._freed: dict[str, asyncio.Future[bool]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._has_looked_for_lost = False

    # what others ask for

    async def release(self, record: Record, reason: str) -> bool:
        """Take it away, as far as that goes now. False: the rest is queued.

        Where a runtime waits, it waits for the endpoint only: it has put the interface down itself.

        Raises:
            StateUnusable: it cannot be noted, so nothing was done.
        """
        record = self.order(record, reason)
        if record.runtime not in ASKED_FIRST or self._group is None:
            return await self._try(record)
        freed = self._freed.get(record.endpoint)
        if freed is None:
            freed = self._freed[record.endpoint] = asyncio.get_running_loop().create_future()
            self._group.create_task(self._free(record, freed))
        return await asyncio.shield(freed)

    async def _free(self, record: Record, freed: asyncio.Future[bool]) -> None:
        is_over = False
        try:
            is_over = await self._try(record, freed)
        finally:
            del self._freed[record.endpoint]
            if not freed.done():
                freed.set_result(is_over)

    def order(self, record: Record, reason: str) -> Record:
        """Note that it is to go, and nothing else yet.

        Raises:
            StateUnusable: the disk says that it is to stay, and that cannot be changed.
        """
        if record.phase is not Phase.DETACHING:
            is_intent = record.phase is Phase.ATTACHING
            record = replace(record, phase=Phase.DETACHING, since=self._time.now())
            self._doubted.pop(record.endpoint, None)
            try:
                self._attachments.keep(record)
            except StateUnusable:
                if not is_intent:
                    raise
                self._attachments.note(record)
            self._log.info("detaching", endpoint=record.endpoint, network=record.network, reason=reason)
        self._due.setdefault(record.endpoint, self._time.monotonic())
        self._wake.set()
        return record

    def suspect(self, record: Record) -> None:
        """Its interface and its namespace are both not there: look once more before believing it."""
        if record.endpoint not in self._missing and record.runtime not in ASKED_FIRST:
            self._missing[record.endpoint] = self._time.monotonic() + self._timing.confirm_s
            self._wake.set()

    def give_up(self, endpoint: str) -> None:
        """Nothing is known to have come of it; a controller that was held up may still make it, for nobody."""
        self._doubted.pop(endpoint, None)
        self._given_up.add(endpoint)
        self._wake.set()  # it may be there already: the answer to an earlier attempt may have been lost

    def look_again(self) -> None:
        """The set of local endpoints changed: somebody may have removed one of ours."""
        self._wake.set()

    def hurry(self) -> None:
        """The controller is heard again: what it could not be told waits no longer, for others want its ports."""
        now = self._time.monotonic()
        self._due = {name: at if name in self._busy else min(at, now) for name, at in self._due.items()}
        self._wake.set()

    # the loop

    async def run(self) -> None:
        for record in self._attachments.of_phase(Phase.DETACHING):
            self._due[record.endpoint] = self._time.monotonic()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._ended.run())
            while True:
                try:
                    await self._look()
                except KvnetError as error:
                    self._log.warning("release-failed", code=error.code, detail=error.detail)
                    await self._time.sleep(LOOK_AGAIN_S)
                    continue
                await self._until_due()

    async def _look(self) -> None:
        """Once over everything that may have to go."""
        self._look_at = NEVER
        self._order_lost()
        self._order_late()
        await self._forget_removed()
        await self._confirm_missing()
        leaving = self._attachments.of_phase(Phase.DETACHING)
        names = {record.endpoint for record in leaving}  # one may have been attached again meanwhile
        self._due = {endpoint: at for endpoint, at in self._due.items() if endpoint in names}
        now = self._time.monotonic()
        # At once, so that their interfaces go together.
        await all_of(self._try_by_itself(record) for record in leaving if self._due.get(record.endpoint, 0.0) <= now)
        await self._given_up.settle()

    async def _until_due(self) -> None:
        due = min([*self._due.values(), *self._missing.values(), self._look_at])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due == NEVER else max(0.0, due - self._time.monotonic())):
                await self._wake.wait()
        self._wake.clear()

    async def _try_by_itself(self, record: Record) -> bool:
        """Nobody waits for it any more, so it is a request of this host's own."""
        with asked_by(f"{self._time.rng.getrandbits(64):016x}"):
            return await self._try(record)

    async def _try(self, record: Record, freed: asyncio.Future[bool] | None = None) -> bool:
        """One attempt; True when nothing of it is left. `freed` is told when the endpoint is not."""
        if record.endpoint in self._busy:
            return False
        self._busy.add(record.endpoint)
        self._due[record.endpoint] = self._time.monotonic() + BUSY_S
        try:
            is_over = await self._remove(record, freed)
            if is_over:
                self._ended.add(record.endpoint, _version_of(record))
                self._attachments.forget(record.endpoint)
        except KvnetError as error:
            pause = self._backoffs.setdefault(record.endpoint, self._new_backoff()).next(self._time)
            self._due[record.endpoint] = self._time.monotonic() + pause
            self._wake.set()
            self._log.warning("detach-queued", endpoint=record.endpoint, code=error.code, detail=error.detail)
            return False
        except asyncio.CancelledError:  # whoever asked for it waits no more
            self._due[record.endpoint] = self._time.monotonic() + LOOK_AGAIN_S
            self._wake.set()
            raise
        finally:
            self._busy.discard(record.endpoint)
        if is_over:
            self._due.pop(record.endpoint, None)
            self._backoffs.pop(record.endpoint, None)
            self._log.info("detached", endpoint=record.endpoint, network=record.network)
        else:
            self._due[record.endpoint] = self._time.monotonic() + LOOK_AGAIN_S
            self._wake.set()
        return is_over

    async def _remove(self, record: Record, freed: asyncio.Future[bool] | None) -> bool:
        """True: both are gone. Where a runtime's own clean-up waits for it, at the same time, the interface at leisure:
        an address rests for a while before another one gets it."""
        if record.runtime in ASKED_FIRST:
            _, is_over = await all_of((self._interface_gone(record), self._endpoint_gone(record, freed)))
            return is_over
        await self.remove_interface(record)
        return await self._remove_endpoint(record)

    async def _interface_gone(self, record: Record) -> bool:
        await self.remove_interface(record, is_urgent=False)
        return True

    async def _endpoint_gone(self, record: Record, freed: asyncio.Future[bool] | None) -> bool:
        is_gone = await self._remove_endpoint(record)
        if is_gone and freed is not None and not freed.done():
            freed.set_result(True)
        return is_gone

    async def remove_interface(self, record: Record, *, is_urgent: bool = True) -> None:
        """`is_urgent`: as of a `Remover`.

        Raises:
            KernelRefused: it is still there.
        """
        try:
            await self._remover.remove(record, is_moved=record.runtime in ASKED_FIRST, is_urgent=is_urgent)
        finally:
            if record.network_id:
                self._touch([record.network_id])

    async def _remove_endpoint(self, record: Record) -> bool:
        if record.is_certain:
            await self._delete(record.network_id, record.endpoint)
            return True
        network_id = self._view.local.items.get(record.endpoint)
        if network_id is not None:
            await self._delete(network_id, record.endpoint)
            return True
        now = self._time.monotonic()
        has_waited = now - self._doubted.setdefault(record.endpoint, now) >= self._timing.doubt_s
        if not (has_waited and self._view.is_ready and self._view.local.mirror.stale_since is None):
            return False
        self.give_up(record.endpoint)
        return True

    async def _delete(self, network_id: str, endpoint: str) -> None:
        async with self._slots:
            with contextlib.suppress(NotFound):
                await self._controller.delete_endpoint(network_id, endpoint)

    # what went without being asked

    def _order_lost(self) -> None:
        """Once a run: endpoints that were made from here and whose records went with the power, as their workloads.

        Or with the state directory, where it was Docker's: such a container has no interface any more, and asks for a
        new endpoint when it is restarted.
        """
        if self._has_looked_for_lost or self._source.mode() is not Mode.LIVE:
            return
        self._has_looked_for_lost = True
        now = self._time.now()
        owned = self._view.outline(()).endpoints.values()
        containers = {id_ for own in owned for id_, endpoint in own.items() if CONTAINER in endpoint.labels}
        for endpoint, network in self._view.local.items.items():
            is_lost = self._attachments.get(endpoint) is None
            if is_lost and (endpoint in containers or self._attachments.bears_mark(endpoint)):
                lost = Record(endpoint, network, endpoint, "", "", Phase.ATTACHED, now, network_id=network)
                self.order(lost, "its record was lost")

    def _order_late(self) -> None:
        """Endpoints that were made after all, when nobody waited for them any more."""
        local = self._view.local.items
        if self._source.mode() is not Mode.LIVE:
            return
        for endpoint in (*self._given_up.found_in(local), *self._ended.there_again()):
            if self._attachments.get(endpoint) is None:
                network, now = local[endpoint], self._time.now()
                late = Record(endpoint, network, endpoint, "", "", Phase.ATTACHED, now, network_id=network)
                self.order(late, "it was made when nobody waited for it any more")

    async def _forget_removed(self) -> None:
        """Attachments whose endpoint somebody else removed. The next pass takes the interface away."""
        if self._source.mode() is not Mode.LIVE:
            return
        local = self._view.local
        removed = [
            record
            for record in (*self._attachments.of_phase(Phase.ATTACHED), *self._attachments.of_phase(Phase.CLAIMED))
            if record.endpoint not in local.items and local.mirror.revision >= _version_of(record)
        ]
        if not removed:
            return
        if await self._trust.confirm(self._store) is not None:
            self._look_at = self._time.monotonic() + LOOK_AGAIN_S  # nothing else may ever remind of them
            return
        # No pass would find those without a half on the host once their records are gone.
        await all_of(self.remove_interface(record) for record in removed if record.is_inside)
        for record in removed:
            self._log.info("endpoint-removed", endpoint=record.endpoint, network=record.network)
            self._ended.add(record.endpoint, _version_of(record))
            self._attachments.forget(record.endpoint)
        self._touch([record.network_id for record in removed])

    async def _confirm_missing(self) -> None:
        now = self._time.monotonic()
        for endpoint in [endpoint for endpoint, at in self._missing.items() if at <= now]:
            del self._missing[endpoint]
            record = self._attachments.get(endpoint)
            if record is None or record.phase is not Phase.ATTACHED:
                continue
            if await self._is_there(record):
                self._attachments.lost.discard(endpoint)
                self._touch([record.network_id])
            else:
                self._missing[endpoint] = now + LOOK_AGAIN_S  # in case it cannot even be noted
                await self.release(record, "its namespace is gone")
                del self._missing[endpoint]

    async def _is_there(self, record: Record) -> bool:
        if await self._namespaces.identity(record.netns) == record.identity:
            return True
        try:
            scope = self._source.scope(record.network_id)
            return record.device in (await self._kernel.read(scope, firewall=False)).links
        except KernelRefused:
            return True

    def _new_backoff(self) -> Backoff:
        return Backoff(self._timing.retry_s, self._timing.retry_max_s)


def _version_of(record: Record) -> int:
    """At which its endpoint was made; 0 if that is not known."""
    return int(record.answer.get("version", 0))
