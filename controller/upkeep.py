"""What one elected controller keeps in order: old addresses and blocks, deletions, leaks, dead hosts, the journal.

Removes nothing on one look: a suspicion must stand unchanged for a grace period, and the commit checks the evidence
again, so that what came back to life is never touched. Sweeps nothing when the cluster's identity is missing or another
one, when a mirror is cut off, or when the store went back in time: then a missing key proves nothing.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.committer import Transaction
from backends.store import Check, Conflict, Delete, Put, StoreError, Unchanged
from controller import journal
from controller.audit.sealing import Sealing
from controller.block_upkeep import BlockUpkeep
from controller.consistency import Consistency
from controller.hosts import Hosts
from controller.naming_upkeep import NamingUpkeep
from controller.questions import QuestionUpkeep
from controller.reclaim import Reclaims
from controller.removal import Removal
from controller.requests import Caller
from controller.settings import Settings
from controller.standing import Standing
from controller.state import State
from controller.suspicions import S, Suspicions
from controller.writer import Writer
from kvnet import keys
from kvnet.claims import ClaimKind
from kvnet.errors import HostInUse, KvnetError, NetworkInUse
from kvnet.model import HostState, NetworkState
from kvnet.moments import moment

log = logging.getLogger("kvnet.upkeep")

ACTOR = "upkeep"
MAX_PER_SWEEP = 5_000
TRIMMED_PER_COMMIT = 50


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep removed, by kind. `refused`: why nothing was swept, "" if it was. `errors`: what went wrong."""

    refused: str = ""
    done: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


