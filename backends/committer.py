"""Group commit: packs the transactions of many callers into few store transactions.

Members of one batch never touch a key that another of them writes, so the batch is what they would have been one after
the other. A failed check is told only to those whose check it was; the others go again at once. Never retries what may
have been written: `Unknown` goes to every member. Conflicting transactions keep the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from backends.store import (
    FLOOR,
    MAX_TRANSACTION_BYTES,
    Check,
    Conflict,
    Put,
    Refused,
    Revision,
    Room,
    SessionLost,
    Store,
    StoreError,
    TooLarge,
    Unavailable,
    Unknown,
    Write,
    require_floor,
    room_of,
)

Seal = Callable[[Sequence[bytes]], Sequence[Write]]

MAX_IN_FLIGHT = 48
# A batch that is not full waits so long for one under way: it fills up meanwhile. With 3 ms a busy controller on
# etcd made 450 commits of 1,000 endpoints instead of 110, and half as many endpoints a second.
LINGER_S = 0.03
# Rounds of the loop without anything new, after which a batch goes. Of 192 creations at once on three controllers, 12
# shared a transaction without it and 23 do; a process that has nothing else to do is through them in 0.1 ms.
QUIET_ROUNDS = 3
# How far a pack looks past transactions that must wait for others.
MAX_PASSED_OVER = 128
# What the seal is expected to add to the notes; what it really adds is looked at before sending.
SEAL_OPERATIONS = 1
SEAL_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Transaction:
    """`note` is passed to the committer's `seal`: one encoded journal entry."""

    checks: tuple[Check, ...]
    writes: tuple[Write, ...]
    note: bytes | None = None


@dataclass(slots=True, eq=False)
class _Member:
    transaction: Transaction
    done: asyncio.Future[Revision]
    checked: tuple[str, ...]
    written: tuple[str, ...]
    size: int
    alone: bool = False  # a batch with it was refused for a reason that names nobody

    @property
    def operations(self) -> int:
        return len(self.checked) + len(self.written)


@dataclass(slots=True, eq=False)
class _Batch:
    room: Room
    members: list[_Member] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)
    writes: dict[str, Write] = field(default_factory=dict)
    size: int = 0
    notes: list[bytes] = field(default_factory=list)
    is_full: bool = False

    def add(self, member: _Member) -> bool:
        """False if it does not fit beside the others."""
        if self.members and not self._fits(member):
            return False
        for check in member.transaction.checks:
            self.checks[check.key] = check
        for write in member.transaction.writes:
            self.writes[write.key] = write
        self.size += member.size
        if member.transaction.note is not None:
            self.notes.append(member.transaction.note)
        self.members.append(member)
        self.is_full = member.alone
        return True

    def _fits(self, member: _Member) -> bool:
        checks, writes = self.checks, self.writes
        if member.alone:
            return False
        if not (checks.keys().isdisjoint(member.written) and writes.keys().isdisjoint(member.written)):
            return False
        checked, written = len(checks), len(writes) + len(member.written)
        for check in member.transaction.checks:
            if check.key in writes:
                return False
            known = checks.get(check.key)
            if known is None:
                checked += 1
            elif known is not check and known != check:
                return False
        size = self.size + member.size
        if self.notes or member.transaction.note is not None:
            written += SEAL_OPERATIONS
            size += SEAL_BYTES
        self.is_full = not self.room.holds(checked, written) or size > MAX_TRANSACTION_BYTES
        return not self.is_full


class _Held:
    """Keys of transactions that others must not overtake: under way, or passed over by this pack."""

    def __init__(self) -> None:
        self._checked: dict[str, int] = {}
        self._written: dict[str, int] = {}

    def hold(self, checked: Iterable[str], written: Iterable[str]) -> None:
        for counts, keys in ((self._checked, checked), (self._written, written)):
            for key in keys:
                counts[key] = counts.get(key, 0) + 1

    def release(self, checked: Iterable[str], written: Iterable[str]) -> None:
        for counts, keys in ((self._checked, checked), (self._written, written)):
            for key in keys:
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]

    def blocks(self, member: _Member) -> bool:
        checked, written = self._checked.keys(), self._written.keys()
        return not (
            written.isdisjoint(member.written)
            and checked.isdisjoint(member.written)
            and written.isdisjoint(member.checked)
        )


