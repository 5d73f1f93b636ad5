"""`kvnet check` on a live store, and the repair of what can be repaired without a person's decision.

One listing of the whole root, so that nothing is seen half-written; the judgement is the pure `controller.ipam.check`.
A repair is one commit that checks everything its finding rests on: what changed meanwhile is left alone. Repairing by a
report does no more than the report says: what it does not list, and what changed since, is left alone, and told.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from backends.store import Conflict, Put, Unchanged
from controller import views
from controller.ipam.check import check
from controller.ipam.findings import Finding, Repair
from controller.journal import Changed, kept_of
from controller.outcomes import store_errors_told
from controller.requests import Caller, RepairRequest
from controller.writer import Writer
from kvnet.errors import PreconditionFailed

EVERYTHING = ""
MAX_REPAIRS = 1_000


class Consistency:
    def __init__(self, writer: Writer, cool_down_s: float) -> None:
        self._writer = writer
        self._cool_down_s = cool_down_s

    async def findings(self) -> tuple[list[Finding], int]:
        """What is wrong, and the store revision for which that is true.

        Raises:
            StoreError
        """
        snapshot = await self._writer.store.list(EVERYTHING)
        # Seconds of work in a large cluster, and pure: off the loop.
        found = await asyncio.to_thread(check, snapshot.entries, self._writer.now(), cool_down_s=self._cool_down_s)
        return found, snapshot.revision

    async def report(self) -> views.CheckReport:
        with store_errors_told():
            found, revision = await self.findings()
        return views.CheckReport(ok=not found, findings=tuple(map(_view, found)), revision=revision)

    async def repair_all(self, caller: Caller, asked: RepairRequest | None = None) -> views.CheckReport:
        """Repair what can be repaired, then look again. `asked`: only what an earlier report lists.

        Raises:
            PreconditionFailed: the store is older than the report.
            StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found, at = await self.findings()
            done: dict[bool, list[views.Finding]] = {True: [], False: []}
            if asked is not None:
                found, done[False] = _as_reported(found, at, asked)
            repairs = [(f, f.repair) for f in found if f.repair is not None][:MAX_REPAIRS]
            for finding, repair in repairs:
                done[await self.repair(finding.detail, repair, caller)].append(_view(finding))
            left, revision = await self.findings()
        return views.CheckReport(not left, tuple(map(_view, left)), revision, tuple(done[True]), tuple(done[False]))

    async def repair(self, detail: str, repair: Repair, caller: Caller) -> bool:
        """False: it changed meanwhile; nothing was written.

        Raises:
            StoreError: but Conflict.
        """
        changes = []
        for write in repair.writes:
            before = await self._writer.store.get(write.key)  # what the commit below checks is still so
            was = None if before is None else kept_of(before.value)
            changes.append(Changed("repair", write.key, was, _as_json(write.value) if isinstance(write, Put) else None))
        evidence = replace(caller, source=f"{caller.source}: {detail}" if caller.source else detail)
        try:
            await self._writer.commit(repair.checks, repair.writes, evidence, *changes)
        except Conflict:
            return False
        return True


def _as_reported(found: list[Finding], at: int, asked: RepairRequest) -> tuple[list[Finding], list[views.Finding]]:
    """What the report lists and is still so; and what is not so any more, or rests on something that changed since.

    Raises:
        PreconditionFailed
    """
    if asked.revision > at:
        raise PreconditionFailed(
            f"the report is of revision {asked.revision}, and the store is at {at}",
            fix="this is not the store that was looked at, or it was restored since: check it again",
            context={"revision": at},
        )
    now = {(f.invariant.value, frozenset(f.keys)): f for f in found}
    same, changed = [], []
    for listed in asked.findings:
        finding = now.get((listed.invariant, frozenset(listed.keys)))
        if finding is None:
            changed.append(listed)
        elif finding.repair is not None and any(
            isinstance(check, Unchanged) and check.version > asked.revision for check in finding.repair.checks
        ):
            changed.append(_view(finding))
        else:
            same.append(finding)
    return same, changed


def _view(finding: Finding) -> views.Finding:
    repairable, kind = finding.is_repairable, finding.kind.value
    return views.Finding(finding.invariant.value, finding.detail, finding.keys, finding.fix, repairable, kind)


def _as_json(value: bytes) -> bytes:
    """The journal holds JSON only; the index keys hold a bare id."""
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return json.dumps(value.decode(errors="replace")).encode()
    return value
