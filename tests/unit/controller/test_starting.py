"""A controller that starts while the store is not all there says so, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backends.memory import MemoryStore
from backends.store import Check, Entry, Revision, Snapshot, Unavailable, Unknown, Write
from kvnet.errors import StoreUnavailable
from tests.unit.controller.kit import FailingStore, opened

pytestmark = pytest.mark.anyio


class Listless(FailingStore):
    async def list(self, prefix: str) -> Snapshot:
        raise Unavailable("no answer")


async def test_a_store_that_answers_but_cannot_list_ends_the_start_with_its_reason() -> None:
    store = MemoryStore()
    async with opened(store):
        pass

    with pytest.raises(StoreUnavailable, match="did not answer within"):
        async with opened(Listless(store), start_timeout_s=0.2):
            pass


class Forgetful(FailingStore):
    """Keeps the founding to itself, and then answers nothing for a moment."""

    silent = 0

    async def get(self, key: str) -> Entry | None:
        if self.silent:
            self.silent -= 1
            raise Unavailable("no answer")
        return await super().get(key)

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        revision = await super().commit(checks, writes)
        if revision == 1:
            self.silent = 1
            raise Unknown("no answer")
        return revision


async def test_a_founding_whose_answer_was_lost_is_looked_for_until_the_store_answers() -> None:
    store = Forgetful(MemoryStore())

    async with opened(store) as cluster:
        assert cluster.status().cluster

    assert store.silent == 0
