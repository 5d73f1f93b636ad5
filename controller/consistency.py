"""`kvnet check` on a live store, and the repair of what can be repaired without a person's decision.

One listing of the whole root, so that nothing is seen half-written; the judgement is the pure `controller.ipam.check`.
A repair is one commit that checks everything its finding rests on: what changed meanwhile is left alone.
"""

from __future__ import annotations

import asyncio
import json

from backends.store import Conflict, Put
from controller import views
from controller.ipam.check import check
from controller.ipam.findings import Finding, Repair
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.writer import Writer

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

    async def repair_all(self, caller: Caller) -> views.CheckReport:
        """Repair what can be repaired, then look again.

        Raises:
            StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        with store_errors_told():
            found, _ = await self.findings()
            repairs = [(f, f.repair) for f in found if f.repair is not None][:MAX_REPAIRS]
            done: dict[bool, list[views.Finding]] = {True: [], False: []}
            for finding, repair in repairs:
                done[await self.repair(finding.detail, repair, caller)].append(_view(finding))
            left, revision = await self.findings()
        return views.CheckReport(not left, tuple(map(_view, left)), revision, tuple(done[True]), tuple(done[False]))

    async def repair(self, detail: str, repair: Repair, caller: Caller) -> bool:
        """False: it changed meanwhile; nothing was written.

        Raises:
            StoreError: but Conflict.
        """
        changes = [
            Changed("repair", write.key, None, _as_json(write.value) if isinstance(write, Put) else None)
            for write in repair.writes
        ]
        evidence = Caller(caller.actor, caller.request_id, f"{caller.source}: {detail}" if caller.source else detail)
        try:
            await self._writer.commit(repair.checks, repair.writes, evidence, *changes)
        except Conflict:
            return False
        return True


def _view(finding: Finding) -> views.Finding:
    repairable, kind = finding.is_repairable, finding.kind.value
    return views.Finding(finding.invariant.value, finding.detail, finding.keys, finding.fix, repairable, kind)


def _as_json(value: bytes) -> bytes:
    """The journal holds JSON only; the index keys hold a bare id."""
    try:
        json.loads(value)
    except ValueError:
        return json.dumps(value.decode(errors="replace")).encode()
    return value