class Upkeep:
    def __init__(
        self,
        state: State,
        writer: Writer,
        removal: Removal,
        hosts: Hosts,
        consistency: Consistency,
        settings: Settings,
        rng: random.Random,
        standing: Standing,
        sealing: Sealing,
    ) -> None:
        self._sealing = sealing
        self._standing = standing
        self._state = state
        self._writer = writer
        self._removal = removal
        self._hosts = hosts
        self._consistency = consistency
        self._settings = settings
        self._rng = rng
        self._stuck: Suspicions[tuple[str, int]] = Suspicions()
        self._leaving: Suspicions[tuple[str, int]] = Suspicions()
        self._leaking: Suspicions[tuple[Check, ...]] = Suspicions()
        self._reclaims = Reclaims(state, writer, hosts, settings, ACTOR)
        self._blocks = BlockUpkeep(state, writer, settings, ACTOR)
        self._naming = NamingUpkeep(state, writer, removal, settings, ACTOR)
        self._questions = QuestionUpkeep(state, writer, settings)
        self._ahead: Suspicions[tuple[str, int]] = Suspicions()
        self._next_check_at = float("-inf")
        self.last = Sweep(refused="not swept yet")
        self.done = Counter[str]()  # what all sweeps of this replica removed, by kind
        self.sweeps = Counter[str]()  # by outcome: done, failed in part, refused

    async def run(self) -> None:
        """Sweep until cancelled. What was suspected before this replica was elected does not count."""
        self._forget()
        told: tuple[str, ...] = ()
        while True:
            errors = (await self.sweep()).errors
            if errors and errors != told:
                log.warning("upkeep-failed", extra={"facts": {"detail": "; ".join(errors)}})
            told = errors
            await self._settings.clock.sleep(self._settings.upkeep_interval_s * self._rng.uniform(0.8, 1.2))

    async def sweep(self) -> Sweep:
        """Look once at everything; never raises for what the store or the world refuses."""
        reason = self._reason_to_stay_away()
        if reason:
            self._forget()
            self.last = Sweep(refused=reason)
            self.sweeps["refused"] += 1
            return self.last
        errors: list[str] = []
        counts = {}
        for name, step in (
            ("tombstones", self._bury),
            ("holds", self._naming.end_holds),
            ("nameless", self._naming.remove_nameless),
            ("networks", self._finish_deletions),
            ("hosts", self._finish_removals),
            ("endpoints", self._reclaims.sweep),
            ("blocks", self._blocks.sweep),
            ("questions", self._questions.sweep),
            ("leaks", self._stop_leaks),
            ("journal", self._trim_journal),
        ):
            try:
                counts[name] = await step()
            except (StoreError, KvnetError) as error:
                errors.append(f"{name}: {error}")
        self.last = Sweep(done=counts, errors=tuple(errors))
        self.done.update(counts)
        self.sweeps["failed" if errors else "done"] += 1
        return self.last

    def _forget(self) -> None:
        own = (self._stuck, self._leaving, self._leaking, self._ahead)
        for suspicions in (*own, self._reclaims, self._blocks, self._naming, self._questions):
            suspicions.forget()

    def _reason_to_stay_away(self) -> str:
        if not self._state.is_in_step:
            return "a mirror is cut off from the store"
        trouble = self._standing.trouble
        return trouble.detail if trouble is not None else ""

    async def _bury(self) -> int:
        """Remove tombstones whose cool-down is over, or, where it began in the future, was seen to pass."""
        now = self._writer.now()
        tombstones = [
            (keys.ADDRESSES + name, claim)
            for name, claim in self._state.addresses.items.items()
            if claim.value.kind is ClaimKind.TOMBSTONE
        ]
        expired = [(key, claim.version) for key, claim in tombstones if (claim.value.until or 0.0) <= now]
        ahead = [(key, claim.version) for key, claim in tombstones if claim.value.since > now]
        expired += self._ahead.confirmed(ahead, self._monotonic(), self._settings.cool_down_s)
        return await self._count_done(
            [Transaction((Unchanged(key, version),), (Delete(key),)) for key, version in expired[:MAX_PER_SWEEP]]
        )

    async def _finish_deletions(self) -> int:
        """Networks whose deletion was cut short: removed, or active again if they have endpoints."""
        marked = {
            (network.value.id, network.version): network
            for network in self._state.networks.items.values()
            if network.value.state is NetworkState.DELETING
        }
        finished = 0
        for one in self._stuck.confirmed(marked, self._monotonic(), self._settings.leak_grace_s):
            caller = self._caller(f"deletion cut short since {self._when(self._stuck, one)}")
            try:
                await self._removal.finish(marked[one], caller)
            except (NetworkInUse, Conflict):
                continue
            finished += 1
        return finished

    async def _finish_removals(self) -> int:
        """Hosts whose removal was cut short: removed, or active again if they must stay."""
        marked = {
            (host.value.name, host.version): host
            for host in self._state.hosts.items.values()
            if host.value.state is not HostState.ACTIVE
        }
        finished = 0
        for one in self._leaving.confirmed(marked, self._monotonic(), self._settings.leak_grace_s):
            caller = self._caller(f"removal cut short since {self._when(self._leaving, one)}")
            try:
                await self._hosts.finish(marked[one], caller)
            except (HostInUse, Conflict):
                continue
            finished += 1
        return finished

    async def _stop_leaks(self) -> int:
        """Keys without their owner and the like: what `check` calls repairable, found twice with the same versions."""
        now = self._monotonic()
        if now < self._next_check_at:
            return 0
        found, _ = await self._consistency.findings()
        # What a finding rests on is its identity: the writes of its repair may carry the time.
        repairable = {f.repair.checks: (f.detail, f.repair) for f in found if f.repair is not None}
        repaired = 0
        for evidence in self._leaking.confirmed(repairable, now, self._settings.leak_grace_s):
            detail, repair = repairable[evidence]
            caller = self._caller(f"unchanged since {self._when(self._leaking, evidence)}")
            repaired += await self._consistency.repair(detail, repair, caller)
        pause_s = self._settings.leak_grace_s if repairable else self._settings.check_interval_s
        self._next_check_at = now + pause_s
        return repaired

    async def _trim_journal(self) -> int:
        """Keep the newest entries only, and remember up to where it was trimmed, so that nobody resumes over a gap."""
        kept = sorted(
            (entry.version, key, entry.value)
            for key, entry in self._state.journal.entries.items()
            if key != keys.JOURNAL_FLOOR
        )
        oldest = keys.journal(self._writer.now() - self._settings.journal_age_s, "")
        total = sum(journal.count(value) for _, _, value in kept)
        doomed: list[tuple[int, str]] = []
        for version, key, value in kept:
            if total <= self._settings.journal_entries and key >= oldest:
                break
            doomed.append((version, key))
            total -= journal.count(value)
        if not doomed:
            return 0
        # From seal to seal only, and the chain knows it first: what is missing for any other reason is then found.
        bound = await self._sealing.may_trim(doomed[-1][0])
        doomed = [(version, key) for version, key, _ in kept if version <= bound]
        for i in range(0, len(doomed), TRIMMED_PER_COMMIT):
            part = doomed[i : i + TRIMMED_PER_COMMIT]
            floor = Put(keys.JOURNAL_FLOOR, journal.floor_value(part[-1][0]))
            await self._count_done([Transaction((), (floor, *(Delete(key) for _, key in part)))])
        await self._sealing.prune()
        return len(doomed)

    async def _count_done(self, transactions: Sequence[Transaction]) -> int:
        outcomes = await self._writer.commit_many(transactions)
        return sum(isinstance(outcome, int) for outcome in outcomes)

    def _caller(self, evidence: str) -> Caller:
        return Caller(actor=ACTOR, request_id="", source=evidence)

    def _when(self, suspicions: Suspicions[S], one: S) -> str:
        ago_s = self._monotonic() - suspicions.since(one)
        return moment(self._writer.now() - ago_s)

    def _monotonic(self) -> float:
        return self._settings.clock.monotonic()
