"""The change log that kvnet keeps in Consul, so that a watch costs what changed and not what is there.

Consul can wait for a change under a prefix, but answers with the whole prefix and does not say what was deleted. So
every commit that is told also sets one small key, a *slot* under `.kvnet/log/s/`, to the list of the keys it wrote;
followers wait on `.kvnet/log/` alone. Pure: what to write, and what a reading means. Never does I/O.

A slot belongs to one client and holds one commit; the client overwrites its older slots. What makes it safe:

- A slot is set in the transaction that it describes, so the slot's own ModifyIndex *is* the revision of that commit.
  Revisions order all commits of all clients; nothing else needs an order, a sequence number or a lock.
- A slot is only ever set by compare-and-swap on the index it had, and its value repeats that index (`before`). While a
  commit is under way, its client uses the slot for nothing else, and when the outcome is not known, never again. So a
  transaction that was stuck somewhere for minutes either finds its slot as it was, and becomes the newest commit like
  any other, or fails as a whole. A client that dies or freezes leaves nothing that anybody has to wait for.
- A client with more slots than it needs deletes some in the transaction that sets another, whose `before` then is the
  newest of all that went with it: the same as if it had overwritten them all.
- Other slots are deleted (by any follower, when they are old) only in a transaction that also raises `lost`, in the key
  `.kvnet/log/swept`, to the newest deleted revision. A slot that is set meanwhile makes that transaction fail; a slot
  deleted meanwhile makes the commit fail, which then takes another slot. Two that sweep at once: one fails.
- A reading is one answer, so one state. A follower that was told everything up to R sees every commit C > R, or
  learns that it cannot: C's slot still has C; or it was overwritten, and then `before` >= C > R; or swept, and then
  `lost` >= C > R. Both mean `Compacted`.
- R itself must have a witness: a slot (or `swept`) that has or had the index R, or `lost`. If nothing has, either R was
  swept or overwritten twice (then the rules above speak too), or this is not the store that R came from: wiped, or
  restored from a backup, even when it has been written past R since. `Compacted` again.

Nothing of this needs memory in the follower but R. `swept` counts as a commit without changes, so that the newest
index under the prefix is the newest revision, whatever was deleted: Consul tells that number without the values.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backends.medium import PRIVATE
from backends.store import Broken, Compacted, Entry, Put, Revision, Write

LOG = PRIVATE + "log/"
SLOTS = LOG + "s/"
SWEPT = LOG + "swept"

# How long a client keeps a commit's slot at least, and from which size of its slots on that holds. A follower that is
# behind by less needs no new list; but all of this is read with every change.
KEEP = ((20.0, 0), (1.0, 32 * 1024), (0.0, 160 * 1024))
KEEP_SLOTS = 8
SHED_AT_ONCE = 8
SLOT_BYTES = 180  # what Consul's answer has around the value
INLINE_BYTES = 3072
# What clients left behind is swept: the old when there is much of it, the very old always.
SWEEP_ABOVE = 64
SWEEP_AFTER_S = 60.0
SWEEP_ALWAYS_AFTER_S = 600.0
SWEEP_AT_ONCE = 60
SWEEP_EVERY_S = 30.0
SWEEP_MORE_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """One slot as it was read: the commit at `revision` wrote `put` and `gone`; `before` is the newest it removed.

    `values`: what some of the keys were put to, so that nobody needs to read them. `size`: of the slot, in bytes.
    """

    name: str
    revision: Revision
    before: Revision
    put: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    values: Mapping[str, bytes] = field(default_factory=dict)
    size: int = 0


Known = Mapping[tuple[str, Revision], Record]
NOTHING_KNOWN: Known = {}


@dataclass(frozen=True, slots=True)
class Log:
    """One reading of the whole log. `swept`: the version of that key, 0 without it."""

    records: tuple[Record, ...] = ()
    lost: Revision = 0
    swept: Revision = 0
    swept_before: Revision = 0

    @property
    def revision(self) -> Revision:
        return max([self.swept, *(record.revision for record in self.records)])

    @property
    def size(self) -> int:
        """About how many bytes it took to read."""
        return sum(SLOT_BYTES + one.size * 4 // 3 for one in self.records)

    def since(self, told: Revision) -> list[Record]:
        """The commits above `told`, in order.

        Raises:
            Compacted: some cannot be told any more, or `told` is of another history.
        """
        later = sorted((one for one in self.records if one.revision > told), key=lambda one: one.revision)
        if told > self.revision:
            raise Compacted(f"revision {told} is ahead of the store, which is at {self.revision}: it went back in time")
        if self.lost > told or any(one.before > told for one in later):
            raise Compacted(f"the changes after revision {told} are not kept any more")
        if told not in self._witnesses():
            raise Compacted(f"the store does not know revision {told}: it was restored, or its log was removed")
        return later

    def _witnesses(self) -> Iterator[Revision]:
        yield from (self.swept, self.swept_before, self.lost)
        for one in self.records:
            yield from (one.revision, one.before)


def parse_log(entries: Iterable[Entry], known: Known = NOTHING_KNOWN) -> Log:
    """`known`: records that need not be read again, by name and revision.

    Raises:
        Broken: somebody else writes there, or a newer kvnet.
    """
    records: list[Record] = []
    lost = swept = swept_before = 0
    for entry in entries:
        if (record := known.get((entry.key, entry.version))) is not None:
            records.append(record)
            continue
        try:
            found = json.loads(entry.value)
            if entry.key == SWEPT:
                lost, swept, swept_before = int(found["lost"]), entry.version, int(found["before"])
            else:
                put, gone = tuple(found.get("put", ())), tuple(found.get("gone", ()))
                values = {key: value.encode() for key, value in found.get("values", {}).items()}
                before, size = int(found["before"]), len(entry.value)
                records.append(Record(entry.key, entry.version, before, put, gone, values, size))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Broken(f"{entry.key} in the store is not of kvnet's change log") from error
    return Log(tuple(records), lost, swept, swept_before)


def own_record(name: str, revision: Revision, before: Revision, writes: Sequence[Write], size: int) -> Record:
    """What our own commit at `revision` left in its slot, with all of the values."""
    told = [write for write in writes if not write.key.startswith(PRIVATE)]
    values = {write.key: write.value for write in told if isinstance(write, Put)}
    gone = tuple(write.key for write in told if not isinstance(write, Put))
    return Record(name, revision, before, tuple(values), gone, values, size)


def record_value(before: Revision, writes: Sequence[Write]) -> bytes:
    told = [write for write in writes if not write.key.startswith(PRIVATE)]
    found: dict[str, object] = {"before": before}
    puts = [write for write in told if isinstance(write, Put)]
    if puts:
        found["put"] = [write.key for write in puts]
        if values := _inline(puts):
            found["values"] = values
    if gone := [write.key for write in told if not isinstance(write, Put)]:
        found["gone"] = gone
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def _inline(puts: Sequence[Put]) -> dict[str, str]:
    """The values of a small commit, as one endpoint's is; those of a large one are better read by whom they concern."""
    if sum(len(write.value) for write in puts) > INLINE_BYTES:
        return {}
    try:
        return {write.key: write.value.decode() for write in puts}
    except UnicodeDecodeError:
        return {}