class Committer:
    """`run` it in a TaskGroup; `submit` from anywhere on the same loop.

    `seal` turns the notes of a batch into extra writes of keys that nobody else writes. It may be called again for the
    same notes when a batch is retried, so it must have no effect.
    """

    def __init__(self, store: Store, *, seal: Seal | None = None, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._store = store
        self._seal = seal
        self._max_in_flight = max_in_flight
        self._room = room_of(store)
        self._queue: deque[_Member] = deque()
        self._queued_operations = 0
        self._held = _Held()
        self._under_way: set[_Batch] = set()
        self._work = asyncio.Event()
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def run(self) -> None:
        """Commit what is submitted, until cancelled. Then what waits gets `Unavailable`, what was sent `Unknown`."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._work.wait()
                    self._work.clear()
                    await self._while_more_comes()
                    self._send(group)
        finally:
            self._stopped = True
            if self._timer is not None:
                self._timer.cancel()
            for batch in self._under_way:
                for member in batch.members:
                    _fail(member, Unknown("the committer was stopped before the answer came"))
            while self._queue:
                _fail(self._queue.popleft(), Unavailable("the committer has stopped; nothing was written"))

    async def submit(self, transaction: Transaction) -> Revision:
        """Commit it, together with others where possible.

        A caller that is cancelled takes nothing back that was sent; no other caller notices.

        Raises:
            StoreError, ValueError: what `Store.commit` raises for this transaction alone.
        """
        member = _member(transaction)
        self._enqueue([member])
        return await member.done

    async def submit_many(self, transactions: Iterable[Transaction]) -> list[Revision | StoreError]:
        """Commit each on its own terms; the outcomes in the order given.

        Raises:
            ValueError: one is malformed; nothing was sent.
        """
        members = [_member_or_error(transaction) for transaction in transactions]
        waiting = [member for member in members if isinstance(member, _Member)]
        self._enqueue(waiting)
        try:
            return await _outcomes(members)
        except asyncio.CancelledError:
            for member in waiting:
                member.done.cancel()
            raise

    def _enqueue(self, members: Sequence[_Member]) -> None:
        if self._stopped:
            raise Unavailable("the committer has stopped; nothing was written")
        for member in members:
            self._queue.append(member)
            self._queued_operations += member.operations
        self._work.set()

    def _requeue(self, members: Sequence[_Member]) -> None:
        """To the front: they came before all that waits."""
        self._queue.extendleft(reversed(members))
        self._queued_operations += sum(member.operations for member in members)
        self._work.set()

    async def _while_more_comes(self) -> None:
        """A process with much to do has the next request already, and takes a moment to get to it."""
        loop = asyncio.get_running_loop()
        until, known, quiet = loop.time() + LINGER_S, len(self._queue), 0
        while quiet < QUIET_ROUNDS and self._queued_operations < self._room.together and loop.time() < until:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == known else 0
            known = len(self._queue)

    def _send(self, group: asyncio.TaskGroup) -> None:
        while self._queue and len(self._under_way) < self._max_in_flight:
            if self._under_way and self._queued_operations < self._room.together and self._lingers():
                return
            batch = self._pack()
            if not batch.members:
                return
            self._sent_at = asyncio.get_running_loop().time()
            self._under_way.add(batch)
            self._held.hold(batch.checks, batch.writes)
            group.create_task(self._commit(batch))

    def _lingers(self) -> bool:
        """Whether a batch that is not full is to wait still; then it is woken when it has waited long enough."""
        loop = asyncio.get_running_loop()
        left_s = self._sent_at + LINGER_S - loop.time()
        if left_s > 0 and self._timer is None:
            self._timer = loop.call_later(left_s, self._wake)
        return left_s > 0

    def _wake(self) -> None:
        self._timer = None
        self._work.set()

    def _pack(self) -> _Batch:
        batch = _Batch(self._room)
        passed_over: list[_Member] = []
        waiting = _Held()
        while self._queue and not batch.is_full and len(passed_over) < MAX_PASSED_OVER:
            member = self._queue.popleft()
            self._queued_operations -= member.operations
            if member.done.done():  # its caller was cancelled
                continue
            if self._held.blocks(member) or waiting.blocks(member) or not batch.add(member):
                passed_over.append(member)
                waiting.hold(member.checked, member.written)
        if passed_over:
            self._queue.extendleft(reversed(passed_over))
            self._queued_operations += sum(member.operations for member in passed_over)
        return batch

    async def _commit(self, batch: _Batch) -> None:
        sent = batch
        try:
            sent, extra = self._sealed(batch)
            revision = await self._store.commit(tuple(sent.checks.values()), (*sent.writes.values(), *extra))
        except Conflict as conflict:
            self._sort_out(sent, conflict)
        except TooLarge as error:
            self._make_smaller(sent, error)
        except (SessionLost, Refused) as error:
            self._settle_alone(sent, error)
        except StoreError as error:
            for member in sent.members:
                _fail(member, error)
        else:
            for member in sent.members:
                if not member.done.done():
                    member.done.set_result(revision)
        self._under_way.discard(batch)
        self._held.release(batch.checks, batch.writes)
        self._work.set()

    def _sealed(self, batch: _Batch) -> tuple[_Batch, Sequence[Write]]:
        """The batch, less what the seal leaves no room for, and the seal's writes."""
        while True:
            extra = self._seal(batch.notes) if self._seal is not None and batch.notes else ()
            size = batch.size + sum(_bytes_of(write) for write in extra)
            has_room = self._room.holds(len(batch.checks), len(batch.writes) + len(extra))
            if len(batch.members) == 1 or (has_room and size <= MAX_TRANSACTION_BYTES):
                return batch, extra
            half = len(batch.members) // 2
            self._requeue(batch.members[half:])
            smaller = _Batch(self._room)
            for member in batch.members[:half]:
                smaller.add(member)
            batch = smaller

    def _sort_out(self, batch: _Batch, conflict: Conflict) -> None:
        """The guilty are told, the others go again."""
        failed = set(conflict.keys)
        innocent = []
        for member in batch.members:
            keys = [key for key in member.checked if key in failed]
            if keys:
                _fail(member, Conflict(sorted(keys)))
            else:
                innocent.append(member)
        if len(innocent) == len(batch.members):
            self._settle_alone(batch, conflict)
        else:
            self._requeue(innocent)

    def _make_smaller(self, batch: _Batch, error: TooLarge) -> None:
        """Servers may be set up to take less than their kind does; the floor they all take."""
        if FLOOR.holds(len(batch.checks), len(batch.writes) + SEAL_OPERATIONS):
            self._settle_alone(batch, error)
            return
        self._room = FLOOR
        self._requeue(batch.members)

    def _settle_alone(self, batch: _Batch, error: StoreError) -> None:
        """An error that names nobody: each is tried by itself, and what it then gets is its own."""
        if len(batch.members) == 1:
            _fail(batch.members[0], error)
            return
        for member in batch.members:
            member.alone = True
        self._requeue(batch.members)


def _member(transaction: Transaction) -> _Member:
    """
    Raises:
        TooLarge, ValueError: as `require_floor`.
    """
    size = require_floor(transaction.checks, transaction.writes)
    return _Member(
        transaction,
        asyncio.get_running_loop().create_future(),
        tuple([check.key for check in transaction.checks]),
        tuple([write.key for write in transaction.writes]),
        size + len(transaction.note or b""),
    )


def _member_or_error(transaction: Transaction) -> _Member | StoreError:
    try:
        return _member(transaction)
    except StoreError as error:
        return error


async def _outcomes(members: Iterable[_Member | StoreError]) -> list[Revision | StoreError]:
    outcomes: list[Revision | StoreError] = []
    for member in members:
        try:
            outcomes.append(member if isinstance(member, StoreError) else await member.done)
        except StoreError as error:
            outcomes.append(error)
    return outcomes


def _fail(member: _Member, error: StoreError) -> None:
    if not member.done.done():
        member.done.set_exception(error)


def _bytes_of(write: Write) -> int:
    return len(write.key.encode()) + (len(write.value) if isinstance(write, Put) else 0)
