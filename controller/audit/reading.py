"""Reads journal and seals from the store itself, not from a mirror: what was written past everybody is to be found too.

The journal first, then the seals: what was trimmed in between is then explained by a seal, and what was sealed in
between is a seal of revisions that this journal does not reach.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backends.store import Store
from controller.audit.verify import Verdict, verify
from kvnet import keys


async def look(store: Store, seen: Mapping[int, str], head: str = "") -> Verdict:
    """
    Raises:
        StoreError
    """
    written = await store.list(keys.JOURNAL)
    sealed = await store.list(keys.SEALS)
    return await asyncio.to_thread(verify, sealed.entries, written.entries, written.revision, head=head, seen=seen)