def swept_value(log: Log, slots: Sequence[Record]) -> bytes:
    return json.dumps({"lost": max([log.lost, *(one.revision for one in slots)]), "before": log.swept}).encode()


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot for one commit: to be set if its index still is `version` (0: if it does not exist)."""

    name: str
    version: Revision = 0
    size: int = 0
    written_at: float = 0.0


class Slots:
    """The slots of one client, oldest first; those of commits under way, or of unknown outcome, are not in here."""

    def __init__(self, rng: random.Random) -> None:
        self._client = f"{rng.getrandbits(48):012x}"
        self._made = 0
        self._free: deque[Slot] = deque()
        self._size = 0

    def take(self, now: float) -> Slot:
        """An old one to be overwritten, or a new one where that would cut the history short."""
        while self._free and now - self._free[0].written_at > SWEEP_AFTER_S - 10:
            self._pop()  # it may be swept at any moment: left to that, rather than losing the race
        if self._free and self._is_enough(now):
            return self._pop()
        self._made += 1
        return Slot(f"{SLOTS}{self._client}-{self._made}")

    def shed(self, now: float, spare: int) -> list[Slot]:
        """More of the old ones than one, where there is room for deleting them in the same commit: after a burst."""
        found: list[Slot] = []
        while len(found) < min(spare, SHED_AT_ONCE) and self._free and self._is_enough(now):
            found.append(self._pop())
        return found

    def written(self, slot: Slot, revision: Revision, size: int, now: float) -> None:
        size = size * 4 // 3 + SLOT_BYTES
        self._size += size
        self._free.append(Slot(slot.name, revision, size, now))

    def not_written(self, slots: Sequence[Slot]) -> None:
        """The commit surely did not happen: the slots are as they were, oldest first."""
        for slot in reversed(slots):
            if slot.version:
                self._size += slot.size
                self._free.appendleft(slot)

    def forget(self) -> None:
        """Somebody swept here: no old slot is used again, so that the next one is surely there to be had."""
        self._free.clear()
        self._size = 0

    def _pop(self) -> Slot:
        slot = self._free.popleft()
        self._size -= slot.size
        return slot

    def _is_enough(self, now: float) -> bool:
        age = now - self._free[0].written_at
        return len(self._free) > KEEP_SLOTS and any(age > kept_s and self._size > size for kept_s, size in KEEP)


class Sweeper:
    """Which slots one follower would delete, by its own clock: a slot is as old as it has been seen unchanged."""

    def __init__(self, rng: random.Random, now: float) -> None:
        self._rng = rng
        self._seen: dict[tuple[str, Revision], float] = {}
        self._next = now + rng.random() * SWEEP_EVERY_S

    def due(self, log: Log, now: float) -> list[Record]:
        """Oldest first. At most once in a while, at moments that differ between followers."""
        self._seen = {(one.name, one.revision): self._seen.get((one.name, one.revision), now) for one in log.records}
        if now < self._next:
            return []
        self._next = now + (0.5 + self._rng.random()) * SWEEP_EVERY_S
        due: list[Record] = []
        for one in sorted(log.records, key=lambda one: one.revision):
            age = now - self._seen[one.name, one.revision]
            is_much = len(log.records) - len(due) > SWEEP_ABOVE
            if age > SWEEP_ALWAYS_AFTER_S or (is_much and age > SWEEP_AFTER_S):
                due.append(one)
        if len(due) > SWEEP_AT_ONCE:
            self._next = now + self._rng.random() * SWEEP_MORE_AFTER_S
        return due[:SWEEP_AT_ONCE]
