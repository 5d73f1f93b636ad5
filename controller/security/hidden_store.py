"""The store without what is secret: what the gateway shows to everybody, whatever their role.

Tokens and secrets are the controllers' own. Who may have them has the store itself (`kvnet backup --with-secrets`, with
`--store`). They look absent to reads, and cannot be written or asked about by the checks of a commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from backends.passing import PassingStore
from backends.store import Batch, Check, Entry, Refused, Revision, Snapshot, Write
from kvnet import keys
from kvnet.rules import shown


def is_secret(key: str) -> bool:
    return key.startswith(keys.SECRET)


class HiddenStore(PassingStore):
    async def get(self, key: str) -> Entry | None:
        return None if is_secret(key) else await self._inner.get(key)

    async def list(self, prefix: str) -> Snapshot:
        found = await self._inner.list(prefix)
        if not _may_hold_secrets(prefix):
            return found
        return replace(found, entries=tuple(entry for entry in found.entries if not is_secret(entry.key)))

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        secret = next((one.key for one in (*checks, *writes) if is_secret(one.key)), None)
        if secret is not None:
            raise Refused(f"{shown(secret)} is the controllers' own; tokens are changed with 'kvnet token'")
        return await self._inner.commit(checks, writes)

    def watch(self, prefix: str, after: Revision) -> AsyncIterator[Batch]:
        batches = self._inner.watch(prefix, after)
        return _without_secrets(batches) if _may_hold_secrets(prefix) else batches


def _may_hold_secrets(prefix: str) -> bool:
    return any(secret.startswith(prefix) or prefix.startswith(secret) for secret in keys.SECRET)


async def _without_secrets(batches: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
    try:
        async for batch in batches:
            yield replace(batch, changes=tuple(change for change in batch.changes if not is_secret(change.key)))
    finally:
        aclose = getattr(batches, "aclose", None)
        if aclose is not None:
            await aclose()
