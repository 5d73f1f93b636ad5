"""An operator's word that the store is to be taken as it is, though it is older than what was seen of it.

One entry in the store tells all controllers and all hosts. What the operator saw is compared with what is there, so
that nobody accepts another store than the one that was looked at. A store without a sentinel cannot be accepted: there
is nothing in it to go on with.
"""

from __future__ import annotations

import random

from backends.store import Absent, Check, Conflict, Put, Unchanged, Unknown
from controller.journal import Changed
from controller.outcomes import store_errors_told
from controller.requests import Caller
from controller.standing import ANOTHER, TOO_NEW, WIPED, Standing
from controller.state import State
from controller.writer import Writer
from kvnet import codec, keys, sentinel
from kvnet.errors import PreconditionFailed
from kvnet.marks import Accepted


class Acceptance:
    def __init__(self, state: State, writer: Writer, standing: Standing, rng: random.Random, patience_s: float) -> None:
        self._state = state
        self._writer = writer
        self._standing = standing
        self._rng = rng
        self._patience_s = patience_s

    async def accept(self, cluster: str, revision_before: int, caller: Caller) -> Accepted:
        """Accept what was seen: the cluster's id, and the revision that the store had before (0: nothing was wrong).

        Raises:
            StoreWentBack: it is wiped or another cluster's: that cannot be accepted.
            PreconditionFailed: something else is there than what was seen; nothing was changed.
            TooMuchContention, StoreUnavailable, OutcomeUnknown, StoreBroken
        """
        self._require_seen(cluster, revision_before)
        with store_errors_told():
            turns = self._writer.turns("the store could not be accepted")
            while True:
                await turns.next()
                try:
                    return await self._write(cluster, revision_before, caller)
                except (Conflict, Unknown) as error:
                    turns.failed(error)

    def _require_seen(self, cluster: str, revision_before: int) -> None:
        trouble = self._standing.trouble
        if trouble is not None and trouble.kind in (WIPED, ANOTHER, TOO_NEW):
            raise trouble.error()
        before = trouble.before if trouble is not None else 0
        if before != revision_before:
            raise PreconditionFailed(
                f"it had reached revision {before}, and the request says {revision_before}",
                fix="look at it again with 'kvnet store show'",
            )

    async def _write(self, cluster: str, before: int, caller: Caller) -> Accepted:
        store = self._writer.store
        entry = await store.get(keys.CLUSTER)
        there = sentinel.cluster(entry.value).id if entry is not None else ""
        if entry is None or there != cluster:
            raise PreconditionFailed(
                f"the store is that of cluster {there or '(none)'}, and the request says {cluster}",
                fix="look at it again with 'kvnet store show'",
            )
        checks: list[Check] = [Unchanged(keys.CLUSTER, entry.version)]
        last = await store.get(keys.ACCEPTED)
        checks.append(Absent(keys.ACCEPTED) if last is None else Unchanged(keys.ACCEPTED, last.version))
        earliest = codec.decode(Accepted, last.value).accepted_at + 1e-3 if last is not None else 0.0
        accepted = Accepted(
            id=f"{self._rng.getrandbits(64):016x}",
            cluster=cluster,
            accepted_at=max(self._writer.now(), earliest),
            actor=caller.actor,
            before=before,
            now=self._state.revision,
        )
        value = codec.encode(accepted)
        change = Changed("store.accepted", keys.ACCEPTED, None if last is None else last.value, value)
        await self._writer.commit_unfenced(checks, [Put(keys.ACCEPTED, value)], caller, change)
        # Not by revision: that of a mirror which has not noticed anything yet is a higher one.
        await self._standing.until_accepted(accepted.id, self._patience_s)
        return accepted
