"""The elected replica's work on the chain: seals what came into the journal, and says what it is about to trim.

About one write a second while something is written, none while nothing is; a burst takes one for MAX_KEYS of the
journal's keys. Nothing of it is on the way of a change. The number of the next seal is a key that must be absent, so
two replicas that both believe that they lead cannot fork the chain: the slower one looks again. Seals only what its
mirror has seen complete: up to the revision of the newest entry in it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping

from backends.committer import Transaction
from backends.store import Absent, Check, Conflict, Delete, Entry, Put, StoreError, Unchanged, Unknown
from controller import journal
from controller.audit.chain import Chain
from controller.audit.seal import BEGUN, Seal, digest, sealed
from controller.requests import Caller
from controller.settings import Settings
from controller.standing import Standing
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys
from kvnet.errors import KvnetError

INTERVAL_S = 1.0
MAX_KEYS = 500  # of the journal under one seal: trimming goes from seal to seal
HEAD_TOLD_S = 3600.0
PRUNED_PER_COMMIT = 50
SEALER = Caller(actor="upkeep", request_id="", source="seals")

log = logging.getLogger("kvnet.audit")


class Sealing:
    def __init__(
        self, state: State, writer: Writer, settings: Settings, standing: Standing, rng: random.Random
    ) -> None:
        self._state = state
        self._writer = writer
        self._settings = settings
        self._standing = standing
        self._rng = rng
        self._turn = asyncio.Lock()
        self._told_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled. Never raises for what the store refuses."""
        told = ""
        while True:
            trouble = ""
            try:
                await self.seal()
                self._tell()
            except (StoreError, KvnetError) as error:
                trouble = str(error) or type(error).__name__
            if trouble and trouble != told:
                log.warning("sealing-failed", extra={"facts": {"detail": trouble}})
            told = trouble
            await self._settings.clock.sleep(INTERVAL_S * self._rng.uniform(0.8, 1.2))

    async def seal(self, trimmed: int = 0) -> int:
        """Seal what is there, and write down that the journal is about to be trimmed to `trimmed`; how many were made.

        Raises:
            StoreError, KvnetError
        """
        async with self._turn:
            made = 0
            while self._is_in_step():
                seal = self._next(trimmed)
                if seal is None or not await self._put(seal):
                    break
                made += 1
            return made

    async def may_trim(self, wanted: int) -> int:
        """Up to which revision the journal may be trimmed when it should be up to `wanted`; the chain has it then.

        Raises:
            StoreError, KvnetError
        """
        head = self._chain.head
        if head is None:  # nothing was sealed yet; the first seal will say what was trimmed before it
            return wanted
        bounds = [seal.revision for seal in self._chain.kept if seal.revision <= wanted]
        bound = max(bounds, default=0)
        if bound > head.trimmed:
            await self.seal(bound)
            head = self._chain.head or head
        return head.trimmed

    async def prune(self) -> None:
        """Away with seals of what is trimmed, but for the last one, to which the chain is anchored."""
        head = self._chain.head
        kept = self._chain.kept
        doomed = [keys.seal(seal.number) for seal in kept if head is not None and seal.number < head.anchor]
        parts = [doomed[i : i + PRUNED_PER_COMMIT] for i in range(0, len(doomed), PRUNED_PER_COMMIT)]
        await self._writer.commit_many([Transaction((), tuple(map(Delete, part))) for part in parts])

    @property
    def _chain(self) -> Chain:
        return self._state.chain

    def _is_in_step(self) -> bool:
        mirrors = (self._state.journal, self._state.seals)
        is_current = all(mirror.in_step and mirror.stale_since is None for mirror in mirrors)
        return is_current and self._standing.trouble is None

    def _next(self, trimmed: int) -> Seal | None:
        """None: nothing is to be sealed."""
        written = self._state.journal.entries
        head = self._chain.head
        floor = _floor(written)
        above = max(head.revision, head.trimmed) if head is not None else floor
        up_to = self._state.journal.revision
        pending = _first(e for e in written.values() if above < e.version <= up_to and e.key != keys.JOURNAL_FLOOR)
        base = head.trimmed if head is not None else floor
        if not pending and trimmed <= base:
            return None
        number = head.number + 1 if head is not None else 1
        trimmed = max(trimmed, base)
        return sealed(
            Seal(
                number=number,
                at=self._writer.now(),
                previous=head.hash if head is not None else "",
                revision=pending[-1].version if pending else above,
                count=len(pending),
                digest=digest(pending),
                trimmed=trimmed,
                anchor=self._anchor(trimmed, number),
                replica=self._settings.replica,
                begins="" if head is not None else BEGUN,
            )
        )

    def _anchor(self, trimmed: int, number: int) -> int:
        """The last seal that is all trimmed; where there is none, the oldest."""
        kept = self._chain.kept
        whole = [seal.number for seal in kept if seal.revision <= trimmed]
        return max(whole, default=kept[0].number if kept else number)

    async def _put(self, seal: Seal) -> bool:
        """False: another replica was faster, or may have been."""
        key, before = keys.seal(seal.number), keys.seal(seal.number - 1)
        checks: list[Check] = [Absent(key)]
        known = self._state.seals.entries.get(before)
        if known is not None:
            checks.append(Unchanged(before, known.version))
        try:
            revision = await self._writer.commit(checks, [Put(key, codec.encode(seal))], SEALER)
            await self._state.seals.until(revision, self._settings.read_your_writes_s)
        except (Conflict, Unknown, TimeoutError):
            return False
        return True

    def _tell(self) -> None:
        """The head, for a log that is kept elsewhere."""
        head, now = self._chain.head, self._settings.clock.monotonic()
        if head is None or now - self._told_at < HEAD_TOLD_S or not self._is_in_step():
            return
        self._told_at = now
        log.info("audit-head", extra={"facts": {"head": head.head, "revision": head.revision, "at": head.at}})


def _first(entries: Iterable[Entry]) -> list[Entry]:
    """The oldest that one seal takes; all of a revision or none of it."""
    ordered = sorted(entries, key=lambda one: one.version)
    taken = ordered[:MAX_KEYS]
    return taken + [entry for entry in ordered[MAX_KEYS:] if entry.version == taken[-1].version]


def _floor(written: Mapping[str, Entry]) -> int:
    entry = written.get(keys.JOURNAL_FLOOR)
    return journal.floor(entry.value) if entry is not None else 0
